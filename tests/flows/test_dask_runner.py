"""Several processes: the rows that threads make, also when a worker is killed; and what is said when it cannot be."""

from __future__ import annotations

import inspect
import os
import signal
import threading
import time
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

import flows.prefect_settings  # noqa: F401 - before prefect
from flows.cli import app
from flows.dask_settings import DaskSettings, check_dask, dask_settings
from flows.restore_archive import restore_archive
from storage.catalogue import query
from storage.errors import IngestError, OutputError, StoreUnavailableError
from storage.faults import patience_left
from storage.limits import IngestLimits
from storage.locations import Location
from tasks.jobs import RestoreOptions
from tests.flows.conftest import build_archive, smooth_picture, write_picture

OPTIONS = RestoreOptions(
    shard_images=2, device="cpu", precision="float32", strengths=(("deblock", 0.0), ("deblur", 0.0), ("fill", 0.0))
)
# What differs between two runs of the same work into two places.
_OF_THE_RUN = ("run_id", "seconds", "finished_at", "output_uri", "mask_uri")


def rows(destination: Path, table: str) -> list[dict[str, Any]]:
    order = {"images": "page_index", "steps": "step_index", "metrics": "stage, metric"}[table]
    sql = f"SELECT * FROM {table} ORDER BY relative_path, image_id, {order}"
    found = query(Location(destination).join("catalogue"), sql).to_pylist()
    return [{name: value for name, value in row.items() if name not in _OF_THE_RUN} for row in found]


def outputs(destination: Path) -> dict[str, bytes]:
    folder = destination / "images"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def assert_same(first: Path, second: Path) -> None:
    for table in ("images", "steps", "metrics"):
        assert rows(first, table) == rows(second, table)
    assert outputs(first) == outputs(second)


def test_threads_need_no_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.dask_settings.find_spec", lambda name: None)
    assert dask_settings("threads", address=None, workers=2, threads=None) is None


def test_missing_package_is_named_with_its_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.dask_settings.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install -c constraints.txt '.\[dask\]'"):
        dask_settings("dask", address=None, workers=2, threads=None)


