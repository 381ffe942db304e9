"""A run's worker processes: those of a Dask cluster that is there, or of one that lives as long as the run.

Every stage of a shard is sent as one unit of plain JSON. A unit whose worker dies is given to another by the scheduler;
since bodies of stages may be repeated and rows are committed by the flow alone, nothing is lost and nothing is double.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import dask
from distributed import Client, KilledWorker, Nanny, Scheduler, SpecCluster
from distributed.client import ClosedClientError
from prefect import Task

from flows.dask_settings import DaskSettings, check_dask
from flows.dask_work import Answer, Unit, carry_out, end_run, forget_here, identify_here, missing_here, program
from flows.run_identity import code_version
from models.types import from_json, to_json
from storage.locations import Location
from tasks.cleaning import forget_working_copies
from tasks.jobs import Identities, RestoreOptions
from tasks.progress import announce

_CONNECT_SECONDS = 10
_FIRST_WORKER_SECONDS = 60
_LOOK_SECONDS = 10
_PATIENCE_LOOKS = 12
_CONNECTED = ("running", "connecting")
# So that a worker finds its next unit waiting when it ends one, while another shard's answer is on its way.
_SHARDS_PER_THREAD = 2
_MOST_AT_ONCE = 256
# Below this the workflow's own work for a shard begins to count.
_SHORT_SHARD_SECONDS = 10.0
# Nobody looks at the dashboard of a run's own cluster, whose figures cost each process several per cent of a core.
_UNWATCHED = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.admin.system-monitor.disk": False,
}


class WorkersGoneError(RuntimeError):
    """The scheduler or all its workers are gone, or one picture takes every worker down."""


class SchedulerLostError(ConnectionError):
    """The connection to the scheduler was lost for a moment: the task tries again."""


class DaskPool:
    """Placement of stages on Dask workers; a context manager.

    Raises ValueError when there is no scheduler or no worker, or more workers of this machine than it has GPUs.
    """

    def __init__(self, settings: DaskSettings, *, device: str) -> None:
        check_dask(settings)
        # As loud as the workflow engine: what becomes of units is told by the flow.
        logging.getLogger("distributed").setLevel(os.environ.get("PREFECT_LOGGING_LEVEL", "ERROR"))
        self._settings = settings
        self._run = f"lacuna-{secrets.token_hex(8)}"
        self._closing = False
        self._lock = threading.Lock()
        self._homes: dict[str, str] = {}
        self._busy: dict[str, float] = {}
        self._ended: list[float] = []
        self._cluster = None if settings.address is not None else local_cluster(settings, device=device)
        try:
            self._client = _connect(settings.address or self._cluster)
        except BaseException:
            self._close_cluster()
            raise

    def __enter__(self) -> DaskPool:
        self._client.subscribe_topic(self._run, _hear)
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        self._advise()
        with suppress(Exception):  # what matters is done, and a scheduler that is gone needs no farewell
            if self._cluster is None:
                self._client.run(end_run, self._run, on_error="ignore")
            self._client.unsubscribe_topic(self._run)
        with suppress(Exception):
            self._client.close(timeout=_CONNECT_SECONDS)
        self._close_cluster()

    def identify(self, options: RestoreOptions) -> Identities:
        """Return what computes on the workers; raises ValueError unless they agree and have this program's version."""
        found = self._ask(identify_here, to_json(options))
        kinds = {str(sorted(identity.items())): worker for worker, identity in found.items()}
        if len(kinds) > 1:
            first, second = list(kinds.values())[:2]
            pairs = {name: (found[first][name], found[second][name]) for name in found[first]}
            differing = "; ".join(f"{name} {one} and {two}" for name, (one, two) in pairs.items() if one != two)
            raise ValueError(
                f"The workers {first} and {second} do not compute the same: {differing}. Install the same version of "
                "lacuna everywhere, and use --device and --precision that all of them have"
            )
        identities = from_json(Identities, next(iter(found.values())))
        if identities.code_version != program():
            raise ValueError(
                f"The workers run lacuna {identities.code_version}, this is {program()}; install the same version on "
                "every machine and restart its workers"
            )
        return replace(identities, code_version=code_version())

    def check_places(self, uris: Sequence[str]) -> None:
        """Raise ValueError when a worker does not see one of these places."""
        if self._cluster is not None:
            return
        for worker, missing in self._ask(missing_here, list(uris)).items():
            if missing:
                raise ValueError(
                    f"Worker {worker} does not see {missing[0]}; a folder must be mounted under the same path on every "
                    "machine. Mount it there, or use a URL such as s3://bucket/prefix"
                )

    def placed(self, stage: Task[..., Any]) -> Task[..., Any]:
        name = f"{stage.fn.__module__}:{stage.fn.__qualname__}"

        @wraps(stage.fn)
        def on_a_worker(**inputs: Any) -> Any:
            return self._compute(name, inputs)

        remote = stage.with_options()
        remote.fn = on_a_worker
        return remote

    def at_once(self, workers: int) -> int:
        """Return how many shards keep the workers busy that there are now."""
        return min(_MOST_AT_ONCE, max(1, _SHARDS_PER_THREAD * self._threads()))

    def forget(self, job: dict[str, Any], *, keys: list[str]) -> None:
        shard = job["shard"]["shard_id"]
        with self._lock:
            self._homes.pop(shard, None)
            if shard in self._busy:  # else all of it came from the cache
                self._ended.append(self._busy.pop(shard))
        if self._cluster is not None:
            forget_working_copies(job["working_root"], keys)
            return
        with suppress(Exception):  # a cache only: what a lost worker leaves is for its machine to clean
            self._client.run(forget_here, keys, on_error="ignore")

    def _threads(self) -> int:
        """Return how many units the workers there are now carry out at once; 0 also when nobody can be asked."""
        try:
            return sum(int(count) for count in self._client.nthreads().values())
        except Exception:  # the units on their way say what has become of the scheduler
            return 0

    def _compute(self, stage: str, inputs: dict[str, Any]) -> Any:
        shard = (inputs.get("job") or inputs)["shard"]["shard_id"]
        previews = inputs["job"]["previews"] if "job" in inputs else None
        unit = Unit(
            run=self._run,
            program=program(),
            stage=stage,
            inputs=inputs,
            threads=self._settings.threads,
            send_previews=self._cluster is None and previews is not None,
        )
        home = self._homes.get(shard)
        # Where the shard's working copies lie, unless that worker is gone or another has nothing to do.
        where: dict[str, Any] = {} if home is None else {"workers": [home], "allow_other_workers": True}
        key = f"{stage.rpartition(':')[2]}-{shard}-{secrets.token_hex(4)}"
        with _explained(self):
            answer = self._wait(self._client.submit(carry_out, unit, key=key, pure=False, **where))
        with self._lock:
            self._homes[shard] = answer.worker
            self._busy[shard] = self._busy.get(shard, 0.0) + answer.seconds
        if answer.error is not None:
            raise answer.error
        if previews is not None and answer.previews:
            keep_previews(answer.previews, folder=Path(previews))
        return answer.result

    def _wait(self, future: Any) -> Answer:
        # Not `result` with a timeout, which under load ends in an UnboundLocalError of Dask's own.
        ended = threading.Event()
        future.add_done_callback(lambda _: ended.set())
        looks = 0
        while not ended.wait(_LOOK_SECONDS) and not future.done():
            if self._client.status not in _CONNECTED:
                raise ClosedClientError(f"the client is {self._client.status}")
            looks = looks + 1 if self._threads() == 0 else 0
            if looks >= _PATIENCE_LOOKS:
                raise WorkersGoneError(
                    f"All workers have been gone for {_PATIENCE_LOOKS * _LOOK_SECONDS} s; start some, then run again"
                )
        if future.cancelled():
            raise CancelledError
        answer: Answer = future.result()
        return answer

    def _ask(self, question: Any, *args: Any) -> dict[str, Any]:
        """Return what every worker answers; raises what one of them raises."""
        with _explained(self):
            found: dict[str, Any] = self._client.run(question, *args, on_error="return")
        for answer in found.values():
            if isinstance(answer, Exception):
                raise answer
        if not found:
            raise ValueError(_no_worker(self._settings.address))
        return found

    def _advise(self) -> None:
        if len(self._ended) < 2 * self.at_once(1):
            return
        mean = sum(self._ended) / len(self._ended)
        if 0 < mean < _SHORT_SHARD_SECONDS:
            logging.getLogger("lacuna.dask").warning(
                "A shard was %.1f s of work; with %d times as many --shard-images the workers wait less",
                mean,
                math.ceil(_SHORT_SHARD_SECONDS / mean),
            )

    def _close_cluster(self) -> None:
        if self._cluster is not None:
            with suppress(Exception):
                self._cluster.close(timeout=_CONNECT_SECONDS)


