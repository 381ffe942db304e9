"""Errors of the storage layer: each says what happened, what was got, what was expected, and the next step."""

from __future__ import annotations

from typing import Literal

PatienceLeft = Literal["unknown", "some", "none for the object", "none for the store"]


class StorageError(Exception):
    """Base of every error this package raises on purpose; only StoreUnavailableError is worth a retry."""


class StoreUnavailableError(StorageError):
    """A store does not answer, or is too busy, for now. No OSError, which zipfile takes for a broken archive.

    `patience` says what is left of the budgets in `storage.patience`, in the process that asked; unknown where nobody
    kept count.
    """

    def __init__(self, text: str, *, patience: PatienceLeft = "unknown") -> None:
        super().__init__(text)
        self.patience: PatienceLeft = patience


class AccessRefusedError(StorageError, PermissionError):
    """A store refuses the credentials, or there are none."""


class ObjectMissingError(StorageError, FileNotFoundError):
    """A store has no such object or bucket."""


class ObjectChangedError(StorageError):
    """An object was replaced while it was being read."""


# The kind of an object that its store did not give while it gave others: every later run asks for it again.
UNAVAILABLE = "unavailable"


class IngestError(StorageError):
    """A file or archive that cannot be ingested; `kind` is the short, stable name that goes into the catalogue.

    Kinds: truncated, not_an_image, unsupported_format, unsupported_colour, unsupported_depth, unsupported_animation,
    too_many_pixels, too_many_pages, decode_failed, unsafe_path, unsafe_name, link, not_a_file, duplicate_name,
    too_large, too_many_members, compression_ratio, encrypted, corrupt_archive, missing, unreadable, changed,
    unavailable. The last says nothing of the file: its store did not give it for as long as is allowed.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text

    def __reduce__(self) -> tuple[type[IngestError], tuple[str, str]]:
        return (IngestError, (self.kind, self.text))

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


class OutputError(StorageError):
    """A result cannot be written where or how it was asked for."""


class MaskError(StorageError):
    """A mask of damage that was given for a picture cannot be used for it."""

    kind = "bad_mask"


class NoRoomError(StorageError):
    """The disk is full, or a quota is used up: nothing more can be written, whichever picture it is."""


class CatalogueError(StorageError):
    """The catalogue is missing, a row does not fit its schema, or a query is wrong."""
