"""Trains the detector: ``python -m models.scratches.training --data DIR --out DIR --steps N --seed S [--resume]``.

Loss: weighted binary cross entropy plus 10 times focal loss with gamma 2 (Lin et al., ICCV 2017), as in "Bringing Old
Photos Back to Life" (CVPR 2020). The batch of step k is a function of (seed, k): a resumed run repeats an unbroken one.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from models.device import quick_products
from models.scratches.detector import probability_map
from models.scratches.hard_places import hard_places
from models.scratches.network import NetworkSettings, ScratchUNet, prepare_for_inference, unfold, widen
from models.scratches.synthesis import TRAINING_DAMAGE, PatchSettings, TrainingData, load_split, make_batch
from models.training.averaging import move_mean
from models.training.optimizer import ConvolutionMuon

# What the detector learns from; the defaults of the settings are what the benchmark's first sets are drawn by.
PATCHES = PatchSettings(print_share=0.25, sharpened_share=0.3, damage=TRAINING_DAMAGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """The recipe: warm-up, stable and linear-decay phases by steps; `ema_decay` averages what is exported."""

    steps: int
    seed: int
    batch: int = 4
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warmup_steps: int = 200
    decay_share: float = 0.85
    focal_gamma: float = 2.0
    focal_beta: float = 10.0
    positive_weight_max: float = 4.0
    ema_decay: float = 0.998
    gradient_clip: float = 1.0
    checkpoint_seconds: float = 120.0


def detection_loss(logits: Tensor, masks: Tensor, weights: Tensor, *, settings: TrainingSettings) -> Tensor:
    """Weighted cross entropy + beta * focal loss of logits, masks and weights (B, 1, H, W); a scalar.

    The positive weight is the ratio of intact to damaged pixels of the batch, as in the paper, but at most
    `positive_weight_max`: the full ratio (about 30) made the network mark every line of a clean picture.
    """
    share = masks.mean().clamp_min(1e-4)
    positive = ((1 - share) / share).clamp(1.0, settings.positive_weight_max)
    entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    missed = torch.exp(-entropy).neg().add(1)
    balanced = entropy * torch.where(masks > 0.5, positive, torch.ones_like(positive))
    focal = entropy * missed**settings.focal_gamma
    return ((balanced + settings.focal_beta * focal) * weights).sum() / weights.sum()


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """Learning rate of `step`: linear warm-up, constant, then linear decay to 0 over the last `decay_share`."""
    decay_start = settings.steps * (1 - settings.decay_share)
    rise = min(1.0, (step + 1) / settings.warmup_steps)
    fall = 1.0 if step < decay_start else max(0.0, (settings.steps - step) / (settings.steps - decay_start))
    return settings.learning_rate * rise * fall


class Trainer:
    """Holds network, averaged weights and optimizer; `run` trains, `save` and `resume` keep the state."""

    def __init__(
        self,
        data: TrainingData,
        out: Path,
        *,
        settings: TrainingSettings,
        patches: PatchSettings,
        device: str = "cpu",
    ) -> None:
        torch.manual_seed(settings.seed)
        self.device = torch.device(device)
        self.data, self.out, self.settings, self.patches = data, out, settings, patches
        self.network = ScratchUNet(NetworkSettings())
        self.network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.optimizer = ConvolutionMuon(
            self.network,
            weight_decay=settings.weight_decay,
            ends=("last", "logit"),
            betas=(0.9, 0.99),
        )
        self.step = 0

    def start_from(self, state: dict[str, Tensor]) -> None:
        """Start anew from the weights of a like or narrower network."""
        widen(self.network, state)
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}

    def start_from_folded(self, folded: dict[str, Tensor], *, batches: int = 16) -> None:
        """Start anew from weights as they are shipped, their norms measured on batches of another seed."""
        drawn = range(batches)
        seed = self.settings.seed + 1
        made = (make_batch(self.data, seed=seed, step=n, count=8, settings=self.patches)[0] for n in drawn)
        self.network.to("cpu")
        unfold(self.network, folded, [torch.from_numpy(images) for images in made])
        self.network.to(self.device)
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}

    def draw_hard_places(self, count: int) -> None:
        """Learn more from where the network, as it starts, takes the photographs for damaged."""
        network = prepare_for_inference(copy.deepcopy(self.network))
        look = partial(probability_map, network=network, device=self.device)
        rng = np.random.default_rng((self.settings.seed, count))
        self.data = replace(self.data, hard=hard_places(self.data.pictures, look, count=count, rng=rng))

    def train_step(self) -> float:
        """Do one step; returns the loss."""
        settings = self.settings
        arrays = make_batch(self.data, seed=settings.seed, step=self.step, count=settings.batch, settings=self.patches)
        images, masks, weights = (torch.from_numpy(array).to(self.device) for array in arrays)
        with quick_products(self.device):
            logits = self.network(images.contiguous(memory_format=torch.channels_last))
        loss = detection_loss(logits, masks, weights, settings=settings)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step(lr=learning_rate(self.step, settings), clip_norm=settings.gradient_clip)
        decay = min(settings.ema_decay, (1 + self.step) / (10 + self.step))
        move_mean(self.average, self.network.state_dict(), decay=decay)
        self.step += 1
        return float(loss.detach())

    def save(self) -> None:
        """Write the state to `out`/checkpoint.pt in one move."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seed": self.settings.seed,
        }
        if self.data.hard is not None:
            state["hard"] = torch.from_numpy(self.data.hard)
        temporary = self.out / "checkpoint.pt.part"
        torch.save(state, temporary)
        os.replace(temporary, self.out / "checkpoint.pt")

    def resume(self) -> None:
        """Go on from `out`/checkpoint.pt; raises ValueError when it belongs to another seed."""
        state = torch.load(self.out / "checkpoint.pt", map_location=self.device, weights_only=True)
        if state["seed"] != self.settings.seed:
            raise ValueError(
                f"checkpoint has seed {state['seed']}, got --seed {self.settings.seed}; give the same seed"
            )
        self.network.load_state_dict(state["network"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])
        if "hard" in state:
            self.data = replace(self.data, hard=state["hard"].numpy())

    def run(self) -> None:
        """Train up to the last step, with a line to the log every 100 steps and regular checkpoints."""
        self.network.train()
        began, saved, total, first = time.monotonic(), time.monotonic(), 0.0, self.step
        while self.step < self.settings.steps:
            total += self.train_step()
            if self.step % 100 == 0:
                rate = (self.step - first) / (time.monotonic() - began)
                print(f"step {self.step} loss {total / 100:.4f} steps/s {rate:.2f}", flush=True)
                total = 0.0
            if time.monotonic() - saved > self.settings.checkpoint_seconds:
                self.save()
                saved = time.monotonic()
        self.save()


