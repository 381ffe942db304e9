"""The rules below the flow: cache keys, retries, the per-image boundary, acceptance, run identity, settings."""

from __future__ import annotations

import errno
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.run_identity import collection_name, run_identity
from models.types import DegradationEstimate, Estimated, Gain, Plan, Step, to_json
from storage.errors import IngestError
from storage.faults import is_transient
from storage.shards import Shard
from tasks import caching
from tasks.acceptance import LARGEST_COLOUR_SHIFT, compare, is_expected, refusal
from tasks.boundary import attempt
from tasks.caching import STEP_VERSIONS, StepKey, step_key
from tasks.datasets.identity import shard_identity
from tasks.datasets.jobs import DatasetJob, DatasetOptions
from tasks.jobs import Identities, RestoreOptions, ShardJob
from tasks.picture import Picture
from tasks.steps import _next_method

JOB = ShardJob(
    run_id="r",
    collection="c",
    source="file:///s",
    destination="file:///d",
    working_root="/w",
    previews=None,
    shard=Shard(shard_id="abc", members=(), content_sha256="0" * 64),
    duplicates=(),
    options=RestoreOptions(),
    identities=Identities(
        detector="d", estimator="e", methods=(("denoise", "w"),), device="cpu", precision="float32", code_version="1"
    ),
)
NOISY = DegradationEstimate(
    **{
        name: Estimated(value=0.0, confidence=1.0)
        for name in ("blur_sigma_px", "jpeg_quality", "effective_scale", "scratch_coverage", "fading", "colour_cast")
    },
    noise_sigma=Estimated(value=25.0, confidence=1.0),
)
CLEAN = replace(NOISY, noise_sigma=Estimated(value=0.0, confidence=1.0))


def keys(job: ShardJob) -> dict[str, str]:
    return {step: step_key(step, to_json(job)) for step in STEP_VERSIONS}


def changed_steps(job: ShardJob) -> set[str]:
    before, after = keys(JOB), keys(job)
    return {step for step in before if before[step] != after[step]}


def test_key_is_step_version_and_sha256() -> None:
    step, version, digest = step_key("detect", to_json(JOB)).split("/")
    assert (step, version, len(digest)) == ("detect", STEP_VERSIONS["detect"], 64)


@pytest.mark.parametrize(
    ("job", "steps"),
    [
        (replace(JOB, shard=replace(JOB.shard, content_sha256="1" * 64)), set(STEP_VERSIONS)),
        (replace(JOB, identities=replace(JOB.identities, estimator="x")), {"estimate", "route", "restore", "measure"}),
        (
            replace(JOB, identities=replace(JOB.identities, detector_settings="x")),
            {"detect", "estimate", "route", "restore", "measure"},
        ),
        (replace(JOB, options=replace(JOB.options, allow_colour=True)), {"route", "restore", "measure"}),
        (replace(JOB, options=replace(JOB.options, thorough=True)), {"route", "restore", "measure"}),
        (replace(JOB, options=replace(JOB.options, budget_gmac=150.0)), {"route", "restore", "measure"}),
        (replace(JOB, options=replace(JOB.options, scratch_threshold=0.5)), set(STEP_VERSIONS) - {"ingest"}),
        (replace(JOB, identities=replace(JOB.identities, gains="x")), {"estimate", "route", "restore", "measure"}),
        (replace(JOB, options=replace(JOB.options, policy="rules")), {"route", "restore", "measure"}),
        (replace(JOB, options=replace(JOB.options, fit_iterations=300)), {"restore", "measure"}),
        (replace(JOB, destination="file:///other"), {"restore", "measure"}),
        (
            replace(JOB, identities=replace(JOB.identities, methods=(("denoise", "x"),))),
            {"estimate", "route", "restore", "measure"},  # what they would bring is tried
        ),
        (replace(JOB, reference_sha256="x"), {"measure"}),
        (replace(JOB, options=replace(JOB.options, masks="file:///m")), set()),  # none of them is of this shard
        (replace(JOB, masks=(("a.png", "a.png", "1"),)), set(STEP_VERSIONS) - {"ingest"}),
        (replace(JOB, options=replace(JOB.options, workers=9)), set()),
        (replace(JOB, working_root="/elsewhere", run_id="other", collection="other"), set()),
    ],
)
def test_key_changes_with_what_the_step_depends_on(job: ShardJob, steps: set[str]) -> None:
    assert changed_steps(job) == steps


def test_version_of_a_step_counts_for_all_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(JOB)
    monkeypatch.setitem(caching.STEP_VERSIONS, "estimate", "other")
    after = keys(JOB)
    assert [step for step in before if before[step] == after[step]] == ["ingest", "detect"]


