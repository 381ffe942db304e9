"""A 3 x 3 convolution of the normalized, twice enlarged picture, whose gradients are made at the small size.

The same numbers as enlarging (nearest or bilinear), batch normalization, a reflected border and the convolution, one
after the other. Enlarging is linear and acts on each channel alone, so that its transpose can be applied to the
gradient before the channels are mixed, on a quarter of the pixels: the mixing is nearly all of the work. Of a nearest
enlargement the way there is shorter, too: a tap more or less sees the same small pixel, so that each of the four pixels
that one becomes is a 2 x 2 convolution of the small picture, 16 multiplications instead of 36.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

Enlarging = Literal["nearest", "bilinear"]
# Every small pixel's weights on the enlarged picture sum to this, and every enlarged pixel's on the small one to 1.
_AREA = 4
# Within how many pixels of the enlarged picture the border is felt in the first and last two of the small one.
_STRIP = 8


def enlarge_twice(x: Tensor, *, kind: Enlarging) -> Tensor:
    """Return (B, C, h, w) as (B, C, 2h, 2w)."""
    return functional.interpolate(x, scale_factor=2, mode=kind, align_corners=False if kind == "bilinear" else None)


def convolve_enlarged(
    x: Tensor, *, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor | None, epsilon: float, kind: Enlarging
) -> Tensor:
    """Return (1, O, 2h, 2w) of x (1, C, h, w): enlarged, normalized to `scale` and `shift` (C), convolved.

    `weight` (O, C, 3, 3), `bias` (O). Sides of at least 2.
    """
    result: Tensor = _Convolution.apply(x, scale, shift, weight, bias, epsilon, kind)  # type: ignore[no-untyped-call]
    return result


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        epsilon: float,
        kind: Enlarging,
    ) -> Tensor:
        # A nearest enlargement has the statistics of the small picture.
        seen = x if kind == "nearest" else enlarge_twice(x, kind=kind)
        normalized, mean, inverse = torch.native_batch_norm(seen, scale, shift, None, None, True, 0.0, epsilon)
        ctx.save_for_backward(x, scale, shift, weight, mean, inverse)
        ctx.kind = kind
        if kind == "nearest":
            return _convolve_nearest(normalized, weight, bias)
        return functional.conv2d(functional.pad(normalized, (1, 1, 1, 1), mode="reflect"), weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, scale, shift, weight, mean, inverse = ctx.saved_tensors
        (_, channels, height, width), out_channels = x.shape, weight.shape[0]
        pixels = height * width
        # All of the same statistics: a mean over the enlarged picture is one over the small one.
        small = (x - _per_channel(mean, x)) * _per_channel(inverse, x)
        seen = _rows(small, pixels)
        # One tap after the other: all nine together would be twice as large as the enlarged picture.
        mixing = weight.permute(2, 3, 0, 1).reshape(9, out_channels, channels).to(gradient.dtype)
        sums = torch.promote_types(gradient.dtype, torch.float32)
        pulled, of_taps = gradient.new_zeros((pixels, channels), dtype=sums), []
        for maps, mix in zip(_transposed_taps(gradient, kind=ctx.kind), mixing, strict=True):
            tap = _rows(maps, pixels)
            pulled = pulled.addmm_(tap, mix) if sums == tap.dtype else pulled.add_(tap @ mix)
            of_taps.append((tap.mT @ seen).to(sums))
        total, along = pulled.sum(0), (pulled * seen).sum(0)
        mixed = torch.stack(of_taps).view(3, 3, out_channels, channels).permute(2, 3, 0, 1)
        of_bias = gradient.sum((0, 2, 3), dtype=sums)
        of_weight = mixed * scale.view(1, -1, 1, 1) + of_bias.view(-1, 1, 1, 1) * shift.view(1, -1, 1, 1)
        turned = _transposed(enlarge_twice(small, kind=ctx.kind), kind=ctx.kind, axes=(2, 3))
        count = _AREA * pixels
        of_x = pulled.to(gradient.dtype).view(1, height, width, channels).permute(0, 3, 1, 2)
        of_x = of_x - _per_channel(_AREA * total / count, x) - turned * _per_channel(along / count, x)
        of_x = of_x * _per_channel(scale * inverse, x)
        wanted = ctx.needs_input_grad[4]
        return of_x, along, total, of_weight.to(weight.dtype), of_bias if wanted else None, None, None


def _convolve_nearest(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the convolution (1, O, 2h, 2w) of x (1, C, h, w) enlarged, with its border reflected."""
    # What is reflected of the enlarged picture at a border are the small pixels there.
    bordered = functional.pad(x, (1, 1, 1, 1), mode="replicate")
    _, _, height, width = x.shape
    made: list[Tensor] = []
    for down, rows in enumerate(_seen_by_two(weight, axis=2)):
        for right, kernel in enumerate(_seen_by_two(rows, axis=3)):
            part = bordered[:, :, down : down + height + 1, right : right + width + 1]
            made.append(functional.conv2d(part, kernel.contiguous(memory_format=torch.channels_last), bias))
    found = made[0].new_empty((1, height, 2, width, 2, len(weight)))
    for index, maps in enumerate(made):
        found[:, :, index // 2, :, index % 2] = maps.permute(0, 2, 3, 1)
    return found.view(1, 2 * height, 2 * width, -1).permute(0, 3, 1, 2)


def _seen_by_two(weight: Tensor, *, axis: int) -> tuple[Tensor, Tensor]:
    """Return what 3 taps along an axis are for the first and the second of two pixels that one became: 2 taps each."""
    before, middle, after = weight.unbind(axis)
    return torch.stack([before, middle + after], dim=axis), torch.stack([before + middle, after], dim=axis)


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype).view(1, -1, 1, 1)


