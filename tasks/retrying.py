"""Which faults are worth another attempt, and for how long: those of networks and busy stores, never others.

Only tasks wait. Below them a request is tried four times within seconds (see `storage.locations`), above them nothing
is tried again, and how long a task goes on is for the clocks of `storage.patience` to say, which all tasks share. So
neither requests nor seconds multiply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.faults import is_transient, patience_left
from storage.room import out_of_room

WorkT = TypeVar("WorkT", bound=Callable[..., Any])
# Faults nobody keeps the time of, such as those of a network folder, are tried again this often.
ATTEMPTS_AGAIN = 4
# In seconds, the last of them from then on; each is changed by up to half so that workers do not return in step.
PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
JITTER = 0.5
_UNTIL_TOLD = 1_000_000


def retry_if_transient(task: Any, task_run: Any, state: Any) -> bool:
    """Condition of a task's retries: whether what ended this attempt may pass, and there is patience left for it."""
    outcome = state.result(raise_on_failure=False)
    if not isinstance(outcome, BaseException) or not is_transient(outcome):
        return False
    left = patience_left(outcome)
    return int(task_run.run_count) <= ATTEMPTS_AGAIN if left == "unknown" else left == "some"


def ends_the_run(outcome: object) -> bool:
    """Whether what a task ended with says that nothing more can be begun: a full disk, or a store gone for too long."""
    if not isinstance(outcome, BaseException):
        return False
    return patience_left(outcome) == "none for the store" or out_of_room(outcome)


# How every task that reads or writes a store is tried again, as arguments of `task`.
NETWORK_FAULTS: dict[str, Any] = {
    "retries": _UNTIL_TOLD,
    "retry_delay_seconds": list(PAUSES),
    "retry_jitter_factor": JITTER,
    "retry_condition_fn": retry_if_transient,
}


def patiently(work: WorkT, *, name: str) -> WorkT:
    """Return a task over `work` that waits for a store; nothing of it is cached."""
    return cast(WorkT, task(name=name, cache_policy=NO_CACHE, persist_result=False, **NETWORK_FAULTS)(work))
