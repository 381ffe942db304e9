"""Takes the samples of an output shard through the stages, a part at a time, and lays out what is to be committed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from models.types import to_json
from storage.dataset_lists import json_rows, table_from
from storage.dataset_rows import rows_bytes
from storage.dataset_samples import Sample
from storage.dataset_shards import TarShard, commit_files, is_intact, read_commit, shard_name
from storage.errors import OutputError
from storage.locations import Location
from storage.shards import Shard
from tasks.datasets.converting import convert
from tasks.datasets.fetching import Fetched, carried_path
from tasks.datasets.identity import shard_identity
from tasks.datasets.jobs import DatasetJob, ShardOutcome
from tasks.datasets.rows import ImageResult, failed_row, outcome_of, sample_row
from tasks.detect import detect
from tasks.estimate import estimate
from tasks.ingest import ingest
from tasks.jobs import Failure, ShardJob
from tasks.restore import restore
from tasks.route import route
from tasks.sources import close_source, shared_source

# What of a shard is decoded at once: it bounds the disk for working copies, not the speed.
_PART_SAMPLES, _PART_BYTES = 64, 128 * 2**20


def find_outcome(job: DatasetJob, *, carried: bytes | None) -> ShardOutcome | None:
    """Return what became of a shard that is committed, made of the same and whole; None when it is to be made.

    One with samples that were unavailable is to be made again.
    """
    commit = read_commit(job.root, job.number)
    if commit is None or commit.identity != shard_identity(job, carried):
        return None
    outcome = _outcome_from(commit.outcome)
    if outcome is None or outcome.unavailable or not is_intact(job.root, commit):
        return None
    return replace(outcome, kept=True)


def parts_of(samples: Sequence[Sample]) -> Iterator[tuple[Sample, ...]]:
    """Yield the samples in parts that depend on nothing but their number and listed sizes."""
    part: list[Sample] = []
    for sample in samples:
        part.append(sample)
        if len(part) >= _PART_SAMPLES or sum(item.size for item in part) >= _PART_BYTES:
            yield tuple(part)
            part = []
    if part:
        yield tuple(part)


class ShardMaker:
    """One output shard being made in a local folder, from which `commit_made` takes it to its destination."""

    def __init__(self, job: DatasetJob, folder: Path, *, carried: bytes | None = None) -> None:
        self.job = job
        self._carried = None if carried is None else table_from(carried)
        # What a list says of a picture goes into its tar as well; files have it in their rows alone.
        in_tar = self._carried is not None and self._carried.num_columns and job.options.layout == "tar"
        self._labels = json_rows(self._carried) if in_tar else []
        self.ready = folder / "ready"
        self._started = time.perf_counter()
        self._rows: list[dict[str, Any]] = []
        self._used: set[str] = set()
        self._tar = TarShard(self.ready / "shards" / f"{shard_name(job.number)}.tar")

    def add(self, samples: Sequence[Sample], fetched: Sequence[Fetched], folder: Path) -> None:
        """Restore one part whose files lie in `folder`, and add its rows and outputs; the folder is used up."""
        names = [item.name for item in fetched if item.name is not None]
        results = restore_part(self.job, names, folder) if names else {}
        for sample, item in zip(samples, fetched, strict=True):
            failure = item.failure
            result = results.get(item.name or "")
            row: dict[str, Any] | None = None
            if result is not None:
                failure = result.failure
            if result is not None and failure is None:
                try:
                    row = self._placed(sample, result, folder)
                except OutputError as error:
                    failure = Failure(stage="write", error_kind="duplicate_name", error_text=str(error))
            if row is None:
                failure = failure or Failure(stage="read", error_kind="missing", error_text="nothing was read")
                row = failed_row(sample, failure, result=result, shard=shard_name(self.job.number))
            self._rows.append(row)
        shutil.rmtree(folder, ignore_errors=True)

    def finish(self) -> ShardOutcome:
        """Write the rows beside the outputs and return what became of the shard."""
        self._tar.close()
        target = self.ready / "samples" / f"{shard_name(self.job.number)}.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(rows_bytes(self._rows, carried=self._carried))
        return outcome_of(self._rows, number=self.job.number, seconds=time.perf_counter() - self._started)

    def _placed(self, sample: Sample, result: ImageResult, folder: Path) -> dict[str, Any]:
        """Put the picture of a sample and what it carries where they belong, and return its row."""
        extension = result.extension if self.job.options.converts else sample.extension or result.extension
        if extension in {part.extension for part in sample.carried}:
            raise OutputError(
                f"{sample.source} carries a member called .{extension} already, which the picture in its new format "
                "would replace; choose another --format."
            )
        members: list[tuple[str, Path | bytes]] = [(extension, result.path)]
        members += [(part.extension, carried_path(folder, sample, part)) for part in sample.carried]
        if self._labels:
            members.append(("json", self._labels[len(self._rows)]))
        in_tar = self.job.options.layout == "tar"
        key = self._free_key(sample) if in_tar else sample.key
        stem = key if in_tar else self._folder_stem(sample)
        shard = shard_name(self.job.number)
        output = f"shards/{shard}.tar!/{stem}.{extension}" if in_tar else f"images/{stem}.{extension}"
        row = sample_row(sample, result, key=key, output=output, shard=shard)
        row["members"] = [name for name, _ in members[1:]]
        for name, content in members:
            if in_tar:
                self._tar.add(f"{stem}.{name}", content)
            elif isinstance(content, Path):
                target = Location(self.ready).join("images", f"{stem}.{name}").local_path
                target.parent.mkdir(parents=True, exist_ok=True)
                content.replace(target)
        return row

    def _free_key(self, sample: Sample) -> str:
        """Return the key of a sample in its tar: its own, or with its old tar's name where two tars had the same."""
        key = sample.key if sample.key not in self._used else sample.stem
        self._used.add(key)
        return key

    def _folder_stem(self, sample: Sample) -> str:
        """Return the path of a file without extension; of a new format by the key, since the old ones told apart."""
        return sample.key if self.job.options.converts and sample.offset is None else sample.stem