def averaged_network(checkpoint: Path) -> tuple[ScratchUNet, int, int]:
    """Return the averaged network of a checkpoint, its steps and its seed."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    network = ScratchUNet(NetworkSettings())
    network.load_state_dict(state["average"])
    return network, int(state["step"]), int(state["seed"])


def main() -> None:
    """Command line of the training."""
    parser = argparse.ArgumentParser(description="Train the scratch detector.")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and masks/film_damage")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and weights")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--start-from",
        type=Path,
        help="to go on from: checkpoint.pt of a like or narrower network, or shipped .safetensors",
    )
    parser.add_argument("--learning-rate", type=float, default=TrainingSettings(steps=1, seed=0).learning_rate)
    parser.add_argument("--batch", type=int, default=TrainingSettings(steps=1, seed=0).batch, help="patches a step")
    parser.add_argument("--side", type=int, default=PATCHES.side, help="side of a patch, px")
    parser.add_argument(
        "--hard-places",
        type=int,
        default=0,
        metavar="N",
        help="draw a quarter of the patches from N places that the weights begun with take for damage",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    cv2.setNumThreads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    settings = TrainingSettings(
        steps=arguments.steps, seed=arguments.seed, learning_rate=arguments.learning_rate, batch=arguments.batch
    )
    patches = replace(PATCHES, side=arguments.side)
    trainer = Trainer(
        load_split(arguments.data, "train"), arguments.out, settings=settings, patches=patches, device=arguments.device
    )
    if arguments.resume and (arguments.out / "checkpoint.pt").exists():
        trainer.resume()
    elif arguments.start_from:
        if arguments.start_from.suffix == ".safetensors":
            trainer.start_from_folded({name: value.float() for name, value in load_file(arguments.start_from).items()})
        else:
            state = torch.load(arguments.start_from, map_location=arguments.device, weights_only=True)
            trainer.start_from(state["average"])
    if arguments.hard_places and trainer.data.hard is None:
        trainer.draw_hard_places(arguments.hard_places)
    trainer.run()
    print(
        f"done; now: python -m models.scratches.calibration --data {arguments.data} --checkpoint-folder {arguments.out}"
    )


if __name__ == "__main__":
    main()
