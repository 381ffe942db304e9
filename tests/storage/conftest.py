"""Fixtures of the storage tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import imagecodecs
import pytest
from small_files import LIMITS

from models.types import ImageRecord
from storage.archives import open_source
from storage.ingest import ingest_member
from storage.working_copies import WorkingCopies


@pytest.fixture(scope="session")
def adobe_rgb() -> bytes:
    return bytes(imagecodecs.cms_profile("adobergb"))


@pytest.fixture
def copies(tmp_path: Path) -> WorkingCopies:
    return WorkingCopies(tmp_path / "copies")


@pytest.fixture
def ingest(copies: WorkingCopies) -> Callable[[Path], list[ImageRecord]]:
    """Ingest one file from the folder it lies in; fails the test on quarantine."""

    def run(path: Path) -> list[ImageRecord]:
        source = open_source(str(path.parent), limits=LIMITS)
        records, quarantined = ingest_member(source, source.member(path.name), copies=copies, limits=LIMITS)
        assert not quarantined, quarantined
        return records

    return run
