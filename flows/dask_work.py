"""What a Dask worker process does for a run: carry out one stage of one shard with models and files of its own.

Arguments are plain JSON: addresses, keys, options and what earlier stages found, never pixels. Filesystems, networks,
opened sources and working copies belong to this process and are made here, so that nothing of them crosses a fork.
"""

from __future__ import annotations

import flows.prefect_settings  # noqa: F401 - it must come before prefect

# isort: split
import importlib
import pickle
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import get_worker

import tasks.together
from flows.home import lacuna_home
from flows.run_identity import code_version
from models.types import from_json, to_json
from storage.errors import StoreUnavailableError
from storage.faults import is_transient, patience_left
from storage.locations import Location
from tasks.caching import STEP_VERSIONS
from tasks.cleaning import forget_working_copies
from tasks.device import identify
from tasks.jobs import RestoreOptions
from tasks.progress import listening
from tasks.sources import forget_source

_NEWS_SECONDS = 0.5
_SOURCES_KEPT = 8
_lock = threading.Lock()
_threads: int | None = None
# Which run each source was opened for: another run lists it anew.
_opened_for: dict[str, str] = {}
_known: set[tuple[str, str]] = set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One stage of one shard.

    run: a token of the run, also the topic of its news. program: what `program` says where the flow runs. stage:
    "module:task". threads: of the numerical libraries. send_previews: their folder is not on this machine.
    """

    run: str
    program: str
    stage: str
    inputs: dict[str, Any]
    threads: int
    send_previews: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a unit: its result as plain JSON or the error, who did it, and previews as {file name: bytes}."""

    worker: str
    seconds: float
    result: Any = None
    error: Exception | None = None
    previews: tuple[tuple[str, bytes], ...] = ()


def carry_out(unit: Unit) -> Answer:
    """Carry out a unit; what it raises comes back in the answer, in a form that can be sent."""
    started, worker = time.perf_counter(), get_worker()
    limit_threads(unit.threads)
    found: Any = None
    error: Exception | None = None
    previews: tuple[tuple[str, bytes], ...] = ()
    try:
        with tempfile.TemporaryDirectory(prefix="lacuna-previews-") as folder, _news(unit, worker):
            found = _stage(unit.stage)(**_of_this_machine(unit, previews=folder))
            previews = tuple((path.name, path.read_bytes()) for path in sorted(Path(folder).iterdir()))
    except Exception as raised:
        error = portable(raised)
    seconds = time.perf_counter() - started
    return Answer(worker=worker.address, seconds=seconds, result=found, error=error, previews=previews)


def limit_threads(count: int) -> None:
    """Let the numerical libraries of this process use `count` threads each."""
    global _threads
    with _lock:
        if _threads == count:
            return
        import cv2
        import pyvips
        import torch

        pyvips.concurrency_set(count)
        torch.set_num_threads(count)
        cv2.setNumThreads(count)
        tasks.together.limit_threads(count)
        _threads = count


def portable(error: Exception) -> Exception:
    """Return the error itself where it survives being sent, else one that says and means the same.

    The causes of an error are not sent, so one that is transient for its cause becomes a StoreUnavailableError.
    """
    try:
        copy = pickle.loads(pickle.dumps(error))
        if type(copy) is type(error) and str(copy) == str(error) and is_transient(copy) == is_transient(error):
            return error
    except Exception:  # of whatever a foreign class does when pickled
        copy = None
    text = f"{type(error).__name__}: {error}"
    return StoreUnavailableError(text, patience=patience_left(error)) if is_transient(error) else RuntimeError(text)


def program() -> str:
    """Return which program this is: its release and the versions of its steps, as in the identity of a run."""
    steps = ", ".join(f"{step} {version}" for step, version in STEP_VERSIONS.items())
    return f"{code_version().partition('+')[0]} ({steps})"


def identify_here(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Identities of this process as plain JSON, with `program` for its code version."""
    found: dict[str, Any] = to_json(identify(from_json(RestoreOptions, options), code_version=program()))
    return found


def missing_here(uris: list[str]) -> list[str]:
    """Return those of the places that this machine does not see."""
    return [uri for uri in uris if not Location(uri).exists()]


def forget_here(keys: list[str]) -> None:
    """Delete these working copies on this machine."""
    forget_working_copies(working_root(), keys)


def end_run(run: str) -> None:
    """Let go of the sources that were opened for a run."""
    with _lock:
        ended = [uri for uri, token in _opened_for.items() if token == run]
        for uri in ended:
            del _opened_for[uri]
    for uri in ended:
        forget_source(uri)


def working_root() -> str:
    """Return the folder of this machine's working copies."""
    return str(lacuna_home() / "working")


def _stage(name: str) -> Callable[..., Any]:
    module, _, task = name.partition(":")
    body: Callable[..., Any] = getattr(importlib.import_module(module), task).fn
    return body


def _of_this_machine(unit: Unit, *, previews: str) -> dict[str, Any]:
    """Return the inputs with the folders of this machine, after a look at whether it may do the work."""
    inputs = dict(unit.inputs)
    job = inputs.get("job")
    if inputs.get("keep_in") is not None:
        inputs["keep_in"] = working_root()
    _renew_source(unit.run, inputs["source"] if job is None else job["source"])
    if job is not None:
        _check_identity(unit, job)
        own = {"working_root": working_root()}
        if unit.send_previews and job["previews"] is not None:
            own["previews"] = previews
        inputs["job"] = {**job, **own}
    return inputs


def _renew_source(run: str, uri: str) -> None:
    """Forget a source that was opened for another run, since it may hold other files by now, and the oldest of many."""
    with _lock:
        stale = [uri] if _opened_for.pop(uri, None) != run else []
        _opened_for[uri] = run
        while len(_opened_for) > _SOURCES_KEPT:  # of flows that were killed, and will not say that they have ended
            stale.append(next(iter(_opened_for)))
            del _opened_for[stale[-1]]
    for other in stale:
        forget_source(other)


def _check_identity(unit: Unit, job: Mapping[str, Any]) -> None:
    """Raise ValueError where this process would compute something else than the run says; it may have joined late."""
    key = (unit.run, str(job["run_id"]))
    if key in _known:
        return
    wanted = {**job["identities"], "code_version": unit.program}
    found = identify_here(job["options"])
    differing = [name for name, value in found.items() if value != wanted.get(name)]
    if differing:
        raise ValueError(
            f"worker {get_worker().address} has another {', '.join(differing)} than the run; install the same version "
            "of lacuna and the same kind of device on every machine, then restart its workers"
        )
    _known.add(key)


@contextmanager
def _news(unit: Unit, worker: Any) -> Iterator[None]:
    """Send what the stage announces to the flow, a few messages a second at most."""
    inputs = unit.inputs
    own = str((inputs.get("job") or inputs)["shard"]["shard_id"])
    counts: dict[str, int] = {}
    sent = time.monotonic()

    def send() -> None:
        nonlocal sent
        sent = time.monotonic()
        for event in list(counts):
            worker.log_event(unit.run, {"event": event, "count": counts.pop(event), "shard": own})

    def hear(event: str, count: int, shard: str) -> None:
        if shard != own:  # of another thread of this worker
            return
        counts[event] = counts.get(event, 0) + count
        if time.monotonic() - sent >= _NEWS_SECONDS:
            send()

    with listening(hear):
        try:
            yield
        finally:
            send()
