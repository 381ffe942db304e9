"""A night's parts as processes of their own: Prefect's server, its worker, and what they leave in the store."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.catalogue import query
from storage.errors import CatalogueError
from storage.locations import Location

CHECKOUT = Path(__file__).parents[2]
PREFECT = str(Path(sys.executable).with_name("prefect"))
NIGHT = """
[collections.scans]
source = "{source}"
destination = "{destination}"
device = "cpu"
precision = "float32"
report = false
"""


@contextmanager
def running(command: list[str], *, log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a session of its own; what is left of it is ended at the end."""
    with log.open("ab") as said:
        process = subprocess.Popen(
            command, cwd=CHECKOUT, env=environment, stdout=said, stderr=said, start_new_session=True
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_until(done: Callable[[], bool], *, seconds: float, what: str) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, f"{what}: not within {seconds:.0f} s"
        time.sleep(1)


# Columns that say when and how long, where a workspace lies, which run it was and of which commit of the program.
OF_THIS_RUN = ("finished_at", "seconds", "output_uri", "source_uri", "mask_uri", "run_id", "code_version")


def content(filesystem: Any, destination: str) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """Return the catalogue's rows without what belongs to a run, and every output's bytes."""
    found = [{name: row[name] for name in row if name not in OF_THIS_RUN} for row in rows(destination)]
    outputs = filesystem.cat(filesystem.find(f"{destination}/images"))
    return found, {path.split("/images/")[1]: data for path, data in outputs.items()}


def rows(destination: str) -> list[dict[str, Any]]:
    """Return the catalogue's rows, none while nothing is committed."""
    try:
        return query(Location(destination).join("catalogue"), "SELECT * FROM images ORDER BY relative_path").to_pylist()
    except CatalogueError:
        return []


@dataclass(frozen=True)
class Night:
    """A Prefect of one test alone, where every minute is a night; `folder` holds its files and logs."""

    folder: Path
    environment: dict[str, str]

    @classmethod
    def below(cls, folder: Path, *, store: dict[str, str]) -> Night:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        settings = {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
        settings |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "PORT": str(port)}
        settings |= {"LACUNA_HOME": str(folder / "home"), "LACUNA_CHECKOUT": str(CHECKOUT)}
        settings |= {"LACUNA_NIGHTLY_FILE": str(folder / "nightly.toml"), "LACUNA_VERIFY_DESTINATION": "none"}
        path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        return cls(folder, {**own, **store, **settings, **path})

    def of(self, source: str, destination: str, *, more: str = "") -> None:
        """Write the file of the night: one collection, `more` lines of settings."""
        text = NIGHT.format(source=source, destination=destination) + more
        written = self.folder / "nightly.new"
        written.write_text(text)
        written.replace(self.folder / "nightly.toml")

    def prefect(self, *arguments: str) -> None:
        command = [PREFECT, "--no-prompt", *arguments]
        ended = subprocess.run(command, cwd=CHECKOUT, env=self.environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr

    @contextmanager
    def server(self) -> Iterator[None]:
        """Prefect's server with the pool and the nightly deployment, its schedule switched on."""
        deployments = (CHECKOUT / "deployments" / "prefect.yaml").read_text()
        nightly, others = deployments.split("  - name: nightly", 1)
        others = others.replace('cron: "0 2 * * *"', 'cron: "* * * * *"', 1).replace("active: false", "active: true", 1)
        (self.folder / "prefect.yaml").write_text(f"{nightly}  - name: nightly{others}")
        command = [PREFECT, "server", "start", "--host", "127.0.0.1", "--port", self.environment["PORT"], "--no-ui"]
        with running(command, log=self.folder / "server.log", environment=self.environment):
            wait_until(self._answers, seconds=300, what="Prefect's server")
            self.prefect("work-pool", "create", "lacuna", "--type", "process")
            self.prefect("deploy", "--prefect-file", str(self.folder / "prefect.yaml"), "--name", "nightly")
            yield

    def worker(self) -> Any:
        """A worker, as a context manager of its process; the runs it starts are of the same session."""
        command = [PREFECT, "worker", "start", "--pool", "lacuna", "--type", "process", "--limit", "1"]
        return running(command, log=self.folder / "worker.log", environment=self.environment)

    def _answers(self) -> bool:
        with socket.socket() as caller:
            return caller.connect_ex(("127.0.0.1", int(self.environment["PORT"]))) == 0
