"""The beginning and the end of a data set's run: what its shards are, and what is left when all are through."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any

from flows.home import lacuna_home
from flows.run_identity import code_version
from flows.run_options import check_methods
from storage.dataset_listing import base_of
from storage.dataset_lists import list_shards, table_bytes
from storage.dataset_samples import Sample, folder_samples, kind_of, tar_samples
from storage.dataset_shards import begin_dataset, retire_after, write_statistics
from storage.errors import IngestError, OutputError
from storage.locations import Location
from storage.outputs import check_destination, check_writable
from tasks.datasets.jobs import DatasetJob, DatasetOptions, check_options
from tasks.datasets.statistics import Totals
from tasks.device import identify

_FORGOTTEN_AFTER_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSummary:
    """What became of a data set. statistics: what statistics.json holds; failures: the first few, as (source, kind,
    text); broken_shards: the first few that ended without a commit. complete: whether every sample was looked at;
    retired_shards: of a longer input before, now removed."""

    source: str
    destination: str
    input: str
    layout: str
    device: str
    precision: str
    statistics: dict[str, Any]
    statistics_uri: str
    failures: tuple[tuple[str, str, str], ...]
    broken_shards: tuple[tuple[str, str], ...]
    complete: bool
    retired_shards: int


def prepare_dataset(source: str, destination: str, options: DatasetOptions) -> DatasetJob:
    """Return what all shards have in common, without samples yet; nothing is written.

    Raises ValueError for the options, OutputError for the destination, IngestError when there is no source.
    """
    check_options(options)
    check_methods(options.restore)
    root = Location(destination)
    check_destination(base_of(source), root)
    options = replace(options, input=kind_of(source) if options.input == "auto" else options.input)
    identities = identify(options.restore, code_version=code_version())
    return DatasetJob(
        destination=root.uri,
        working_root=str(_working_root(root)),
        number=0,
        samples=(),
        options=options,
        identities=identities,
    )


def shards_of(source: str, run: DatasetJob) -> Iterator[tuple[DatasetJob, bytes | None]]:
    """Yield (job, carried columns as an Arrow stream) of one output shard after the other, as they are asked for.

    Before the first one, it is noted at the destination what is made there. Raises IngestError when the source holds
    nothing, ValueError for the column of a list, OutputError or OSError when the destination cannot be used.
    """
    numbers = count()
    for samples, carried in _samples_of(source, run):
        number = next(numbers)
        if number == 0:
            _begin(source, run)
        yield replace(run, number=number, samples=samples), carried
    if next(numbers) == 0:
        raise IngestError("empty", f"{source} holds no samples of the kind {run.options.input}; check --input.")


def _samples_of(source: str, run: DatasetJob) -> Iterator[tuple[tuple[Sample, ...], bytes | None]]:
    options, size, limits = run.options, run.options.shard_size, run.options.restore.limits
    if options.input == "parquet":
        for rows, table in list_shards(source, column=options.column, size=size):
            _check_apart(rows, run.root)
            yield tuple(rows), table_bytes(table)
        return
    if options.input == "tar":
        samples = tar_samples(source, limits=limits, member=options.member)
    else:
        samples = folder_samples(source, limits=limits)
    for group in _groups(samples, size=size):
        yield group, None


def _check_apart(samples: Iterable[Sample], root: Location) -> None:
    """Raise OutputError when a list names a picture where results go, which could overwrite it."""
    inside = next((sample.uri for sample in samples if sample.uri.startswith(f"{root.uri}/")), None)
    if inside is not None:
        raise OutputError(
            f"The list names {inside}, which lies inside the destination {root}; originals are never written to. "
            "Choose another destination."
        )


def _begin(source: str, run: DatasetJob) -> None:
    check_writable(run.destination)
    names = ("input", "layout", "shard_size", "format", "column", "member")
    settings = {name: getattr(run.options, name) for name in names}
    begin_dataset(run.root, {"source": Location(source).uri, **settings})


def _groups(samples: Iterator[Sample], *, size: int) -> Iterator[tuple[Sample, ...]]:
    while group := tuple(islice(samples, size)):
        yield group


def finish_dataset(source: str, run: DatasetJob, totals: Totals, *, complete: bool, seconds: float) -> DatasetSummary:
    """Write the statistics, and take away what a longer input left; return what became of the run."""
    root = run.root
    retired = retire_after(root, totals.shards + totals.broken) if complete else 0
    statistics = totals.statistics(seconds=seconds) | {"complete": complete and not totals.broken}
    with suppress(OSError):
        Path(run.working_root).rmdir()
    return DatasetSummary(
        source=Location(source).uri,
        destination=root.uri,
        input=run.options.input,
        layout=run.options.layout,
        device=run.identities.device,
        precision=run.identities.precision,
        statistics=statistics,
        statistics_uri=write_statistics(root, statistics),
        failures=tuple(totals.failures),
        broken_shards=tuple(totals.broken_shards),
        complete=complete,
        retired_shards=retired,
    )


def _working_root(root: Location) -> Path:
    """Return the local folder of runs into this destination, without what killed runs left in it a day ago."""
    folder = lacuna_home() / "datasets" / hashlib.sha256(root.uri.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.iterdir():
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _FORGOTTEN_AFTER_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
    return folder
