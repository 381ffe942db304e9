"""The computing device of this process: one lock around it, and the networks that stay loaded on it."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tasks.jobs import Identities, RestoreOptions

if TYPE_CHECKING:
    from models.run import Runner

# One stage computes at a time; meanwhile other shards decode and write. Two at once would only fight for the cores.
DEVICE_LOCK = threading.Lock()


@lru_cache(maxsize=4)
def runner(device: str, precision: str, tile: int) -> Runner:
    """Return the runner of this process with the networks it has loaded."""
    from models.run import Runner, RunSettings

    return Runner(RunSettings(device=device, precision=precision, tile=tile))


@lru_cache(maxsize=2)
def detector(device: str) -> Any:
    """Return the scratch detector's network on `device`."""
    from models.scratches.detector import load_detector

    return load_detector(device)


def identify(options: RestoreOptions, *, code_version: str) -> Identities:
    """Return what would compute a run with `options`: weights, device and number format, resolved from "auto".

    Raises ValueError for a device or precision that is not there, WeightsError for weights that are missing.
    """
    from models.estimation.learned import WEIGHTS as ESTIMATOR
    from models.registry import METHODS
    from models.routing.gains import WEIGHTS as GAINS
    from models.scratches.detector import WEIGHTS_NAME as DETECTOR
    from models.scratches.detector import shipped_settings
    from models.weights import weights_sha256

    chosen = runner(options.device, options.precision, options.tile)
    return Identities(
        detector=weights_sha256(DETECTOR),
        estimator=weights_sha256(ESTIMATOR),
        gains=weights_sha256(GAINS),
        detector_settings=repr(shipped_settings()),
        methods=tuple(sorted((method.card.id, chosen.weights_sha256(method.card.id)) for method in METHODS)),
        device=chosen.device,
        precision=chosen.precision,
        code_version=code_version,
    )
