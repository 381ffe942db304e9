"""A limit on the iterations of methods that learn from the picture itself, for trials and tests.

The setting changes results and is not part of a method's identity, so whoever sets it is told in the log each time.
"""

from __future__ import annotations

import logging
import os

SETTING = "LACUNA_FIT_ITERATIONS"
_LOGGER = logging.getLogger(__name__)


def iteration_limit(method_id: str) -> int | None:
    """Return the limit that the environment variable LACUNA_FIT_ITERATIONS sets; None = the method's own budget.

    Raises ValueError when it is not a whole number of at least 1.
    """
    given = os.environ.get(SETTING, "").strip()
    if not given:
        return None
    if not given.isdecimal() or int(given) < 1:
        raise ValueError(f"{SETTING}: got {given!r}, expected a whole number of at least 1; unset it for full quality")
    _LOGGER.warning("%s: %s=%s ends the fit early; unset it for full quality", method_id, SETTING, given)
    return int(given)
