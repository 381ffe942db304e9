"""Ctrl-C: a run ends within seconds, also in the middle of a fit; what was finished is kept, the next run goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from PIL import Image
from rich.console import Console

from flows.commands.console import EXIT_INTERRUPTED
from flows.commands.interrupting import ended_by_interrupt
from flows.commands.restoring import ArchiveProgress
from flows.run_options import check_methods
from models.interruption import allow_work, interrupt_work, work_interrupted
from tasks.caching import run_stage
from tasks.detect import detect_scratches
from tasks.jobs import RestoreOptions
from tasks.progress import FitNews, announce_fit, listening

CHECKOUT = Path(__file__).resolve().parents[2]
METHOD = "deep-image-prior-denoise"


@pytest.fixture(autouse=True)
def _fits_allowed() -> Iterator[None]:
    # A background job of a shell, as the tests of a server may be, ignores SIGINT, and what it starts does.
    inherited = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    allow_work()
    yield
    allow_work()
    signal.signal(signal.SIGINT, inherited)


def test_a_signal_marks_the_process_and_ends_the_command_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[bool] = []
    before = signal.getsignal(signal.SIGINT)

    def command() -> None:
        with ended_by_interrupt():
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                seen.append(work_interrupted())

    with pytest.raises(typer.Exit) as caught:
        command()
    assert caught.value.exit_code == EXIT_INTERRUPTED == 130
    assert seen == [True]
    assert not work_interrupted(), "the next command of this process is not ended by it"
    assert signal.getsignal(signal.SIGINT) is before
    said = capsys.readouterr().err
    assert "Ctrl-C again ends it at once" in said
    assert "the same command goes on with the rest" in said


def test_a_command_that_swallows_the_interrupt_does_not_end_as_if_it_were_done() -> None:
    with pytest.raises(typer.Exit) as caught, ended_by_interrupt(), suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert caught.value.exit_code == EXIT_INTERRUPTED


def test_a_second_signal_ends_the_process_at_once() -> None:
    program = (
        "import signal, time\nfrom flows.commands.interrupting import ended_by_interrupt\n"
        "with ended_by_interrupt():\n    try:\n        signal.raise_signal(signal.SIGINT)\n"
        "    except KeyboardInterrupt:\n        signal.raise_signal(signal.SIGINT)\n        print('GOES ON')\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=CHECKOUT)
    assert found.returncode == EXIT_INTERRUPTED
    assert "GOES ON" not in found.stdout


def test_an_ignored_signal_stays_ignored_and_errors_stay_errors() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ended_by_interrupt():
            signal.raise_signal(signal.SIGINT)
            assert not work_interrupted()
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(ValueError, match="mine"), ended_by_interrupt():
        raise ValueError("mine")


def test_no_stage_begins_after_an_interrupt() -> None:
    interrupt_work()
    with pytest.raises(KeyboardInterrupt):
        run_stage(detect_scratches, job={}, ingested={})


def test_the_bar_says_how_far_the_fit_of_which_file_is() -> None:
    console = Console(force_terminal=True, width=140, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    bar = ArchiveProgress(console, visible=True)
    with bar, listening(bar.hear, fits=bar.hear_fit):
        bar.hear("found", 2, "")
        announce_fit(FitNews(what="box[1]/plate.tif", fit=1, iteration=350, iterations=1800))
        bar._bar.refresh()
        announce_fit(FitNews(what="a" * 40 + ".tif", fit=3, iteration=1, iterations=1800))
        bar._bar.refresh()
        announce_fit(FitNews(what="a.tif", fit=3, iteration=900, iterations=1800, last=True))
    shown = console.export_text()
    assert "fit 350/1800 of box[1]/plate.tif" in shown
    assert f"fit 3: 1/1800 of …{'a' * 25}.tif" in shown
    assert bar._bar.tasks[0].description == "Restoring"


@pytest.mark.parametrize(
    "options",
    [
        RestoreOptions(policy=f"fixed:{METHOD}", fit_iterations=5),
        RestoreOptions(fill_method="example-internal", fit_iterations=5),
        RestoreOptions(strengths=(("deep-image-prior-x4", 1.0),), fit_iterations=5),
    ],
)
def test_a_limit_on_iterations_is_for_methods_that_have_them(options: RestoreOptions) -> None:
    check_methods(options)


def test_a_limit_on_iterations_without_such_a_method_is_refused() -> None:
    with pytest.raises(ValueError, match="none of fill, denoise learns from each picture; leave it out, or ask for"):
        check_methods(RestoreOptions(fit_iterations=5, strengths=(("denoise", 0.5),)))
    with pytest.raises(ValueError, match="got 0, expected at least 1"):
        check_methods(RestoreOptions(fit_iterations=0, fill_method="example-internal"))


@pytest.mark.parametrize(("error", "ends"), [(KeyboardInterrupt, True), (SystemExit, True), (OSError, False)])
def test_what_ends_the_flow_but_for_errors_ends_its_fits(
    prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], ends: bool
) -> None:
    from flows import restore_archive

    def end(*_: object, **__: object) -> None:
        raise error("ended")

    (tmp_path / "in").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "in" / "p.png")
    monkeypatch.setattr(restore_archive, "_carry_out", end)
    interrupt_work()  # of an earlier run in this process, which is over
    with pytest.raises(error):
        restore_archive.restore_archive(str(tmp_path / "in"), str(tmp_path / "out"), RestoreOptions(device="cpu"))
    assert work_interrupted() is ends


def test_the_engine_is_not_loaded_before_its_server_is_started() -> None:
    program = "import sys, flows.commands.restoring, flows.run_options\nprint('prefect' in sys.modules)"
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, capture_output=True, text=True, check=True, cwd=CHECKOUT).stdout == "False\n"


def start(source: Path, out: Path, home: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "flows.cli", "restore", str(source), str(out), "--policy", f"fixed:{METHOD}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return subprocess.Popen(
        [*command, "--fit-iterations", "100", "--no-report"],
        env={**environment, "LACUNA_HOME": str(home)},
        cwd=CHECKOUT,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_archive_interrupted_during_a_fit_ends_soon_and_is_gone_on_with(tmp_path: Path) -> None:
    source, out, home = tmp_path / "in", tmp_path / "out", tmp_path / "home"
    source.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        noisy = np.clip(90 + 60 * np.eye(64) + rng.normal(0, 25, (64, 64)), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(source / f"p{number}.png")
    with start(source, out, home) as process:
        while process.poll() is None and not (out / "images" / "p0.png").exists():
            time.sleep(0.1)
        time.sleep(2.0)  # into the fit of the second picture, which takes some seconds
        assert process.poll() is None, "it ended before it could be interrupted"
        sent = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        said, _ = process.communicate(timeout=60)
    assert time.monotonic() - sent < 20.0
    assert process.returncode == EXIT_INTERRUPTED
    assert "the same command goes on with the rest" in said
    assert "Traceback" not in said
    first = {path.name: path.stat().st_mtime_ns for path in (out / "images").iterdir()}
    assert sorted(first) in (["p0.png"], ["p0.png", "p1.png"]), "nothing half written, nothing else"
    with start(source, out, home) as process:
        process.communicate(timeout=300)
    assert process.returncode == 0
    again = {path.name: path.stat().st_mtime_ns for path in (out / "images").iterdir()}
    assert sorted(again) == ["p0.png", "p1.png", "p2.png"]
    assert {name: again[name] for name in first} == first, "finished fits are not done again"
    assert len(pd.read_parquet(out / "catalogue" / "images")) == 3
