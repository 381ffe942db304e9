"""Every restoration method Lacuna knows, in one explicit tuple. Adding a method = one file + one line here."""

from __future__ import annotations

import difflib
from pathlib import Path
from types import ModuleType

from models.method import Method
from models.methods import (
    classical_filters,
    classical_inpainting,
    deep_prior,
    example_based,
    mixtures,
    published_denoisers,
    residual_unet,
    rl_restore,
    simple_inpainting,
    super_resolution,
    tone,
)
from models.published.catalogue import missing_weights
from models.self_ensemble import SelfEnsemble
from models.types import SELF_ENSEMBLED, thorough_id


class UnknownMethodError(KeyError):
    """No method has that id; the message names the nearest one."""

    def __str__(self) -> str:
        return str(self.args[0])


_MODULES: tuple[ModuleType, ...] = (
    residual_unet,
    classical_inpainting,
    classical_filters,
    tone,
    super_resolution,
    published_denoisers,
    rl_restore,
    simple_inpainting,
    deep_prior,
    example_based,
    mixtures,
)
_SINGLE: tuple[Method, ...] = tuple(method for module in _MODULES for method in module.METHODS)
METHODS: tuple[Method, ...] = (
    *_SINGLE,
    *(SelfEnsemble(method) for method in _SINGLE if method.card.id in SELF_ENSEMBLED),
)


def _by_id(methods: tuple[Method, ...]) -> dict[str, Method]:
    found: dict[str, Method] = {}
    for method in methods:
        if method.card.id in found:
            raise ValueError(f"registry: two methods are called {method.card.id!r}; rename one of them")
        found[method.card.id] = method
    return found


_METHODS_BY_ID = _by_id(METHODS)
_MODULES_BY_ID = {
    name: module
    for module in _MODULES
    for method in module.METHODS
    for name in (method.card.id, thorough_id(method.card.id))
}


def get_method(method_id: str) -> Method:
    """Return the method called `method_id`; UnknownMethodError names the nearest one."""
    if method_id not in _METHODS_BY_ID:
        near = difflib.get_close_matches(method_id, _METHODS_BY_ID, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UnknownMethodError(f"method: got {method_id!r}, expected one of {sorted(_METHODS_BY_ID)}{hint}")
    return _METHODS_BY_ID[method_id]


def written_in(method_id: str) -> Path:
    """Return the file that registers a method, which need not be its class's; UnknownMethodError names the nearest."""
    return Path(str(_MODULES_BY_ID[get_method(method_id).card.id].__file__))


def unavailable(method: Method) -> str | None:
    """Return why a method cannot be run here ("needs weights: …"), or None when it can."""
    return missing_weights(method.card.weights)