def test_failures_upstream_make_another_key() -> None:
    policy = StepKey(step="estimate")
    job = to_json(JOB)
    fine = policy.compute_key(None, {"job": job, "detected": [{"failure": None}]}, {})
    failed = policy.compute_key(None, {"job": job, "detected": [{"failure": {"stage": "detect"}}]}, {})
    assert fine == step_key("estimate", job)
    assert failed != fine


def test_unknown_step_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of"):
        step_key("polish", to_json(JOB))


def chained(outer: Exception, cause: Exception) -> Exception:
    outer.__cause__ = cause
    return outer


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (OSError(errno.EBUSY, "slow down"), True),
        (OSError(errno.EREMOTEIO, "internal error"), True),
        (chained(OSError("wrapped"), ConnectionRefusedError()), True),
        (FileNotFoundError(), False),
        (PermissionError(errno.EACCES, "no"), False),
        (FileExistsError(), False),
        (OSError(errno.EINVAL, "precondition"), False),
        (OSError(errno.ENOSPC, "full"), False),
        (ValueError("code"), False),
        (IngestError("truncated", "cut off"), False),
        (MemoryError(), False),
    ],
)
def test_only_faults_that_pass_are_transient(error: Exception, transient: bool) -> None:
    assert is_transient(error) is transient


def test_store_clients_are_known_by_name() -> None:
    from botocore.exceptions import EndpointConnectionError

    assert is_transient(EndpointConnectionError(endpoint_url="http://localhost"))


def raising(error: Exception) -> Any:
    def work() -> None:
        raise error

    return work


def test_boundary_makes_a_record_of_an_error() -> None:
    value, failure = attempt(raising(IngestError("truncated", "cut off")), stage="detect")
    assert value is None
    assert failure is not None
    assert (failure.stage, failure.error_kind, failure.error_text) == ("detect", "truncated", "detect: cut off")


def test_boundary_lets_transient_faults_through() -> None:
    with pytest.raises(ConnectionResetError):
        attempt(raising(ConnectionResetError()), stage="detect")


