"""Explicit cache keys: step, its version, and a sha256 over everything that its result depends on.

The engine's own policies are not used: its default never hits across runs, and hashing the inputs alone gives two tasks
with equal arguments each other's results.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from prefect import Task
from prefect.cache_policies import CachePolicy
from prefect.transactions import CommitMode, transaction

from models.interruption import work_interrupted
from models.routing.rules import Thresholds
from models.routing.treatments import TREATMENTS
from models.types import to_json

_TRIED = frozenset(chain.from_iterable(TREATMENTS))
# In the order of the flow. Raise a step's version whenever its code gives another result for the same inputs.
STEP_VERSIONS: dict[str, str] = {
    "ingest": "1",
    "detect": "3",
    "estimate": "9",
    "route": "7",
    "restore": "9",
    "measure": "2",
}

# What of a job each step adds to what the steps before it already depend on.
_DEPENDS_ON: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "ingest": lambda job: [job["source"], job["shard"]["content_sha256"], job["duplicates"], job["options"]["limits"]],
    "detect": lambda job: [
        *(job["identities"][name] for name in ("detector", "detector_settings", "device", "precision")),
        job["options"]["scratch_threshold"],
        # A shard without any is what it was before masks were given for others.
        *([job["options"]["masks"], job["masks"]] if job.get("masks") else []),
    ],
    # What treatments would bring is found by trying them.
    "estimate": lambda job: [
        *(job["identities"][name] for name in ("estimator", "gains")),
        [known for known in job["identities"]["methods"] if known[0] in _TRIED],
    ],
    "route": lambda job: [
        to_json(Thresholds()),
        *(job["options"][name] for name in ("policy", "thorough", "budget_gmac", "allow_colour")),
        *(job["options"][name] for name in ("fill_method", "strengths")),
    ],
    "restore": lambda job: [
        job["destination"],
        job["identities"]["methods"],
        *(job["options"][name] for name in ("tile", "seed", "fit_iterations")),
    ],
    "measure": lambda job: [job["options"]["reference"], job["reference_sha256"], job["previews"]],
}


def step_key(step: str, job: Mapping[str, Any], *, happened: Sequence[Sequence[Any]] = ()) -> str:
    """Return ``step/version/sha256`` for a job as plain JSON values: a valid file name below any result storage.

    The sha256 covers the shard's content, parameters, weights and versions of this step and of every step before it.
    happened: what each earlier stage met with besides, see `_happened`.
    """
    steps = list(STEP_VERSIONS)
    if step not in steps:
        raise ValueError(f"step: got {step!r}, expected one of {steps}")
    upstream = steps[: steps.index(step) + 1]
    identity = [[name, STEP_VERSIONS[name], _DEPENDS_ON[name](job)] for name in upstream]
    text = json.dumps([identity, [list(events) for events in happened if events]], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{step}/{STEP_VERSIONS[step]}/{digest}"


@dataclass
class StepKey(CachePolicy):
    """Cache policy of one step of the flow; the task's parameter `job` names everything that counts."""

    step: str = ""

    def compute_key(
        self, task_ctx: Any, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        """Return the key for a task run; see `step_key`."""
        upstream = [value for name, value in sorted(inputs.items()) if name != "job"]
        return step_key(self.step, inputs["job"], happened=[_happened(value) for value in upstream])


def _happened(results: Any) -> list[Any]:
    """Return what became of a stage that the job does not determine, from its result as plain JSON values.

    Members that the ingest refused, which it may take another time; images that a stage failed on; when outputs were
    written, since those of other settings may have lain there meanwhile.
    """
    if isinstance(results, dict):
        return [refused["relative_path"] for refused in results.get("quarantined", ())]
    written = [(item.get("output") or {}).get("written_at") for item in results]
    return failed_items(results) + [moment for moment in written if moment is not None]


def failed_items(results: Any) -> list[int]:
    """Return the positions of the images that a stage failed on, from its result as plain JSON values."""
    if not isinstance(results, list):
        return []
    return [
        index
        for index, item in enumerate(results)
        if item.get("failure") or (item.get("output") or {}).get("status") == "failed"
    ]


def run_stage(stage: Task[..., Any], *, intact: Callable[[Any], bool] | None = None, **inputs: Any) -> Any:
    """Run a task of the flow, and run it again if a cached result must not be trusted.

    That is one in which an image failed, since what failed may work today, and one that `intact` says is no longer
    true, such as outputs that are gone. What it made is kept at its own end: by itself, the engine keeps it at the end
    of the task that runs it, and a shard that is killed or breaks would begin anew. After an interrupt none is begun.
    """
    if work_interrupted():
        raise KeyboardInterrupt
    with transaction(commit_mode=CommitMode.EAGER):
        state = stage(**inputs, return_state=True)
        result = state.result()
        if state.name != "Cached" or not (failed_items(result) or (intact is not None and not intact(result))):
            return result
        return stage.with_options(refresh_cache=True)(**inputs)
