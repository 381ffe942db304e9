"""One real S3 server for all tests marked s3: the one of `make s3`, started here if it does not run yet."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from real_server import SCRIPT, Requests, Server

# Before anything imports the flow's settings: nothing of a test may reach the user's own home. Where the tests of the
# flow are collected too, theirs is taken: a home must not change under them.
_HOME: Path | None = None
if "lacuna-tests-" not in os.environ.get("LACUNA_HOME", ""):
    _HOME = Path(tempfile.mkdtemp(prefix="lacuna-tests-s3-"))
    os.environ["LACUNA_HOME"] = os.environ["PREFECT_HOME"] = str(_HOME)

_CANNOT_BE_INSTALLED = 3


@pytest.fixture(scope="session", autouse=True)
def _remove_home() -> Iterator[None]:
    yield
    if _HOME is not None:
        shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    ran = subprocess.run([str(SCRIPT), "status"], capture_output=True, check=False).returncode == 0
    started = subprocess.run([str(SCRIPT), "start"], capture_output=True, text=True, check=False, timeout=600)
    if started.returncode == _CANNOT_BE_INSTALLED:
        pytest.skip(f"NO S3 SERVER, nothing of S3 is tested: {started.stderr.strip()}")
    assert started.returncode == 0, started.stderr
    place = subprocess.run([str(SCRIPT), "env"], capture_output=True, text=True, check=True).stdout.strip()
    lines = [line.removeprefix("export ") for line in Path(place).read_text().splitlines() if "=" in line]
    settings = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        yield Server(settings)
    if not ran:
        subprocess.run([str(SCRIPT), "stop"], capture_output=True, check=False)


@pytest.fixture(scope="session")
def filesystem(server: Server) -> Any:
    """The test's own client, not the one under test."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    own = {"key": server.settings["AWS_ACCESS_KEY_ID"], "secret": server.settings["AWS_SECRET_ACCESS_KEY"]}
    endpoint = server.settings["AWS_ENDPOINT_URL"]
    return s3fs.S3FileSystem(**own, endpoint_url=endpoint, use_listings_cache=False, skip_instance_cache=True)


@pytest.fixture(scope="module")
def bucket(filesystem: Any) -> Iterator[str]:
    name = f"lacuna-{secrets.token_hex(6)}"
    filesystem.mkdir(name)
    yield name
    filesystem.clear_multipart_uploads(name)
    filesystem.rm(name, recursive=True)


@pytest.fixture
def place(bucket: str) -> str:
    """A prefix of this test's own, as a URL."""
    return f"s3://{bucket}/{secrets.token_hex(4)}"


@pytest.fixture
def requests(server: Server, monkeypatch: pytest.MonkeyPatch) -> Requests:
    """Every request of every client from here on."""
    import s3fs

    seen, call = Requests(), s3fs.S3FileSystem._call_s3

    async def counted(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        answer = await call(self, method, *args, **kwargs)
        size = answer.get("ContentLength", 0) if isinstance(answer, dict) else 0
        seen.made.append((method, kwargs.get("Key", ""), size))
        return answer

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", counted)
    return seen


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A server of Prefect with a database of its own."""
    import flows.prefect_settings  # noqa: F401, I001 - before prefect
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=300):
        yield
