"""The catalogue's three tables as Arrow schemas: every column with its definition and unit in the field metadata.

Null means not measured; 0 and NaN never do. `run_id` and `collection` are hive partitions, so they are columns of what
a reader sees but not of the files. Raise SCHEMA_VERSION with every change, and only ever add nullable columns.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = "3"
PARTITIONS = ("run_id", "collection")


def _field(name: str, kind: pa.DataType, definition: str, *, unit: str = "", nullable: bool = True) -> pa.Field:
    metadata = {"definition": definition} | ({"unit": unit} if unit else {})
    return pa.field(name, kind, nullable=nullable, metadata=metadata)


def _estimate(name: str, definition: str, unit: str = "") -> list[pa.Field]:
    return [
        _field(name, pa.float64(), definition, unit=unit),
        _field(f"{name}_confidence", pa.float64(), f"How far {name} can be trusted, 0 to 1", unit="1"),
    ]


_S, _I, _F, _B = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_IDENTITY = [
    _field(
        "image_id",
        _S,
        "sha256 of the source file, plus #page in a multi-page file; of the address if the file was unreadable",
        nullable=False,
    ),
    _field("relative_path", _S, "Path of the file in its source, forward slashes", nullable=False),
    _field("source_uri", _S, "Where the file lies", nullable=False),
    _field("source_sha256", _S, "sha256 of the source file"),
    _field("source_bytes", _I, "Size of the source file", unit="byte"),
    _field("source_etag", _S, "What the store said identifies the content: of the file, or of the archive it lies in"),
    _field("source_state", _S, "present, or source_missing once a later run no longer found the file in its source"),
    _field("page_index", _I, "Page within the file, from 0"),
    _field("page_count", _I, "Pages of the file"),
    _field("duplicate_of", _S, "Path of an earlier file with the same bytes"),
]
_TECHNICAL = [
    _field("format", _S, "jpeg, png, tiff, webp or jp2, by content"),
    _field("width", _I, "Width, upright", unit="pixel"),
    _field("height", _I, "Height, upright", unit="pixel"),
    _field("channels", _I, "1 grey, 3 colour; alpha not counted"),
    _field("bits_per_sample", _I, "Depth of one sample in the file", unit="bit"),
    _field("has_alpha", _B, "Whether there is an alpha channel"),
    _field("compression", _S, "Compression of the source file"),
    _field("orientation", _I, "EXIF orientation 1-8 as found; pixels are processed and written upright"),
    _field("icc_name", _S, "Description in the ICC profile"),
    _field("icc_sha256", _S, "sha256 of the ICC profile"),
    _field("dpi_x", _F, "Horizontal resolution", unit="pixel/inch"),
    _field("dpi_y", _F, "Vertical resolution", unit="pixel/inch"),
    _field("has_exif", _B, "Whether EXIF metadata are present"),
    _field("has_iptc", _B, "Whether IPTC metadata are present"),
    _field("has_xmp", _B, "Whether XMP metadata are present"),
    _field("jpeg_table_quality", _F, "IJG quality 1-100 from the quantization tables of the source file"),
]
_DAMAGE = [
    _field("scratch_components", _I, "Connected damaged regions"),
    _field("scratch_threshold", _F, "Probability above which a pixel counts as damaged", unit="1"),
    _field("scratch_detector", _S, "Detector and version; given-… for a mask that came with the picture"),
    _field("mask_uri", _S, "Damage mask, 255 = damaged"),
    _field("mask_sha256", _S, "sha256 of the damage mask as it was kept, before the fill"),
    *_estimate("scratch_coverage", "Share of pixels under scratches, cracks, dust or holes", "1"),
    *_estimate("noise_sigma", "Standard deviation of the noise", "8-bit grey level"),
    *_estimate("blur_sigma_px", "Standard deviation of an equivalent Gaussian blur", "pixel"),
    *_estimate("jpeg_quality", "IJG quality of the strongest JPEG compression seen, 100 = no trace"),
    *_estimate("effective_scale", "Share of the pixel resolution that carries detail", "1"),
    *_estimate("fading", "Lost share of the tonal range", "1"),
    *_estimate("colour_cast", "Distance of the neutral axis from grey", "CIELAB unit"),
]
_OUTCOME = [
    _field("plan_json", _S, "Steps with strengths, parameters and reasons, as JSON"),
    _field("plan_reason", _S, "Why this plan, one sentence"),
    _field("plan_policy", _S, "Policy and version that made the plan"),
    _field("plan_alternatives_json", _S, "What every treatment was expected to bring, in dB of PSNR, as JSON"),
    _field("needs_review", _B, "Whether a person should look at it"),
    _field("step_count", _I, "Steps of the plan; 0 = left untouched"),
    _field("weights_sha256s", pa.list_(pa.field("item", _S)), "sha256 of every weights file used, in order of use"),
    _field("code_version", _S, "Version of the program", nullable=False),
    _field("device", _S, "Device that computed"),
    _field("seconds", _F, "Wall time spent on this picture", unit="second"),
    _field("output_uri", _S, "Where the result lies"),
    _field("output_sha256", _S, "sha256 of the result"),
    _field("status", _S, "restored, untouched, review, quarantined or failed", nullable=False),
    _field("error_kind", _S, "Short stable name of what went wrong"),
    _field("error_text", _S, "What went wrong, what was expected, what to do"),
    _field("shard_id", _S, "Shard the picture belongs to", nullable=False),
    _field("shard_content_sha256", _S, "sha256 over paths and contents of the shard", nullable=False),
    _field("finished_at", pa.timestamp("us", tz="UTC"), "When this row was made"),
]


def _schema(table: str, fields: list[pa.Field]) -> pa.Schema:
    return pa.schema(fields, metadata={"lacuna.table": table, "lacuna.schema_version": SCHEMA_VERSION})


IMAGES = _schema("images", [*_IDENTITY, *_TECHNICAL, *_DAMAGE, *_OUTCOME])
STEPS = _schema(
    "steps",
    [
        _field("image_id", _S, "The image the step was applied to", nullable=False),
        _field("relative_path", _S, "Path of its file in the source"),
        _field("step_index", _I, "Place in the plan, from 0", nullable=False),
        _field("method_id", _S, "Method of the registry", nullable=False),
        _field("strength", _F, "0 = no change, 1 = full effect", unit="1", nullable=False),
        _field("reason", _S, "Why this step, one sentence", nullable=False),
        _field("weights_sha256", _S, "sha256 of the weights; null for methods without"),
        _field("device", _S, "Device that computed", nullable=False),
        _field("precision", _S, "Number format of the computation", nullable=False),
        _field("seconds", _F, "Share of the compute time", unit="second", nullable=False),
        _field("changed_fraction", _F, "Share of the pixels that changed", unit="1", nullable=False),
        _field("accepted", _B, "Whether the result passed the checks and was kept", nullable=False),
        _field(
            "note",
            _S,
            "What the checks said, and what the method itself decided: its tools, or its shares",
            nullable=False,
        ),
    ],
)
METRICS = _schema(
    "metrics",
    [
        _field("image_id", _S, "The image that was measured", nullable=False),
        _field("relative_path", _S, "Path of its file in the source"),
        _field("stage", _S, "before, after or change", nullable=False),
        _field("metric", _S, "Name with its unit", nullable=False),
        _field("value", _F, "The number", nullable=False),
        _field("higher_is_better", _B, "Which way is better", nullable=False),
    ],
)
TABLES = {"images": IMAGES, "steps": STEPS, "metrics": METRICS}
