"""A gateway that is killed in the middle of a run and comes back: the run waits, and nothing is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from drawn_pictures import png
from night import content
from real_server import Server

import flows.prefect_settings  # noqa: F401 - before prefect
from flows.restore_archive import restore_archive
from flows.run_summary import BrokenShardsError
from storage import patience
from storage.patience import Budgets, Patience
from tasks.jobs import RestoreOptions
from tasks.progress import listening

pytestmark = [pytest.mark.s3, pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("prefect_server")]
OPTIONS = RestoreOptions(shard_images=2, workers=2, device="cpu", precision="float32", write_report=False)
PICTURES = 12
GONE_SECONDS = 20


@pytest.fixture(scope="module")
def source(filesystem: Any, bucket: str) -> str:
    filesystem.pipe({f"{bucket}/in/{n:02d}.png": png(n, noise_sigma=25 * (n % 2)) for n in range(PICTURES)})
    return f"s3://{bucket}/in"


@pytest.fixture
def when_first_read(server: Server) -> Iterator[Callable[[Callable[[], None]], Any]]:
    """Do something once, as soon as the run has read its first pictures; the gateway runs again at the end."""
    done: list[threading.Thread] = []

    def begin(work: Callable[[], None]) -> Any:
        def hear(event: str, count: int, shard: str) -> None:
            if event == "restore" and not done:
                done.append(threading.Thread(target=work))
                done[0].start()

        return listening(hear)

    yield begin
    for thread in done:
        thread.join()
    server.control("gateway-start")


def test_a_gateway_that_comes_back_loses_nothing(
    server: Server, filesystem: Any, bucket: str, source: str, when_first_read: Callable[[Callable[[], None]], Any]
) -> None:
    undisturbed, disturbed = f"s3://{bucket}/undisturbed", f"s3://{bucket}/disturbed"
    moments: list[float] = []

    def interrupt() -> None:
        server.control("gateway-stop")
        moments.append(time.monotonic())
        time.sleep(GONE_SECONDS)
        server.control("gateway-start")
        moments.append(time.monotonic())

    with when_first_read(interrupt):
        summary = restore_archive(source, disturbed, OPTIONS)
    ended = time.monotonic()
    assert len(moments) == 2, "the run waited for the store"
    print(f"gone for {moments[1] - moments[0]:.0f} s, the run ended {ended - moments[1]:.0f} s later")
    assert (summary.images, summary.failed, summary.broken_shards, summary.store_gone) == (PICTURES, 0, (), None)
    restore_archive(source, undisturbed, OPTIONS)
    assert content(filesystem, disturbed) == content(filesystem, undisturbed)


def test_a_gateway_that_stays_away_ends_the_run_with_one_sentence(
    server: Server,
    filesystem: Any,
    bucket: str,
    source: str,
    when_first_read: Callable[[Callable[[], None]], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    destination = f"s3://{bucket}/given-up"
    monkeypatch.setattr(patience, "_of_this_process", Patience(Budgets(store_seconds=15)))
    stopped: list[float] = []

    def stop() -> None:
        server.control("gateway-stop")
        stopped.append(time.monotonic())

    with when_first_read(stop), pytest.raises(BrokenShardsError) as caught:
        restore_archive(source, destination, OPTIONS)
    seconds = time.monotonic() - stopped[0]
    print(f"given up after {seconds:.0f} s: {caught.value}")
    summary = caught.value.summary
    assert summary.store_gone is not None
    assert "LACUNA_STORE_SECONDS allows 15" in str(caught.value)
    assert server.settings["AWS_ENDPOINT_URL"] in str(caught.value)
    assert not any(secret in str(caught.value) for secret in server.secrets)
    assert summary.remaining >= 1
    assert len(summary.broken_shards) <= OPTIONS.workers + 1
    server.control("gateway-start")
    assert restore_archive(source, destination, OPTIONS).failed == 0
    assert len(content(filesystem, destination)[0]) == PICTURES
