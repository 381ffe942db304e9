"""Pictures handled together come back in order, never exceed the pixel limit, and pass errors on."""

from __future__ import annotations

import threading

import pytest

from tasks import together
from tasks.together import PIXELS_TOGETHER, each_together


@pytest.fixture(autouse=True)
def four_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "_THREADS", 4)


def test_results_keep_their_order() -> None:
    assert each_together(lambda n: n * n, list(range(50)), pixels=lambda n: 1) == [n * n for n in range(50)]
    assert each_together(lambda n: n, [], pixels=lambda n: 1) == []


def test_pixels_in_work_stay_below_the_limit() -> None:
    lock, now, most = threading.Lock(), 0, 0

    def work(size: int) -> None:
        nonlocal now, most
        with lock:
            now += size
            most = max(most, now)
        threading.Event().wait(0.002)
        with lock:
            now -= size

    each_together(work, [PIXELS_TOGETHER // 3] * 12, pixels=lambda size: size)
    assert PIXELS_TOGETHER // 3 < most <= PIXELS_TOGETHER
    now = most = 0
    each_together(work, [2 * PIXELS_TOGETHER] * 3, pixels=lambda size: size)
    assert most == 2 * PIXELS_TOGETHER


def test_an_error_is_raised() -> None:
    def work(n: int) -> int:
        if n == 3:
            raise ConnectionError("gone")
        return n

    with pytest.raises(ConnectionError, match="gone"):
        each_together(work, list(range(8)), pixels=lambda n: 1)
