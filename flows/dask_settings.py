"""What a user may choose about working on several processes or machines; checked before anything of Dask is loaded."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from importlib.util import find_spec

INSTALL = "pip install -c constraints.txt '.[dask]' in Lacuna's checkout"
_ADDRESS = re.compile(r"^(?:tcp|tls)://(?P<host>\[[^\]]+\]|[^:/\[\]]+):(?P<port>[0-9]{1,5})$")
_CONNECT_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DaskSettings:
    """Which processes compute. None of it changes a pixel or a row.

    address: of a running scheduler, tcp://host:port or tls://host:port; None starts `workers` processes here for the
    time of the run. threads: of PyTorch, OpenCV and libvips in each worker process.
    """

    address: str | None = None
    workers: int = 2
    threads: int = 1


def dask_settings(runner: str, *, address: str | None, workers: int, threads: int | None) -> DaskSettings | None:
    """Return the settings for the options of the command line; None for runner "threads".

    Raises ValueError for options that do not go together, a missing package, or a scheduler that does not answer.
    """
    if runner == "threads":
        for option, value in (("--address", address), ("--worker-threads", threads)):
            if value is not None:
                raise ValueError(
                    f"{option}: got {value} without --runner dask, which it is for; add it or leave it out"
                )
        return None
    settings = DaskSettings(address=address, workers=workers, threads=1 if threads is None else threads)
    check_dask(settings)
    return settings


def check_dask(settings: DaskSettings) -> None:
    """Raise ValueError when the package is missing, a number is too small, or nothing answers at the address."""
    if find_spec("distributed") is None:
        raise ValueError(f"--runner dask needs the package distributed, which is not installed; {INSTALL}")
    if settings.workers < 1 or settings.threads < 1:
        got = f"{settings.workers} workers of {settings.threads} threads"
        raise ValueError(f"--runner dask: got {got}, expected at least 1 of each")
    if settings.address is None:
        return
    found = _ADDRESS.match(settings.address)
    if found is None or not 0 < int(found["port"]) < 65536:
        raise ValueError(f"--address: got {settings.address!r}, expected tcp://HOST:PORT of a Dask scheduler")
    try:
        with socket.create_connection((found["host"].strip("[]"), int(found["port"])), timeout=_CONNECT_SECONDS):
            pass
    except OSError as error:
        raise ValueError(
            f"No Dask scheduler answers at {settings.address} ({error.strerror or error}); start one by "
            "`dask scheduler`, and on every machine `dask worker ADDRESS`"
        ) from None
