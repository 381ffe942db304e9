"""What went wrong in a store: which faults pass by themselves, and one clear sentence for each.

The only place that knows the exceptions of the stores' clients, by module and class, so that knowing them does not mean
importing every client of every store.
"""

from __future__ import annotations

import errno
import http.client
import re
from collections.abc import Iterator
from contextlib import contextmanager

from storage.errors import (
    AccessRefusedError,
    ObjectChangedError,
    ObjectMissingError,
    PatienceLeft,
    StorageError,
    StoreUnavailableError,
)

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
_TRANSIENT_NAMES = frozenset(
    {
        "botocore.exceptions.HTTPClientError",
        "botocore.exceptions.ConnectionError",
        "botocore.exceptions.IncompleteReadError",
        "aiohttp.client_exceptions.ClientError",
        "fsspec.exceptions.FSTimeoutError",
    }
)
_NO_CREDENTIALS = frozenset(
    {
        "botocore.exceptions.NoCredentialsError",
        "botocore.exceptions.PartialCredentialsError",
        "botocore.exceptions.CredentialRetrievalError",
        "botocore.exceptions.ProfileNotFound",
    }
)
_PERMANENT = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)
_REFUSALS = {
    "InvalidAccessKeyId": "it does not know the access key; check AWS_ACCESS_KEY_ID or the profile",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key; check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the credentials have expired; renew them",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it",
}
_CHANGED = frozenset({"PreconditionFailed", "412"})
_URL = re.compile(r"(?P<scheme>https?://)(?:[^/@\s]*@)?(?P<host>[^/\s\"']+)")


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed a little later; looks through the causes of the error."""
    return any(_is_transient_itself(link) for link in _chain(error))


def patience_left(error: BaseException) -> PatienceLeft:
    """Return what is left of the budgets for a store, as the error or a cause of it says; else "unknown"."""
    found = [link.patience for link in _chain(error) if isinstance(link, StoreUnavailableError)]
    return next((left for left in found if left != "unknown"), "unknown")


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    for _ in range(10):
        if link is None or isinstance(link, _PERMANENT):
            return
        yield link
        link = link.__cause__


def _is_transient_itself(error: BaseException) -> bool:
    if isinstance(error, (StoreUnavailableError, TimeoutError, ConnectionError, http.client.IncompleteRead)):
        return True
    if isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNO:
        return True
    return not _names(error).isdisjoint(_TRANSIENT_NAMES)


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn what a store's client raises about `uri` into one clear sentence, in the exceptions of this package.

    What is missing or refused stays a FileNotFoundError or PermissionError; faults that pass by themselves become
    StoreUnavailableError, an object replaced while it was read ObjectChangedError, all others StorageError.
    """
    try:
        yield
    except (StorageError, FileExistsError):
        raise
    except Exception as error:
        translated = _translated(error, uri)
        if translated is None:
            raise
        raise translated from error


def response_code(error: BaseException) -> str:
    """Return the code in the store's answer, such as NoSuchBucket or 412; empty when there was no answer."""
    link: BaseException | None = error
    # Also what it was raised while handling: s3fs trips over an answer 412 that comes without a message.
    for _ in range(4):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        link = None if link is None else link.__cause__ or link.__context__
    return ""


def _translated(error: Exception, uri: str) -> Exception | None:
    code, names = response_code(error), _names(error)
    if isinstance(error, FileNotFoundError):
        what = f"There is no bucket for {uri}; create it" if code == "NoSuchBucket" else f"There is no {uri}"
        return ObjectMissingError(f"{what}, or check the name.")
    if isinstance(error, PermissionError):
        reason = _REFUSALS.get(code, "these credentials are unknown or have no right to it; check them")
        return AccessRefusedError(f"The store refuses {uri}: {reason}.")
    if names & _NO_CREDENTIALS:
        text = (
            f"There are no usable credentials for {uri}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile."
        )
        return AccessRefusedError(text)
    if "s3fs.utils.FileExpired" in names or code in _CHANGED:
        return ObjectChangedError(f"{uri} was replaced while it was read; run again for the new version.")
    if _is_transient_itself(error):
        place = _URL.search(str(error))
        where = f" at {place['scheme']}{place['host']}" if place else ""
        kind = code or type(error).__name__
        return StoreUnavailableError(
            f"The store{where} could not serve {uri} ({kind}), also when asked again; "
            "check the endpoint (AWS_ENDPOINT_URL) and the network, then run again."
        )
    if isinstance(error, OSError) or any(name.startswith("botocore.") for name in names):
        kind = code or type(error).__name__
        return StorageError(f"The store refuses the request for {uri} ({kind}); check the address and its settings.")
    return None


def _names(error: BaseException) -> frozenset[str]:
    return frozenset(f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__)
