"""Last stage: the HTML report of a run from the catalogue's rows, beside the catalogue."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.catalogue import query
from storage.locations import Location
from tasks.reporting.previews import PreviewFolder, PreviewProvider
from tasks.reporting.report import render_report
from tasks.reporting.shared_previews import SharedPreviews
from tasks.retrying import NETWORK_FAULTS

REPORT_PATH = "report/report.html"
PREVIEWS_PATH = "report/previews"
_PUT_AT_ONCE = 8


def write_report(
    *, destination: str, collection: str, run_id: str | None, previews: str, summary: Mapping[str, Any]
) -> str:
    """Write the report on a collection and return its URI; the files of a remote one are made here and put there.

    run_id: only on what this run restored. None: on all current pictures, whichever run restored them.
    """
    target = Location(destination).join(REPORT_PATH)
    wanted = {"collection": collection} | ({} if run_id is None else {"run_id": run_id})
    chosen = "WHERE " + " AND ".join(f"{name} = '" + value.replace("'", "''") + "'" for name, value in wanted.items())
    if target.is_local:
        _render(destination, target.local_path, chosen=chosen, previews=Path(previews), summary=summary)
        return target.uri
    with tempfile.TemporaryDirectory(prefix="lacuna-report-") as folder:
        local = Path(folder) / "report.html"
        kept = SharedPreviews(PreviewFolder(Path(previews)), Location(destination).join(PREVIEWS_PATH))
        _render(destination, local, chosen=chosen, previews=kept, summary=summary)
        kept.keep()
        places = {file: file.relative_to(folder).as_posix() for file in Path(folder).rglob("*") if file.is_file()}
        del places[local]
        with ThreadPoolExecutor(_PUT_AT_ONCE) as pool:  # a large report has a file for every picture
            list(pool.map(lambda file: Location(destination).join("report", places[file]).put_file(file), places))
        target.put_file(local)  # last, so that it never shows pictures that are not there yet
    return target.uri


def _render(
    destination: str, target: Path, *, chosen: str, previews: PreviewProvider | Path, summary: Mapping[str, Any]
) -> None:
    root = Location(destination).join("catalogue")
    images = query(root, f"SELECT * FROM images {chosen} ORDER BY relative_path, page_index").to_pylist()
    steps = query(root, f"SELECT * FROM steps {chosen} ORDER BY relative_path, image_id, step_index").to_pylist()
    metrics = query(root, f"SELECT * FROM metrics {chosen}").to_pylist()
    target.parent.mkdir(parents=True, exist_ok=True)
    render_report(images=images, steps=steps, metrics=metrics, previews=previews, summary=summary, destination=target)


@task(
    name="report",
    cache_policy=NO_CACHE,
    **NETWORK_FAULTS,
)
def render_run(*, destination: str, collection: str, run_id: str | None, previews: str, summary: dict[str, Any]) -> str:
    """Task over `write_report`."""
    return write_report(
        destination=destination, collection=collection, run_id=run_id, previews=previews, summary=summary
    )
