"""`lacuna inspect`: the stages up to the plan, as plain functions, without the workflow engine and without output."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from typing import Any

import flows.prefect_settings  # noqa: F401 - the task modules import prefect
from flows.commands.console import EXIT_NOTHING_DONE, EXIT_OK, EXIT_SOME_FAILED, print_json
from flows.run_identity import code_version
from flows.run_options import check_methods
from models.types import to_json
from storage.locations import Location
from storage.shards import Shard
from tasks.cleaning import forget_working_copies, working_copies_of
from tasks.detect import detect
from tasks.device import identify
from tasks.estimate import estimate
from tasks.given_masks import check_masks, list_masks, masks_of_shard
from tasks.ingest import ingest
from tasks.jobs import RestoreOptions, ShardJob
from tasks.route import route
from tasks.sources import close_source
from tasks.survey import fingerprint, survey

_COLUMNS = {
    "noise_sigma": "noise σ",
    "blur_sigma_px": "blur px",
    "jpeg_quality": "JPEG",
    "scratch_coverage": "scratches",
    "fading": "fading",
}


def run(source: str, *, options: RestoreOptions, limit: int | None, as_json: bool) -> int:
    """Look at every picture of `source`, print estimate and plan, and return the exit code."""
    check_methods(options)
    check_masks(options.masks, source=source)
    listed = list_masks(options.masks)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="lacuna-inspect-") as working:
        for shard in _limited(survey(source, options), limit):
            job = _job(source, fingerprint(source, shard, limits=options.limits), options=options, working=working)
            found += _look(replace(job, masks=masks_of_shard(shard, listed)))
    close_source(source, limits=options.limits)
    if as_json:
        print_json(found)
    else:
        _print_table(found)
    lost = sum(entry["error"] is not None for entry in found)
    return EXIT_OK if lost == 0 else EXIT_SOME_FAILED if lost < len(found) else EXIT_NOTHING_DONE


def _limited(shards: list[Shard], limit: int | None) -> list[Shard]:
    if limit is None:
        return shards
    kept: list[Shard] = []
    for shard in shards:
        room = limit - sum(len(item.members) for item in kept)
        if room > 0:
            kept.append(replace(shard, members=shard.members[:room]))
    return kept


def _job(source: str, shard: Shard, *, options: RestoreOptions, working: str) -> ShardJob:
    return ShardJob(
        run_id="inspect",
        collection="inspect",
        source=source,
        destination=Location(working).uri,
        working_root=working,
        previews=None,
        shard=shard,
        duplicates=(),
        options=options,
        identities=identify(options, code_version=code_version()),
    )


def _look(job: ShardJob) -> list[dict[str, Any]]:
    ingested = ingest(job)
    detected = detect(job, ingested)
    assessed = estimate(job, ingested, detected)
    routed = route(job, detected, assessed)
    entries: list[dict[str, Any]] = [
        {"path": item.relative_path, "page": 0, "error": f"{item.error_kind}: {item.error_text}"}
        for item in ingested.quarantined
    ]
    for record, seen, planned in zip(ingested.images, assessed, routed, strict=True):
        failure = planned.failure
        entries.append(
            {
                "path": record.relative_path,
                "page": record.page_index,
                "error": None if failure is None else f"{failure.error_kind}: {failure.error_text}",
                "estimate": to_json(seen.estimate),
                "plan": to_json(planned.plan),
            }
        )
    keys = working_copies_of(job=to_json(job), ingested=to_json(ingested), detected=to_json(detected))
    forget_working_copies(job.working_root, keys)
    return entries


def _print_table(found: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("picture", *_COLUMNS.values(), "plan")
    for entry in found:
        name = entry["path"] + (f" page {entry['page'] + 1}" if entry["page"] else "")
        if entry["error"] is not None:
            cells = [name, *[""] * len(_COLUMNS), entry["error"]]
        else:
            cells = [name, *(_number(column, entry["estimate"]) for column in _COLUMNS), entry["plan"]["reason"]]
        table.add_row(*map(Text, cells))  # names may hold what would be read as markup
    Console().print(table)


def _number(name: str, estimate: dict[str, Any]) -> str:
    value, confidence = estimate[name]["value"], estimate[name]["confidence"]
    if value is None:
        return "–"
    shown = f"{value:.2%}" if name in ("scratch_coverage", "fading") else f"{value:.1f}"
    return f"{shown} ({confidence:.0%})"
