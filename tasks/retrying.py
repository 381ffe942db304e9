"""Which faults are worth another attempt: those of networks and busy stores, never those of files, rights or code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect.tasks import exponential_backoff

from storage.faults import is_transient


def retry_if_transient(task: Any, task_run: Any, state: Any) -> bool:
    """Condition of a task's retries: whether the exception that ended this attempt is transient."""
    outcome = state.result(raise_on_failure=False)
    return isinstance(outcome, BaseException) and is_transient(outcome)


# At 1, 2, 4 and 8 seconds, each stretched by up to half at random so that workers do not return in step.
BACKOFF: Callable[[int], list[float]] = exponential_backoff(backoff_factor=1.0)
ATTEMPTS_AGAIN = 4
JITTER = 0.5
# How every task that reads or writes a store is tried again, as arguments of `task`.
NETWORK_FAULTS: dict[str, Any] = {
    "retries": ATTEMPTS_AGAIN,
    "retry_delay_seconds": BACKOFF,
    "retry_jitter_factor": JITTER,
    "retry_condition_fn": retry_if_transient,
}
