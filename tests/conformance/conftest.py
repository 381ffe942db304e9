"""The contract must hold however short a fit is, so methods that learn from the picture stop after two steps here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from models.deep_prior.budget import limited_iterations


@pytest.fixture(autouse=True)
def _short_fits() -> Iterator[None]:
    with limited_iterations(2):
        yield
