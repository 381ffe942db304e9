"""`lacuna listen`: arguments and help. Heavy imports wait until needed."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.console import friendly_errors

listening_app = typer.Typer()

_SHORTEST_TOKEN = 16
_MAKE_ONE = "make one by `python3 -c 'import secrets; print(secrets.token_urlsafe(32))'`"


@listening_app.command()
def listen(
    file: Annotated[
        Path, typer.Option("--file", metavar="FILE", help="TOML file with the collections, as of `lacuna nightly`.")
    ] = Path("nightly.toml"),
    host: Annotated[str, typer.Option("--host", help="Address to listen at; 0.0.0.0 is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 = a free one.")] = 4210,
    quiet_seconds: Annotated[
        float, typer.Option("--quiet-seconds", min=0.0, help="Start when nothing has come for so long.")
    ] = 60.0,
    at_most_seconds: Annotated[
        float, typer.Option("--at-most-seconds", min=0.0, help="Start so long after the first in any case.")
    ] = 900.0,
    deployment: Annotated[
        str, typer.Option("--deployment", metavar="FLOW/NAME", help="Asked at the server of PREFECT_API_URL.")
    ] = "nightly/nightly",
    print_setup: Annotated[
        str | None,
        typer.Option("--print-setup", metavar="BUCKET", help="Only print what makes this bucket notify us."),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option("--url", metavar="http://HOST:PORT", help="With --print-setup: where the store reaches us."),
    ] = None,
) -> None:
    """Start a run soon after something came into a bucket that notifies us, with the collections it concerns only.

    LACUNA_LISTEN_TOKEN is the secret the store must send. PREFECT_API_URL names Prefect's server; without it,
    `lacuna nightly FILE` is run here. docs/operations.md, "When new scans arrive", says how to set it up.
    """
    with friendly_errors():
        if print_setup is not None:
            _print_setup(print_setup, file=file, url=url or f"http://{host}:{port}")
            return
        _serve(file, place=(host, port), times=(quiet_seconds, at_most_seconds), deployment=deployment)


def _serve(file: Path, *, place: tuple[str, int], times: tuple[float, float], deployment: str) -> None:
    token = _token()
    from flows.listening import Receiver, open_socket, serve
    from flows.listening_gathering import Gathering, Runs, Starter
    from flows.listening_places import WatchedPlaces
    from flows.listening_runs import CommandRuns, PrefectRuns

    places = WatchedPlaces(file, say=_say)
    by_prefect = bool(os.environ.get("PREFECT_API_URL"))
    runs: Runs = PrefectRuns(deployment) if by_prefect else CommandRuns(file, say=_say)
    gathering = Gathering(quiet_seconds=times[0], at_most_seconds=times[1])
    starter = Starter(gathering, runs, say=_say)
    receiver = Receiver(token=token, places=places, gathering=gathering, starter=starter, say=_say)
    with open_socket(*place) as sock:
        names = ", ".join(sorted(places.current().sources))
        who = f"Prefect is asked for {deployment}" if by_prefect else "`lacuna nightly` is run here"
        _say(f"listening at {place[0]}:{sock.getsockname()[1]} for {names}; {who}")
        serve(receiver.app(), sock)
    _say("ended")


def _token() -> str:
    from flows.listening_runs import TOKEN_VARIABLE

    token = os.environ.get(TOKEN_VARIABLE, "")
    if len(token) < _SHORTEST_TOKEN:
        raise ValueError(
            f"{TOKEN_VARIABLE} has {len(token)} characters, expected at least {_SHORTEST_TOKEN}: the secret that the "
            f"store sends, without which anybody could start runs; {_MAKE_ONE}"
        )
    return token


def _print_setup(bucket: str, *, file: Path, url: str) -> None:
    from flows.listening_places import bucket_prefixes, read_places
    from flows.listening_setup import setup_text

    prefixes = bucket_prefixes(read_places(file), bucket)
    if not prefixes:
        raise ValueError(f"{file}: no collection has a source in the bucket {bucket!r}; nothing would be done with it")
    typer.echo(setup_text(bucket, prefixes=prefixes, url=url), nl=False)


def _say(text: str) -> None:
    typer.echo(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}")
