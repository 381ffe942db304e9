"""A bucket of a real S3 server tells `lacuna listen` of its objects, and a run is asked for."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from real_server import Server

from flows.listening_setup import setup_text

pytestmark = [pytest.mark.s3, pytest.mark.timeout(600)]
CHECKOUT = Path(__file__).parents[2]
TOKEN = secrets.token_urlsafe(24)
FILE = """
[collections.{name}]
source = "s3://{bucket}/in"
destination = "s3://{bucket}/out"
[collections.{name}-other]
source = "s3://{bucket}/other"
destination = "s3://{bucket}/out-other"
"""


def wait_until(done: Callable[[], bool], *, seconds: float, what: str) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.5)


@contextmanager
def listening(file: Path, *, environment: dict[str, str], log: Path) -> Iterator[str]:
    """`lacuna listen` as a process; yields its address."""
    command = [sys.executable, "-m", "flows.cli", "listen", "--file", str(file), "--port", "0", "--quiet-seconds", "1"]
    with log.open("wb") as said:
        process = subprocess.Popen(
            [*command, "--deployment", "nightly/notified"], cwd=CHECKOUT, env=environment, stdout=said, stderr=said
        )
        try:
            wait_until(lambda: "listening at " in log.read_text(), seconds=120, what="the listener")
            yield "http://" + log.read_text().split("listening at ")[1].split(" ")[0]
            process.terminate()
            assert process.wait(120) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()


def client(service: str) -> Any:
    from botocore.session import get_session

    return get_session().create_client(service)


def notify(bucket: str, address: str) -> str:
    """Give the bucket the configuration that `--print-setup` prints; return the topic."""
    attributes = {"push-endpoint": f"{address}/?token={TOKEN}", "persistent": "true"}
    arn = client("sns").create_topic(Name=bucket, Attributes=attributes)["TopicArn"]
    printed = setup_text(bucket, prefixes=["in/"], url=address).split("<<END\n")[2].split("\nEND")[0]
    configuration = json.loads(printed.replace("$TOPIC", arn))
    client("s3").put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=configuration)
    return str(arn)


def runs_of(deployment: str) -> list[dict[str, Any]]:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas import filters

    with get_client(sync_client=True) as asked:
        known = asked.read_deployment_by_name(deployment)
        wanted = filters.FlowRunFilter(deployment_id=filters.FlowRunFilterDeploymentId(any_=[known.id]))
        return [run.parameters for run in asked.read_flow_runs(flow_run_filter=wanted)]


@pytest.fixture
def environment(server: Server, prefect_server: None) -> dict[str, str]:
    """Settings of the listener: it knows Prefect's server and the secret, and no key of the store."""
    from prefect.settings import PREFECT_API_URL

    from flows.nightly import nightly

    made: Any = nightly.to_deployment(name="notified", parameters={"file": "/etc/lacuna/nightly.toml"})
    made.apply()
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {**own, "PREFECT_API_URL": str(PREFECT_API_URL.value()), "LACUNA_LISTEN_TOKEN": TOKEN}


def test_an_object_that_came_starts_a_run(filesystem: Any, environment: dict[str, str], tmp_path: Path) -> None:
    """Only its collection is restored; objects elsewhere and results start nothing."""
    bucket = f"lacuna-{secrets.token_hex(6)}"
    name = f"scans-{secrets.token_hex(2)}"
    file, log = tmp_path / "nightly.toml", tmp_path / "listen.log"
    file.write_text(FILE.format(name=name, bucket=bucket))
    filesystem.mkdir(bucket)
    arn = ""
    try:
        with listening(file, environment=environment, log=log) as address:
            arn = notify(bucket, address)
            filesystem.pipe({f"{bucket}/out/images/a.png": b"1", f"{bucket}/elsewhere.png": b"2"})
            filesystem.pipe_file(f"{bucket}/in/ä new+1 %20.png", b"3")
            asked = {"file": "/etc/lacuna/nightly.toml", "collections": [name]}
            wait_until(lambda: asked in runs_of("nightly/notified"), seconds=120, what="the run")
            health = httpx.get(f"{address}/health", timeout=60).json()
            assert (health["runs_asked_for"], health["waiting_collections"]) == (1, 0)
            # No worker takes that run, so it takes what comes later too.
            filesystem.pipe_file(f"{bucket}/in/b.png", b"4")
            wait_until(lambda: "waits already" in log.read_text(), seconds=120, what="the second wish")
            assert runs_of("nightly/notified").count(asked) == 1
        said = log.read_text()
        assert f"asked nightly/notified for a run of {name}: " in said
        assert TOKEN not in said
    finally:
        filesystem.rm(bucket, recursive=True)
        if arn:
            client("sns").delete_topic(TopicArn=arn)
