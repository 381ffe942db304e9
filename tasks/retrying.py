"""Which faults are worth another attempt: those of networks and busy stores, never those of files, rights or code."""

from __future__ import annotations

import errno
import http.client
from collections.abc import Callable, Iterator
from typing import Any

from prefect.tasks import exponential_backoff

_TRANSIENT_ERRNO = frozenset(
    {
        errno.EBUSY,  # what s3fs makes of 503 and SlowDown
        errno.EREMOTEIO,  # and of 500
        errno.EIO,  # and of a code it does not know
        errno.EAGAIN,
        errno.ECONNRESET,
        errno.ECONNREFUSED,
        errno.ECONNABORTED,
        errno.EPIPE,
        errno.ETIMEDOUT,
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.ESTALE,
    }
)
# Named by module and class, so that knowing them does not mean importing every client of every store.
_TRANSIENT_NAMES = frozenset(
    {
        "botocore.exceptions.HTTPClientError",
        "botocore.exceptions.ConnectionError",
        "botocore.exceptions.IncompleteReadError",
        "aiohttp.client_exceptions.ClientError",
        "fsspec.exceptions.FSTimeoutError",
    }
)
_PERMANENT = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed a little later; looks through the causes of the error."""
    return any(_is_transient_itself(link) for link in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    for _ in range(10):
        if link is None or isinstance(link, _PERMANENT):
            return
        yield link
        link = link.__cause__


def _is_transient_itself(error: BaseException) -> bool:
    if isinstance(error, (TimeoutError, ConnectionError, http.client.IncompleteRead)):
        return True
    if isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNO:
        return True
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
    return not names.isdisjoint(_TRANSIENT_NAMES)


def retry_if_transient(task: Any, task_run: Any, state: Any) -> bool:
    """Condition of a task's retries: whether the exception that ended this attempt is transient."""
    outcome = state.result(raise_on_failure=False)
    return isinstance(outcome, BaseException) and is_transient(outcome)


# At 1, 2, 4 and 8 seconds, each stretched by up to half at random so that workers do not return in step.
BACKOFF: Callable[[int], list[float]] = exponential_backoff(backoff_factor=1.0)
ATTEMPTS_AGAIN = 4
JITTER = 0.5
