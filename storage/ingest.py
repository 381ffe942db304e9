"""Members of an archive to image records and working copies, or to quarantine records that say why not."""

from __future__ import annotations

import hashlib
from pathlib import Path

from models.types import ImageRecord, QuarantineRecord
from storage.codecs import iter_pages
from storage.colour import profile_name
from storage.errors import IngestError
from storage.formats.page import DecodedPage
from storage.limits import IngestLimits
from storage.sources import Source, SourceMember
from storage.working_copies import WorkingCopies


def ingest_member(
    source: Source,
    member: SourceMember,
    *,
    copies: WorkingCopies,
    limits: IngestLimits,
    duplicate_of: str | None = None,
    known_sha256: str | None = None,
) -> tuple[list[ImageRecord], list[QuarantineRecord]]:
    """Decode one member into working copies: one record per page, or one quarantine record and no page at all.

    `duplicate_of` is the path of an earlier member with the same bytes (`storage.shards.find_duplicates`). known_sha256
    is that of its bytes, which may have been kept when it was taken. Transient storage faults are not caught: they are
    the caller's to retry.
    """
    sha256: str | None = None
    try:
        data: bytes | Path
        fetched: bytes | None = None
        if (path := source.local_path(member)) is not None:
            data, sha256 = path, source.sha256(member)
        elif known_sha256 is not None and (kept := copies.file(known_sha256)) is not None:
            data, sha256 = kept, known_sha256
        else:
            data = fetched = source.read(member)
            sha256 = hashlib.sha256(data).hexdigest()
        records = []
        for page in iter_pages(data, limits):
            key = copies.save_page(page, sha256=sha256)
            records.append(_record(member, page, sha256=sha256, working_copy=key, duplicate_of=duplicate_of))
        if source.is_remote and fetched is not None:
            copies.save_file(fetched, sha256=sha256)
        return records, []
    except IngestError as error:
        return [], [quarantine(member, error, sha256=sha256)]


def quarantine(member: SourceMember, error: IngestError, *, sha256: str | None = None) -> QuarantineRecord:
    """Return the record of a member that could not be ingested."""
    return QuarantineRecord(
        relative_path=member.relative_path,
        source_uri=member.source_uri,
        source_bytes=member.size or None,
        source_sha256=sha256,
        error_kind=error.kind,
        error_text=error.text,
    )


def _record(
    member: SourceMember, page: DecodedPage, *, sha256: str, working_copy: str, duplicate_of: str | None
) -> ImageRecord:
    return ImageRecord(
        image_id=sha256 if page.page_count == 1 else f"{sha256}#{page.page_index}",
        relative_path=member.relative_path,
        source_uri=member.source_uri,
        source_sha256=sha256,
        source_bytes=member.size,
        format=page.format,
        page_index=page.page_index,
        page_count=page.page_count,
        width=page.width,
        height=page.height,
        channels=page.channels,
        bits_per_sample=page.bits,
        has_alpha=page.alpha is not None,
        compression=page.compression,
        orientation=page.orientation,
        icc_name=profile_name(page.icc),
        icc_sha256=None if page.icc is None else hashlib.sha256(page.icc).hexdigest(),
        dpi_x=None if page.dpi is None else page.dpi[0],
        dpi_y=None if page.dpi is None else page.dpi[1],
        has_exif=page.exif is not None,
        has_iptc=page.iptc is not None,
        has_xmp=page.xmp is not None,
        jpeg_table_quality=page.jpeg_quality,
        duplicate_of=duplicate_of,
        working_copy=working_copy,
    )
