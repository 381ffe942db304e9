"""Where the stages of a run are computed: in threads of this process, or by the worker processes of a Dask cluster.

The flow stays in this process either way: its tasks, their cache, their retries and the commits of the catalogue. What
differs is only which process carries out the body of a stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from prefect import Task

from flows.dask_settings import DaskSettings
from flows.run_identity import code_version
from tasks.cleaning import forget_working_copies
from tasks.device import identify
from tasks.jobs import Identities, RestoreOptions


class Placement(Protocol):
    """Carries out stages somewhere."""

    def identify(self, options: RestoreOptions) -> Identities:
        """Return what computes there; raises ValueError for a device that is not there."""
        ...

    def placed(self, stage: Task[..., Any]) -> Task[..., Any]:
        """Return the same task with a body that computes there."""
        ...

    def at_once(self, workers: int) -> int:
        """Return how many shards should be in progress now; `workers` is what the options say."""
        ...

    def check_places(self, uris: Sequence[str]) -> None:
        """Raise ValueError when one of these places is not there for it."""
        ...

    def forget(self, job: dict[str, Any], *, keys: list[str]) -> None:
        """Delete the working copies of a finished shard, by their keys."""
        ...


class ThisProcess:
    """Everything is computed where the flow runs, each shard in a thread."""

    def identify(self, options: RestoreOptions) -> Identities:
        return identify(options, code_version=code_version())

    def placed(self, stage: Task[..., Any]) -> Task[..., Any]:
        return stage

    def at_once(self, workers: int) -> int:
        return workers

    def check_places(self, uris: Sequence[str]) -> None:
        return

    def forget(self, job: dict[str, Any], *, keys: list[str]) -> None:
        forget_working_copies(job["working_root"], keys)


# Threads that run tasks get a copy of the flow's context.
_current: ContextVar[Placement | None] = ContextVar("placement", default=None)
_HERE = ThisProcess()


def placement() -> Placement:
    """Return where the flow of this context computes."""
    return _current.get() or _HERE


@contextmanager
def placed_on(settings: DaskSettings | None, *, device: str) -> Iterator[Placement]:
    """Let the stages of this block be computed as `settings` say; None = here.

    device: what the run asks for; "auto" where it is to be found out. Raises ValueError when there are no workers.
    """
    if settings is None:
        yield placement()
        return
    from flows.dask_pool import DaskPool  # imported only when asked for: the package is an extra

    with DaskPool(settings, device=device) as pool:
        token = _current.set(pool)
        try:
            yield pool
        finally:
            _current.reset(token)
