"""A small archive of drawn pictures, clean and damaged, as bytes by relative path."""

from __future__ import annotations

from typing import Any

import numpy as np

from storage.formats.page import to_vips

SIDE = 64


def drawn(seed: int, *, noise_sigma: float = 0.0, bits: int = 8, side: int = SIDE) -> Any:
    """A picture (side, side, 3) of slow gradients and sharp discs, with noise of `noise_sigma` 8-bit levels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    planes = []
    for _ in range(3):
        plane = rng.uniform(0.1, 0.4) + 0.4 * (x * rng.uniform(0.2, 1) + y * rng.uniform(0.2, 1)) / 2
        for _ in range(4):
            centre, radius = rng.uniform(0.1, 0.9, 2), rng.uniform(0.08, 0.2)
            inside = np.hypot(x - centre[0], y - centre[1]) < radius
            plane = plane + rng.uniform(-0.3, 0.3) * inside
        planes.append(plane)
    picture = np.clip(np.stack(planes, axis=-1) + rng.normal(0, noise_sigma / 255, (side, side, 3)), 0, 1)
    return np.ascontiguousarray(np.rint(picture * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16))


def png(seed: int, *, noise_sigma: float = 0.0, bits: int = 8, side: int = SIDE) -> bytes:
    return bytes(to_vips(drawn(seed, noise_sigma=noise_sigma, bits=bits, side=side)).pngsave_buffer())


def archive() -> dict[str, bytes]:
    """Eight pictures in two folders, four of them noisy, two of 16 bits, one JPEG, and a file that is no picture."""
    return {
        "a/clean.png": png(1),
        "a/noisy 1.png": png(2, noise_sigma=25),
        "a/noisy_2.png": png(3, noise_sigma=30),
        "a/photo.jpg": bytes(to_vips(drawn(4)).jpegsave_buffer(Q=92)),
        "b/corrupt.jpg": b"\xff\xd8\xff\xe0 this is not a picture",
        "b/deep.png": png(5, bits=16),
        "b/deep_noisy.png": png(6, noise_sigma=25, bits=16),
        "b/noisy_ä.png": png(7, noise_sigma=20),
        "b/twin.png": png(1),
    }
