"""What every treatment is expected to bring a picture, predicted from the evidence behind its estimate and a trial.

A few small networks, each started elsewhere, see the evidence and give a gain in dB and its deviation for every
treatment; where they differ, that is uncertainty, too (deep ensembles: Lakshminarayanan et al., NeurIPS 2017). The
windows of the picture have been read already for the estimate; a trial treats one small one (`models.routing.trials`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.estimation.evidence import evidence_size
from models.estimation.patches import FloatArray
from models.routing.gain_thresholds import GainThresholds
from models.routing.treatments import GRAIN, TREATMENTS
from models.routing.trial_evidence import shows_grain, trial_size
from models.types import Gain
from models.weights import load_weights

WEIGHTS = "predicted-gain"
# Evidence further than this many deviations from what was learned from is read as if it lay there.
_REACH = 4.0


def inputs_size() -> int:
    """Return the length of the evidence with a trial."""
    return evidence_size() + trial_size()


@dataclass(frozen=True, slots=True, kw_only=True)
class GainSettings:
    """Size of the networks. inputs: how many values of the evidence they see, from the first one on."""

    inputs: int
    members: int = 5
    hidden: int = 64
    outputs: int = len(TREATMENTS)


class GainNetwork(nn.Module):
    """(P, evidence) -> expected gains and deviations (P, treatments) in dB, with the thresholds they are used by."""

    def __init__(self, settings: GainSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or GainSettings(inputs=inputs_size())
        inputs, hidden, outputs = self.settings.inputs, self.settings.hidden, self.settings.outputs
        self.register_buffer("middle", torch.zeros(inputs))
        self.register_buffer("spread", torch.ones(inputs))
        self.register_buffer("widening", torch.ones(outputs))
        self.register_buffer("thresholds", torch.zeros(len(GainThresholds().numbers())))
        self.middle: Tensor
        self.spread: Tensor
        self.widening: Tensor
        self.thresholds: Tensor
        self.members = nn.ModuleList(
            nn.Sequential(
                nn.Dropout(0.05),
                nn.Linear(inputs, hidden),
                nn.SiLU(),
                nn.Dropout(0.2),
                nn.Linear(hidden, hidden),
                nn.SiLU(),
                nn.Linear(hidden, 2 * outputs),
            )
            for _ in range(self.settings.members)
        )

    def prepared(self, evidence: Tensor) -> Tensor:
        """Return the evidence (P, E) the members see, (P, inputs), of order 1."""
        seen = evidence[:, : self.settings.inputs]
        return ((seen - self.middle) / self.spread).clamp(-_REACH, _REACH)

    def each(self, evidence: Tensor) -> tuple[Tensor, Tensor]:
        """Return expected gains and deviations of every member, (members, P, treatments) in dB."""
        seen = self.prepared(evidence)
        out = torch.stack([member(seen) for member in self.members])
        gains, raw = out.chunk(2, dim=2)
        return gains * 3.0, functional.softplus(raw) + 0.02

    def forward(self, evidence: Tensor) -> tuple[Tensor, Tensor]:
        gains, deviations = self.each(evidence)
        variance = deviations.square().mean(dim=0) + gains.var(dim=0, unbiased=False)
        return gains.mean(dim=0), variance.sqrt() * self.widening

    def chosen_thresholds(self) -> GainThresholds:
        """Return the thresholds that were chosen for these weights."""
        values = [round(value, 4) for value in self.thresholds.tolist()]
        return GainThresholds(doubts=tuple(values[:-2]), least_gain_db=values[-2], review_db=values[-1])


@lru_cache(maxsize=1)
def load_gain_network() -> GainNetwork:
    """Return the shipped networks, ready for inference on the CPU; WeightsError when the file is altered or absent."""
    network = GainNetwork()
    network.load_state_dict(load_weights(WEIGHTS))
    return network.eval()


def shipped_thresholds() -> GainThresholds:
    """Return the thresholds that belong to the shipped networks."""
    return load_gain_network().chosen_thresholds()


def gains_of(evidence: FloatArray, *, network: GainNetwork) -> list[tuple[Gain, ...]]:
    """Return for every row of evidence (P, E) the gains of all treatments, the largest first."""
    with torch.inference_mode():
        expected, deviation = network(torch.from_numpy(evidence).to(network.middle.device))
    rows = zip(expected.tolist(), deviation.tolist(), shows_grain(evidence).tolist(), strict=True)
    return [ranked(row, spread, grainy=grainy) for row, spread, grainy in rows]


def ranked(gains: list[float], deviations: list[float], *, grainy: bool) -> tuple[Gain, ...]:
    """Return gains in the order of TREATMENTS as records, the largest first; grainy: whether a trial showed grain."""
    found = [
        Gain(
            treatment=treatment,
            gain_db=round(gain, 3),
            uncertainty_db=round(deviation, 3),
            shown=grainy and treatment == GRAIN,
        )
        for treatment, gain, deviation in zip(TREATMENTS, gains, deviations, strict=True)
    ]
    return tuple(sorted(found, key=lambda gain: -gain.gain_db))


def predict_gains(evidence: FloatArray | None) -> tuple[Gain, ...]:
    """Return what every treatment is expected to bring one picture, the largest first; () where nothing is known.

    evidence: (inputs_size(),) from `models.routing.trials.with_trials`.
    """
    return () if evidence is None else gains_of(evidence[None], network=load_gain_network())[0]
