"""What killed runs leave behind: temporary files, probes, and uploads that were never finished. Never an output."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from storage.locations import Location
from storage.outputs import PROBE

# The names that whole files are written under before they get their own, those of the report and of `check_writable`
# included, and no others.
_OURS = re.compile(
    rf"(^|/)(\.[0-9a-f]{{16}}\.part|\.preview-[A-Za-z0-9_]{{8}}|\.report\.html\.\d+|{re.escape(PROBE)}\d+-\d+)$"
)
_FOLDERS = ("images/", "masks/", "catalogue/", "report/", "shards/", "samples/", "commits/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """Something that may go: a temporary file, or an unfinished upload, by its path below the destination.

    kind: temporary or upload. bytes: None for an upload, whose parts no listing shows. upload_id: of an upload.
    """

    path: str
    kind: str
    modified: datetime
    bytes: int | None = None
    upload_id: str | None = None


def find_leftovers(destination: str, *, older_than_seconds: float, now: datetime | None = None) -> Iterator[Leftover]:
    """Yield what killed runs left below `destination` and that has not changed for so long; nothing is removed.

    Raises FileNotFoundError when there is no such place.
    """
    root = Location(destination)
    if not root.exists():
        raise FileNotFoundError(f"There is no {destination}; expected a folder or URL that `lacuna restore` wrote to.")
    now = now or datetime.now(UTC)
    for entry in root.entries():
        modified = datetime.fromtimestamp(entry.modified, UTC)
        if _OURS.search(entry.path) and (now - modified).total_seconds() > older_than_seconds:
            yield Leftover(path=entry.path, kind="temporary", modified=modified, bytes=entry.size)
    for upload in root.unfinished_uploads():
        old = (now - upload.started).total_seconds() > older_than_seconds
        if old and upload.path.startswith(_FOLDERS):
            yield Leftover(path=upload.path, kind="upload", modified=upload.started, upload_id=upload.upload_id)


def remove_leftover(destination: str, leftover: Leftover) -> None:
    """Remove one; nothing happens when it is gone already. Raises ValueError for what is no leftover of ours."""
    root = Location(destination)
    if leftover.upload_id is not None:
        root.abort_upload(leftover.path, upload_id=leftover.upload_id)
    elif _OURS.search(leftover.path):
        root.join(leftover.path).delete()
    else:
        raise ValueError(f"{leftover.path} is no temporary file of this program; it stays")
