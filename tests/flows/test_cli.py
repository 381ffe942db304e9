"""The `lacuna` command: exit codes, errors a user can act on, JSON, and that help costs nothing."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import pyvips
import skimage.data
import typer
from typer.testing import CliRunner

from flows.cli import app
from flows.commands.console import friendly_errors
from flows.commands.listing import show_methods
from flows.run_summary import RunSummary
from models.degradations.scratches import DamageSettings, damage_image
from models.registry import METHODS
from storage.catalogue import commit_shard
from storage.locations import Location

RUNNER = CliRunner()
SUMMARY = RunSummary(
    run_id="r",
    collection="c",
    source="file:///s",
    destination="file:///d",
    images=3,
    restored=1,
    untouched=1,
    review=1,
    quarantined=0,
    failed=0,
    seconds=1.0,
    images_per_second=3.0,
    device="cpu",
    precision="float32",
    catalogue_uri="file:///d/catalogue",
)


@pytest.mark.parametrize("command", ["", "restore", "inspect", "nightly", "retry"])
def test_help_imports_nothing_heavy(command: str) -> None:
    arguments = [*command.split(), "--help"]
    program = (
        "import sys\nfrom flows.cli import app\n"
        f"try:\n    app({arguments!r})\nexcept SystemExit as end:\n    code = end.code\n"
        "heavy = {'torch', 'prefect', 'cv2', 'numpy', 'pyarrow', 'pyvips', 'duckdb'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy), 'CODE', code)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "HEAVY [] CODE 0" in found.stdout
    assert "Usage" in found.stdout


def test_the_flow_itself_does_without_torch() -> None:
    program = "import sys, flows.restore_archive\nprint('TORCH', 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "TORCH False" in found.stdout, "a night with nothing new would load it for nothing"


def test_help_documents_the_exit_codes() -> None:
    text = " ".join(RUNNER.invoke(app, ["restore", "--help"]).stdout.replace("│", " ").split())
    for phrase in ("0 = all fine", "1 = some images failed", "2 = wrong usage"):
        assert phrase in text


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, 0),
        ({"quarantined": 1, "images": 4}, 1),
        ({"failed": 2, "images": 5}, 1),
        ({"restored": 0, "untouched": 0, "review": 0, "failed": 3}, 2),
    ],
)
def test_exit_code_says_what_became_of_the_images(changes: dict[str, int], code: int) -> None:
    from flows.commands.restoring import exit_code

    assert exit_code(replace(SUMMARY, **changes)) == code


def test_missing_source_is_named(tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["restore", str(tmp_path / "nowhere"), str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "nowhere" in result.stderr
    assert not (tmp_path / "out").exists()


def test_destination_inside_source_is_refused(archive: Path) -> None:
    result = RUNNER.invoke(app, ["restore", str(archive), str(archive / "out")])
    assert result.exit_code == 2
    assert "inside the source" in result.stderr
    assert not (archive / "out").exists()


def test_destination_that_cannot_be_written_is_refused(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = RUNNER.invoke(app, ["restore", str(archive), str(tmp_path / "file" / "out")])
    assert result.exit_code == 2
    assert "file" in result.stderr


@pytest.mark.parametrize(
    ("home", "said"),
    [("~no-such-user/h", "set LACUNA_HOME to a folder that can be written"), ("{file}/h", "Not a directory: {file}/h")],
)
def test_a_home_that_cannot_be_used_is_one_sentence(tmp_path: Path, home: str, said: str) -> None:
    (tmp_path / "file").touch()
    places = {"file": str(tmp_path / "file")}
    commands = ["restore a b", "inspect a", "dataset a b", "nightly n", "status a", "verify a", "retry a", "clean a"]
    commands += ["benchmark suites", "benchmark leaderboard a", "train --data a --out b"]
    commands += ["search denoise --try steps=1 --data a --out b"]
    program = (
        "from typer.testing import CliRunner\nfrom flows.cli import app\n"
        f"for command in {commands!r}:\n    ended = CliRunner().invoke(app, command.split())\n"
        "    print(ended.exit_code, ended.stderr.strip())\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment["LACUNA_HOME"] = home.format(**places)
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    lines = found.stdout.splitlines()
    assert len(lines) == len(commands), found.stdout
    for line in lines:
        assert line.startswith("2 lacuna: ")
        assert said.format(**places) in line


def test_what_the_system_refuses_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = RUNNER.invoke(app, ["nightly", str(tmp_path)])
    assert (result.exit_code, result.stderr) == (2, f"lacuna: Is a directory: {tmp_path}\n")
    for error, said in (
        (OSError(errno.EROFS, "Read-only file system", "/out/x"), "Read-only file system: /out/x"),
        (OSError(errno.EISDIR, "Is a directory", "/.5a.part", None, "/table"), "Is a directory: /table"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ):
        with pytest.raises(typer.Exit) as ended, friendly_errors():
            raise error
        assert (ended.value.exit_code, capsys.readouterr().err) == (2, f"lacuna: {said}\n")
    for other in (BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError("cannot decode x.png"), KeyError("x")):
        with pytest.raises(type(other)), friendly_errors():
            raise other


@pytest.mark.parametrize("given", ["denoise", "denoise=two", "denoise=2", "=1"])
def test_wrong_strength_is_explained(archive: Path, tmp_path: Path, given: str) -> None:
    result = RUNNER.invoke(app, ["restore", str(archive), str(tmp_path / "out"), "--strength", given])
    assert result.exit_code == 2
    assert "METHOD=NUMBER" in result.stderr


def test_unknown_method_gets_the_nearest_name(archive: Path, tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["restore", str(archive), str(tmp_path / "out"), "--strength", "denois=1"])
    assert result.exit_code == 2
    assert "denoise" in result.stderr


def test_methods_lists_every_card() -> None:
    result = RUNNER.invoke(app, ["methods", "--json"])
    assert result.exit_code == 0
    assert {"denoise", "deblock", "deblur", "fill"} <= {card["id"] for card in json.loads(result.stdout)}


def test_a_narrow_terminal_cuts_no_method_s_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    show_methods(as_json=False)
    cells = [line.split("│")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    listed = "".join(cells)  # a folded name goes on in the next line
    missing = [method.card.id for method in METHODS if method.card.id not in listed]
    assert missing == []


@pytest.mark.parametrize(("columns", "told"), [("80", False), ("160", True)])
def test_a_wide_terminal_shows_sources_and_licences(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: str, told: bool
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    show_methods(as_json=False)
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].endswith("┓")  # nothing is cut off at the right
    assert ("licence" in printed.splitlines()[1]) == told
    assert ("with --json" in printed) != told


def test_inspect_writes_nothing_and_plans(archive: Path) -> None:
    before = sorted(path for path in archive.parent.rglob("*"))
    result = RUNNER.invoke(app, ["inspect", str(archive), "--json", "--device", "cpu", "--strength", "deblur=0"])
    assert result.exit_code == 1, result.output  # the corrupt file
    found = {entry["path"]: entry for entry in json.loads(result.stdout)}
    assert [step["method_id"] for step in found["a/noisy.png"]["plan"]["steps"]] == ["denoise"]
    assert found["a/clean.png"]["plan"]["steps"] == []
    assert found["b/corrupt.jpg"]["error"]
    assert sorted(path for path in archive.parent.rglob("*")) == before


def test_pictures_known_to_be_scratched_are_filled_from_a_lower_probability_on(tmp_path: Path) -> None:
    clean = skimage.data.coffee()[:256, :320].astype(np.float32) / 255
    settings = DamageSettings(weights=(("scratches", 1.0),), opacity_min=0.5, layers_min=3)
    damaged = damage_image(clean, np.random.default_rng(20), settings=settings).image
    pyvips.Image.new_from_array(np.round(damaged * 255).astype(np.uint8)).write_to_file(str(tmp_path / "print.png"))
    found = []
    for options in ([], ["--scratch-threshold", "0.4"]):
        result = RUNNER.invoke(app, ["inspect", str(tmp_path), "--json", "--device", "cpu", *options])
        (entry,) = json.loads(result.stdout)
        found.append(entry["estimate"]["scratch_coverage"]["value"])
    assert found[1] > 1.2 * found[0] > 0.0
    assert "fill" in [step["method_id"] for step in entry["plan"]["steps"]]
    assert RUNNER.invoke(app, ["inspect", str(tmp_path), "--scratch-threshold", "1.5"]).exit_code == 2


def test_names_that_look_like_markup_are_shown_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "scan [old][b].png").write_bytes(b"no picture")
    result = RUNNER.invoke(app, ["inspect", str(tmp_path), "--device", "cpu"], env={"COLUMNS": "200"})
    assert "scan [old][b].png" in result.stdout


def test_a_strength_that_a_mixture_would_not_heed_is_refused(archive: Path, tmp_path: Path) -> None:
    for command in (["restore", str(archive), str(tmp_path / "out")], ["inspect", str(archive)]):
        result = RUNNER.invoke(app, [*command, "--policy", "regional", "--strength", "denoise=0"])
        assert result.exit_code == 2
        assert "shares of its own" in result.stderr


@pytest.mark.parametrize("policy", ["agent", "fixed:nlm"])
def test_thorough_is_refused_where_it_would_not_be_heeded(archive: Path, tmp_path: Path, policy: str) -> None:
    for command in (["restore", str(archive), str(tmp_path / "out")], ["inspect", str(archive)]):
        result = RUNNER.invoke(app, [*command, "--policy", policy, "--thorough"], env={"COLUMNS": "200"})
        assert result.exit_code == 2
        assert "no mean over flips and turns" in " ".join(result.stderr.split())


def test_a_budget_is_for_what_chooses_by_gain(archive: Path, tmp_path: Path) -> None:
    for more in (["--policy", "soft", "--budget", "150"], ["--budget", "0"]):
        for command in (["restore", str(archive), str(tmp_path / "out")], ["inspect", str(archive)]):
            result = RUNNER.invoke(app, [*command, *more], env={"COLUMNS": "200"})
            assert result.exit_code == 2
            assert "budget" in result.stderr


def test_catalogue_without_one_says_so(tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["catalogue", str(tmp_path)])
    assert result.exit_code == 2
    assert "no catalogue" in result.stderr


def commit_one(destination: Path, **more: object) -> None:
    """Commit one picture to a catalogue, as restored."""
    row = {"image_id": "a", "relative_path": "a.png", "source_uri": "x", "code_version": "1", "status": "restored"}
    place = {"run_id": "r", "collection": "c", "shard_id": "s", "content_sha256": "a" * 64}
    commit_shard(Location(destination / "catalogue"), **place, images=[{**row, **more}])


def test_columns_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    commit_one(tmp_path)
    asked = ["catalogue", str(tmp_path), "SELECT 'left' AS x, 'right' AS x, 3 AS y"]
    shown = RUNNER.invoke(app, asked)
    assert shown.exit_code == 0
    assert all(value in shown.stdout for value in ("left", "right", "3")), shown.stdout
    refused = RUNNER.invoke(app, [*asked, "--json"])
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "two columns are called 'x'; name them with AS" in refused.stderr
    both = RUNNER.invoke(app, ["catalogue", str(tmp_path), "--json", "--csv", str(tmp_path / "x.csv")])
    assert (both.exit_code, both.stdout) == (2, "")
    assert "--csv and --json" in both.stderr
    assert not (tmp_path / "x.csv").exists()


def test_times_are_those_of_utc_wherever_one_is(tmp_path: Path) -> None:
    commit_one(tmp_path, finished_at=datetime(2026, 11, 22, 19, 9, tzinfo=UTC))
    program = (
        f"from flows.cli import app\nplace = {str(tmp_path)!r}\n"
        "for command in (['status', place], ['status', place, '--json'], ['catalogue', place, '--json',\n"
        "        \"SELECT finished_at, date_trunc('day', finished_at) AS day FROM images\"]):\n"
        "    app(command, standalone_mode=False)\n"
    )
    there = {**os.environ, "TZ": "Asia/Tokyo", "COLUMNS": "120"}
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=there)
    assert "2026-11-22 19:09 UTC" in found.stdout
    assert found.stdout.count('"finished_at": "2026-11-22 19:09:00+00:00"') == 2
    assert '"day": "2026-11-22 00:00:00+00:00"' in found.stdout


def test_restore_catalogue_and_csv(prefect_server: None, archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["restore", str(archive), str(out), "--json", "--device", "cpu", "--reference", str(archive)]
    result = RUNNER.invoke(app, command)
    assert result.exit_code == 1, result.output  # one quarantined
    summary = json.loads(result.stdout)
    assert (summary["images"], summary["quarantined"]) == (7, 1)
    assert summary["first_image_seconds"] > 0
    asked = RUNNER.invoke(app, ["catalogue", str(out), "SELECT count(*) AS n FROM images", "--json"])
    assert json.loads(asked.stdout) == [{"n": 7}]
    wrong = RUNNER.invoke(app, ["catalogue", str(out), "SELECT nothing FROM images"])
    assert wrong.exit_code == 2
    csv = tmp_path / "images.csv"
    assert RUNNER.invoke(app, ["catalogue", str(out), "--csv", str(csv)]).exit_code == 0
    assert len(csv.read_text().splitlines()) == 8
