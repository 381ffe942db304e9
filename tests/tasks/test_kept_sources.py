"""A source file far away is fetched for decoding and not again for writing its result; its bytes go with the shard."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

from models.types import to_json
from storage.errors import IngestError
from storage.shards import cut_shards
from tasks.cleaning import forget_working_copies
from tasks.ingest import ingest
from tasks.jobs import Identities, Ingested, RestoreOptions, ShardJob
from tasks.restore import unchanged_source
from tasks.sources import reopen_source


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(file, "PNG")
    return file.getvalue()


def job_of(source: str, *, working_root: Path) -> ShardJob:
    options = RestoreOptions()
    members = reopen_source(source, limits=options.limits).members()
    (shard,) = cut_shards(members, target_bytes=options.shard_bytes, target_count=options.shard_images)
    identities = Identities(
        detector="d", estimator="e", methods=(), device="cpu", precision="float32", code_version="1"
    )
    return ShardJob(
        run_id="r",
        collection="c",
        source=source,
        destination=str(working_root / "out"),
        working_root=str(working_root / "copies"),
        previews=None,
        shard=replace(shard, content_sha256="0" * 64),
        duplicates=(),
        options=options,
        identities=identities,
    )


def forget(job: ShardJob, ingested: Ingested) -> None:
    forget_working_copies(job=to_json(job), ingested=to_json(ingested), detected=[])


@pytest.fixture
def far_away(tmp_path: Path) -> tuple[ShardJob, Any]:
    files, folder = fsspec.filesystem("memory"), f"/kept-{tmp_path.name}"
    files.pipe(f"{folder}/a.png", png())
    return job_of(f"memory:/{folder}", working_root=tmp_path), files


def test_what_was_ingested_is_written_though_the_source_is_gone(far_away: tuple[ShardJob, Any]) -> None:
    job, files = far_away
    ingested = ingest(job)
    (record,) = ingested.images
    files.rm(files.find(job.source.removeprefix("memory:/")))
    assert unchanged_source(record, job=job) == png()
    forget(job, ingested)
    assert list(Path(job.working_root).rglob("*.*")) == []
    with pytest.raises(IngestError, match="vanished"):
        unchanged_source(record, job=job)


def test_kept_bytes_that_are_damaged_are_fetched_again(far_away: tuple[ShardJob, Any]) -> None:
    job, _ = far_away
    (record,) = ingest(job).images
    (kept,) = Path(job.working_root).rglob("*.source")
    kept.write_bytes(b"")
    assert job.copies.source(record.source_sha256) is None
    assert unchanged_source(record, job=job) == png()


def test_a_file_of_this_machine_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(png())
    job = job_of(str(tmp_path / "in"), working_root=tmp_path)
    (record,) = ingest(job).images
    assert job.copies.source(record.source_sha256) is None
    assert unchanged_source(record, job=job) == tmp_path / "in" / "a.png"