def restore_part(job: DatasetJob, names: Sequence[str], folder: Path) -> dict[str, ImageResult]:
    """Take the pictures in `folder`/in through the stages of the restoring flow; return what became of each by name."""
    source = Location(folder / "in").uri
    work = ShardJob(
        run_id="dataset",
        collection="dataset",
        source=source,
        destination=Location(folder / "out").uri,
        working_root=str(folder / "working"),
        previews=None,
        shard=Shard(shard_id=shard_name(job.number), members=()),
        duplicates=(),
        options=job.options.restore,
        identities=job.identities,
    )
    try:
        members = tuple(shared_source(source, limits=job.options.restore.limits).members())
        work = replace(work, shard=replace(work.shard, members=members))
        return _through_stages(work, job)
    finally:
        close_source(source, limits=job.options.restore.limits)


def _through_stages(work: ShardJob, job: DatasetJob) -> dict[str, ImageResult]:
    ingested = ingest(work)
    detected = detect(work, ingested)
    assessed = estimate(work, ingested, detected)
    routed = route(work, detected, assessed)
    if job.options.converts:
        restored = convert(work, ingested, detected, assessed=assessed, routed=routed, options=job.options)
    else:
        restored = restore(work, ingested, detected, assessed=assessed, routed=routed)
    results = {}
    for bad in ingested.quarantined:
        failure = Failure(stage="ingest", error_kind=bad.error_kind, error_text=bad.error_text)
        results[bad.relative_path] = ImageResult(sha256=bad.source_sha256, failure=failure)
    pages = zip(ingested.images, assessed, routed, restored, strict=True)
    for name, group in groupby(pages, key=lambda page: page[0].relative_path):
        results[name] = ImageResult.of_pages(list(group))
    return results


def commit_made(job: DatasetJob, *, ready: str, outcome: ShardOutcome, carried: bytes | None) -> ShardOutcome:
    """Put a made shard in its place and commit it; doing it again changes nothing."""
    identity = shard_identity(job, carried)
    commit_files(job.root, job.number, folder=Path(ready), identity=identity, outcome=to_json(outcome))
    return outcome


def _outcome_from(found: dict[str, Any]) -> ShardOutcome | None:
    """Return the outcome in a commit; None when it was written by another version."""
    try:
        pairs = {name: (float(total), int(count)) for name, (total, count) in found["estimates"].items()}
        failures = tuple((source, kind, text) for source, kind, text in found["failures"])
        return ShardOutcome(**{**found, "estimates": pairs, "failures": failures})
    except (KeyError, TypeError, ValueError):
        return None
