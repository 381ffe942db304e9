"""Second stage: scratches, cracks, dust and holes of every image, as a mask in the working copies."""

from __future__ import annotations

import hashlib
import time
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from prefect import task

from models.types import ImageRecord, ScratchReport, from_json, to_json
from storage.formats.png import grey_png
from storage.locations import Location
from storage.working_copies import WorkingCopies
from tasks.boundary import attempt
from tasks.caching import StepKey
from tasks.device import DEVICE_LOCK, detector
from tasks.given_masks import given_as, given_mask
from tasks.ingest import load_pixels
from tasks.jobs import Detected, Ingested, ShardJob
from tasks.progress import announce
from tasks.retrying import NETWORK_FAULTS

Mask = npt.NDArray[np.bool_]


def detect(job: ShardJob, ingested: Ingested) -> tuple[Detected, ...]:
    """Look for damage in every image of the shard; aligned with its images."""
    results: list[Detected] = []
    for record in ingested.images:
        started = time.perf_counter()
        report, failure = attempt(partial(find_scratches, record, job=job), stage="detect")
        results.append(Detected(scratches=report, failure=failure, seconds=time.perf_counter() - started))
        announce("detect", 1, shard=job.shard.shard_id)
    return tuple(results)


def find_scratches(record: ImageRecord, *, job: ShardJob) -> ScratchReport:
    """Keep the mask of one image's damage as a PNG in the working copies: the one that was given, or what is found."""
    options = job.options
    masks = [(path, version) for picture, path, version in job.masks if picture == record.relative_path]
    given = given_mask(record, uri=options.masks, masks=masks, limits=options.limits)
    return _search(record, job=job) if given is None else _follow(given, record, detector=given_as(masks), job=job)


def _follow(given: Mask, record: ImageRecord, *, detector: str, job: ShardJob) -> ScratchReport:
    components = cv2.connectedComponents(given.astype(np.uint8), connectivity=8)[0] - 1
    key, sha256 = None, None
    if components:
        key, sha256 = _keep(given, record, found_by=detector, job=job)
    return ScratchReport(
        coverage=float(given.mean()),
        components=components,
        confidence=1.0,
        threshold=None,
        mask=key,
        mask_sha256=sha256,
        detector=detector,
        given=True,
    )


def _search(record: ImageRecord, *, job: ShardJob) -> ScratchReport:
    """Detect the damage of one image; its mask is grown by the blurred rim."""
    from models.scratches.detector import WEIGHTS_NAME, mask_for_filling, settings_for
    from models.scratches.detector import detect as detect_damage

    pixels = load_pixels(record, job=job)
    identities = job.identities
    network, settings = detector(identities.device), settings_for(job.options.scratch_threshold)
    with DEVICE_LOCK:
        found = detect_damage(pixels, network=network, device=identities.device, settings=settings)
    key, sha256 = None, None
    if found.components:
        threshold = job.options.scratch_threshold
        found_by = identities.detector[:12] + ("" if threshold is None else f"-{threshold:g}")
        key, sha256 = _keep(mask_for_filling(found), record, found_by=found_by, job=job)
    return ScratchReport(
        coverage=found.coverage,
        components=found.components,
        confidence=found.confidence,
        threshold=settings.thresholds.high,
        mask=key,
        mask_sha256=sha256,
        detector=f"{WEIGHTS_NAME}-{identities.detector[:12]}",
    )


def _keep(mask: Mask, record: ImageRecord, *, found_by: str, job: ShardJob) -> tuple[str, str]:
    """Write a mask into the working copies; return its key and sha256."""
    encoded = grey_png(np.where(mask, np.uint8(255), np.uint8(0)))
    key = f"masks/{record.working_copy.removesuffix('.npy')}-{found_by}.png"
    Location(job.copies.path(key)).write_bytes_atomic(encoded)
    return key, hashlib.sha256(encoded).hexdigest()


def load_mask(record: ImageRecord, scratches: ScratchReport, *, job: ShardJob) -> Mask | None:
    """Return the mask (H, W) bool of one image, detecting again when its file is gone; None when nothing was found."""
    if scratches.mask is None:
        return None
    try:
        return read_mask(job.copies, scratches.mask)
    except FileNotFoundError:
        find_scratches(record, job=job)
        return read_mask(job.copies, scratches.mask)


def read_mask(copies: WorkingCopies, key: str) -> Mask:
    """Return the mask kept under `key` as (H, W) bool, True = damaged; raises FileNotFoundError when it is gone."""
    import pyvips

    image = pyvips.Image.new_from_buffer(copies.path(key).read_bytes(), "")
    return np.asarray(image.numpy() > 127)


@task(
    name="detect scratches",
    cache_policy=StepKey(step="detect"),
    result_serializer="json",
    **NETWORK_FAULTS,
)
def detect_scratches(*, job: dict[str, Any], ingested: dict[str, Any]) -> Any:
    """Task over `detect`; plain JSON in and out."""
    return to_json(detect(from_json(ShardJob, job), from_json(Ingested, ingested)))
