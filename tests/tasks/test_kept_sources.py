"""A source file far away is fetched once, for its sha256, and not again for decoding or for writing its result; the
result is not fetched to be measured. Their bytes go with the shard."""

from __future__ import annotations

import errno
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

from models.types import ImageRecord, OutputRecord, StepOutcome, to_json
from storage.errors import IngestError
from storage.outputs import write_output
from storage.shards import cut_shards
from tasks.cleaning import forget_working_copies, working_copies_of
from tasks.ingest import ingest
from tasks.jobs import Detected, Identities, Ingested, Restored, RestoreOptions, ShardJob
from tasks.measure import measure
from tasks.restore import unchanged_source
from tasks.sources import reopen_source
from tasks.survey import fingerprint


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


def forget(job: ShardJob, ingested: Ingested, restored: tuple[Restored, ...] = ()) -> None:
    outputs = [to_json(done) for done in restored]
    keys = working_copies_of(job=to_json(job), ingested=to_json(ingested), detected=[], restored=outputs)
    forget_working_copies(job.working_root, keys)


def restored_of(record: ImageRecord, *, job: ShardJob) -> Restored:
    pages = [(record, np.full((8, 8, 3), 7, np.uint8))]
    source = unchanged_source(record, job=job)
    uri, sha256 = write_output(pages, source=source, destination=job.images_root, keep=job.copies)
    step = StepOutcome(
        image_id=record.image_id,
        step_index=0,
        method_id="denoise",
        strength=1.0,
        reason="",
        weights_sha256=None,
        device="cpu",
        precision="float32",
        seconds=0.0,
        changed_fraction=1.0,
        accepted=True,
        note="",
    )
    output = OutputRecord(
        image_id=record.image_id,
        relative_path=record.relative_path,
        status="restored",
        output_uri=uri,
        output_sha256=sha256,
        mask_uri=None,
        error_kind=None,
        error_text=None,
        seconds=0.0,
    )
    return Restored(output=output, steps=(step,))


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


def hashed(job: ShardJob) -> ShardJob:
    shard = fingerprint(job.source, job.shard, limits=job.options.limits, keep_in=job.working_root)
    return replace(job, shard=shard)


def test_what_was_hashed_is_ingested_though_the_source_is_gone(far_away: tuple[ShardJob, Any]) -> None:
    job, files = far_away
    files.pipe(f"{job.source.removeprefix('memory:/')}/b.png", b"no picture")
    job = hashed(job_of(job.source, working_root=Path(job.working_root).parent))
    files.rm(files.find(job.source.removeprefix("memory:/")))
    ingested = ingest(job)
    assert [record.relative_path for record in ingested.images] == ["a.png"]
    assert [record.relative_path for record in ingested.quarantined] == ["b.png"]
    forget(job, ingested)
    assert list(Path(job.working_root).rglob("*.*")) == []


def test_what_changed_after_it_was_hashed_is_what_was_hashed(far_away: tuple[ShardJob, Any]) -> None:
    job, files = far_away
    job = hashed(job)
    files.pipe(files.find(job.source.removeprefix("memory:/"))[0], b"another")
    (record,) = ingest(job).images
    assert (record.source_sha256,) == job.shard.member_sha256s
    assert unchanged_source(record, job=job) == png()


def test_a_result_is_measured_though_it_cannot_be_fetched(far_away: tuple[ShardJob, Any]) -> None:
    job, files = far_away
    job = replace(job, destination=job.source.replace("kept-", "out-"))
    ingested = ingest(job)
    (record,) = ingested.images
    restored = restored_of(record, job=job)
    files.rm(files.find(job.destination.removeprefix("memory:/")))
    (measured,) = measure(job, ingested, [Detected(scratches=None, failure=None, seconds=0.0)], restored=[restored])
    assert {metric.metric for metric in measured.metrics} >= {"changed_fraction", "colour_shift_ciede2000"}
    forget(job, ingested, (restored,))
    assert list(Path(job.working_root).rglob("*.*")) == []


def test_without_room_nothing_is_kept_and_nothing_fails(
    far_away: tuple[ShardJob, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = far_away

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("storage.working_copies.os.replace", full)
        job = hashed(job)
    assert list(Path(job.working_root).rglob("*.*")) == []
    assert [record.relative_path for record in ingest(job).images] == ["a.png"]


def test_kept_bytes_that_are_damaged_are_fetched_again(far_away: tuple[ShardJob, Any]) -> None:
    job, _ = far_away
    (record,) = ingest(job).images
    (kept,) = Path(job.working_root).rglob("*.file")
    kept.write_bytes(b"")
    assert job.copies.file(record.source_sha256) is None
    assert unchanged_source(record, job=job) == png()


def test_a_file_of_this_machine_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(png())
    job = job_of(str(tmp_path / "in"), working_root=tmp_path)
    (record,) = ingest(job).images
    assert job.copies.file(record.source_sha256) is None
    assert unchanged_source(record, job=job) == tmp_path / "in" / "a.png"
