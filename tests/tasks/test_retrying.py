"""The worst case of a store that is gone, as numbers: how many requests, how many seconds, how many shards."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import pytest

from storage import locations
from storage.patience import LONGEST_PAUSE_SECONDS, Budgets, Patience
from tasks.retrying import JITTER, NETWORK_FAULTS, PAUSES

WORKERS, SHARDS = 2, 1000
_CONFIG: dict[str, Any] = locations._OPTIONS["s3"]["config_kwargs"]
REQUESTS_PER_TRY = locations._CLIENT_ATTEMPTS * int(_CONFIG["retries"]["total_max_attempts"])
HANGING_SECONDS = REQUESTS_PER_TRY * float(_CONFIG["connect_timeout"] + _CONFIG["read_timeout"])


@dataclass
class Outcome:
    requests: int = 0
    seconds: float = 0.0
    begun: int = 0


def run_without_store(*, seconds_per_try: float, stretch: float, store_seconds: float = 900.0) -> Outcome:
    """A run of many shards whose store is gone from the first request, by a clock that only this moves."""
    now = 0.0
    kept, outcome, over = Patience(Budgets(store_seconds=store_seconds), clock=lambda: now), Outcome(), False
    events: list[tuple[float, float, int, int]] = []  # when a try ends, when it began, of which shard, which it is

    def begin(tried: int, *, shard: int, at: float) -> None:
        heapq.heappush(events, (at + seconds_per_try, at, shard, tried))

    for _ in range(WORKERS):
        begin(0, shard=outcome.begun, at=0.0)
        outcome.begun += 1
    while events:
        now, since, shard, tried = heapq.heappop(events)
        outcome.requests += REQUESTS_PER_TRY
        left = kept.failed(f"s3://scans/{shard}.png", writing=False, since=since).left
        over = over or left == "none for the store"
        if left == "some":
            begin(tried + 1, shard=shard, at=now + PAUSES[min(tried, len(PAUSES) - 1)] * stretch)
        elif not over and outcome.begun < SHARDS:
            begin(0, shard=outcome.begun, at=now)
            outcome.begun += 1
        assert outcome.requests < 10_000
    outcome.seconds = now
    return outcome


@pytest.mark.parametrize("stretch", [1 - JITTER, 1.0, 1 + JITTER])
@pytest.mark.parametrize("seconds_per_try", [0.5, 20.0, HANGING_SECONDS])
def test_a_store_that_is_gone_costs_a_run_fifteen_minutes_and_few_requests(
    seconds_per_try: float, stretch: float
) -> None:
    outcome = run_without_store(seconds_per_try=seconds_per_try, stretch=stretch)
    print(seconds_per_try, stretch, outcome)
    assert outcome.begun == WORKERS
    assert 900 <= outcome.seconds <= 900 + LONGEST_PAUSE_SECONDS + 2 * seconds_per_try
    assert outcome.requests <= 600
    if stretch == 1.0:
        assert outcome.requests <= 280


def test_ten_times_the_patience_is_ten_times_the_seconds_not_more() -> None:
    outcome = run_without_store(seconds_per_try=HANGING_SECONDS, stretch=1.0, store_seconds=9000)
    assert 9000 <= outcome.seconds <= 9000 + LONGEST_PAUSE_SECONDS + 2 * HANGING_SECONDS


def test_the_longest_pause_is_known_to_the_clocks() -> None:
    assert max(PAUSES) * (1 + JITTER) == LONGEST_PAUSE_SECONDS
    assert NETWORK_FAULTS["retry_delay_seconds"] == list(PAUSES)
    assert REQUESTS_PER_TRY == 4
