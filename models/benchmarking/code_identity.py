"""What code a result depends on: a file of this package and all that it imports from the package, found by reading."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


@lru_cache(maxsize=256)
def code_sha256(source: Path) -> str:
    """Return a hash over `source` and every module of `models` that it imports, directly or through others.

    A change of a comment counts, too: measuring once too often is cheap, a stale figure is not.
    """
    digest = hashlib.sha256()
    for path in sorted(reached(source)):
        digest.update(str(path.relative_to(_PACKAGE)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def reached(source: Path) -> set[Path]:
    """Return `source` and every file of the package that it imports, directly or through others."""
    found: set[Path] = set()
    waiting = [source.resolve()]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imported(path)
    return found


@lru_cache(maxsize=512)
def _imported(path: Path) -> tuple[Path, ...]:
    """Return the files of the modules of this package that `path` imports anywhere, functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return tuple(file for name in sorted(names) for file in _files_of(name))


def _files_of(module: str) -> Iterator[Path]:
    first, *rest = module.split(".")
    if first != _PACKAGE.name:
        return
    place = _PACKAGE.joinpath(*rest)
    # A name imported from a package may be a module of it or a thing defined in its __init__.
    yield from filter(Path.is_file, {place.with_suffix(".py"), place / "__init__.py"})
