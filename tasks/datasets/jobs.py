"""Frozen records of a data set's run: what was asked for, one output shard to be made, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from storage.dataset_encoding import EXTENSIONS
from storage.dataset_samples import Sample
from storage.locations import Location
from tasks.jobs import Identities, RestoreOptions

LAYOUTS, INPUTS = ("tar", "folder"), ("auto", "images", "tar", "parquet")
_KEEP = "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetOptions:
    """What the user may choose about a data set.

    layout: tar (shards of samples) or folder (files under the names of the input). shard_size: samples of one output
    shard, the unit of work. format: keep (that of every picture) or png, webp, jpeg; quality: 1 to 100 of the last two.
    input: what the source is, auto = by looking. column: of paths or URLs in a Parquet list. member: extension of the
    picture in a tar sample. restore: as for an archive; what concerns its catalogue and report has no effect.
    """

    layout: str = "tar"
    shard_size: int = 1000
    format: str = _KEEP
    quality: int | None = None
    input: str = "auto"
    column: str | None = None
    member: str | None = None
    restore: RestoreOptions = field(default_factory=RestoreOptions)

    @property
    def converts(self) -> bool:
        return self.format != _KEEP


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetJob:
    """One output shard. working_root: local folder of this machine for what can be made again."""

    destination: str
    working_root: str
    number: int
    samples: tuple[Sample, ...]
    options: DatasetOptions
    identities: Identities

    @property
    def root(self) -> Location:
        return Location(self.destination)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardOutcome:
    """What became of an output shard, as counts that can be added up; what a shard was found to be counts the same.

    estimates: name to (sum, how many were measured). unavailable: samples whose store did not answer: the next run
    takes the shard up again. seconds: of making it. failures: the first few, as (source, kind, text).
    """

    number: int
    samples: int
    statuses: dict[str, int]
    methods: dict[str, int]
    errors: dict[str, int]
    estimates: dict[str, tuple[float, int]]
    source_bytes: int
    output_bytes: int
    pixels: int
    unavailable: int
    seconds: float
    failures: tuple[tuple[str, str, str], ...] = ()
    kept: bool = False


def check_options(options: DatasetOptions) -> None:
    """Raise ValueError for options that do not go together, naming the option."""
    for name, value, allowed in (
        ("--layout", options.layout, LAYOUTS),
        ("--input", options.input, INPUTS),
        ("--format", options.format, (_KEEP, *EXTENSIONS)),
    ):
        if value not in allowed:
            raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(allowed)}")
    if options.shard_size < 1:
        raise ValueError(f"--shard-size: got {options.shard_size}, expected at least 1")
    if options.quality is not None and options.format not in ("webp", "jpeg"):
        raise ValueError(f"--quality: it is for --format webp or jpeg, got --format {options.format}; leave it out")
    if options.quality is not None and not 1 <= options.quality <= 100:
        raise ValueError(f"--quality: got {options.quality}, expected 1 to 100")
