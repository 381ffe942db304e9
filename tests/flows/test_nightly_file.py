"""The file of a nightly run: what it may say, and what it says when it is wrong. No flow is run here."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from flows.deadline import Window, parse_stop
from flows.nightly_file import read_nightly_file
from models.routing.rules import RoutingOptions

EXAMPLE = Path(__file__).parents[2] / "deployments" / "nightly.example.toml"


def written(folder: Path, text: str) -> Path:
    (folder / "nightly.toml").write_text(text)
    return folder / "nightly.toml"


def test_the_example_is_valid() -> None:
    plan = read_nightly_file(EXAMPLE)
    assert plan.stop_at == "06:00"
    assert [item.name for item in plan.collections] == ["glass-plates", "newspapers", "family-albums"]
    assert all(item.options.incremental and item.options.collection == item.name for item in plan.collections)
    assert dict(plan.collections[1].options.strengths) == {"denoise": 0.5, "deblur": 0.0}


def test_defaults_hold_where_a_collection_says_nothing(tmp_path: Path) -> None:
    text = """
        [defaults]
        workers = 3
        reference = "clean"
        masks = "drawn"
        scratch_threshold = 0.5
        budget = 150
        strength = { denoise = 0.5 }
        [collections.a]
        source = "in/a"
        destination = "out/a"
        [collections.b]
        source = "s3://in/b"
        destination = "s3://out/b"
        reference = "s3://clean/b"
        masks = "s3://drawn/b"
        workers = 1
        strength = { deblur = 0 }
        correct_colour = true
        upscale = 2
        """
    first, second = read_nightly_file(written(tmp_path, text)).collections
    assert (first.source, first.destination) == (str(tmp_path / "in/a"), str(tmp_path / "out/a"))
    assert (first.options.budget_gmac, second.options.budget_gmac) == (150.0, 150.0)
    assert (first.options.scratch_threshold, second.options.scratch_threshold) == (0.5, 0.5)
    assert (first.options.reference, second.options.reference) == (str(tmp_path / "clean"), "s3://clean/b")
    assert (first.options.masks, second.options.masks) == (str(tmp_path / "drawn"), "s3://drawn/b")
    assert (first.options.workers, first.options.strengths) == (3, (("denoise", 0.5),))
    assert (second.source, second.options.workers, second.options.allow_colour) == ("s3://in/b", 1, True)
    strengths = dict(second.options.strengths)
    assert (strengths.pop("upscale-x2"), strengths.pop("denoise")) == (1.0, 0.5)
    assert "upscale-x4" in strengths
    assert set(strengths.values()) == {0.0}


def test_a_collection_enlarges_otherwise_than_the_defaults(tmp_path: Path) -> None:
    (collection,) = read_nightly_file(
        written(tmp_path, "[defaults]\nupscale = 2\n" + COLLECTION + "upscale = 4")
    ).collections
    options = RoutingOptions(strengths=collection.options.strengths)
    assert options.upscale_method == "upscale-x4"


COLLECTION = '[collections.a]\nsource = "in"\ndestination = "out"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no collection"),
        ("stop_at = ", "no valid TOML"),
        ('stop_at = "six"\n' + COLLECTION, "expected a time of day"),
        (COLLECTION + "worker = 2", "did you mean 'workers'"),
        (COLLECTION + "workers = 0", "from 1 to 64"),
        (COLLECTION + "workers = true", "from 1 to 64"),
        (COLLECTION + "correct_colour = 1", "true or false"),
        (COLLECTION + "strength = { denoise = 2 }", "denoise is 2"),
        (COLLECTION + 'precision = "half"', "expected one of auto"),
        ('[collections.a]\nsource = "in"', "no destination"),
        ('[collections."a b"]\nsource = "in"\ndestination = "out"', "try a-b"),
        (COLLECTION + COLLECTION.replace(".a]", ".b]"), "same destination"),
        ("[collection.a]", "did you mean 'collections'"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_nightly_file(written(tmp_path, text))


def test_a_time_of_day_is_the_next_one() -> None:
    now = datetime(2026, 11, 21, 2, 0).astimezone()
    assert parse_stop("06:00", now=now) == datetime(2026, 11, 21, 6, 0).astimezone()
    assert parse_stop("01:30", now=now) == datetime(2026, 11, 22, 1, 30).astimezone()
    assert parse_stop("2026-11-21T06:00", now=now) == datetime(2026, 11, 21, 6, 0).astimezone()
    with pytest.raises(ValueError, match="got 'dawn'"):
        parse_stop("dawn")


def test_a_window_hands_out_work_until_its_time() -> None:
    open_window = Window(datetime.now().astimezone() + timedelta(hours=1))
    assert (list(open_window.open([1, 2])), open_window.over) == ([1, 2], False)
    shut = Window(datetime.now().astimezone() - timedelta(seconds=1))
    assert (list(shut.open([1, 2])), shut.over) == ([], True)
    assert list(Window(None).open([1])) == [1]
