"""A night of some collections only, as a notification of a bucket asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import flows.prefect_settings  # noqa: F401 - before prefect
from flows import nightly as nights
from flows.cli import app
from flows.nightly_file import choose_collections, read_nightly_file

FILE = "".join(f'[collections.{name}]\nsource = "in/{name}"\ndestination = "out/{name}"\n' for name in "abc")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "nightly.toml").write_text(FILE)
    return tmp_path / "nightly.toml"


@pytest.mark.parametrize(("names", "expected"), [(None, "abc"), (["c", "a"], "ac"), (["b", "b"], "b")])
def test_the_order_is_that_of_the_file(file: Path, names: list[str] | None, expected: str) -> None:
    assert "".join(item.name for item in choose_collections(read_nightly_file(file), names)) == expected


@pytest.mark.parametrize(("names", "said"), [(["d"], "expected one of a, b, c"), ([], "no collection is chosen")])
def test_an_unknown_choice(file: Path, names: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        choose_collections(read_nightly_file(file), names)


def test_the_flow_takes_the_chosen_ones(prefect_server: None, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        nights, "restore_collection", lambda collection, *, until: nights.CollectionOutcome(collection=collection.name)
    )
    assert [item.collection for item in nights.nightly(str(file), collections=["c", "b"])] == ["b", "c"]


def test_the_command_names_what_is_wrong(file: Path) -> None:
    ended = CliRunner().invoke(app, ["nightly", str(file), "--collection", "a", "--collection", "d"])
    assert ended.exit_code == 2
    assert "no collection 'd'" in ended.stderr
