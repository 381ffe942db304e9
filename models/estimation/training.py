"""Training of the degradation estimator.

Run as `python -m models.estimation.training --data DIR --out DIR --steps N --seed S`.

Every batch is a function of (seed, step) and the checkpoint holds weights, optimizer and step, so a run that is
interrupted and started again ends with the weights of an uninterrupted one (on the same machine and thread count).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.device import quick_products
from models.estimation.network import QUANTITIES, EstimatorNetwork, decode, encode
from models.estimation.training_data import BatchSettings, Picture, draw_batch, read_photos
from models.training.optimizer import ConvolutionMuon
from models.weights import WeightCard, save_weights

WEIGHTS_ID = "estimator"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """How long and how fast to learn."""

    steps: int = 15000
    seed: int = 1
    learning_rate: float = 2e-3
    warm_up: int = 100
    weight_decay: float = 1e-4
    checkpoint_every: int = 200


def loss_of(value: Tensor, log_scale: Tensor, *, target: Tensor) -> Tensor:
    """Return the mean negative log likelihood of the targets under Laplace distributions, all (P, 4)."""
    return ((value - target).abs() * torch.exp(-log_scale) + log_scale).mean()


def learning_rate_at(step: int, settings: TrainingSettings) -> float:
    """Return the learning rate of a step: linear warm-up, then a cosine to 1 %."""
    if step < settings.warm_up:
        return settings.learning_rate * (step + 1) / settings.warm_up
    share = (step - settings.warm_up) / max(1, settings.steps - settings.warm_up)
    return settings.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


def _predict(network: EstimatorNetwork, windows: Tensor) -> tuple[Tensor, Tensor]:
    with quick_products(windows.device):
        value, log_scale = network(windows)
    return value.float(), log_scale.float()


def train(
    photos: list[Picture],
    *,
    settings: TrainingSettings,
    batch: BatchSettings,
    checkpoint: Path | None = None,
    after_step: Callable[[int], None] | None = None,
) -> EstimatorNetwork:
    """Return the network after `settings.steps` steps, continuing from `checkpoint` when that file exists.

    `after_step` is called with the number of steps done after each (and after a checkpoint was written).
    """
    network, optimizer, first = _start(settings, checkpoint)
    began, recent = time.perf_counter(), []
    for step in range(first, settings.steps):
        windows, labels = draw_batch(photos, seed=settings.seed, step=step, settings=batch)
        value, log_scale = _predict(network, windows)
        loss = loss_of(value, log_scale, target=encode(labels))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step(lr=learning_rate_at(step, settings), clip_norm=1.0)
        recent.append((decode(value.detach()) - labels).abs().mean(dim=0))
        if (step + 1) % settings.checkpoint_every == 0 or step + 1 == settings.steps:
            errors = torch.stack(recent).mean(dim=0).tolist()
            shown = ", ".join(f"{name} {error:.3f}" for name, error in zip(QUANTITIES, errors, strict=True))
            pace = (step + 1 - first) / (time.perf_counter() - began)
            print(
                f"step {step + 1} loss {loss.item():.3f} mean absolute error: {shown}; {pace:.2f} steps/s", flush=True
            )
            recent = []
            if checkpoint is not None:
                _save(checkpoint, network, optimizer, step + 1)
        if after_step is not None:
            after_step(step + 1)
    return network


def _start(settings: TrainingSettings, checkpoint: Path | None) -> tuple[EstimatorNetwork, ConvolutionMuon, int]:
    """Return network, optimizer and number of steps done: a fresh start, or the state of the checkpoint."""
    torch.manual_seed(settings.seed)
    network = EstimatorNetwork()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = ConvolutionMuon(network, weight_decay=settings.weight_decay, ends=("stem", "spectrum", "weigh"))
    if checkpoint is None or not checkpoint.exists():
        return network, optimizer, 0
    state = torch.load(checkpoint, weights_only=True)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return network, optimizer, int(state["step"])


def _save(path: Path, network: EstimatorNetwork, optimizer: ConvolutionMuon, step: int) -> None:
    """Write a checkpoint in one motion, so that a kill leaves the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    torch.save({"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, temporary)
    temporary.replace(path)


@torch.no_grad()
def validate(
    network: EstimatorNetwork, photos: list[Picture], *, batches: int, batch: BatchSettings
) -> dict[str, float]:
    """Return the mean absolute errors on seeded degradations of held-back photographs."""
    errors = []
    for step in range(batches):
        windows, labels = draw_batch(photos, seed=99, step=step, settings=batch)
        errors.append((decode(network(windows)[0].float()) - labels).abs())
    means = torch.cat(errors).mean(dim=0).tolist()
    return {f"{name}_mean_absolute_error": round(v, 4) for name, v in zip(QUANTITIES, means, strict=True)}


def weight_card(
    network: EstimatorNetwork, metrics: dict[str, float], *, settings: TrainingSettings, commit: str
) -> WeightCard:
    """Return the card of trained weights; sha256 is filled in when they are saved."""
    return WeightCard(
        id=WEIGHTS_ID,
        sha256="",
        network="models.estimation.network.EstimatorNetwork",
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        data=[
            "BSDS500, train and test splits: no licence stated, research data set",
            "443 photographs of 800 or 1024 px, mostly CC-BY(-SA) and CC0, licence of each in the set's SOURCES.csv",
            "drawn pages of text and shapes (models.estimation.training_data.draw_text)",
        ],
        licence="Apache-2.0",
        command="python -m models.estimation.training --data DATA --out OUT "
        f"--steps {settings.steps} --seed {settings.seed}",
        steps=settings.steps,
        seed=settings.seed,
        commit=commit,
        metrics={"mean absolute errors on 480 seeded degradations of held-back training photographs": metrics},
    )


def main() -> None:
    """Train from the command line and export weights and card to --out."""
    parser = argparse.ArgumentParser(description="Train the degradation estimator.")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that holds train/bsds500 and train/photos_1024"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint, weights and card")
    parser.add_argument("--steps", type=int, default=TrainingSettings().steps)
    parser.add_argument("--seed", type=int, default=TrainingSettings().seed)
    parser.add_argument("--commit", default="", help="commit of the code, for the card")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings, batch = TrainingSettings(steps=arguments.steps, seed=arguments.seed), BatchSettings()
    checkpoint = arguments.out / "estimator_checkpoint.pt"
    network = train(read_photos(arguments.data), settings=settings, batch=batch, checkpoint=checkpoint).eval()
    metrics = validate(network, read_photos(arguments.data, held_back=True), batches=40, batch=batch)
    card = weight_card(network, metrics, settings=settings, commit=arguments.commit)
    saved = save_weights(network.state_dict(), card=card, folder=arguments.out)
    print(json.dumps({"weights": f"{saved.id}.safetensors", "sha256": saved.sha256, **metrics}))


if __name__ == "__main__":
    main()
