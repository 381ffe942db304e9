"""Training of the networks that predict gains: `python -m models.routing.training --data DATA --out DIR`.

Makes the examples below DIR (goes on where it was interrupted; delete them when a method has new weights), learns from
four fifths of the photographs, measures and chooses thresholds on the others, and writes weight and card to DIR, or
with `--ship` where the program takes them from. `--measure` prints only what the inputs are worth.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.estimation.estimate import UNKNOWN
from models.estimation.evidence import ESTIMATE_SIZE, evidence_size
from models.estimation.network import QUANTITIES, decode
from models.estimation.patches import FloatArray
from models.routing.calibration import Outcome, Predictions, choose_thresholds, decide, outcome, widening
from models.routing.gain_damage import KINDS
from models.routing.gain_data import Examples, clean_examples, make_examples, merge
from models.routing.gain_thresholds import GainThresholds
from models.routing.gains import WEIGHTS, GainNetwork, GainSettings, inputs_size
from models.routing.rules import Thresholds, deviations_where_unseen, plan_for, shows_faults_of
from models.routing.treatments import GRAIN, TREATING_METHODS, TREATMENTS
from models.routing.trial_evidence import shows_grain
from models.training.export import DATA, current_commit
from models.types import DegradationEstimate, Estimated, ScratchReport
from models.weights import WEIGHTS_FOLDER, WeightCard, save_weights, weights_sha256

# Gains beyond these are learned as these: nothing depends on how much worse than that it would get.
_LABEL_RANGE_DB = (-5.0, 20.0)
_NO_SCRATCHES = ScratchReport(
    coverage=0.0, components=0, confidence=1.0, threshold=0.5, mask=None, mask_sha256=None, detector="none"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """How long and how fast to learn. inputs: how many values of the evidence the networks see."""

    inputs: int
    steps: int = 8000
    batch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    seed: int = 1


def _loss(gains: Tensor, deviations: Tensor, *, target: Tensor) -> Tensor:
    """Negative log likelihood under normal distributions, weighted by the deviation.

    Without the weight, what is predicted badly would be given up (Seitzer et al., ICLR 2022).
    """
    likelihood = torch.log(deviations) + 0.5 * ((gains - target) / deviations) ** 2
    return (likelihood * deviations.detach()).mean()


def train(examples: Examples, settings: TrainingSettings) -> GainNetwork:
    """Return the networks after learning from all given examples; their deviations are not widened yet."""
    torch.manual_seed(settings.seed)
    network = GainNetwork(GainSettings(inputs=settings.inputs))
    evidence = torch.from_numpy(examples.evidence[:, : settings.inputs])
    target = torch.from_numpy(examples.gains).clamp(*_LABEL_RANGE_DB)
    network.middle.copy_(evidence.mean(dim=0))
    network.spread.copy_(evidence.std(dim=0) + 1e-2)
    optimizer = torch.optim.AdamW(
        network.members.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    generator = torch.Generator().manual_seed(settings.seed)
    network.train()
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * (0.02 + 0.49 * (1 + math.cos(math.pi * step / settings.steps)))
        rows = torch.randint(len(target), (settings.batch,), generator=generator)
        gains, deviations = network.each(evidence[rows])
        loss = _loss(gains, deviations, target=target[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network.eval()


def predict(network: GainNetwork, evidence: FloatArray, *, two_witnesses: bool = True) -> Predictions:
    """Return what the networks expect of every row of evidence."""
    with torch.inference_mode():
        gains, deviations = network(torch.from_numpy(evidence))
    predicted = Predictions(gains=gains.numpy(), deviations=deviations.numpy())
    return witnessed(predicted, evidence) if two_witnesses else predicted


def calibrate(network: GainNetwork, held_back: Examples, *, clean: FloatArray) -> GainThresholds:
    """Widen the deviations to fit the errors on held-back examples, choose the thresholds, and store both."""
    network.widening.fill_(1.0)
    labels = np.clip(held_back.gains, *_LABEL_RANGE_DB)
    network.widening.copy_(torch.from_numpy(widening(predict(network, held_back.evidence), labels)))
    thresholds = choose_thresholds(predict(network, held_back.evidence), held_back.gains, clean=predict(network, clean))
    network.thresholds.copy_(torch.tensor(thresholds.numbers()))
    return thresholds


def ridge(examples: Examples, held_back: Examples, *, weight: float = 1.0) -> Predictions:
    """Return what ridge regression on the estimates, their squares and products expects: the plainest comparison."""
    columns = slice(0, ESTIMATE_SIZE)
    middle, spread = examples.evidence[:, columns].mean(0), examples.evidence[:, columns].std(0) + 1e-2

    def terms(evidence: FloatArray) -> FloatArray:
        plain = np.clip((evidence[:, columns] - middle) / spread, -4, 4)
        pairs = [plain[:, i] * plain[:, j] for i in range(plain.shape[1]) for j in range(i + 1)]
        return np.column_stack([np.ones(len(plain)), plain, *pairs]).astype(np.float32)

    known, target = terms(examples.evidence), np.clip(examples.gains, *_LABEL_RANGE_DB)
    solved = np.linalg.solve(known.T @ known + weight * np.eye(known.shape[1]), known.T @ target)
    deviation = np.std(known @ solved - target, axis=0)
    expected = (terms(held_back.evidence) @ solved).astype(np.float32)
    spread = np.broadcast_to(deviation, expected.shape).astype(np.float32)
    return witnessed(Predictions(gains=expected, deviations=spread), held_back.evidence)


def estimates_of(evidence: FloatArray) -> list[DegradationEstimate]:
    """Return the estimates that the evidence (N, E) begins with."""
    values = decode(torch.from_numpy(evidence[:, 0 : 2 * len(QUANTITIES) : 2])).tolist()
    confidences = evidence[:, 1 : 2 * len(QUANTITIES) : 2].tolist()
    others = dict.fromkeys(("scratch_coverage", "fading", "colour_cast"), UNKNOWN)
    found = []
    for row, trust in zip(values, confidences, strict=True):
        known = {
            name: Estimated(value=value, confidence=confidence)
            for name, value, confidence in zip(QUANTITIES, row, trust, strict=True)
        }
        found.append(DegradationEstimate(**known, **others))
    return found


def rules_choice(evidence: FloatArray) -> npt.NDArray[np.int64]:
    """Return what the rules choose for every row of evidence, -1 = nothing; of two methods the first."""
    plans = [plan_for(estimate, _NO_SCRATCHES) for estimate in estimates_of(evidence)]
    return np.array([TREATING_METHODS.index(plan.steps[0].method_id) if plan.steps else -1 for plan in plans])


def witnessed(predicted: Predictions, evidence: FloatArray) -> Predictions:
    """Return predictions with what the estimate and the trial of every row of evidence say to each treatment."""
    limits, estimates = Thresholds(), estimates_of(evidence)
    shown = [
        [shows_faults_of(estimate, treatment=treatment, thresholds=limits) for treatment in TREATMENTS]
        for estimate in estimates
    ]
    unseen = [
        [deviations_where_unseen(estimate, treatment=treatment, thresholds=limits) for treatment in TREATMENTS]
        for estimate in estimates
    ]
    witnesses = np.array(shown)
    witnesses[:, TREATMENTS.index(GRAIN)] |= shows_grain(evidence)
    return replace(predicted, shown=witnesses, unseen=np.array(unseen, np.float32))


def mean_error_db(predicted: Predictions, gains: FloatArray) -> float:
    """Return the mean absolute error of the expected gains."""
    return float(np.abs(predicted.gains - np.clip(gains, *_LABEL_RANGE_DB)).mean())


def compare_inputs(examples: Examples, held_back: Examples, *, clean: FloatArray) -> None:
    """Print how well gains are predicted, and decided by, from the estimates alone, what is behind them, and trials."""
    print(
        "held-back photographs               error dB   gain dB   regret dB   harmed   clean touched   doubts, least dB"
    )
    plain = ridge(examples, held_back)
    clean_rows = Examples(
        evidence=clean,
        gains=np.zeros((len(clean), len(TREATMENTS)), np.float32),
        kind=np.zeros(len(clean), np.int64),
        held_back=np.ones(len(clean), bool),
        before=np.zeros(len(clean), np.float32),
    )
    rows = [("ridge on the estimates", plain, ridge(examples, clean_rows))]
    seen = (
        ("networks on the estimates", ESTIMATE_SIZE),
        ("networks on all of the estimate", evidence_size()),
        ("the same and a trial", inputs_size()),
    )
    for label, inputs in seen:
        network = train(examples, TrainingSettings(inputs=inputs))
        calibrate(network, held_back, clean=clean)
        rows.append((label, predict(network, held_back.evidence), predict(network, clean)))
    found = outcome(rules_choice(held_back.evidence), held_back.gains)
    touched = int((rules_choice(clean) >= 0).sum())
    print(f"{'rules':44s}{found.gain_db:10.3f}{found.regret_db:12.3f}{found.harmed:9.2%}{touched:8d} of {len(clean)}")
    for label, predicted, on_clean in rows:
        thresholds = choose_thresholds(predicted, held_back.gains, clean=on_clean)
        found = outcome(decide(predicted, thresholds), held_back.gains)
        touched = int((decide(on_clean, thresholds) >= 0).sum())
        print(
            f"{label:36s}{mean_error_db(predicted, held_back.gains):8.3f}{found.gain_db:10.3f}{found.regret_db:12.3f}"
            f"{found.harmed:9.2%}{touched:8d} of {len(clean)}     {thresholds.doubts}, {thresholds.least_gain_db:g}"
        )


def _rounded(found: Outcome) -> dict[str, float]:
    return {field.name: round(getattr(found, field.name), 4) for field in fields(found)}


def _metrics(network: GainNetwork, held_back: Examples, *, clean: FloatArray) -> dict[str, Any]:
    thresholds = network.chosen_thresholds()
    predicted, on_clean = predict(network, held_back.evidence), predict(network, clean)
    found: Outcome = outcome(decide(predicted, thresholds), held_back.gains)
    errors = np.abs(predicted.gains - np.clip(held_back.gains, *_LABEL_RANGE_DB)) / predicted.deviations
    measured = _rounded(found)
    measured |= {
        "mean_error_db": round(mean_error_db(predicted, held_back.gains), 4),
        "within_one_deviation": round(float((errors < 1).mean()), 4),
        "within_two_deviations": round(float((errors < 2).mean()), 4),
        "best_possible_gain_db": round(float(np.maximum(held_back.gains.max(1), 0).mean()), 4),
    }
    touched = int((decide(on_clean, thresholds) >= 0).sum())
    alone = outcome(decide(replace(predicted, shown=None), thresholds), held_back.gains)
    rules = outcome(rules_choice(held_back.evidence), held_back.gains)
    return {
        f"{len(held_back.gains)} damaged crops of held-back training photographs": measured,
        "the same, without asking what estimate and trial show": _rounded(alone),
        "the same, by the rules": _rounded(rules),
        f"{len(clean)} whole clean held-back photographs": {"touched": touched},
        "thresholds": {field.name: getattr(thresholds, field.name) for field in fields(thresholds)},
        "learned with": {method: weights_sha256(method)[:16] for method in TREATING_METHODS},
    }


def _print_kinds(network: GainNetwork, held_back: Examples) -> None:
    thresholds = network.chosen_thresholds()
    predicted = predict(network, held_back.evidence)
    for index, name in enumerate(KINDS):
        chosen = held_back.kind == index
        if chosen.any():
            found = outcome(decide(predicted, thresholds)[chosen], held_back.gains[chosen])
            print(
                f"  {name:16s}{int(chosen.sum()):5d}  gain {found.gain_db:+.3f}  regret {found.regret_db:.3f}  "
                f"harmed {found.harmed:.1%}  treated {found.treated:.0%}"
            )


def _save(network: GainNetwork, *, count: int, metrics: dict[str, Any], folder: Path) -> WeightCard:
    settings = TrainingSettings(inputs=network.settings.inputs)
    card = WeightCard(
        id=WEIGHTS,
        sha256="",
        network=f"GainNetwork({network.settings})",
        parameters=0,
        data=DATA,
        licence="Apache-2.0; part of the training photographs carries no stated licence (BSDS500)",
        command=f"python -m models.routing.training --data DATA --out OUT --count {count} --ship",
        steps=settings.steps,
        seed=settings.seed,
        commit=current_commit(),
        metrics=metrics,
    )
    return save_weights(network.state_dict(), card=card, folder=folder)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.routing.training", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder above train/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=3000, help="examples, rounded up to a hundred")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes that make examples")
    parser.add_argument("--measure", action="store_true", help="compare inputs, write nothing")
    parser.add_argument("--ship", action="store_true", help="write the weight where the program takes it from")
    given = parser.parse_args()
    torch.set_num_threads(1)
    examples = make_examples(given.data, out=given.out, count=given.count, seed=given.seed, workers=given.workers)
    # Of crops, too few are clean to know all textures by.
    learned = merge([examples.of(~examples.held_back), clean_examples(given.data, out=given.out, held_back=False)])
    held_back = examples.of(examples.held_back)
    clean = clean_examples(given.data, out=given.out, held_back=True).evidence
    if given.measure:
        compare_inputs(learned, held_back, clean=clean)
        return
    network = train(learned, TrainingSettings(inputs=inputs_size()))
    thresholds = calibrate(network, held_back, clean=clean)
    metrics = _metrics(network, held_back, clean=clean)
    _print_kinds(network, held_back)
    card = _save(network, count=given.count, metrics=metrics, folder=WEIGHTS_FOLDER if given.ship else given.out)
    print(f"{thresholds}\n{metrics}\n{card.id}: {card.parameters} numbers, sha256 {card.sha256}")


if __name__ == "__main__":
    main()
