"""Measuring methods on cases: each cell is computed once, then found by a hash of all that its numbers depend on."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from models.types import TILE_PX, to_json
from storage.benchmark_cells import CellStore
from storage.benchmark_pictures import encode_picture
from storage.locations import Location
from tasks.benchmarking.cases import Case, CaseRef, Pixels, folder_name, load_case
from tasks.benchmarking.whole_program import load_networks, restore_routed
from tasks.boundary import attempt
from tasks.device import DEVICE_LOCK, runner

if TYPE_CHECKING:
    from models.run import Runner

# Raise it whenever the same case, method and metrics give other numbers because of the code here.
_VERSION = "1"
CROP_SIDE = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreOptions:
    """What is measured, and on what. tile is the runner's; whole pictures are run, as published protocols do it.

    kept: those of `methods` that nobody asked for now; what was measured of them is read, and nothing is computed.
    """

    methods: tuple[str, ...]
    kept: tuple[str, ...] = ()
    device: str = "auto"
    precision: str = "auto"
    tile: int = TILE_PX


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreJob:
    """A few cases, all methods, and where cells are kept."""

    cases: tuple[CaseRef, ...]
    options: ScoreOptions
    destination: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorePart:
    """What a unit of work came to: metric rows, cells computed now, and (case, kind, text) of failures.

    absent: the method of every cell that was only to be read and is not there.
    """

    rows: tuple[dict[str, Any], ...]
    computed: int
    absent: tuple[str, ...]
    failures: tuple[tuple[str, str, str], ...]


def score_jobs(cases: Sequence[CaseRef], *, options: ScoreOptions, destination: str, block: int = 16) -> list[ScoreJob]:
    """Cut the cases into units of work."""
    return [
        ScoreJob(cases=tuple(cases[start : start + block]), options=options, destination=destination)
        for start in range(0, len(cases), block)
    ]


def score_part(job: ScoreJob) -> ScorePart:
    """Measure every method on every case of a unit; cells that exist are read, those of `kept` methods only read."""
    store = CellStore(Location(job.destination))
    rows: list[dict[str, Any]] = []
    failures: list[tuple[str, str, str]] = []
    absent: list[str] = []
    computed = 0
    for ref in job.cases:
        case, failure = attempt(partial(load_case, ref), stage="load")
        if case is None:
            failures.append(
                (ref.name, failure.error_kind, failure.error_text) if failure else (ref.name, "unknown", "")
            )
            continue
        for method_id in fitting(case, job.options.methods):
            work = partial(_cell, ref, case, method_id, store=store, options=job.options)
            done, failure = attempt(work, stage=method_id)
            if done is None:
                text = (failure.error_kind, failure.error_text) if failure else ("unknown", "")
                failures.append((f"{ref.name} by {method_id}", *text))
                continue
            row, new = done
            computed += new
            if row is None:
                absent.append(method_id)
            else:
                rows.append(row)
        if ref.example:
            _keep_reference_crop(ref, case, store=store)
    return ScorePart(rows=tuple(rows), computed=computed, absent=tuple(absent), failures=tuple(failures))


def fitting(case: Case, methods: Sequence[str]) -> list[str]:
    """Return the methods that can be run on a case; the others have no row there."""
    from models.benchmarking.baselines import unfit_reason

    return [name for name in methods if unfit_reason(name, scale=case.scale, has_mask=case.mask is not None) is None]


def metric_names() -> list[str]:
    """Return the ids of the metrics that are measured."""
    from models.benchmarking.scoring import METRICS

    return [metric.id for metric in METRICS]


def metric_models() -> dict[str, str]:
    """Return by metric the model that measures it, where tables name one."""
    from models.benchmarking.scoring import models_named

    return models_named()


def checked_methods(methods: Sequence[str], cases: Sequence[CaseRef], *, kept: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the methods to run, each once: what leaves a case untouched, the `kept` that still exist, those asked for.

    Raises UnknownMethodError, naming the nearest, and ValueError for a method that fits no case, or without cases.
    """
    from models.benchmarking.baselines import baseline_for, check_method, method_ids, unfit_reason

    for name in methods:
        check_method(name)
    tried = [attempt(partial(load_case, ref), stage="load") for ref in cases if ref.example]
    examples = [case for case, _ in tried if case is not None]
    if not examples:
        said = next((failure.error_text for _, failure in tried if failure is not None), "there are none")
        raise ValueError(f"benchmark: got no case that can be measured: {said}")
    for name in methods:
        reasons = [unfit_reason(name, scale=case.scale, has_mask=case.mask is not None) for case in examples]
        if all(reason is not None for reason in reasons):
            raise ValueError(f"method {name}: {reasons[0]}; leave it out, or choose another suite")
    baselines = sorted({baseline_for(case.scale) for case in examples}, reverse=True)
    known = method_ids()
    others = {*methods, *(name for name in kept if name in known)} - set(baselines)
    return (*baselines, *sorted(others))


def only_kept(methods: Sequence[str], *, asked: Sequence[str]) -> tuple[str, ...]:
    """Return those of `checked_methods` that are there since they were measured before, and for no other reason."""
    from models.benchmarking.baselines import baseline_for

    return tuple(name for name in methods if name not in {*asked, baseline_for(1), baseline_for(2)})


