"""What an output shard of a data set is made of, as one hash: the same hash, the same bytes."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from models.routing.rules import Thresholds
from models.types import to_json
from storage.dataset_rows import SCHEMA_VERSION
from tasks.caching import STEP_VERSIONS
from tasks.datasets.jobs import DatasetJob

# What is resolved in the identities already, concerns archives alone, or changes only how fast a run is. Everything
# else counts, so that a new option does from its first day.
_RESOLVED = ("device", "precision")
_OF_ARCHIVES = ("collection", "incremental", "only", "reference", "retry", "shard_bytes", "shard_images", "stop_at")
_WITHOUT_EFFECT = (*_RESOLVED, *_OF_ARCHIVES, "workers", "write_report")


def shard_identity(job: DatasetJob, carried: bytes | None) -> str:
    """Return a hash of everything a shard's bytes depend on: samples as listed, options, weights, device, code."""
    chosen = {name: value for name, value in to_json(job.options).items() if name not in ("restore", "input", "column")}
    steps = {name: value for name, value in to_json(job.options.restore).items() if name not in _WITHOUT_EFFECT}
    computed = {name: value for name, value in to_json(job.identities).items() if name != "code_version"}
    columns = None if carried is None else hashlib.sha256(carried).hexdigest()
    made_of: list[Any] = [SCHEMA_VERSION, STEP_VERSIONS, to_json(Thresholds()), chosen, steps, computed]
    text = json.dumps([*made_of, job.number, to_json(job.samples), columns], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
