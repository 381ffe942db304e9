"""What became of a whole data set: counts and means over its shards, at the memory of one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tasks.datasets.jobs import ShardOutcome

_KEPT_FAILURES = 20


@dataclass(slots=True, kw_only=True)
class Totals:
    """Sums over the shards of a run; `made` counts what this run made, the others what is there.

    broken: how many shards ended without a commit, with the first few as (shard, error).
    """

    samples: int = 0
    shards: int = 0
    made_samples: int = 0
    made_shards: int = 0
    made_pixels: int = 0
    made_source_bytes: int = 0
    source_bytes: int = 0
    output_bytes: int = 0
    unavailable: int = 0
    shard_seconds: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    methods: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    sums: dict[str, tuple[float, int]] = field(default_factory=dict)
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    broken: int = 0
    broken_samples: int = 0
    broken_shards: list[tuple[str, str]] = field(default_factory=list)

    def add(self, outcome: ShardOutcome) -> None:
        """Count one shard."""
        self.samples += outcome.samples
        self.shards += 1
        self.source_bytes += outcome.source_bytes
        self.output_bytes += outcome.output_bytes
        self.unavailable += outcome.unavailable
        self.statuses.update(outcome.statuses)
        self.methods.update(outcome.methods)
        self.errors.update(outcome.errors)
        for name, (total, count) in outcome.estimates.items():
            before = self.sums.get(name, (0.0, 0))
            self.sums[name] = (before[0] + total, before[1] + count)
        self.failures = sorted([*self.failures, *outcome.failures])[:_KEPT_FAILURES]
        if not outcome.kept:
            self.made_shards += 1
            self.made_samples += outcome.samples
            self.made_pixels += outcome.pixels
            self.made_source_bytes += outcome.source_bytes
            self.shard_seconds += outcome.seconds

    def lose(self, *, shard: str, samples: int, error: str) -> None:
        """Count one shard that ended without a commit."""
        self.broken += 1
        self.broken_samples += samples
        if len(self.broken_shards) < _KEPT_FAILURES:
            self.broken_shards.append((shard, error))

    def statistics(self, *, seconds: float) -> dict[str, Any]:
        """Return everything as JSON values. Speeds are those of this run, None when it made nothing."""
        busy = seconds if seconds > 0 and self.made_samples else None
        return {
            "samples": self.samples + self.broken_samples,
            "shards": self.shards + self.broken,
            "statuses": dict(sorted(self.statuses.items())),
            "methods": dict(sorted(self.methods.items())),
            "errors": dict(sorted(self.errors.items())),
            "mean_estimates": {name: total / count if count else None for name, (total, count) in self.sums.items()},
            "source_bytes": self.source_bytes,
            "output_bytes": self.output_bytes,
            "unavailable": self.unavailable,
            "broken_shards": self.broken,
            "made_samples": self.made_samples,
            "made_shards": self.made_shards,
            "kept_shards": self.shards - self.made_shards,
            "seconds": seconds,
            "images_per_second": None if busy is None else self.made_samples / busy,
            "megapixels_per_second": None if busy is None else self.made_pixels / 1e6 / busy,
            "source_bytes_per_second": None if busy is None else self.made_source_bytes / busy,
        }
