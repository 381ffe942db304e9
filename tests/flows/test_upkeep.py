"""`lacuna nightly`, `status`, `verify`, `retry` and `clean` as a curator meets them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import app
from tests.flows.conftest import smooth_picture, write_picture

RUNNER = CliRunner()
PLAIN = ["--device", "cpu", "--precision", "float32", "--no-report"]


def ran(*arguments: str, code: int = 0) -> Any:
    """Run the command for machines and return what it printed."""
    result = RUNNER.invoke(app, [*arguments, "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def said(*arguments: str, code: int = 0) -> str:
    result = RUNNER.invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def places(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Three pictures and one that is none, restored by the command."""
    folder = tmp_path_factory.mktemp("upkeep")
    for number in range(3):
        write_picture(folder / "plates" / f"{number}.png", smooth_picture(number), noise_sigma=25 * (number == 0))
    (folder / "plates" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 this is not a picture")
    source, out = str(folder / "plates"), str(folder / "out")
    summary = ran("restore", source, out, "--incremental", *PLAIN, code=1)
    assert (summary["new"], summary["quarantined"], summary["remaining"]) == (4, 1, 0)
    return source, out


def test_nothing_new_is_said(places: tuple[str, str]) -> None:
    text = said("restore", *places, "--incremental", *PLAIN)
    assert "plates: nothing new: all 4 images are as they were restored" in text
    assert "1 failed or were quarantined earlier: `lacuna retry`" in text


def test_status_says_what_was_done(places: tuple[str, str]) -> None:
    (found,) = ran("status", places[1])
    assert (found["collection"], found["images"], found["by_status"]["quarantined"]) == ("plates", 4, 1)
    assert sum(found["failures_by_kind"].values()) == 1
    assert found["last_run"]["kind"] == "incremental"
    assert found["runs"][0]["source"] == f"file://{places[0]}"
    assert "quarantined" in said("status", places[1])


def test_verify_names_damage_and_retry_mends_it(places: tuple[str, str]) -> None:
    out = places[1]
    assert ran("verify", out)["damaged"] == []
    assert "nothing to retry: every output" in said("retry", out, "--damaged")
    whole = {path: path.read_bytes() for path in Path(out, "images").iterdir()}
    Path(out, "images", "0.png").unlink()
    Path(out, "images", "1.png").write_bytes(b"rot")
    report = ran("verify", out, code=1)
    assert [(item["path"], item["problem"]) for item in report["damaged"]] == [
        ("images/0.png", "missing"),
        ("images/1.png", "changed"),
    ]
    assert "images/1.png: changed" in said("verify", out, code=1)
    (mended,) = ran("retry", out, "--damaged")
    assert mended["images"] == 2
    assert {path: path.read_bytes() for path in Path(out, "images").iterdir()} == whole
    assert ran("verify", out)["damaged"] == []


def test_retry_takes_failures_and_nothing_else(places: tuple[str, str]) -> None:
    source, out = places
    kind = next(iter(ran("status", out)[0]["failures_by_kind"]))
    write_picture(Path(source, "new.png"), smooth_picture(8))
    (again,) = ran("retry", out, "--error-kind", kind, code=2)  # all that was tried failed again
    assert (again["images"], again["quarantined"]) == (1, 1)
    assert ran("status", out)[0]["images"] == 4
    write_picture(Path(source, "broken.jpg"), smooth_picture(9))
    (mended,) = ran("retry", out)
    assert (mended["images"], mended["quarantined"]) == (1, 0)
    assert ran("status", out)[0]["failures_by_kind"] == {}
    assert "nothing to retry: no image failed" in said("retry", out)
    Path(source, "new.png").unlink()


def test_wrong_wishes_are_explained(places: tuple[str, str], tmp_path: Path) -> None:
    assert "but there is" in said("retry", places[1], "--error-kind", "tornado", code=2)
    assert "expected one of plates" in said("retry", places[1], "--collection", "plate", code=2)
    assert "expected a time of day" in said("retry", places[1], "--until", "late", code=2)
    for command in ("status", "verify", "retry"):
        assert "no catalogue" in said(command, str(tmp_path), code=2)
    assert "expected a folder" in said("clean", str(tmp_path / "nowhere"), code=2)


def test_retry_finds_a_source_that_has_moved(prefect_server: None, tmp_path: Path) -> None:
    before, after, out = tmp_path / "before", tmp_path / "after", str(tmp_path / "out")
    write_picture(before / "a.png", smooth_picture(1))
    ran("restore", str(before), out, "--collection", "press", *PLAIN)
    before.rename(after)
    ran("restore", str(after), out, "--collection", "press", "--incremental", *PLAIN)
    Path(out, "images", "a.png").unlink()
    text = said("retry", out, "--damaged", code=2)
    assert f"There is no file://{before}" in text
    assert "If press has moved, say where it is now: --source PLACE" in text
    (mended,) = ran("retry", out, "--damaged", "--source", str(after))
    assert mended["images"] == 1
    assert ran("verify", out)["damaged"] == []
    Path(out, "images", "a.png").unlink()
    ran("retry", out, "--damaged")  # it is the source of the newest row now
    ran("restore", str(after), str(tmp_path / "out"), "--collection", "other", *PLAIN)
    assert "choose one of other, press by --collection" in said("retry", out, "--source", str(after), code=2)


def test_a_picture_that_became_a_folder_can_be_restored(prefect_server: None, tmp_path: Path) -> None:
    source, out = tmp_path / "plates", str(tmp_path / "out")
    for name in ("x.png", "y.png"):
        write_picture(source / name, smooth_picture(1))
    ran("restore", str(source), out, *PLAIN)
    (source / "x.png").unlink()
    write_picture(source / "x.png" / "in.png", smooth_picture(2))
    failed = ran("restore", str(source), out, "--incremental", *PLAIN, code=1)
    ((path, kind, text),) = failed["failures"]
    assert (path, kind) == ("x.png/in.png", "OutputError")
    assert f"{out}/images/x.png is a file, where a folder is needed" in text
    Path(out, "images", "x.png").rename(tmp_path / "kept.png")
    assert ran("retry", out)[0]["failed"] == 0
    assert Path(out, "images", "x.png", "in.png").exists()


def test_clean_lists_and_removes_only_when_told(places: tuple[str, str]) -> None:
    left = Path(places[1], "images", ".0123456789abcdef.part")
    left.write_bytes(b"half")
    assert "nothing to clean" in said("clean", places[1])
    os.utime(left, (1e9, 1e9))
    assert [item["path"] for item in ran("clean", places[1])["leftovers"]] == [f"images/{left.name}"]
    assert "add --delete" in said("clean", places[1])
    assert left.exists()
    assert "1 leftovers" in said("clean", places[1], "--delete")
    assert not left.exists()


def test_a_night_goes_on_past_a_bad_collection(prefect_server: None, tmp_path: Path) -> None:
    write_picture(tmp_path / "b" / "x.png", smooth_picture(1))
    defaults = '[defaults]\ndevice = "cpu"\nprecision = "float32"\nreport = false\n'
    file = tmp_path / "nightly.toml"
    file.write_text(
        defaults + '[collections.a]\nsource = "nowhere"\ndestination = "out/a"\n'
        '[collections.b]\nsource = "b"\ndestination = "out/b"\n'
        '[collections.c]\nsource = "b"\ndestination = "out/c"\nstrength = { denois = 1 }\n'
    )
    night = {item["collection"]: item for item in ran("nightly", str(file), code=1)}
    assert "There is no" in night["a"]["error"]
    assert (night["b"]["error"], night["b"]["summary"]["images"]) == (None, 1)
    assert "denoise" in night["c"]["error"]
    assert not (tmp_path / "out" / "c").exists()
    again = said("nightly", str(file), code=1)
    assert "b: nothing new: all 1 images" in again
    assert "a: FAILED" in again


def test_a_night_that_is_over_leaves_the_rest(prefect_server: None, tmp_path: Path) -> None:
    write_picture(tmp_path / "b" / "x.png", smooth_picture(1))
    file = tmp_path / "nightly.toml"
    file.write_text('stop_at = "2026-01-01T00:00"\n[collections.b]\nsource = "b"\ndestination = "out"\n')
    assert "b: not begun: the time was over" in said("nightly", str(file), code=3)
    assert not (tmp_path / "out").exists()


def test_a_wrong_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "nightly.toml").write_text("[collections.a]\nsource = 1\n")
    assert "no destination" in said("nightly", str(tmp_path / "nightly.toml"), code=2)
    assert "nowhere.toml" in said("nightly", str(tmp_path / "nowhere.toml"), code=2)
