"""kill -9 of the worker at random moments of a scheduled night; a new worker and the next nights end it well."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from drawn_pictures import png
from night import CHECKOUT, Night, content, rows, wait_until
from real_server import Server

pytestmark = [pytest.mark.s3, pytest.mark.slow, pytest.mark.timeout(3600)]
PICTURES = 24
KILLS = 4
SETTINGS = "shard_images = 2\n"


def patient(night: Night) -> None:
    """Register the rule of deployments/automations.yaml, with a minute of patience instead of five."""
    rule = (CHECKOUT / "deployments" / "automations.yaml").read_text()
    assert "within: 300" in rule
    (night.folder / "automations.yaml").write_text(rule.replace("within: 300", "within: 65"))
    night.prefect("automation", "create", "--from-file", str(night.folder / "automations.yaml"))


def test_the_worker_is_killed(server: Server, filesystem: Any, place: str, tmp_path: Path) -> None:
    """Every other time its whole session, as when the machine dies; else the worker alone, whose run goes on."""
    source = f"{place}/in"
    filesystem.pipe({f"{source}/{n:02d}.png": png(n, noise_sigma=25 * (n % 2)) for n in range(PICTURES)})
    store = {**server.settings, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
    night, moments = Night.below(tmp_path, store=store), random.Random(8)
    with night.server():
        patient(night)
        undisturbed = f"{place}/undisturbed"
        night.of(source, undisturbed, more=SETTINGS)
        with night.worker():
            wait_until(lambda: len(rows(undisturbed)) == PICTURES, seconds=600, what="the undisturbed night")
        expected = content(filesystem, undisturbed)
        for kill in range(KILLS):
            destination = f"{place}/killed-{kill}"
            night.of(source, destination, more=SETTINGS)
            least = moments.randrange(0, PICTURES - 4)
            with night.worker() as worker:
                wait_until(lambda: len(rows(destination)) > least, seconds=600, what=f"{least} rows")  # noqa: B023
                time.sleep(moments.uniform(0.0, 2.0))
                (os.kill if kill % 2 else os.killpg)(worker.pid, signal.SIGKILL)
                worker.wait()
            with night.worker():
                wait_until(
                    lambda: len(rows(destination)) == PICTURES,  # noqa: B023
                    seconds=900,
                    what=f"the night after kill {kill}",
                )
            assert content(filesystem, destination) == expected