def keep_previews(previews: Sequence[tuple[str, bytes]], *, folder: Path) -> None:
    """Put previews that a worker made into the run's folder, the descriptions, which make them count, last."""
    target = Location(folder)
    for name, data in sorted(previews, key=lambda item: item[0].endswith(".json")):
        target.join(name).write_bytes_atomic(data)


def worker_environments(settings: DaskSettings, *, device: str, gpus: Sequence[str]) -> list[dict[str, str]]:
    """Return what to set for each local process: its threads, and the one GPU that it sees.

    gpus: as CUDA_VISIBLE_DEVICES names them, () = none. Raises ValueError for more workers than GPUs.
    """
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "VIPS_CONCURRENCY"), str(settings.threads))
    if device == "cpu" or not gpus:
        return [threads] * settings.workers
    if settings.workers > len(gpus):
        raise ValueError(
            f"--workers {settings.workers}: there are {len(gpus)} GPUs here, and each is for one worker process; use "
            f"--workers {len(gpus)}, or --device cpu"
        )
    if ":" in device:
        raise ValueError(f"--device {device}: every worker process sees one GPU; use --device cuda")
    return [{**threads, "CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus[: settings.workers]]


def _gpus(device: str) -> list[str]:
    if device == "cpu":
        return []
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return named.split(",")[:count] if named else [str(index) for index in range(count)]


def local_cluster(settings: DaskSettings, *, device: str) -> SpecCluster:
    """Return a cluster of processes on this machine, to be closed by the caller."""
    place = {"host": "127.0.0.1", "protocol": "tcp://", "dashboard": False}
    options = {**place, "nthreads": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL}
    environments = worker_environments(settings, device=device, gpus=_gpus(device))
    with dask.config.set(_UNWATCHED):
        return SpecCluster(
            # Its web server, which cannot be left out, on a free port: many runs may share a machine.
            scheduler={"cls": Scheduler, "options": {**place, "port": 0, "dashboard_address": "127.0.0.1:0"}},
            workers={
                number: {"cls": Nanny, "options": {**options, "env": environment}}
                for number, environment in enumerate(environments)
            },
            silence_logs=logging.CRITICAL,
            name="lacuna",
        )


def _connect(cluster: Any) -> Client:
    """Return a client of a cluster or address with at least one worker."""
    try:
        client = Client(cluster, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise ValueError(f"No Dask scheduler answers at {cluster} ({error}); start one by `dask scheduler`") from error
    try:
        client.wait_for_workers(1, timeout=_FIRST_WORKER_SECONDS)
    except TimeoutError:
        client.close()
        raise ValueError(_no_worker(cluster)) from None
    return client


def _no_worker(address: Any) -> str:
    return (
        f"The scheduler at {address} has no workers; start one for each GPU, or for each core, by "
        f"`dask worker {address} --nworkers 1 --nthreads 1`"
    )


def _hear(event: tuple[float, dict[str, Any]]) -> None:
    _, news = event
    announce(str(news["event"]), int(news["count"]), shard=str(news["shard"]))


@contextmanager
def _explained(pool: DaskPool) -> Iterator[None]:
    """Turn what the client of Dask raises into errors that say what to do, and that a task may retry or not."""
    try:
        yield
    except KilledWorker as error:
        raise WorkersGoneError(
            f"{error.allowed_failures + 1} workers died one after the other over the same pictures, mostly for lack "
            "of memory; take fewer by --shard-images, or more memory per worker"
        ) from None
    except ClosedClientError:
        raise WorkersGoneError("The Dask scheduler is gone; start it and its workers, then run again") from None
    except CancelledError as error:
        if pool._closing:
            raise WorkersGoneError("The run was ended before this was done; run again to go on") from None
        raise SchedulerLostError(f"The connection to the Dask scheduler was lost ({error}); run again") from None
