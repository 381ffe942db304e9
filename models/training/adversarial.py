"""Training a restoring network against a discriminator, on the parts of the one training loop.

Each step the discriminator learns from the batch, then the generator: by its distance from the truth, by what the
discriminator says, by the discriminator's features, and by those of any extractor. What is kept, validated and
exported is the running mean of the generator's weights, since adversarial training does not settle. Where a batch has
a weight (a hole), the truth is put back around it, the mask is part of what the discriminator sees, and only its scores
of places with a part of the hole count (as in LaMa, Suvorov et al., WACV 2022: elsewhere true and made are the same).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.device import quick_products
from models.training.adversarial_losses import (
    Adversary,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    r1_penalty,
)
from models.training.ahead import BatchesAhead
from models.training.averaging import move_mean
from models.training.corruption import Example, torch_generator
from models.training.discriminator import PatchDiscriminator
from models.training.feature_losses import Extractor, matching_loss, perceptual_loss, style_loss
from models.training.log import Progress
from models.training.loop import LoopSettings, Losses, Schedule, carry_out
from models.training.losses import charbonnier


@dataclass(frozen=True, slots=True, kw_only=True)
class AdversarialSettings:
    """What the generator is trained for, and how the discriminator learns.

    Weights are of the mean loss each. feature_weight, feature_layers: the shipped weight, of one of our recipes that
    take pictures alone, and the names of its network's layers whose outputs the perceptual and style losses compare
    (`models.training.run` builds their extractor). penalty: on the discriminator's slope, every `penalty_every` steps
    with as many times its weight (StyleGAN2's lazy regularization). betas: of Adam, for both. averaging: the running
    mean keeps so much of itself every step.
    """

    kind: Adversary = "hinge"
    pixel_weight: float = 1.0
    adversarial_weight: float = 0.01
    matching_weight: float = 0.0
    perceptual_weight: float = 0.0
    style_weight: float = 0.0
    feature_weight: str = "denoise"
    feature_layers: tuple[str, ...] = ("encoders.0", "encoders.1", "body")
    widths: tuple[int, ...] = (32, 64, 96, 96)
    spectral: bool = True
    penalty: str | None = None
    penalty_weight: float = 10.0
    penalty_every: int = 1
    discriminator_steps: int = 1
    discriminator_lr: float = 4e-4
    betas: tuple[float, float] = (0.5, 0.999)
    averaging: float = 0.999

    def __post_init__(self) -> None:
        if self.penalty not in (None, "r1", "gradient"):
            raise ValueError(f"AdversarialSettings: got penalty {self.penalty!r}, expected 'r1', 'gradient' or None")
        if self.penalty is not None and self.penalty_every < 1:
            raise ValueError(f"AdversarialSettings: got penalty_every {self.penalty_every}, expected at least 1")
        if self.discriminator_steps < 1:
            raise ValueError(f"AdversarialSettings: got {self.discriminator_steps} steps, expected at least 1")

    @property
    def needs_features(self) -> bool:
        """Whether the generator's loss has a perceptual or a style part."""
        return bool(self.perceptual_weight or self.style_weight)

    def discriminator(self, *, masked: bool) -> PatchDiscriminator:
        """Return an untrained discriminator of pictures, and their masks where there are any."""
        return PatchDiscriminator(in_channels=4 if masked else 3, widths=self.widths, spectral=self.spectral)


def train_adversarially(
    generator: nn.Module,
    *,
    adversarial: AdversarialSettings,
    batches: Callable[[np.random.Generator], Example],
    schedule: Schedule,
    settings: LoopSettings,
    seed: int,
    extractor: Extractor | None = None,
    validate: Callable[[nn.Module], float] | None = None,
    follow: Callable[[nn.Module], Mapping[str, float]] | None = None,
    observe: Callable[[Progress], None] | None = None,
) -> int:
    """Train `generator` up to `schedule.steps`, resuming from `settings.out`; return the steps done.

    In the end its weights are the running mean. Raises ValueError for weights of features without an extractor.
    """
    if extractor is None and adversarial.needs_features:
        raise ValueError("train_adversarially: got weights for perceptual or style loss, expected an extractor too")
    generator.to(settings.device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    masked = batches(np.random.default_rng((seed, 0))).weight is not None
    discriminator = adversarial.discriminator(masked=masked).to(settings.device)
    averaged = copy.deepcopy(generator).requires_grad_(False)
    optimizers = {
        "optimizer": torch.optim.Adam(generator.parameters(), lr=schedule.peak_lr, betas=adversarial.betas),
        "discriminator_optimizer": torch.optim.Adam(
            discriminator.parameters(), lr=adversarial.discriminator_lr, betas=adversarial.betas
        ),
    }
    duel = _Duel(generator, discriminator, adversarial=adversarial, extractor=extractor, settings=settings)

    def one_step(step: int) -> Losses:
        for group in optimizers["optimizer"].param_groups:
            group["lr"] = schedule.lr(step)
        for turn in range(adversarial.discriminator_steps):
            example, rng = coming.take(step, turn=turn)
            # The last batch's pictures are what the generator learns from too.
            output = duel.output(example, learning=turn == adversarial.discriminator_steps - 1)
            judged = duel.discriminator_loss(example, output.detach(), step=step, rng=rng)
            _follow(judged, optimizers["discriminator_optimizer"])
        with _frozen(discriminator):
            loss, pixel, fooled = duel.generator_loss(example, output)
            _follow(loss, optimizers["optimizer"], clip=(generator, schedule.clip_norm))
        move_mean(averaged.state_dict(), generator.state_dict(), decay=adversarial.averaging)
        return {"loss": float(pixel), "adversarial_loss": float(fooled), "discriminator_loss": float(judged.detach())}

    turns = adversarial.discriminator_steps
    with BatchesAhead(batches, seed=seed, device=settings.device, turns=turns) as coming:
        done = carry_out(
            {"network": averaged, "generator": generator, "discriminator": discriminator, **optimizers},
            one_step=one_step,
            schedule=schedule,
            settings=settings,
            validate=None if validate is None else lambda: validate(averaged),
            follow=None if follow is None else lambda: follow(averaged),
            observe=observe,
        )
    generator.load_state_dict(averaged.state_dict())
    return done


class _Duel:
    """The two losses of one batch."""

    def __init__(
        self,
        generator: nn.Module,
        discriminator: PatchDiscriminator,
        *,
        adversarial: AdversarialSettings,
        extractor: Extractor | None,
        settings: LoopSettings,
    ) -> None:
        self._generator, self._discriminator = generator, discriminator
        self._adversarial, self._extractor, self._settings = adversarial, extractor, settings

    def _quick(self) -> torch.autocast:
        return quick_products(self._settings.device, allowed=self._settings.bf16)

    def output(self, example: Example, *, learning: bool) -> Tensor:
        """Return what the generator makes of a batch."""
        with torch.set_grad_enabled(learning), self._quick():
            made: Tensor = self._generator(example.network_input)
        return made.float()

    def discriminator_loss(self, example: Example, output: Tensor, *, step: int, rng: np.random.Generator) -> Tensor:
        """Return what the discriminator is to lower."""
        real, fake = _seen(example.target, example), _seen(example.completed(output), example)
        with self._quick():
            told, denied = self._discriminator(torch.cat([real, fake])).chunk(2)
        loss = discriminator_loss(_counted(told, example), _counted(denied, example), kind=self._adversarial.kind)
        every = self._adversarial.penalty_every
        if self._adversarial.penalty is None or step % every:
            return loss
        # In full precision: second derivatives of half-precision scores are noise.
        if self._adversarial.penalty == "r1":
            penalty = r1_penalty(self._discriminator, real)
        else:
            penalty = gradient_penalty(self._discriminator, real, fake, generator=torch_generator(rng))
        return loss + every * self._adversarial.penalty_weight * penalty

    def generator_loss(self, example: Example, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the generator is to lower, and its parts: the distance of pixels, and what it is not believed."""
        weights = self._adversarial
        pixel = charbonnier(output, example.target, weight=example.weight)
        made = example.completed(output)
        with self._quick():
            fake, features = self._discriminator.judge(_seen(made, example))
            with torch.no_grad():
                real, wanted = self._discriminator.judge(_seen(example.target, example))
        fooled = generator_loss(_counted(real, example), _counted(fake, example), kind=weights.kind)
        loss = weights.pixel_weight * pixel + weights.adversarial_weight * fooled
        if weights.matching_weight:
            loss = loss + weights.matching_weight * matching_loss(features, wanted)
        if self._extractor is not None and weights.perceptual_weight:
            loss = loss + weights.perceptual_weight * perceptual_loss(self._extractor, made, example.target)
        if self._extractor is not None and weights.style_weight:
            loss = loss + weights.style_weight * style_loss(self._extractor, made, example.target)
        return loss, pixel.detach(), fooled.detach()


def _seen(pictures: Tensor, example: Example) -> Tensor:
    """Return what a discriminator is shown: pictures in [-1, 1], and the places that were missing."""
    centred = 2.0 * pictures - 1.0
    return centred if example.weight is None else torch.cat([centred, example.weight[:, :1]], dim=1)


def _counted(scores: Tensor, example: Example) -> Tensor:
    """Return the scores (N,) of places in which something was missing; all where the whole picture is made."""
    if example.weight is None:
        return scores.flatten()
    missing = functional.adaptive_max_pool2d(example.weight[:, :1], scores.shape[2:]) > 0
    return scores[missing] if bool(missing.any()) else scores.flatten()


def _follow(loss: Tensor, optimizer: torch.optim.Optimizer, *, clip: tuple[nn.Module, float] | None = None) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if clip is not None:
        nn.utils.clip_grad_norm_(clip[0].parameters(), clip[1])
    optimizer.step()


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Leave a network's own gradients, and its running estimates, alone within the block."""
    training = network.training
    network.requires_grad_(False).eval()
    try:
        yield
    finally:
        network.requires_grad_(True).train(training)
