"""What `lacuna restore` says when a store cannot be used: within 30 s, one clear sentence, exit code 2, no secret."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from drawn_pictures import png
from real_server import Server

pytestmark = pytest.mark.s3
LACUNA = [sys.executable, "-m", "flows.cli"]
CHECKOUT = Path(__file__).parents[2]


def _settings(server: Server, **changes: str) -> dict[str, str]:
    return {**os.environ, **server.settings, **changes}


def _refusal(source: str, destination: str, *, settings: dict[str, str], server: Server) -> str:
    """Run the command, which must refuse, and return what it says."""
    command = [*LACUNA, "restore", source, destination]
    started = time.monotonic()
    ended = subprocess.run(command, cwd=CHECKOUT, env=settings, capture_output=True, text=True, timeout=60, check=False)
    seconds = time.monotonic() - started
    said = ended.stderr.strip()
    assert ended.returncode == 2, ended.stderr
    assert seconds < 30, f"{seconds:.0f} s"
    assert said.startswith("lacuna: ")
    assert len(said.splitlines()) == 1, said
    assert not any(secret in ended.stdout + ended.stderr for secret in server.secrets)
    return said


@pytest.fixture(scope="module")
def source(filesystem: Any, bucket: str) -> str:
    filesystem.pipe(f"{bucket}/in/a.png", png(1))
    return f"s3://{bucket}/in"


def test_a_wrong_secret_key(server: Server, source: str, place: str) -> None:
    settings = _settings(server, AWS_SECRET_ACCESS_KEY="wrong-secret-key")
    said = _refusal(source, place, settings=settings, server=server)
    assert source in said
    assert "credentials" in said


def test_an_unknown_access_key(server: Server, source: str, place: str) -> None:
    said = _refusal(source, place, settings=_settings(server, AWS_ACCESS_KEY_ID="NOBODY"), server=server)
    assert "credentials" in said


def test_no_credentials_at_all(server: Server, source: str, place: str, tmp_path: Path) -> None:
    settings = _settings(server, AWS_EC2_METADATA_DISABLED="true", AWS_CONFIG_FILE=str(tmp_path / "none"))
    settings["AWS_SHARED_CREDENTIALS_FILE"] = str(tmp_path / "none")
    del settings["AWS_ACCESS_KEY_ID"], settings["AWS_SECRET_ACCESS_KEY"]
    assert "no usable credentials" in _refusal(source, place, settings=settings, server=server)


def test_another_users_bucket(server: Server, source: str, place: str) -> None:
    said = _refusal(source, place, settings={**os.environ, **server.stranger}, server=server)
    assert f"refuses {source}" in said


def test_a_destination_that_may_only_be_read(server: Server, filesystem: Any, bucket: str, source: str) -> None:
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": ["arn:aws:iam:::user/stranger"]},
                "Action": ["s3:GetObject", "s3:ListBucket"],
                "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
            }
        ],
    }
    filesystem.call_s3("put_bucket_policy", Bucket=bucket, Policy=json.dumps(policy))
    try:
        out = f"s3://{bucket}/read-only"
        said = _refusal(source, out, settings={**os.environ, **server.stranger}, server=server)
        assert f"refuses {out}" in said
        assert filesystem.find(f"{bucket}/read-only") == []
    finally:
        filesystem.call_s3("delete_bucket_policy", Bucket=bucket)


def test_a_bucket_that_is_not_there(server: Server, source: str) -> None:
    settings = _settings(server)
    assert "s3://no-such-bucket/in" in _refusal("s3://no-such-bucket/in", "/tmp/out", settings=settings, server=server)
    said = _refusal(source, "s3://no-such-bucket/out", settings=settings, server=server)
    assert "no bucket for s3://no-such-bucket/out" in said


def test_a_prefix_without_anything(server: Server, place: str) -> None:
    assert place in _refusal(f"{place}/in", f"{place}/out", settings=_settings(server), server=server)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "http://no.such.host.invalid"])
def test_a_server_that_does_not_answer(server: Server, source: str, place: str, endpoint: str) -> None:
    said = _refusal(source, place, settings=_settings(server, AWS_ENDPOINT_URL=endpoint), server=server)
    assert endpoint in said
    bucket = source.rsplit("/", 1)[0]
    said = _refusal(bucket, place, settings=_settings(server, AWS_ENDPOINT_URL=endpoint), server=server)
    assert endpoint in said, "a bucket that cannot be asked about is not called missing"


def test_a_server_that_takes_connections_and_says_nothing(server: Server, place: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        said = _refusal(f"{place}/in", place, settings=_settings(server, AWS_ENDPOINT_URL=endpoint), server=server)
    assert "did not serve" in said


def test_a_local_source_and_a_store_that_is_gone(server: Server, tmp_path: Path, place: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(png(1))
    settings = _settings(server, AWS_ENDPOINT_URL="http://127.0.0.1:1")
    assert place in _refusal(str(tmp_path / "in"), place, settings=settings, server=server)


def test_not_even_a_traceback_shows_a_secret(server: Server, source: str, place: str) -> None:
    command = [*LACUNA, "restore", source, place, "--verbose"]
    for settings in ({**os.environ, **server.stranger}, _settings(server, AWS_ENDPOINT_URL="http://127.0.0.1:1")):
        ended = subprocess.run(
            command, cwd=CHECKOUT, env=settings, capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.returncode != 0
        assert "Traceback" in ended.stderr
        assert not any(secret in ended.stdout + ended.stderr for secret in server.secrets)
