"""Which run this is: the same source, destination, options, weights and program are the same run, however often."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from models.types import to_json
from storage.catalogue import partition_value
from storage.locations import Location
from tasks.caching import STEP_VERSIONS
from tasks.jobs import Identities, RestoreOptions

_SUFFIXES = re.compile(r"\.(zip|tar|tar\.gz|tgz)$", re.IGNORECASE)
# Options that change how fast a run is or what it shows, but no pixel and no row.
_WITHOUT_EFFECT = ("workers", "write_report", "collection", "incremental", "retry", "only", "stop_at")


@lru_cache(maxsize=1)
def code_version() -> str:
    """Return the version of the program, with the commit where it runs from a checkout."""
    try:
        released = version("lacuna")
    except PackageNotFoundError:
        released = "0"
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return released
    command = ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return released
    return f"{released}+g{found.stdout.strip()}" if found.returncode == 0 else released


def collection_name(source: str, options: RestoreOptions) -> str:
    """Return the collection in the catalogue: the one asked for, else the source's own name."""
    return partition_value(options.collection or _SUFFIXES.sub("", Location(source).name))


def run_identity(source: str, destination: str, *, options: RestoreOptions, identities: Identities) -> str:
    """Return the run id: killing a run and starting it again continues it, and gives the same rows.

    The commit of the program does not count, the versions of its steps do: a change of documentation makes no new run.
    """
    chosen = {name: value for name, value in to_json(options).items() if name not in _WITHOUT_EFFECT}
    computed = {name: value for name, value in to_json(identities).items() if name != "code_version"}
    places = [Location(source).uri, Location(destination).uri]
    text = json.dumps([places, chosen, computed, STEP_VERSIONS], sort_keys=True)
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{partition_value(_SUFFIXES.sub('', Location(source).name))[:64]}-{digest[:12]}"
