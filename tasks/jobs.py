"""Frozen records that pass between the stages of one shard: what to do, and what every stage found.

A job names everything its results depend on, so that cache keys can be made of it and nothing else. Results of stages
are aligned with `Ingested.images`: the n-th entry of each is about the n-th image.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from models.types import (
    DEFAULT_POLICY,
    TILE_PX,
    DegradationEstimate,
    Gain,
    ImageRecord,
    MetricRecord,
    OutputRecord,
    Plan,
    QuarantineRecord,
    ScratchReport,
    StepOutcome,
)
from storage.limits import IngestLimits
from storage.locations import Location
from storage.shards import Shard
from storage.working_copies import WorkingCopies


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions:
    """What the user may choose about one run; every default is safe for originals one knows nothing about.

    collection: name in the catalogue, None = the source's own. policy: how plans are made, one of
    `models.routing.policies`. thorough: the mean over flips and turns of what is learned. budget_gmac: what a treatment
    may take at most, in giga multiply-accumulates per megapixel, None = anything. allow_colour: whether fading
    and casts may be corrected. scratch_threshold: probability from which on damage is filled, however unsure, for
    pictures that are known to be scratched; None = the detector's own, at which clean ones stay untouched. masks:
    folder of masks of damage under the pictures' names; one with a mask is filled there, not searched. strengths:
    method id to a strength in [0, 1], 0 = never use it. fit_iterations: how many iterations a method that learns from
    the picture itself may take at most, None = its own number. reference: clean originals under the same relative paths
    (any suffix), to measure against. shard_images, shard_bytes: about how much is one unit of work. workers: shards in
    progress at once, so that decoding and writing overlap with computing. incremental: only what is new or changed
    since the catalogue's state. retry: only images that failed or were quarantined, with one of these kinds of error,
    () = any. only: only these files, changed or not. stop_at: when to begin no further shard, HH:MM of this machine's
    clock or ISO 8601.
    """

    collection: str | None = None
    policy: str = DEFAULT_POLICY
    thorough: bool = False
    budget_gmac: float | None = None
    allow_colour: bool = False
    fill_method: str = "fill"
    scratch_threshold: float | None = None
    masks: str | None = None
    strengths: tuple[tuple[str, float], ...] = ()
    fit_iterations: int | None = None
    device: str = "auto"
    precision: str = "auto"
    tile: int = TILE_PX
    seed: int = 0
    shard_images: int = 32
    shard_bytes: int = 512 * 2**20
    workers: int = 2
    reference: str | None = None
    write_report: bool = True
    incremental: bool = False
    retry: tuple[str, ...] | None = None
    only: tuple[str, ...] | None = None
    stop_at: str | None = None
    limits: IngestLimits = field(default_factory=IngestLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identities:
    """What computed the results: sha256s of the weights, resolved device and number format, version of the program.

    detector_settings: the thresholds of the scratch detector, which stand on its card and not in its weights.
    """

    detector: str
    estimator: str
    methods: tuple[tuple[str, str | None], ...]
    device: str
    precision: str
    code_version: str
    gains: str = ""
    detector_settings: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardJob:
    """Everything the stages of one shard need. `working_root` and `previews` are local folders of this machine.

    duplicates: (path, path of the first member with the same bytes) for members of this shard.
    reference_sha256: over names, sizes and times of the reference files; None without a reference. masks: what was
    given for members of this shard, as (path of the picture, path below `options.masks`, what its
    listing says of the content).
    """

    run_id: str
    collection: str
    source: str
    destination: str
    working_root: str
    previews: str | None
    shard: Shard
    duplicates: tuple[tuple[str, str], ...]
    options: RestoreOptions
    identities: Identities
    reference_sha256: str | None = None
    masks: tuple[tuple[str, str, str], ...] = ()

    @property
    def copies(self) -> WorkingCopies:
        return WorkingCopies(self.working_root)

    @property
    def images_root(self) -> Location:
        """Where restored files go: the source's tree, below `images`, so that no folder of it can meet ours."""
        return Location(self.destination).join("images")

    @property
    def catalogue_root(self) -> Location:
        return Location(self.destination).join("catalogue")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """Images of a shard, and the members that are none."""

    images: tuple[ImageRecord, ...]
    quarantined: tuple[QuarantineRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a stage has nothing to say about one image."""

    stage: str
    error_kind: str
    error_text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Detected:
    """Scratches of one image, or why there is no answer."""

    scratches: ScratchReport | None
    failure: Failure | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessed:
    """Estimate of one image and what every treatment is expected to bring it, or why there is no answer."""

    estimate: DegradationEstimate | None
    gains: tuple[Gain, ...] = ()
    failure: Failure | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """Plan of one image; None when an earlier stage failed."""

    plan: Plan | None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """Where the result of one image lies, and what its steps did."""

    output: OutputRecord
    steps: tuple[StepOutcome, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Numbers about one image."""

    metrics: tuple[MetricRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSummary:
    """What became of one shard: images by status, and the members that are no images."""

    shard_id: str
    restored: int = 0
    untouched: int = 0
    review: int = 0
    quarantined: int = 0
    failed: int = 0
    failures: tuple[tuple[str, str, str], ...] = ()

    @property
    def images(self) -> int:
        return self.restored + self.untouched + self.review + self.quarantined + self.failed