def test_dask_is_not_imported_unless_asked_for() -> None:
    import subprocess
    import sys

    code = "import sys, flows.restore_archive; print('distributed' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=220, check=True)
    assert found.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"address": "tcp://127.0.0.1:8786"}, "--address: got tcp://127.0.0.1:8786 without --runner dask"),
        ({"threads": 2}, "--worker-threads: got 2 without --runner dask"),
    ],
)
def test_options_of_dask_without_it(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        dask_settings("threads", **{"address": None, "workers": 2, "threads": None, **given})


@pytest.mark.parametrize("address", ["127.0.0.1:8786", "http://127.0.0.1:8786", "tcp://host", "tcp://host:99999", ""])
def test_wrong_address(address: str) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(ValueError, match="expected tcp://HOST:PORT"):
        check_dask(DaskSettings(address=address))


def test_command_line_says_where_nothing_answers(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    build_archive(tmp_path / "in")
    command = ["restore", str(tmp_path / "in"), str(tmp_path / "out"), "--runner", "dask"]
    result = CliRunner().invoke(app, [*command, "--address", "tcp://127.0.0.1:9"])
    assert result.exit_code == 2
    assert "No Dask scheduler answers at tcp://127.0.0.1:9" in result.output
    assert not (tmp_path / "out").exists()


def test_each_local_process_sees_one_gpu() -> None:
    pytest.importorskip("distributed")
    from flows.dask_pool import worker_environments

    seen = worker_environments(DaskSettings(workers=2, threads=4), device="auto", gpus=["0", "2"])
    assert [item["CUDA_VISIBLE_DEVICES"] for item in seen] == ["0", "2"]
    assert {item["OMP_NUM_THREADS"] for item in seen} == {"4"}
    without = worker_environments(DaskSettings(workers=3), device="cpu", gpus=["0"])
    assert len(without) == 3
    assert not any("CUDA_VISIBLE_DEVICES" in item for item in without)
    with pytest.raises(ValueError, match="--workers 3: there are 2 GPUs"):
        worker_environments(DaskSettings(workers=3), device="cuda", gpus=["0", "1"])


class UnsendableError(Exception):
    """As those of some clients, which carry their connection."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


def test_errors_survive_being_sent() -> None:
    pytest.importorskip("distributed")
    from flows.dask_work import portable

    kept = IngestError("changed", "it changed")
    assert portable(kept) is kept
    assert str(portable(UnsendableError("broken"))) == "UnsendableError: broken"
    caused = UnsendableError("no answer")
    caused.__cause__ = ConnectionResetError("reset")
    assert isinstance(portable(caused), StoreUnavailableError)
    unsendable = UnsendableError("broken")
    unsendable.__cause__ = StoreUnavailableError("gone", patience="none for the store")
    assert patience_left(portable(unsendable)) == "none for the store"


def test_a_source_is_opened_anew_for_another_run(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    from flows import dask_work
    from tasks.sources import shared_source

    uri = str(build_archive(tmp_path / "in"))
    dask_work._renew_source("first", uri)
    opened = shared_source(uri, limits=IngestLimits())
    dask_work._renew_source("first", uri)
    assert shared_source(uri, limits=IngestLimits()) is opened
    dask_work._renew_source("second", uri)
    assert shared_source(uri, limits=IngestLimits()) is not opened
    dask_work.end_run("second")
    assert uri not in dask_work._opened_for


def test_a_placed_stage_is_the_same_task(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    from flows.dask_pool import DaskPool
    from tasks.restore import restore_images
    from tasks.retrying import retry_if_transient

    sent: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(DaskPool, "_compute", lambda self, stage, inputs: sent.append((stage, inputs)))
    placed = DaskPool.placed(object.__new__(DaskPool), restore_images)
    assert (placed.name, placed.cache_policy) == ("restore", restore_images.cache_policy)
    assert (placed.retries, placed.retry_condition_fn) == (restore_images.retries, retry_if_transient)
    assert inspect.signature(placed.fn) == inspect.signature(restore_images.fn)
    assert restore_images.fn is not placed.fn
    placed.fn(job={"shard": {}}, ingested={})
    assert sent == [("tasks.restore:restore_images", {"job": {"shard": {}}, "ingested": {}})]


def test_what_becomes_of_dasks_own_errors() -> None:
    distributed = pytest.importorskip("distributed")
    from flows.dask_pool import WorkersGoneError, _explained
    from storage.faults import is_transient

    def raised(error: BaseException, *, closing: bool = False) -> BaseException:
        pool: Any = SimpleNamespace(_closing=closing)
        with pytest.raises(Exception) as caught, _explained(pool):  # noqa: PT011 - any kind is returned
            raise error
        return caught.value

    last = SimpleNamespace(address="tcp://127.0.0.1:1")
    assert "4 workers died" in str(raised(distributed.KilledWorker("restore-1", last, 3)))
    assert is_transient(raised(CancelledError()))
    assert isinstance(raised(CancelledError(), closing=True), WorkersGoneError)
    assert isinstance(raised(distributed.client.ClosedClientError("closed")), WorkersGoneError)


def test_previews_of_another_machine(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    from flows.dask_pool import keep_previews

    keep_previews([("a.json", b"{}"), ("a.before.jpg", b"picture")], folder=tmp_path / "previews")
    assert (tmp_path / "previews" / "a.before.jpg").read_bytes() == b"picture"
    with pytest.raises(OutputError, match="leads out"):
        keep_previews([("../a.json", b"{}")], folder=tmp_path / "previews")


def test_short_shards_are_pointed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    from flows.dask_pool import DaskPool

    said: list[str] = []
    monkeypatch.setattr("flows.dask_pool.logging.Logger.warning", lambda self, text, *args: said.append(text % args))
    pool: Any = object.__new__(DaskPool)
    monkeypatch.setattr(DaskPool, "_threads", lambda self: 1)
    for seconds, count in ((2.0, 3), (20.0, 9), (2.0, 9)):
        pool._ended = [seconds] * count
        pool._advise()
    assert said == ["A shard was 2.0 s of work; with 5 times as many --shard-images the workers wait less"]


@pytest.fixture(scope="module")
def by_threads(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("dask")
    source = build_archive(folder / "archive")
    for number in range(6):
        write_picture(source / "c" / f"noisy_{number}.png", smooth_picture(10 + number), noise_sigma=25)
    restore_archive(str(source), str(folder / "threads"), OPTIONS)
    return source, folder / "threads"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_processes_make_the_catalogue_that_threads_make(
    by_threads: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And threads take up their results: it is the same run."""
    pytest.importorskip("distributed")
    from tasks.progress import listening

    source, threads = by_threads
    news: list[tuple[str, int, str]] = []
    with listening(lambda *event: news.append(event)):
        # Other limits, so that no stage comes from the cache that the threads left.
        options = replace(OPTIONS, limits=IngestLimits(max_pages=99))
        summary = restore_archive(str(source), str(tmp_path / "out"), options, DaskSettings(workers=2))
    assert (summary.images, summary.failed, summary.quarantined) == (13, 0, 1)
    assert_same(threads, tmp_path / "out")
    assert sum(count for event, count, _ in news if event == "restore") == 12
    assert sum(count for event, count, _ in news if event == "done") == 13
    monkeypatch.setattr("tasks.restore.restore", _never)
    again = restore_archive(str(source), str(tmp_path / "out"), options)
    assert (again.run_id, again.restored) == (summary.run_id, summary.restored)
    assert_same(threads, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_worker_loses_nothing(by_threads: tuple[Path, Path], tmp_path: Path) -> None:
    """Two workers behind an address, of which one is killed as soon as it has a shard in work."""
    distributed = pytest.importorskip("distributed")
    source, threads = by_threads
    killed: list[int] = []
    home = str(tmp_path / "home-of-the-workers")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", memory_limit=0, env={"LACUNA_HOME": home}
    ) as cluster:
        ended = threading.Event()
        thread = threading.Thread(target=_kill_one, args=(cluster, killed, ended))
        thread.start()
        try:
            address = DaskSettings(address=cluster.scheduler_address)
            # Ingest and detection come from the cache: the workers must make working copies again.
            summary = restore_archive(str(source), str(tmp_path / "out"), OPTIONS, address)
        finally:
            ended.set()
            thread.join()
    assert len(killed) == 1
    assert (summary.images, summary.failed, summary.quarantined, summary.broken_shards) == (13, 0, 1, ())
    assert_same(threads, tmp_path / "out")
    assert Path((summary.report_uri or "").removeprefix("file://")).is_file()
    assert list((tmp_path / "out" / "report" / "previews").glob("*.json"))
    assert not list(Path(home, "working").rglob("*.npy"))


def _never(*_: Any, **__: Any) -> None:
    raise AssertionError("restored again what worker processes had restored")


def _kill_one(cluster: Any, killed: list[int], ended: threading.Event) -> None:
    """Kill the first worker that is found carrying out a restoration."""
    while not killed and not ended.is_set():
        time.sleep(0.02)
        for state in list(cluster.scheduler.workers.values()):
            if any(str(task.key).startswith("restore_images") for task in list(state.processing)):
                pid = next(nanny.pid for nanny in cluster.workers.values() if nanny.worker_address == state.address)
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                return
