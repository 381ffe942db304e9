"""A run whose store fails: for a while, for good, for one object, and for good reasons; hours of it in seconds.

The pauses are the workflow engine's own, on a clock that moves when it sleeps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

import flows.prefect_settings  # noqa: F401 - before prefect
from flows.home import lacuna_home
from flows.restore_archive import restore_archive
from flows.run_summary import BrokenShardsError, RunSummary
from storage import patience
from storage.catalogue import query
from storage.faults import is_transient
from storage.locations import Location
from storage.patience import Budgets, Patience
from tasks.jobs import RestoreOptions
from tests.flows.conftest import smooth_picture, write_picture

pytestmark = pytest.mark.usefixtures("prefect_server")
OPTIONS = RestoreOptions(shard_images=1, workers=1, device="cpu", precision="float32", write_report=False)
PICTURES = 9
_OF_THIS_RUN = ("run_id", "finished_at", "seconds", "output_uri", "source_uri", "mask_uri", "code_version")


@dataclass
class Store:
    """The memory store, and what is wrong with it: `fault` says by the key which error a request ends in."""

    source: str
    destination: str
    now: float = 0.0
    fault: Callable[[str], Exception | None] = lambda key: None
    requests: list[str] = field(default_factory=list)

    def request(self, key: str) -> None:
        self.requests.append(key)
        if (error := self.fault(key)) is not None:
            self.now += 1.0 if is_transient(error) else 0.0
            raise error

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run(self) -> RunSummary:
        return restore_archive(self.source, self.destination, OPTIONS)

    def rows(self) -> list[dict[str, Any]]:
        found = query(Location(self.destination).join("catalogue"), "SELECT * FROM images ORDER BY relative_path")
        return [{name: row[name] for name in row if name not in _OF_THIS_RUN} for row in found.to_pylist()]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    made = Store(source=f"memory://{tmp_path.name}/in", destination=str(tmp_path / "out"))
    for number in range(PICTURES):
        write_picture(tmp_path / "drawn.png", smooth_picture(number), noise_sigma=25 * (number % 2))
        Location(made.source).join(f"{number}.png").put_file(tmp_path / "drawn.png")
    # As in an archive larger than what may lie here: every picture is read twice, and the second time it may be gone.
    monkeypatch.setattr("flows.run_work._KEPT_BYTES", 0)
    monkeypatch.setattr(patience, "_of_this_process", Patience(Budgets(), clock=lambda: made.now))
    monkeypatch.setattr("prefect.task_engine.time", SimpleNamespace(**{**vars(time), "sleep": made.sleep}))
    cat_file = MemoryFileSystem.cat_file

    def read(self: Any, path: str, *args: Any, **kwargs: Any) -> Any:
        made.request(path.rsplit("/", 1)[-1])
        return cat_file(self, path, *args, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", read)
    yield made
    monkeypatch.undo()
    Location(made.source).filesystem.rm(f"/{tmp_path.name}", recursive=True)


def after(count: int, what: Callable[[str], Exception | None], store: Store) -> Callable[[str], Exception | None]:
    """Begin to fail once so many requests have been served."""
    return lambda key: what(key) if len(store.requests) > count else None


def test_a_store_that_comes_back_in_time_loses_nothing(store: Store, tmp_path: Path) -> None:
    undisturbed = replace(store, destination=str(tmp_path / "undisturbed"))
    undisturbed.run()
    store.requests.clear()
    store.fault = after(6, lambda key: ConnectionResetError() if store.now < 600 else None, store)
    summary = store.run()
    assert (summary.images, summary.failed, summary.broken_shards, summary.store_gone) == (PICTURES, 0, (), None)
    # Both workers may have begun their longest pause, of 45 s, just before; their pauses add up on this clock.
    assert 600 <= store.now <= 700
    assert store.rows() == undisturbed.rows()
    assert len(store.requests) < 80


def test_a_store_that_is_gone_for_good_ends_the_run_and_the_next_goes_on(store: Store) -> None:
    store.fault = after(PICTURES + 2, lambda key: ConnectionResetError(), store)  # its first shard has two pictures
    with pytest.raises(BrokenShardsError) as caught:
        store.run()
    summary = caught.value.summary
    assert summary.store_gone is not None
    assert len(summary.broken_shards) == 1, "its second picture told that the first alone is not to blame"
    assert summary.remaining == PICTURES - summary.images >= 1
    assert 900 <= store.now <= 900 + 45 + 10
    assert len(store.requests) < 100
    text = str(caught.value)
    assert text.startswith("The store has given nothing for 9")
    assert text.count("memory://") == 1
    left = f"1 shard(s) in work were left without rows, {summary.remaining} images were not begun."
    assert text.endswith(f"{left} What is done is kept: run again.")
    assert len(store.rows()) == 2
    store.fault = lambda key: None
    again = store.run()
    assert (again.failed, again.quarantined) == (0, 0)
    assert len(store.rows()) == PICTURES


@pytest.mark.parametrize("hashed", [True, False], ids=["gone after it was hashed", "gone from the beginning"])
def test_an_object_that_never_comes_costs_its_own_seconds_and_is_asked_for_again(store: Store, hashed: bool) -> None:
    options = replace(OPTIONS, shard_images=PICTURES, incremental=True)
    served = after(PICTURES if hashed else 0, lambda key: TimeoutError() if key == "1.png" else None, store)

    def fault(key: str) -> Exception | None:
        if key == "1.png":
            patience.patience().answered(store.source, writing=False)  # as other shards in work would
        return served(key)

    store.fault = fault
    summary = restore_archive(store.source, store.destination, options)
    assert (summary.quarantined, summary.broken_shards, summary.store_gone) == (1, (), None)
    assert [(path, kind) for path, kind, _ in summary.failures] == [("1.png", "unavailable")]
    assert "asked for again" in summary.failures[0][2]
    # Once to hash it and once to read it.
    assert 300 <= store.now <= 400 + (0 if hashed else 400)
    assert len(store.rows()) == PICTURES

    store.fault = lambda key: None
    again = restore_archive(store.source, store.destination, options)
    assert (again.quarantined, again.changed, again.unchanged) == (0, 1, PICTURES - 1)
    assert {row["status"] for row in store.rows()} <= {"restored", "untouched", "review"}


def test_a_permanent_fault_is_not_waited_for(store: Store) -> None:
    store.fault = after(PICTURES, lambda key: PermissionError(13, "no") if key == "1.png" else None, store)
    summary = store.run()
    assert (summary.quarantined, summary.broken_shards) == (1, ())
    assert store.now == 0
    assert store.requests.count("1.png") == 2, "once to hash it, once to read it"


def test_what_may_lie_here_is_read_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.run_work._KEPT_BYTES", 1 << 30)
    store.run()
    assert sorted(store.requests) == [f"{number}.png" for number in range(PICTURES)]
    assert list((lacuna_home() / "working").rglob("*.file")) == []