def cell_key(case_sha256: str, *, protocol: Any, method_id: str, seed: int, chosen: Runner) -> str:
    """Return the hash of everything a cell's numbers depend on: pixels, protocol, method, weights, metrics, device."""
    from models.benchmarking.baselines import method_identity
    from models.benchmarking.scoring import metrics_identity

    numbers = [chosen.device, precision_of(method_id, chosen)]
    parts = [_VERSION, case_sha256, to_json(protocol), method_identity(method_id), metrics_identity(), seed, numbers]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def precision_of(method_id: str, chosen: Runner) -> str:
    """Return the number format that a method really computes in."""
    from models.benchmarking.baselines import ROUTED, TITLES
    from models.registry import get_method

    reduced = method_id == ROUTED or (method_id not in TITLES and get_method(method_id).card.half_precision)
    return chosen.precision if reduced else "float32"


def _cell(
    ref: CaseRef, case: Case, method_id: str, *, store: CellStore, options: ScoreOptions
) -> tuple[dict[str, Any] | None, int]:
    """Return (metric row, 1 if it was computed now else 0); no row where a `kept` method has no such cell."""
    from models.benchmarking.baselines import method_identity

    chosen = runner(options.device, options.precision, options.tile)
    key = cell_key(case.sha256, protocol=case.protocol, method_id=method_id, seed=ref.seed, chosen=chosen)
    cell, new = store.get(key), 0
    if method_id in options.kept:
        if cell is None:
            return None, 0
    elif cell is None or (ref.example and store.crop(crop_name(ref, method_id)) is None):
        cell, new = _measure(ref, case, method_id, key=key, store=store, chosen=chosen), 1
    where = {"suite": ref.suite, "dataset": ref.dataset, "level": ref.level, "seed": ref.seed, "image_id": ref.image_id}
    height, width = case.reference.shape[:2]
    facts = {
        "method": method_id,
        "key": key,
        "megapixels": height * width / 1e6,
        "protocol": case.protocol.text,
        "precision": precision_of(method_id, chosen),
        "weights_sha256": method_identity(method_id)[2],
    }
    return {**where, **facts, **cell["metrics"]}, new


def _measure(ref: CaseRef, case: Case, method_id: str, *, key: str, store: CellStore, chosen: Runner) -> dict[str, Any]:
    from models.benchmarking.baselines import ROUTED, restore, told_estimate
    from models.benchmarking.scoring import Result, score

    estimate = told_estimate(ref.level)
    with DEVICE_LOCK:
        _warm_up(method_id, chosen)
        started = time.perf_counter()
        if method_id == ROUTED:
            restored = restore_routed(case.degraded, chosen=chosen)
        else:
            restored = restore(
                method_id,
                case.degraded,
                runner=chosen,
                mask=case.mask,
                scale=case.scale,
                estimate=estimate,
                seed=ref.seed,
            )
        seconds = time.perf_counter() - started
    result = Result(restored=restored, reference=case.reference, mask=case.mask, protocol=case.protocol)
    cell = {"method": method_id, "case": ref.name, "metrics": score(result)}
    if ref.example:
        store.put_crop(crop_name(ref, method_id), _crop(restored, case.reference))
    device = f"{chosen.device}, {precision_of(method_id, chosen)}"
    store.put(key, cell, timing={"seconds": seconds, "device": device})
    return cell


_WARM: set[tuple[str, str, str]] = set()


def _warm_up(method_id: str, chosen: Runner) -> None:
    """Build the network before anything is timed: the first picture must not pay for reading the weights."""
    from models.benchmarking.baselines import ROUTED, TITLES
    from models.registry import get_method

    identity = (method_id, chosen.device, chosen.precision)
    if identity in _WARM:
        return
    if method_id == ROUTED:
        load_networks(chosen)
    elif method_id not in TITLES:
        chosen.network(get_method(method_id))
    _WARM.add(identity)


def crop_name(ref: CaseRef, method_id: str) -> str:
    """Return the name of a case's example crop."""
    return crop_file(ref.dataset, ref.level, method_id)


def crop_file(dataset: str, level: str, method_id: str) -> str:
    """Return the name of an example crop by dataset, level, and method or "reference"."""
    return folder_name(f"{dataset}/{level}/{method_id}")


def _keep_reference_crop(ref: CaseRef, case: Case, *, store: CellStore) -> None:
    store.put_crop(crop_name(ref, "reference"), _crop(case.reference, case.reference))


def _crop(picture: Pixels, reference: Pixels) -> bytes:
    """Return the PNG of the window in which the reference has most detail: the same window for every method."""
    top, left = busiest_window(reference, side=CROP_SIDE)
    part = np.clip(picture[top : top + CROP_SIDE, left : left + CROP_SIDE], 0.0, 1.0)
    return encode_picture(np.rint(part * 255).astype(np.float32) / np.float32(255))[0]


def busiest_window(reference: Pixels, *, side: int) -> tuple[int, int]:
    """Return (top, left) of the window (side, side) with the largest sum of squared differences of neighbours."""
    plane = reference if reference.ndim == 2 else reference.mean(axis=2)
    energy = np.zeros(plane.shape)
    energy[:-1, :-1] = np.diff(plane, axis=0)[:, :-1] ** 2 + np.diff(plane, axis=1)[:-1] ** 2
    rows, columns = min(side, plane.shape[0]), min(side, plane.shape[1])
    total = np.zeros((plane.shape[0] + 1, plane.shape[1] + 1))
    total[1:, 1:] = energy.cumsum(0).cumsum(1)
    sums = total[rows:, columns:] - total[:-rows, columns:] - total[rows:, :-columns] + total[:-rows, :-columns]
    coarse = sums[::8, ::8]
    top, left = np.unravel_index(int(coarse.argmax()), coarse.shape)
    return int(top) * 8, int(left) * 8