def texture(sigma: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.clip(128 + rng.normal(0, sigma, (80, 90, 3)), 0, 255).astype(np.uint8)


def test_removed_noise_is_accepted() -> None:
    change = compare(texture(25), np.full((80, 90, 3), 128, np.uint8))
    assert refusal(change, purpose="denoise", estimate=NOISY) is None


def test_removed_detail_is_refused() -> None:
    change = compare(texture(25), np.full((80, 90, 3), 128, np.uint8))
    reason = refusal(change, purpose="denoise", estimate=CLEAN)
    assert reason is not None
    assert "detail" in reason
    assert refusal(change, purpose="denoise", estimate=CLEAN, expected=True) is None


@pytest.mark.parametrize(("uncertainty", "expected"), [(0.5, True), (3.0, False)])
def test_a_gain_is_expected_when_it_is_larger_than_its_uncertainty(uncertainty: float, expected: bool) -> None:
    gain = Gain(treatment=("denoise",), gain_db=2.0, uncertainty_db=uncertainty)
    plan = Plan(steps=(), reason="", policy="rules", alternatives=(gain,))
    assert is_expected(plan, "denoise") is expected
    assert not is_expected(plan, "deblock")


def test_shifted_colours_are_refused_unless_asked_for() -> None:
    before = texture(5)
    change = compare(before, (before * [1.0, 0.8, 0.8]).astype(np.uint8))
    assert "colours" in (refusal(change, purpose="denoise", estimate=NOISY) or "")
    assert refusal(change, purpose="colour", estimate=NOISY) is None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("paper", [0, 128, 255])
def test_colours_that_noise_had_shifted_may_come_back(paper: int, dtype: type) -> None:
    noise = np.random.default_rng(0).normal(0, 50, (200, 240, 3))
    most = np.iinfo(dtype).max
    before = ((paper + noise).clip(0, 255) * (most / 255)).round().astype(dtype)
    after = np.full_like(before, round(paper * (most / 255)))
    assert compare(before, after).colour_shift < 3.0
    assert compare(before, np.full_like(before, most // 3)).colour_shift > 2 * LARGEST_COLOUR_SHIFT
    assert compare(after, np.full_like(before, most // 3)).colour_shift > 2 * LARGEST_COLOUR_SHIFT


def test_compare_counts_changed_pixels_over_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    before = texture(10)
    after = before.copy()
    after[::2] ^= 1
    whole = compare(before, after)
    monkeypatch.setattr("tasks.acceptance._STRIP_PIXELS", 900)
    in_strips = compare(before, after)
    assert whole.changed_fraction == in_strips.changed_fraction == 0.5


def test_equal_pictures_have_no_change() -> None:
    change = compare(texture(10), texture(10))
    assert (change.changed_fraction, change.colour_shift, change.detail_retention) == (0.0, 0.0, 1.0)


def planned(*methods: str) -> Picture:
    steps = tuple(Step(method_id=method, strength=1.0) for method in methods)
    record: Any = None
    plan = Plan(steps=steps, reason="", policy="test")
    return Picture(record=record, scratches=None, estimate=None, plan=plan, failure=None, seconds=0.0)


def test_pictures_wait_for_those_that_need_the_same_method_later() -> None:
    assert _next_method([planned("denoise"), planned("fill", "denoise")]) == "fill"


@given(st.lists(st.lists(st.sampled_from(["fill", "deblock", "denoise"]), min_size=1, max_size=3), min_size=1))
def test_some_method_is_always_next(plans: list[list[str]]) -> None:
    pictures = [planned(*plan) for plan in plans]
    assert _next_method(pictures) in {picture.pending[0].method_id for picture in pictures}


def identity(options: RestoreOptions, destination: str = "/d", identities: Identities = JOB.identities) -> str:
    return run_identity("/archives/Album 1.zip", destination, options=options, identities=identities)


def test_run_id_is_stable_and_readable() -> None:
    assert identity(RestoreOptions()) == identity(RestoreOptions(workers=5, write_report=False))
    assert identity(RestoreOptions()).startswith("Album-1-")


def test_run_id_changes_with_what_matters() -> None:
    base = identity(RestoreOptions())
    weights = replace(JOB.identities, methods=(("denoise", "other"),))
    others = {
        identity(RestoreOptions(allow_colour=True)),
        identity(RestoreOptions(thorough=True)),
        identity(RestoreOptions(), destination="/e"),
        identity(RestoreOptions(), identities=weights),
    }
    assert base not in others
    assert len(others) == 4


def dataset_shard(restore: RestoreOptions, **options: Any) -> str:
    chosen = DatasetOptions(restore=restore, **options)
    job = DatasetJob(
        destination="/d", working_root="/w", number=0, samples=(), options=chosen, identities=JOB.identities
    )
    return shard_identity(job, None)


def test_a_shard_of_a_data_set_is_made_again_when_what_it_is_made_by_changes() -> None:
    base = dataset_shard(RestoreOptions())
    others = {
        dataset_shard(RestoreOptions(policy="rules")),
        dataset_shard(RestoreOptions(thorough=True)),
        dataset_shard(RestoreOptions(allow_colour=True)),
        dataset_shard(RestoreOptions(scratch_threshold=0.5)),
        dataset_shard(RestoreOptions(strengths=(("denoise", 0.5),))),
        dataset_shard(RestoreOptions(), format="png"),
    }
    assert base not in others
    assert len(others) == 6
    assert base == dataset_shard(RestoreOptions(workers=7, device="cpu", precision="float32", write_report=False))


def test_commit_of_the_program_makes_no_new_run() -> None:
    other = replace(JOB.identities, code_version="2")
    assert identity(RestoreOptions(), identities=other) == identity(RestoreOptions())


def test_collection_is_the_name_of_the_source() -> None:
    assert collection_name("/archives/Album 1.tar.gz", RestoreOptions()) == "Album-1"
    assert collection_name("/archives/x", RestoreOptions(collection="Chosen")) == "Chosen"


@pytest.mark.parametrize("module", ["restoring", "retrying", "upkeeping", "listing"])
def test_a_command_checks_its_arguments_before_the_engine_is_loaded(module: str) -> None:
    program = f"import sys, flows.commands.{module}; print(sorted({{'prefect', 'torch'}} & set(sys.modules)))"
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "module", ["flows.restore_archive", "flows.nightly", "flows.verify_archive", "flows.commands.inspecting"]
)
def test_prefect_is_imported_after_its_settings(module: str) -> None:
    program = f"import sys, {module}; found = list(sys.modules); print(*(found.index(n) for n in sys.argv[1:]))"
    command = [sys.executable, "-c", program, "flows.prefect_settings", "prefect"]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    settings, prefect = map(int, found.stdout.split())
    assert settings < prefect


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, "home/prefect"), ({"PREFECT_API_URL": "http://x/api"}, "None"), ({"PREFECT_HOME": "/own"}, "/own")],
)
def test_prefect_settings_respect_the_user(tmp_path: Path, environment: dict[str, str], expected: str) -> None:
    program = "import os, flows.prefect_settings; print(os.environ.get('PREFECT_HOME'), os.environ['DO_NOT_TRACK'])"
    found = subprocess.run(
        [sys.executable, "-c", program],
        env={"LACUNA_HOME": str(tmp_path / "deep" / "home"), "PATH": "/usr/bin", **environment},
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    home, tracking = found.stdout.split()
    assert home.endswith(expected)
    assert tracking == "1"
    assert (tmp_path / "deep" / "home" / "prefect").is_dir() is (environment == {})
