"""Fixity: whether every output still exists and holds the bytes that the catalogue recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from storage.catalogue import connect
from storage.errors import StorageError
from storage.locations import Location
from storage.outputs import mask_path, verify_output

_AT_ONCE = 8
_GROUP = 256
# Of several rows of one file, left by runs with other settings, the output is that of the last. It is one file if the
# collection is the same, or the source is; files of one name from two sources are two, of which one is lost. Of a
# collection that moved, the newest row comes first.
_OUTPUTS = """
SELECT collection, relative_path, output_sha256, mask_uri IS NOT NULL AS has_mask, page_index, page_count FROM images
WHERE status NOT IN ('failed', 'quarantined')
QUALIFY row_number() OVER (
    PARTITION BY collection, relative_path, page_index ORDER BY finished_at DESC NULLS LAST, run_id DESC
) = 1
    AND row_number() OVER (
    PARTITION BY source_uri, relative_path, page_index ORDER BY finished_at DESC NULLS LAST, run_id DESC
) = 1
    AND output_sha256 IS NOT NULL
ORDER BY relative_path, collection, page_index, finished_at DESC NULLS LAST
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """One output or mask that is not what was written, by its path below the destination.

    collection, relative_path: the source file it was made from. problem: missing, changed or unreadable.
    """

    path: str
    collection: str
    relative_path: str
    problem: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FixityReport:
    """What a check found: outputs and masks checked, those intact, what is wrong with the others.

    unrecorded: how many files lie among the outputs that no row of the catalogue knows.
    """

    destination: str
    checked: int
    intact: int
    damaged: tuple[Damage, ...]
    unrecorded: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Expected:
    path: str
    collection: str
    relative_path: str
    sha256: str | None


def check_outputs(destination: str, *, progress: Callable[[int, int], None] = lambda done, total: None) -> FixityReport:
    """Read every output below `destination` and compare it with the catalogue; masks are only looked for.

    progress: called with (checked, of how many). Nothing is written. Raises CatalogueError when there is no catalogue.
    """
    root = Location(destination)
    expected = list(_expected(root))
    listed = set(root.list("images")) | set(root.list("masks"))
    damaged: list[Damage] = []
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fixity") as pool:
        for start in range(0, len(expected), _GROUP):
            group = expected[start : start + _GROUP]
            damaged += [found for found in pool.map(lambda item: _check(root, item, listed), group) if found]
            progress(start + len(group), len(expected))
    return FixityReport(
        destination=root.uri,
        checked=len(expected),
        intact=len(expected) - len(damaged),
        damaged=tuple(damaged),
        unrecorded=len(listed - {item.path for item in expected}),
    )


def _expected(root: Location) -> Iterator[_Expected]:
    """Yield what should be there, by its path below the destination, so that one that was moved can be checked too."""
    with connect(root.join("catalogue"), tables=("images",)) as connection:
        rows = connection.sql(_OUTPUTS).to_arrow_table().to_pylist()
    seen = set()
    for row in rows:
        origin = {"collection": row["collection"], "relative_path": row["relative_path"]}
        path = f"images/{row['relative_path']}"
        if (row["collection"], path) not in seen:
            yield _Expected(path=path, sha256=row["output_sha256"], **origin)
        seen.add((row["collection"], path))
        if row["has_mask"]:
            page = row["page_index"] if (row["page_count"] or 1) > 1 else None
            yield _Expected(path=mask_path(row["relative_path"], page=page), sha256=None, **origin)


def _check(root: Location, expected: _Expected, listed: set[str]) -> Damage | None:
    if expected.path not in listed:
        return _damage(expected, "missing", "it is not there")
    if expected.sha256 is None:
        return None
    try:
        if verify_output(root.join(expected.path).uri, expected.sha256):
            return None
    except (StorageError, OSError) as error:
        return _damage(expected, "unreadable", str(error))
    return _damage(expected, "changed", f"its sha256 is not the recorded {expected.sha256[:16]}…")


def _damage(expected: _Expected, problem: str, text: str) -> Damage:
    return Damage(
        path=expected.path,
        collection=expected.collection,
        relative_path=expected.relative_path,
        problem=problem,
        text=text,
    )
