"""Frechet distance of two sets of pictures: how far the Gaussians of their features are apart (FID-style).

M. Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium", NeurIPS 2017.
The feature extractor is given by the caller; only the Inception network of the published code gives published FID.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Matrix = npt.NDArray[np.float64]
Extractor = Callable[[Tensor], Tensor]


class FeatureMoments:
    """Mean (D,) and covariance (D, D) of features that arrive batch by batch; memory does not grow with their number.

    Batches are merged with Chan's formula, in float64, so that a large mean does not eat a small variance.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean: Matrix = np.zeros(0)
        self._scatter: Matrix = np.zeros((0, 0))

    @property
    def mean(self) -> Matrix:
        """The mean (D,); ValueError before the first batch."""
        self._require(1)
        return self._mean

    @property
    def covariance(self) -> Matrix:
        """The covariance (D, D) with n - 1 in the denominator; ValueError for fewer than two pictures."""
        self._require(2)
        return self._scatter / (self.count - 1)

    def _require(self, count: int) -> None:
        if self.count < count:
            raise ValueError(f"expected at least {count} pictures, got {self.count}; add more before asking")

    def add(self, features: npt.NDArray[np.floating]) -> None:
        """Take in one batch (B, D); ValueError for other shapes, another D than before, NaN or infinity."""
        batch = np.asarray(features, np.float64)
        if batch.ndim != 2 or (self.count and batch.shape[1] != len(self._mean)):
            wanted = f"(B, {len(self._mean)})" if self.count else "(B, D)"
            raise ValueError(f"expected features {wanted}, got {batch.shape}; pool the extractor's output first")
        if not np.isfinite(batch).all():
            raise ValueError("expected finite features, got NaN or infinity; check the pictures and the extractor")
        if not len(batch):
            return
        mean = batch.mean(axis=0)
        centred = batch - mean
        if not self.count:
            self._mean, self._scatter = np.zeros_like(mean), np.zeros((len(mean), len(mean)))
        total = self.count + len(batch)
        difference = mean - self._mean
        between = np.outer(difference, difference) * (self.count * len(batch) / total)
        self._scatter = self._scatter + centred.T @ centred + between
        self._mean = self._mean + difference * (len(batch) / total)
        self.count = total


def collect_moments(batches: Iterable[Tensor], *, extractor: Extractor) -> FeatureMoments:
    """Run the extractor over batches of pictures (B, C, H, W) and return the moments of its features.

    The extractor returns (B, D), or maps (B, D, h, w), which are averaged over h and w.
    """
    moments = FeatureMoments()
    with torch.no_grad():
        for batch in batches:
            features = extractor(batch)
            if features.ndim == 4:
                features = features.mean(dim=(2, 3))
            moments.add(features.detach().to("cpu", torch.float64).numpy())
    return moments


def _symmetric_root(matrix: Matrix) -> Matrix:
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    root: Matrix = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    return root


def frechet_distance(first: FeatureMoments, second: FeatureMoments) -> float:
    """Return |m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^½), at least 0; 0 = equal moments.

    tr (S1 S2)^½ is taken as tr (S1^½ S2 S1^½)^½: the same number, real and stable also where a covariance is
    singular (fewer pictures than features), where the published code adds 1e-6 to the diagonals and tries again.
    Small sets make it too large: compare sets of one size, and more pictures than features.
    """
    if first.mean.shape != second.mean.shape:
        raise ValueError(
            f"expected features of one length, got {first.mean.shape} and {second.mean.shape}; use one extractor"
        )
    difference = first.mean - second.mean
    root = _symmetric_root(first.covariance)
    inner = root @ second.covariance @ root
    shared = np.sqrt(np.clip(np.linalg.eigvalsh((inner + inner.T) / 2), 0, None)).sum()
    spread = np.trace(first.covariance) + np.trace(second.covariance) - 2 * shared
    return max(0.0, float(difference @ difference + spread))
