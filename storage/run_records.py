"""What each run was asked for and what became of it, as small JSON files beside the catalogue's tables.

<root>/runs/<collection>/<run id>/settings.json is written once; <root>/runs/<collection>/<run id>/<time>-<digest>.json
is added by every run that committed something. Both are never changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from storage.errors import CatalogueError
from storage.locations import Location

_SETTINGS = "settings.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """What a run was asked for (`settings`), and every outcome that it recorded, the oldest first."""

    collection: str
    run_id: str
    settings: Mapping[str, Any] | None
    outcomes: tuple[Mapping[str, Any], ...]


def record_settings(root: Location, *, collection: str, run_id: str, settings: Mapping[str, Any]) -> None:
    """Keep what a run was asked for; nothing happens when it is recorded already."""
    target = root.join("runs", collection, run_id, _SETTINGS)
    if not target.exists():
        target.create_exclusive(_encode(settings))


def record_outcome(root: Location, *, collection: str, run_id: str, outcome: Mapping[str, Any], identity: str) -> bool:
    """Keep what became of a run; return False, writing nothing, when the same `identity` was recorded already.

    outcome: with `finished_at`, ISO 8601 in UTC.
    """
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    folder = root.join("runs", collection, run_id)
    if any(path.endswith(f"-{digest}.json") for path in folder.list()):
        return False
    time = "".join(character for character in str(outcome["finished_at"])[:19] if character.isdigit())
    return folder.join(f"{time}-{digest}.json").create_exclusive(_encode(outcome))


def recorded_runs(root: Location) -> list[RecordedRun]:
    """Return the runs that left a record, sorted by collection and run id; raises CatalogueError for a broken one."""
    found: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for path in root.list("runs"):
        parts = path.split("/")
        if len(parts) != 4 or not parts[3].endswith(".json") or parts[3].startswith("."):
            continue
        found.setdefault((parts[1], parts[2]), {})[parts[3]] = _decode(root.join(path))
    return [
        RecordedRun(
            collection=collection,
            run_id=run_id,
            settings=files.get(_SETTINGS),
            outcomes=tuple(files[name] for name in sorted(files) if name != _SETTINGS),
        )
        for (collection, run_id), files in sorted(found.items())
    ]


def _encode(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode(
        "utf-8", "backslashreplace"
    )


def _decode(place: Location) -> Mapping[str, Any]:
    try:
        document = json.loads(place.read_bytes())
    except ValueError as error:
        raise CatalogueError(f"{place} is no JSON ({error}); remove it, it only says what a run did.") from error
    if not isinstance(document, dict):
        raise CatalogueError(f"{place} holds no JSON object; remove it, it only says what a run did.")
    return document
