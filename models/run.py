"""Running any method on any pictures: tiles, batches across pictures, precision, device, memory back-off, masks.

Written once for all methods. Pictures come and go as integer arrays (H, W) or (H, W, 3), uint8 or uint16; a result has
the shape of its picture (height and width times the method's scale), its dtype, and outside the mask of a hole filler
its exact values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from models.blocks import enlarge
from models.device import keep_freed_memory, resolve_device, resolve_precision
from models.interruption import work_interrupted
from models.margins import between_even_margins, put_between
from models.method import (
    CombiningMethod,
    Context,
    DecidingMethod,
    Method,
    check_inputs,
    is_grey_as_rgb,
    to_planes,
)
from models.plain_enlargement import as_columns, plainly_enlarged
from models.published.catalogue import card_of, tensors_of
from models.registry import get_method
from models.shares import mixed
from models.tiling import StripBlender, Tile, TileGrid, cut, tile_grid
from models.types import TILE_PX, DegradationEstimate
from models.wide_holes import without_wide_holes

SMALLEST_TILE = 128
CPU_BATCH_PIXELS = 512 * 512
GPU_BATCH_PIXELS = 32 * 512 * 512


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """Where and how to run. `tile` and `batch_pixels` bound the memory; `precision` auto = bf16 where it is fast."""

    device: str = "auto"
    precision: str = "auto"
    tile: int = TILE_PX
    batch_pixels: int | None = None


@dataclass(slots=True)
class _Job:
    """One picture on its way through a method. seen: what the method is shown of it."""

    image: npt.NDArray[Any]
    seen: npt.NDArray[Any]
    mask: npt.NDArray[np.bool_] | None
    strength: float
    context: Context
    grid: TileGrid
    blender: StripBlender


@dataclass(frozen=True, slots=True, eq=False)
class Applied:
    """What a method made of a picture. decided: what it chose to do to it, in words, "" = it has no choice.

    parts: other methods that have a share in the result.
    """

    image: npt.NDArray[Any]
    decided: str = ""
    parts: tuple[str, ...] = ()


class Runner:
    """Applies registered methods on one device, keeping the networks it has built."""

    def __init__(self, settings: RunSettings | None = None) -> None:
        self.settings = settings or RunSettings()
        self.device = resolve_device(self.settings.device)
        self.dtype = resolve_precision(self.settings.precision, device=self.device)
        default = CPU_BATCH_PIXELS if self.device == "cpu" else GPU_BATCH_PIXELS
        self.batch_pixels = self.settings.batch_pixels or default
        self._networks: dict[str, nn.Module] = {}
        if self.device == "cpu":
            keep_freed_memory()

    @property
    def precision(self) -> str:
        """Name of the arithmetic used inside networks, such as "bfloat16"."""
        return str(self.dtype).removeprefix("torch.")

    @staticmethod
    def weights_sha256(method_id: str) -> str | None:
        """sha256 of the method's weights; None when it has none."""
        name = get_method(method_id).card.weights
        return None if name is None else card_of(name).sha256

    def network(self, method: Method) -> nn.Module:
        """Return the method's network, built, loaded strictly and on the device."""
        card = method.card
        if card.id not in self._networks:
            network = method.build()
            if card.weights is not None:
                network.load_state_dict(tensors_of(card.weights), strict=True)
            network.requires_grad_(False)
            self._networks[card.id] = network.eval().to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self._networks[card.id]

    def apply(
        self,
        method_id: str,
        images: Sequence[npt.NDArray[Any]],
        *,
        masks: Sequence[npt.NDArray[np.bool_] | None] | None = None,
        estimates: Sequence[DegradationEstimate | None] | None = None,
        strengths: Sequence[float] | None = None,
        seed: int = 0,
    ) -> list[npt.NDArray[Any]]:
        """Restore every picture with one method; a strength of 0 returns the picture's own values.

        A picture of three equal planes, black and white stored as RGB, stays one. Even margins around a picture come
        back as they are, and nothing in it is judged by them (`models.margins`). An upscaler's strength goes from
        plain bicubic enlargement (0) to its own result (1); the size is its scale's. Raises ImageContractError for a
        picture or mask that breaks the contract, UnknownMethodError for the method, WeightsError when its weights are
        missing or altered, ValueError for a result that is not finite.
        """
        found = self.apply_and_say(method_id, images, masks=masks, estimates=estimates, strengths=strengths, seed=seed)
        return [one.image for one in found]

    def apply_and_say(
        self,
        method_id: str,
        images: Sequence[npt.NDArray[Any]],
        *,
        masks: Sequence[npt.NDArray[np.bool_] | None] | None = None,
        estimates: Sequence[DegradationEstimate | None] | None = None,
        strengths: Sequence[float] | None = None,
        seed: int = 0,
    ) -> list[Applied]:
        """Restore every picture as `apply` does, and say what the method decided to do to each."""
        method = get_method(method_id)
        count = len(images)
        masks = masks if masks is not None else [None] * count
        estimates = estimates if estimates is not None else [None] * count
        strengths = strengths if strengths is not None else [1.0] * count
        check_inputs(method, images=images, masks=masks, strengths=strengths)
        repeated = [
            strength > 0.0 and is_grey_as_rgb(image, mask if method.card.needs_mask else None)
            for image, mask, strength in zip(images, masks, strengths, strict=True)
        ]
        images = [image[:, :, 0] if grey else image for image, grey in zip(images, repeated, strict=True)]
        if isinstance(method, CombiningMethod):
            restored = self._combine(method, images, estimates=estimates, strengths=strengths, seed=seed)
        else:
            # A hole lies where its mask says; what is enlarged, or gets other colours, is the page.
            page = method.card.needs_mask or method.card.scale > 1 or method.card.purpose == "colour"
            places = [(slice(None), slice(None)) if page else between_even_margins(image) for image in images]
            parts = [image[place] for image, place in zip(images, places, strict=True)]
            found = self._tiled(method, parts, masks=masks, estimates=estimates, strengths=strengths, seed=seed)
            restored = [
                replace(one, image=put_between(image, one.image, place=place))
                for one, image, place in zip(found, images, places, strict=True)
            ]
        return [
            replace(one, image=np.repeat(one.image[:, :, None], 3, axis=2)) if grey else one
            for one, grey in zip(restored, repeated, strict=True)
        ]

    def _tiled(
        self,
        method: Method,
        images: Sequence[npt.NDArray[Any]],
        *,
        masks: Sequence[npt.NDArray[np.bool_] | None],
        estimates: Sequence[DegradationEstimate | None],
        strengths: Sequence[float],
        seed: int,
    ) -> list[Applied]:
        """Apply one method tile by tile, with smaller tiles where memory runs out."""
        tile = min(self.settings.tile, method.card.largest_tile or self.settings.tile)
        while True:
            jobs = [
                _job(method, image, mask=mask, estimate=estimate, strength=strength, tile=tile)
                for image, mask, estimate, strength in zip(images, masks, estimates, strengths, strict=True)
            ]
            try:
                self._run(method, [job for job in jobs if job.strength > 0.0], seed=seed)
            except torch.OutOfMemoryError:
                if tile <= SMALLEST_TILE:
                    raise
                tile //= 2
                self._free()
                continue
            scale = method.card.scale
            return [
                Applied(job.blender.result, decided=_decided(method, job))
                if job.strength > 0.0
                else Applied(plainly_enlarged(job.image, scale=scale))
                for job in jobs
            ]

    def _combine(
        self,
        method: CombiningMethod,
        images: Sequence[npt.NDArray[Any]],
        *,
        estimates: Sequence[DegradationEstimate | None],
        strengths: Sequence[float],
        seed: int,
    ) -> list[Applied]:
        """Apply all parts to one picture after the other, so that only one's results are held."""
        found = []
        for image, estimate, strength in zip(images, estimates, strengths, strict=True):
            results = [self.apply(part, [image], estimates=[estimate], seed=seed)[0] for part in method.parts]
            shares = method.shares(self.network(method), image, results, estimate=estimate)
            means = dict(zip((*method.parts, "as it was"), shares.means().tolist(), strict=True))
            # Of what has no share, no pixel tells; one that is rounded to nothing may still have a place of its own.
            named = [f"{name} {mean:.0%}" for name, mean in means.items() if mean > 0.0]
            parts = tuple(part for part in method.parts if means[part] > 0.0 and strength > 0.0)
            picture = mixed(image, results, shares=shares, strength=strength)
            found.append(Applied(picture, decided=f"mean shares: {', '.join(named)}", parts=parts))
        return found

    def restore_planes(
        self,
        method_id: str,
        planes: Tensor,
        *,
        mask: Tensor | None = None,
        estimate: DegradationEstimate | None = None,
        seed: int = 0,
    ) -> Tensor:
        """Restore one whole float picture (3, H, W) without tiles, clipping or rounding, as published protocols do.

        The result is (3, H·scale, W·scale). `mask` is (1, H, W) in {0, 1}, 1 = missing; outside of it the result
        equals the input.
        """
        method = get_method(method_id)
        if isinstance(method, CombiningMethod):
            return self._combine_planes(method, planes, estimate=estimate, seed=seed)
        multiple, scale, (height, width) = method.card.size_multiple, method.card.scale, planes.shape[1:]
        padding = (0, -width % multiple, 0, -height % multiple)
        image = pad(planes[None], padding, mode="reflect")
        holes = None if mask is None else pad(mask[None], padding, mode="reflect")
        context = Context(estimate=estimate)
        restored = self._forward(method, self.network(method), image, mask=holes, contexts=[context], seed=seed)[
            0, :, : height * scale, : width * scale
        ]
        return restored if mask is None else torch.where(mask > 0, restored, planes)

    def _combine_planes(
        self, method: CombiningMethod, planes: Tensor, *, estimate: DegradationEstimate | None, seed: int
    ) -> Tensor:
        results = [self.restore_planes(part, planes, estimate=estimate, seed=seed) for part in method.parts]
        # Shares are found on what a file would hold; what is mixed is neither clipped nor rounded.
        seen = [_as_picture(one) for one in (planes, *results)]
        shares = method.shares(self.network(method), seen[0], seen[1:], estimate=estimate)
        columns = [one.permute(1, 2, 0).numpy() for one in (planes, *results)]
        return torch.from_numpy(mixed(columns[0], columns[1:], shares=shares)).permute(2, 0, 1)

    def _run(self, method: Method, jobs: Sequence[_Job], *, seed: int) -> None:
        network, scale = self.network(method), method.card.scale
        for batch in self._batches(jobs, scale=scale):
            if work_interrupted():
                raise KeyboardInterrupt
            planes = torch.stack([to_planes(cut(job.seen, tile, grid=job.grid)) for job, tile in batch])
            holes = _stack_masks(batch) if method.card.needs_mask else None
            restored = self._forward(
                method, network, planes, mask=holes, contexts=[job.context for job, _ in batch], seed=seed
            )
            for (job, tile), after in zip(batch, restored, strict=True):
                blended = after
                if job.strength < 1.0:
                    plain = enlarge(to_planes(cut(job.image, tile, grid=job.grid))[None], scale=scale)[0]
                    blended = plain + job.strength * (after - plain)
                job.blender.add(tile.enlarged(scale), as_columns(blended, image=job.image))

    def _batches(self, jobs: Sequence[_Job], *, scale: int) -> Iterator[list[tuple[_Job, Tile]]]:
        """Group tiles of one shape, whichever picture they come from; a picture's own tiles stay in order."""
        pending: dict[tuple[int, int], list[tuple[_Job, Tile]]] = {}
        for job in jobs:
            shape = (job.grid.tile_height, job.grid.tile_width)
            largest = max(1, self.batch_pixels // (shape[0] * shape[1] * scale**2))
            waiting = pending.setdefault(shape, [])
            for tile in job.grid.tiles():
                if job.mask is not None and not job.mask[tile.window].any():
                    # It is written at once, so tiles of this picture that still wait must be written before it.
                    if waiting:
                        yield list(waiting)
                        waiting.clear()
                    kept = to_planes(np.asarray(job.image[tile.window]))
                    job.blender.add(tile, as_columns(kept, image=job.image))
                    continue
                waiting.append((job, tile))
                if len(waiting) >= largest:
                    yield list(waiting)
                    waiting.clear()
        for waiting in pending.values():
            if waiting:
                yield list(waiting)

    def _forward(
        self,
        method: Method,
        network: nn.Module,
        planes: Tensor,
        *,
        mask: Tensor | None,
        contexts: Sequence[Context],
        seed: int,
    ) -> Tensor:
        try:
            image = planes.to(self.device, memory_format=torch.channels_last)
            holes = None if mask is None else mask.to(self.device)
            reduced = method.card.half_precision and self.dtype is not torch.float32
            kind = torch.device(self.device).type
            with torch.inference_mode(), torch.autocast(kind, dtype=self.dtype, enabled=reduced):
                return method(network, image, mask=holes, contexts=contexts, seed=seed).float().cpu()
        except torch.OutOfMemoryError:
            if len(planes) == 1:
                raise
        self._free()
        half = len(planes) // 2
        parts = [
            self._forward(
                method,
                network,
                planes[part],
                mask=None if mask is None else mask[part],
                contexts=contexts[part],
                seed=seed,
            )
            for part in (slice(0, half), slice(half, None))
        ]
        return torch.cat(parts)

    def _free(self) -> None:
        if torch.device(self.device).type == "cuda":
            torch.cuda.empty_cache()


def _job(
    method: Method,
    image: npt.NDArray[Any],
    *,
    mask: npt.NDArray[np.bool_] | None,
    estimate: DegradationEstimate | None,
    strength: float,
    tile: int,
) -> _Job:
    card = method.card
    used = mask if card.needs_mask else None
    grid = tile_grid(
        image.shape[0], image.shape[1], tile=tile, overlap=2 * card.context_px, multiple=card.size_multiple
    )
    return _Job(
        image=image,
        seen=image if used is None else without_wide_holes(image, used, grid=grid),
        mask=used,
        strength=strength,
        context=Context(estimate=estimate, statistics=method.statistics(image)),
        grid=grid,
        blender=StripBlender(image, grid=grid.enlarged(card.scale), mask=used),
    )


def _decided(method: Method, job: _Job) -> str:
    return method.decided(job.context.statistics) if isinstance(method, DecidingMethod) else ""


def _stack_masks(batch: Sequence[tuple[_Job, Tile]]) -> Tensor:
    holes = [
        torch.from_numpy(cut(job.mask, tile, grid=job.grid).astype(np.float32))[None]
        for job, tile in batch
        if job.mask is not None
    ]
    return torch.stack(holes)


def _as_picture(planes: Tensor) -> npt.NDArray[np.uint8]:
    """Return planes (3, H, W) in [0, 1] as 8-bit (H, W, 3)."""
    return planes.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