def _rows(maps: Tensor, pixels: int) -> Tensor:
    """Return (1, C, h, w) as (h w, C), without copying where channels come last in memory."""
    return maps.permute(0, 2, 3, 1).reshape(pixels, -1)


def _transposed_taps(gradient: Tensor, *, kind: Enlarging) -> Iterator[Tensor]:
    """Yield (1, O, h, w) of (1, O, 2h, 2w) for each of the 9 taps: border and enlarging transposed.

    On the CPU by a convolution of each channel, which reads the gradient once, and step by step where the border is
    felt.
    """
    if gradient.is_cuda or min(gradient.shape[2:]) < _STRIP:
        yield from _taps_in_steps(gradient, kind=kind)
        return
    channels = gradient.shape[1]
    borders = [
        (axis, end, _taps_in_steps(gradient.narrow(axis, end * (gradient.shape[axis] - _STRIP), _STRIP), kind=kind))
        for axis in (2, 3)
        for end in (0, 1)
    ]
    for number, (down, across) in enumerate(product(_lines(kind), repeat=2)):
        kernel = torch.outer(down, across).to(gradient.device, gradient.dtype).expand(channels, 1, 6, 6)
        found = functional.conv2d(gradient, kernel.contiguous(), stride=2, padding=2, groups=channels)
        for axis, end, exact in borders:
            part = found.narrow(axis, end * (found.shape[axis] - 2), 2)
            part.copy_(exact[number].narrow(axis, end * (_STRIP // 2 - 2), 2))
        yield found


def _lines(kind: Enlarging) -> list[Tensor]:
    """Return for each tap along an axis the weights (6,) of the gradient around the two pixels that one became."""
    weights = torch.tensor((0.25, 0.75, 0.75, 0.25) if kind == "bilinear" else (0.0, 1.0, 1.0, 0.0))
    return [functional.pad(weights, (2 - tap, tap)) for tap in range(3)]


def _taps_in_steps(gradient: Tensor, *, kind: Enlarging) -> list[Tensor]:
    """Return the same, made an axis at a time; also of sides of 4 or 6."""
    found = []
    across = [_transposed(_moved(gradient, tap, axis=3), kind=kind, axes=(3,)) for tap in range(3)]
    for down in range(3):
        found += [_transposed(_moved(maps, down, axis=2), kind=kind, axes=(2,)) for maps in across]
    return found


def _moved(gradient: Tensor, tap: int, *, axis: int) -> Tensor:
    """Return what reaches the picture through one tap along an axis: what fell on the border is reflected back."""
    if tap == 1:
        return gradient
    size = gradient.shape[axis]
    moved = torch.empty_like(gradient)
    if tap == 0:
        moved.narrow(axis, 0, size - 1).copy_(gradient.narrow(axis, 1, size - 1))
        moved.narrow(axis, size - 1, 1).zero_()
        moved.narrow(axis, 1, 1).add_(gradient.narrow(axis, 0, 1))
    else:
        moved.narrow(axis, 1, size - 1).copy_(gradient.narrow(axis, 0, size - 1))
        moved.narrow(axis, 0, 1).zero_()
        moved.narrow(axis, size - 2, 1).add_(gradient.narrow(axis, size - 1, 1))
    return moved


def _transposed(gradient: Tensor, *, kind: Enlarging, axes: tuple[int, ...]) -> Tensor:
    """Apply the transpose of enlarging along the axes (2 = height, 3 = width)."""
    factors = [2 if axis in axes else 1 for axis in (2, 3)]
    large = list(gradient.shape[2:])
    small = [*gradient.shape[:2], large[0] // factors[0], large[1] // factors[1]]
    scales = [float(factor) for factor in factors]
    if kind == "nearest":
        return torch.ops.aten.upsample_nearest2d_backward(gradient, large, small, *scales)  # type: ignore[no-any-return]
    return torch.ops.aten.upsample_bilinear2d_backward(gradient, large, small, False, *scales)  # type: ignore[no-any-return]
