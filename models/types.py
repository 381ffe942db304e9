"""Frozen records that travel between ingest, models, catalogue and report.

References travel, pixels do not: every record here is small, hashable and turns into plain JSON values with
`to_json` and back with `from_json`, so that a task result can be cached and read by another process.
"""

from __future__ import annotations

import types as builtin_types
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

RecordT = TypeVar("RecordT")

ImageFormat = Literal["jpeg", "png", "tiff", "webp", "jp2"]
# Ids of the methods that treat noise, blur or compression, in the order of application.
Treatment = tuple[str, ...]
# How plans are made unless another policy is asked for.
DEFAULT_POLICY = "predicted-gain"
# Methods that exist a second time as the mean over flips and turns of the picture, under their id with a plus.
SELF_ENSEMBLED = ("denoise", "degrain", "deblock", "deblur", "all-in-one", "fill", "upscale-x2", "upscale-x4")
# Methods that mix others and exist a second time as well: as mixtures of those means.
MIXTURES = ("soft", "regional")
# Side of the largest tile: 1024 px are two of 560 or three of 384, and their networks' maps stay in the cache.
TILE_PX = 576
Status = Literal["restored", "untouched", "review", "quarantined", "failed"]


def thorough_id(method_id: str) -> str:
    """Return the id of a method's mean over flips and turns, as the literature writes it: EDSR, EDSR+."""
    return f"{method_id}+" if method_id in SELF_ENSEMBLED or method_id in MIXTURES else method_id


