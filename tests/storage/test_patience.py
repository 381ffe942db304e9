"""How long a store is waited for: an object's seconds, a store's, what resets them, and what is said in the end."""

from __future__ import annotations

import errno
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from storage import patience
from storage.errors import AccessRefusedError, ObjectMissingError, StoreUnavailableError
from storage.faults import is_transient, patience_left
from storage.locations import Location
from storage.objects import ObjectFile, asked
from storage.patience import Budgets, Patience, budgets_from_environment

BUDGETS = Budgets(object_seconds=300, store_seconds=900)
A, B = "s3://scans/a.png", "s3://scans/b.png"


class Clock:
    """Seconds that pass when told so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Patience:
    made = Patience(BUDGETS, clock=clock)
    monkeypatch.setattr(patience, "_of_this_process", made)
    return made


def fail(kept: Patience, clock: Clock, uri: str, *, seconds: float = 20.0, pause: float = 30.0) -> str:
    """Wait, then fail with a request that takes `seconds`; return what patience is left."""
    clock.now += pause
    since = clock.now
    clock.now += seconds
    return kept.failed(uri, writing=False, since=since).left


def until_over(kept: Patience, clock: Clock, uri: str, **how: float) -> tuple[str, float]:
    begun = clock.now
    while (left := fail(kept, clock, uri, **how)) == "some":
        assert clock.now - begun < 10_000
    return left, clock.now - begun


def test_a_store_that_serves_nobody_is_given_up_after_its_seconds(kept: Patience, clock: Clock) -> None:
    assert fail(kept, clock, B) == "some"
    left, seconds = until_over(kept, clock, A)
    assert left == "none for the store"
    assert 850 <= seconds <= 950


def test_one_object_alone_does_not_give_the_store_up_but_what_comes_after_it_does(kept: Patience, clock: Clock) -> None:
    left, seconds = until_over(kept, clock, A)
    assert left == "none for the object"
    assert 900 <= seconds <= 980
    assert fail(kept, clock, B) == "none for the store"


def test_one_object_alone_and_then_a_store_that_serves_is_no_outage(kept: Patience, clock: Clock) -> None:
    until_over(kept, clock, A)
    kept.answered(B, writing=False)
    assert fail(kept, clock, B) == "some"


def test_an_answer_ends_the_outage(kept: Patience, clock: Clock) -> None:
    for _ in range(10):
        for _ in range(15):
            assert fail(kept, clock, A) == "some"
            assert fail(kept, clock, B, pause=0, seconds=0) == "some"
        kept.answered(A, writing=False)
        kept.answered(B, writing=False)


def test_an_object_that_fails_while_the_store_serves_others_has_its_own_seconds(kept: Patience, clock: Clock) -> None:
    begun = clock.now
    while (left := fail(kept, clock, A)) == "some":
        kept.answered(B, writing=False)
    assert left == "none for the object"
    assert 300 <= clock.now - begun <= 400
    assert fail(kept, clock, A) == "some", "whoever asks for it later begins anew"


def test_a_large_object_has_more_seconds(kept: Patience) -> None:
    assert kept.allowed_seconds(0) == 300
    assert kept.allowed_seconds(5_000_000_000) == 5300


def test_work_between_two_faults_is_not_counted_as_waiting(kept: Patience, clock: Clock) -> None:
    tries = 0
    while fail(kept, clock, A, seconds=1, pause=1200) == "some":
        tries += 1
    assert tries >= 15, "a task that computes for twenty minutes before it writes has its tries too"


def test_a_store_that_reads_does_not_excuse_one_that_takes_nothing(kept: Patience, clock: Clock) -> None:
    begun, left = clock.now, "some"
    while left == "some":
        kept.answered(A, writing=False)
        clock.now += 30
        left = {kept.failed(uri, writing=True, since=clock.now).left for uri in (A, B)}.pop()
    assert left == "none for the store"
    assert clock.now - begun < 1000


def test_a_store_that_was_given_up_is_hoped_for_anew_later_but_not_at_once(kept: Patience, clock: Clock) -> None:
    fail(kept, clock, B)
    until_over(kept, clock, A)
    assert fail(kept, clock, "s3://other/collection.png", pause=10) == "none for the store"
    assert fail(kept, clock, A, pause=3600) == "some"


def test_requests_of_many_threads_count_their_time_once(kept: Patience, clock: Clock) -> None:
    since = clock.now
    clock.now += 120
    verdicts = [kept.failed(f"s3://scans/{n}", writing=False, since=since) for n in range(50)]
    assert {verdict.left for verdict in verdicts} == {"some"}
    assert max(verdict.seconds for verdict in verdicts) == 120


def test_budgets_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LACUNA_OBJECT_SECONDS", raising=False)
    monkeypatch.delenv("LACUNA_STORE_SECONDS", raising=False)
    assert budgets_from_environment() == BUDGETS
    monkeypatch.setenv("LACUNA_OBJECT_SECONDS", "60")
    monkeypatch.setenv("LACUNA_STORE_SECONDS", "1.5")
    assert budgets_from_environment() == Budgets(object_seconds=60, store_seconds=1.5)


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_budgets_that_are_none_are_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("LACUNA_STORE_SECONDS", text)
    with pytest.raises(ValueError, match=f"LACUNA_STORE_SECONDS: got '{text}', expected"):
        budgets_from_environment()


def ask(uri: str, error: Exception | None, *, clock: Clock, seconds: float = 20.0) -> None:
    with asked(uri):
        clock.now += seconds
        if error is not None:
            raise error


def said(uri: str, error: Exception, *, clock: Clock, seconds: float = 20.0) -> StoreUnavailableError:
    with pytest.raises(StoreUnavailableError) as caught:
        ask(uri, error, clock=clock, seconds=seconds)
    return caught.value


def test_what_is_said_when_patience_is_over(kept: Patience, clock: Clock) -> None:
    from botocore.exceptions import EndpointConnectionError

    fault = EndpointConnectionError(endpoint_url="https://key:secret@store.example:7480/scans?X-Amz-Signature=secret")
    first = said(B, fault, clock=clock)
    assert patience_left(first) == "some"
    while patience_left(error := said(A, fault, clock=clock)) == "some":
        pass
    text = str(error)
    assert patience_left(error) == "none for the store"
    assert is_transient(error), "it concerns the store, so no image of it becomes a row"
    assert text.startswith("The store has given nothing for 9")
    for part in ("LACUNA_STORE_SECONDS allows 900", A, "https://store.example:7480", "run again"):
        assert part in text
    assert "secret" not in text
    assert patience_left(pickle.loads(pickle.dumps(error))) == "none for the store", "also from another process"


def test_a_request_that_takes_all_its_seconds_says_so(kept: Patience, clock: Clock) -> None:
    text = str(said(A, TimeoutError(), clock=clock, seconds=301))
    assert text.startswith(f"The store did not serve {A} within 300 s")
    assert "LACUNA_OBJECT_SECONDS" in text


@pytest.mark.parametrize(
    ("error", "expected"), [(FileNotFoundError(), ObjectMissingError), (PermissionError(), AccessRefusedError)]
)
def test_permanent_faults_stay_what_they_are(
    kept: Patience, clock: Clock, error: Exception, expected: type[Exception]
) -> None:
    error.__cause__ = RefusalError()
    said(B, ConnectionResetError(), clock=clock)
    with pytest.raises(expected) as caught:
        ask(A, error, clock=clock)
    assert not is_transient(caught.value)
    clock.now += 2000
    assert patience_left(said(B, ConnectionResetError(), clock=clock)) == "some", "a refusal is an answer"


class RefusalError(Exception):
    def __init__(self) -> None:
        super().__init__()
        self.response = {"Error": {"Code": "Any"}}


def test_what_is_read_from_memory_is_no_answer(kept: Patience, clock: Clock) -> None:
    from fsspec.caching import ReadAheadCache

    class File:
        def __init__(self) -> None:
            self.cache = ReadAheadCache(1000, self.fetch, 10_000)
            self.place = 0

        def fetch(self, start: int, end: int) -> bytes:
            if start >= 1000:
                raise OSError(errno.EBUSY, "SlowDown")
            return bytes(end - start)

        def read(self, count: int) -> bytes:
            found: bytes = self.cache._fetch(self.place, self.place + count)
            self.place += count
            return found

    opened: Any = File()
    file = ObjectFile(opened, A)
    file.read(10)
    said(B, ConnectionResetError(), clock=clock, seconds=5)
    clock.now += 10
    file.read(10)
    opened.place = 5000
    with pytest.raises(StoreUnavailableError):
        file.read(10)
    assert kept.failed(B, writing=False, since=clock.now).seconds == 15


@pytest.fixture
def silent_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A store that takes every connection and never answers."""
    import s3fs

    listening = socket.create_server(("127.0.0.1", 0))
    taken: list[socket.socket] = []

    def take() -> None:
        while True:
            try:
                taken.append(listening.accept()[0])
            except OSError:
                return

    threading.Thread(target=take, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{listening.getsockname()[1]}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    yield "s3://scans/a.png"
    s3fs.S3FileSystem.clear_instance_cache()
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    for connection in taken:
        connection.close()


@pytest.mark.parametrize(
    "work",
    [
        lambda place: place.read_start(10),
        lambda place: place.write_bytes_atomic(bytes(10)),
        lambda place: list(place.entries()),
        lambda place: place.exists(),
    ],
    ids=["read", "write", "list", "look"],
)
def test_a_store_that_never_answers_holds_nobody_longer(
    silent_store: str, monkeypatch: pytest.MonkeyPatch, work: Callable[[Location], Any]
) -> None:
    monkeypatch.setattr(patience, "_of_this_process", Patience(Budgets(object_seconds=0.5, store_seconds=900)))
    begun = time.monotonic()
    with pytest.raises(StoreUnavailableError, match=r"did not serve s3://scans/a\.png within") as caught:
        work(Location(silent_store))
    assert time.monotonic() - begun < 10, "the client alone would take two minutes"
    assert "very-secret" not in f"{caught.value}{caught.value.__cause__}"


def test_a_first_look_at_a_silent_store_does_not_take_its_seconds(silent_store: str) -> None:
    started = time.monotonic()
    with patience.patience().hurried(1.0), pytest.raises(StoreUnavailableError, match="within 1 s"):
        Location(silent_store).exists()
    assert time.monotonic() - started < 20, "not the 300 seconds of an object"
    assert patience.patience().allowed_seconds(0) == 300
