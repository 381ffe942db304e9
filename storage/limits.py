"""Limits that keep hostile or broken input from exhausting the machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestLimits:
    """What one file and one archive may ask for; whatever exceeds it becomes a quarantine row.

    max_pixels: pixels of one page, from the header, before anything is decoded.
    max_file_bytes: bytes of one member once unpacked.
    max_members: members of one archive or directory, pictures or not.
    max_compression_ratio: unpacked over packed bytes of one zip member larger than 1 MB, and of a whole .tar.gz.
    max_total_bytes: unpacked bytes of one archive.
    max_pages: pages of one multi-page file.
    """

    max_pixels: int = 500_000_000
    max_file_bytes: int = 4_000_000_000
    max_members: int = 1_000_000
    max_compression_ratio: float = 200.0
    max_total_bytes: int = 2_000_000_000_000
    max_pages: int = 2_000
