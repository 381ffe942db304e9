"""Gains are learned and calibrated: examples repeat, clean pictures stay untouched, deviations fit the errors."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.estimation.evidence import ESTIMATE_SIZE, evidence_size
from models.estimation.training_data import SETS
from models.routing.calibration import Predictions, choose_thresholds, decide, doubted, outcome, widening
from models.routing.gain_damage import KINDS, damage
from models.routing.gain_data import Examples, clean_examples, draw_clean
from models.routing.gain_thresholds import GainThresholds
from models.routing.gains import GainNetwork, GainSettings, gains_of, inputs_size
from models.routing.policies import PredictedGain
from models.routing.rules import RoutingOptions
from models.routing.training import TrainingSettings, calibrate, estimates_of, predict, train
from models.routing.treatments import TREATMENTS
from tests.models.test_routing import scratches

COUNT = len(TREATMENTS)


def photo() -> np.ndarray:
    rows, columns = np.mgrid[0:300, 0:400]
    picture = np.stack([127 + 90 * np.sin(rows / 9 + k) * np.cos(columns / 7) for k in range(3)], axis=2)
    return picture.astype(np.uint8)


def test_damage_is_a_function_of_the_generator_and_keeps_the_shape() -> None:
    kinds = set()
    for seed in range(60):
        clean = draw_clean(photo(), np.random.default_rng(seed))
        first, second = damage(clean, np.random.default_rng(seed)), damage(clean, np.random.default_rng(seed))
        np.testing.assert_array_equal(first.degraded, second.degraded)
        assert first.degraded.shape == first.clean.shape == clean.shape
        assert first.degraded.dtype == first.clean.dtype == np.uint8
        assert min(clean.shape[:2]) >= 64
        kinds.add(first.kind)
        if first.kind == "clean" and first.mask is None and first.table_quality is None:
            np.testing.assert_array_equal(first.degraded, first.clean)
    assert kinds == set(KINDS)


def test_clean_photographs_are_examples_whole_and_reduced(tmp_path: Path) -> None:
    for name in SETS:
        folder = tmp_path / "train" / name
        folder.mkdir(parents=True)
        for index in range(3):
            shifted = np.roll(photo(), 40 * index, axis=1)[:150, : 160 + 10 * index]
            cv2.imwrite(str(folder / f"{index}.png"), shifted)
    learned = clean_examples(tmp_path, out=tmp_path, held_back=False)
    held_back = clean_examples(tmp_path, out=tmp_path, held_back=True)
    # One photograph of each set is held back; each comes twice.
    assert (len(learned.gains), len(held_back.gains)) == (8, 4)
    assert learned.evidence.shape == (8, inputs_size())
    assert not learned.held_back.any()
    assert held_back.held_back.all()
    assert (learned.gains <= 0).all()
    assert (learned.gains < 0).any()
    again = clean_examples(tmp_path, out=tmp_path, held_back=False)
    np.testing.assert_array_equal(again.evidence, learned.evidence)


def made(count: int, *, seed: int) -> Examples:
    """Examples with noise of σ 5-60, whose first gain follows it (the first value of the evidence); others are harm."""
    rng = np.random.default_rng(seed)
    evidence = rng.normal(0, 1, (count, evidence_size())).astype(np.float32)
    gains = np.full((count, COUNT), -3.0, np.float32)
    evidence[:, 0] = rng.uniform(1.8, 4.1, count)
    gains[:, 0] = 4 * (evidence[:, 0] - 3) + rng.normal(0, 0.3, count)
    return Examples(
        evidence=evidence,
        gains=gains,
        kind=np.zeros(count, np.int64),
        held_back=np.zeros(count, bool),
        before=np.full(count, 100.0, np.float32),
    )


def test_networks_learn_gains_and_say_how_sure_they_are() -> None:
    settings = TrainingSettings(inputs=ESTIMATE_SIZE, steps=250, batch=128)
    network, held_back = train(made(1200, seed=1), settings), made(300, seed=2)
    clean = held_back.evidence[held_back.gains[:, 0] < -1]
    thresholds = calibrate(network, held_back, clean=clean)
    found = predict(network, held_back.evidence)
    assert np.abs(found.gains[:, 0] - held_back.gains[:, 0]).mean() < 0.6
    assert widening(found, held_back.gains) == pytest.approx(np.ones(COUNT), abs=0.05)
    assert (decide(predict(network, clean), thresholds) < 0).all()
    assert outcome(decide(found, thresholds), held_back.gains).regret_db < 0.25
    assert network.chosen_thresholds() == thresholds


def test_thresholds_touch_no_clean_picture_though_it_costs_gain() -> None:
    gains = np.tile(np.array([[1.0, *[-3.0] * (COUNT - 1)]], np.float32), (200, 1))
    sure = Predictions(gains=gains, deviations=np.full_like(gains, 0.5))
    clean = Predictions(gains=gains[:50] - 0.5, deviations=np.full((50, COUNT), 0.5, np.float32))
    chosen = choose_thresholds(sure, gains, clean=clean)
    assert (decide(clean, chosen) < 0).all()
    assert (decide(sure, chosen) == 0).all()
    assert not doubted(clean, chosen).any()


@pytest.mark.parametrize("two_witnesses", [True, False])
def test_a_decision_of_arrays_is_that_of_the_policy(two_witnesses: bool) -> None:
    torch.manual_seed(0)
    network = GainNetwork(GainSettings(inputs=ESTIMATE_SIZE)).eval()
    for member in network.members:
        torch.nn.init.normal_(member[-1].weight, std=1.0)
    evidence = np.random.default_rng(0).normal(0, 2, (200, evidence_size())).astype(np.float32)
    thresholds = GainThresholds(doubts=(0.4, 0.3, 0.2, 0.8, 0.0), least_gain_db=0.1, review_db=0.5)
    policy = PredictedGain(thresholds=thresholds, two_witnesses=two_witnesses)
    predicted = predict(network, evidence, two_witnesses=two_witnesses)
    chosen, unsure = decide(predicted, thresholds), doubted(predicted, thresholds)
    assert len(set(chosen.tolist())) >= 3
    rows = zip(chosen, unsure, estimates_of(evidence), gains_of(evidence, network=network), strict=True)
    for index, doubtful, seen, gains in rows:
        plan = policy.plan(seen, scratches(), options=RoutingOptions(), gains=gains)
        assert [step.method_id for step in plan.steps] == ([] if index < 0 else list(TREATMENTS[index]))
        assert plan.needs_review == doubtful
