"""What the subcommands of `lacuna` share: exit codes, JSON on stdout, and errors in one line."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import typer

# As good as the start of the process: only typer is imported before.
BEGUN = time.monotonic()
EXIT_OK, EXIT_SOME_FAILED, EXIT_NOTHING_DONE, EXIT_TIME_OVER = 0, 1, 2, 3
# As of a program that SIGINT has ended.
EXIT_INTERRUPTED = 130


class friendly_errors:  # noqa: N801 - used like a function, as contextlib's own classes are
    """Turn the errors a user can mend into one line on stderr and exit code 2; all others stay as they are."""

    def __init__(self, *, verbose: bool = False) -> None:
        self.verbose = verbose

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is None or self.verbose:
            return
        if not isinstance(error, _mendable()):
            engine = sys.modules.get("flows.engine")
            if engine is not None and isinstance(error, Exception) and (said := engine.why_engine_ended()) is not None:
                _stop(said)
            if not _said_by_the_system(error):
                return
        if isinstance(error, OSError) and error.errno is not None:
            said = error.strerror or str(error)
            place = error.filename2 or error.filename  # of a rename, the name that was asked for
            _stop(said if place is None else f"{said}: {place}")
        _stop(str(getattr(error, "text", None) or error))


def _said_by_the_system(error: BaseException) -> bool:
    """Whether the operating system refused something: a read-only disk, a folder in place of a file and the like."""
    # A reader of our output that went away, such as `head`, is nothing to speak of: typer ends the command.
    return isinstance(error, OSError) and error.errno is not None and not isinstance(error, BrokenPipeError)


def _mendable() -> tuple[type[BaseException], ...]:
    kinds: list[type[BaseException]] = [FileNotFoundError, PermissionError, NotADirectoryError, FileExistsError]
    kinds.append(ValueError)
    for module, name in (
        ("storage.errors", "StorageError"),
        ("models.registry", "UnknownMethodError"),
        ("models.weights", "WeightsError"),
        ("models.training.log", "DivergedError"),
    ):
        # A module that was never imported cannot have raised its error.
        if module in sys.modules:
            kinds.append(getattr(sys.modules[module], name))
    return tuple(kinds)


def _stop(message: str) -> NoReturn:
    typer.secho(f"lacuna: {message}", fg=typer.colors.RED, err=True)
    raise typer.Exit(EXIT_NOTHING_DONE)


def strengths(given: list[str] | None, *, upscale: int | None) -> tuple[tuple[str, float], ...]:
    """Return the strengths that were asked for by method; a scale to enlarge by is one for the method of that scale."""
    if upscale not in (None, 2, 4):
        _stop(f"--upscale: got {upscale}, expected 2 or 4")
    found: dict[str, float] = {} if upscale is None else {f"upscale-x{upscale}": 1.0}
    for text in given or []:
        method, _, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not method or not 0.0 <= value <= 1.0:
            _stop(f"--strength: got {text!r}, expected METHOD=NUMBER with a number from 0 to 1, such as denoise=0.5")
        found[method] = value
    return tuple(sorted(found.items()))


def absolute(place: str) -> str:
    """Return a folder with its whole path, and a URL as it is."""
    return place if "://" in place else str(Path(place).expanduser().absolute())


def print_json(document: Any) -> None:
    """Print one JSON document on stdout."""
    typer.echo(json.dumps(document, ensure_ascii=False, default=str, indent=2))