def plain_id(method_id: str) -> str:
    """Return the id of the method behind `thorough_id`'s, or the id itself."""
    return method_id.removesuffix("+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One page of one image file as it was ingested; everything needed to find, name and rewrite it.

    `image_id` is the sha256 of the file's bytes, followed by ``#<page_index>`` for the pages of a multi-page file.
    `working_copy` names a ``.npy`` file (H, W) or (H, W, 3), uint8 or uint16, sRGB, upright.
    """

    image_id: str
    relative_path: str
    source_uri: str
    source_sha256: str
    source_bytes: int
    format: ImageFormat
    page_index: int
    page_count: int
    width: int
    height: int
    channels: int
    bits_per_sample: int
    has_alpha: bool
    compression: str | None
    orientation: int
    icc_name: str | None
    icc_sha256: str | None
    dpi_x: float | None
    dpi_y: float | None
    has_exif: bool
    has_iptc: bool
    has_xmp: bool
    jpeg_table_quality: float | None
    duplicate_of: str | None
    working_copy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineRecord:
    """A member that could not be ingested: which one, what kind of error, and what it said."""

    relative_path: str
    source_uri: str
    source_bytes: int | None
    source_sha256: str | None
    error_kind: str
    error_text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimated:
    """A measured quantity and how far to trust it: `confidence` in [0, 1]; `value` None = could not be measured."""

    value: float | None
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DegradationEstimate:
    """What is wrong with a picture, each quantity with a confidence.

    noise_sigma: standard deviation of the noise in 8-bit grey levels (0-255 scale).
    blur_sigma_px: standard deviation of an equivalent Gaussian blur, in pixels.
    jpeg_quality: IJG quality 1-100 of the strongest JPEG compression seen; 100 = no trace of one.
    effective_scale: share of the pixel resolution that carries detail, in (0, 1]; 0.5 = could be halved without loss.
    scratch_coverage: share of the pixels under scratches, cracks, dust or holes, in [0, 1].
    fading: lost tonal range, in [0, 1]; 0 = the full range is used.
    colour_cast: distance of the neutral axis from grey, in CIELAB units.
    """

    noise_sigma: Estimated
    blur_sigma_px: Estimated
    jpeg_quality: Estimated
    effective_scale: Estimated
    scratch_coverage: Estimated
    fading: Estimated
    colour_cast: Estimated


@dataclass(frozen=True, slots=True, kw_only=True)
class ScratchReport:
    """Result of scratch detection: `mask` names an 8-bit PNG (255 = damaged) or is None when nothing was found.

    threshold: None where nothing was searched. given: the mask came with the picture, and is followed as it is.
    """

    coverage: float
    components: int
    confidence: float
    threshold: float | None
    mask: str | None
    mask_sha256: str | None
    detector: str
    given: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One method to be applied: `strength` in [0, 1], 0 = no change; `reason` is a sentence for the curator."""

    method_id: str
    strength: float
    parameters: tuple[tuple[str, float], ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """What a treatment is expected to bring: dB of PSNR, and how far off that may be (a standard deviation).

    shown: a trial of it took away what it is for, whatever was estimated.
    """

    treatment: Treatment
    gain_db: float
    uncertainty_db: float
    shown: bool = False

    @property
    def beyond_doubt(self) -> bool:
        """Whether more is expected than it may be off by."""
        return self.beyond(1.0)

    def beyond(self, deviations: float) -> bool:
        """Whether more is expected than so many times what it may be off by."""
        return self.gain_db > deviations * self.uncertainty_db


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will be done to one image, in order, and why. No steps = leave untouched.

    alternatives: what every treatment was expected to bring, best first, whichever was chosen; () = not predicted.
    """

    steps: tuple[Step, ...]
    reason: str
    policy: str
    needs_review: bool = False
    alternatives: tuple[Gain, ...] = ()

    @property
    def untouched(self) -> bool:
        return not self.steps


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutcome:
    """What one executed step did: seconds of compute and the share of pixels it changed.

    parts_sha256s: of the weights of other methods that have a share in its result.
    """

    image_id: str
    step_index: int
    method_id: str
    strength: float
    reason: str
    weights_sha256: str | None
    device: str
    precision: str
    seconds: float
    changed_fraction: float
    accepted: bool
    note: str
    parts_sha256s: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRecord:
    """Where the result of one image lies. `output_uri` None = nothing was written (failed or quarantined).

    written_at: when, as ISO 8601 in UTC; a file that is written again has the same bytes and another such moment.
    """

    image_id: str
    relative_path: str
    status: Status
    output_uri: str | None
    output_sha256: str | None
    mask_uri: str | None
    error_kind: str | None
    error_text: str | None
    seconds: float
    written_at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRecord:
    """One measured number about one image. `stage`: before, after or change."""

    image_id: str
    stage: str
    metric: str
    value: float
    higher_is_better: bool


def to_json(record: Any) -> Any:
    """Return `record` (a record, or a list, tuple or mapping of them) as plain JSON values."""
    if is_dataclass(record) and not isinstance(record, type):
        return {field.name: to_json(getattr(record, field.name)) for field in fields(record)}
    if isinstance(record, Mapping):
        return {str(key): to_json(value) for key, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [to_json(item) for item in record]
    return record


def from_json(record_type: type[RecordT], data: Mapping[str, Any]) -> RecordT:
    """Rebuild a record of `record_type` from what `to_json` made; a missing or unknown field raises TypeError."""
    hints = get_type_hints(record_type)
    unknown = set(data) - set(hints)
    if unknown:
        raise TypeError(f"{record_type.__name__}: unknown field(s) {sorted(unknown)}; known: {sorted(hints)}")
    return record_type(**{name: _decode(hints[name], value) for name, value in data.items()})


def _decode(hint: Any, value: Any) -> Any:
    origin = get_origin(hint)
    if value is None or hint is Any:
        return value
    if origin in (Union, builtin_types.UnionType):
        return _decode(next(arg for arg in get_args(hint) if arg is not type(None)), value)
    if isinstance(hint, type) and is_dataclass(hint):
        return from_json(hint, value)
    if origin is tuple:
        arguments = get_args(hint)
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_decode(arguments[0], item) for item in value)
        return tuple(_decode(argument, item) for argument, item in zip(arguments, value, strict=True))
    return value
