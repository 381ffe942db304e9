"""A data set from pictures, tar shards or a list: same bytes twice, only what is missing is made, clear rows."""

from __future__ import annotations

import hashlib
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pyvips
from typer.testing import CliRunner

from flows.cli import app
from flows.dataset_work import DatasetSummary
from storage.dataset_shards import commit_files
from storage.errors import OutputError
from storage.limits import IngestLimits
from storage.locations import Location
from tasks.datasets.jobs import DatasetOptions
from tasks.jobs import RestoreOptions
from tests.flows.conftest import build_archive, smooth_picture, write_picture, write_tar

RUNNER = CliRunner()
LIMITS = IngestLimits()
CPU = RestoreOptions(device="cpu", precision="float32", write_report=False)


def run(source: Path | str, destination: Path, *, restore: RestoreOptions = CPU, **options: Any) -> DatasetSummary:
    """Run the flow's own body without the engine; one test runs it with."""
    import flows.restore_dataset as module

    def ended(work: tuple[Any, bytes | None]) -> Any:
        job, carried = work
        try:
            outcome: Any = module.process_samples.fn(name=str(job.number), job=job, carried=carried)
        except RuntimeError as error:
            outcome = error
        return SimpleNamespace(result=lambda raise_on_failure: outcome)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("find_committed", "fetch_samples", "commit_samples"):
            patch.setattr(module, name, getattr(module, name).fn)
        patch.setattr(module, "_unseen", lambda value: value)
        patch.setattr(module, "submit_bounded", lambda submit, items, **_: ((item, ended(item)) for item in items))
        chosen = DatasetOptions(restore=restore, **options)
        summary: DatasetSummary = module.restore_dataset.fn(str(source), str(destination), chosen)
    return summary


def rows_of(destination: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((destination / "samples").iterdir()) for row in pq.read_table(path).to_pylist()]


def members_of(path: Path) -> dict[str, bytes]:
    """Return {name: bytes} in the order of a tar, after checking that its headers say nothing of its making."""
    found = {}
    with tarfile.open(path) as archive:
        for info in archive:
            assert (info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode) == (0, 0, 0, "", "", 0o644)
            found[info.name] = archive.extractfile(info).read()  # type: ignore[union-attr]
    return found


def hashes(root: Path, *folders: str) -> dict[str, str]:
    paths = sorted(path for folder in folders for path in (root / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Bytes of a picture: picture(seed, noise_sigma=0)."""
    folder = tmp_path_factory.mktemp("pictures")

    def made(seed: int, *, noise_sigma: float = 0.0, suffix: str = ".png") -> bytes:
        path = folder / f"{seed}-{noise_sigma}{suffix}"
        if not path.exists():
            write_picture(path, smooth_picture(seed), noise_sigma=noise_sigma)
        return path.read_bytes()

    return made


@pytest.fixture(scope="module")
def archive_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """The archive of the other flow tests, made into tar shards of three samples once."""
    root = tmp_path_factory.mktemp("archive")
    source = build_archive(root / "source")
    return source, root / "made", run(source, root / "made", shard_size=3)


def test_a_folder_becomes_tar_shards_with_a_row_per_sample(archive_run: tuple[Path, Path, DatasetSummary]) -> None:
    source, made, summary = archive_run
    rows = rows_of(made)
    assert [row["source"].removeprefix(f"file://{source}/") for row in rows] == [
        *("a/clean.png", "a/noisy.png", "a/noisy_grey.png"),
        *("b/clean_16.tif", "b/corrupt.jpg", "b/noisy_16.tif", "b/twin.png"),
    ]
    by_key = {row["key"]: row for row in rows}
    assert by_key["b/corrupt"]["status"] == "failed"
    assert by_key["b/corrupt"]["error_kind"] == "truncated"
    assert by_key["b/corrupt"]["output"] is None
    noisy = by_key["a/noisy"]
    assert noisy["status"] == "restored"
    assert noisy["methods"] == ["denoise"]
    assert "noise of about σ" in noisy["plan"]
    assert (noisy["width"], noisy["height"]) == (96, 96)
    assert noisy["noise_sigma"] == pytest.approx(25, abs=5)

    members = {f"{n:06d}": members_of(made / "shards" / f"{n:06d}.tar") for n in range(3)}
    assert list(members["000000"]) == ["a/clean.png", "a/noisy.png", "a/noisy_grey.png"]
    assert list(members["000001"]) == ["b/clean_16.tif", "b/noisy_16.tif"]  # a failed sample is a row alone
    for row in rows:
        if row["output"] is not None:
            shard, _, name = row["output"].partition("!/")
            data = members[Path(shard).stem][name]
            assert hashlib.sha256(data).hexdigest() == row["output_sha256"]
            assert len(data) == row["output_bytes"]
    assert members["000000"]["a/clean.png"] == (source / "a" / "clean.png").read_bytes()

    found = json.loads((made / "statistics.json").read_text())
    assert found["samples"] == 7
    assert found["statuses"]["failed"] == 1
    assert found["errors"] == {"truncated": 1}
    assert sum(found["statuses"].values()) == 7
    assert found["methods"]["denoise"] >= 2
    assert found["images_per_second"] > 0
    assert found["output_bytes"] == sum(row["output_bytes"] or 0 for row in rows)
    assert summary.complete
    assert summary.failures[0][1] == "truncated"


def test_the_same_input_gives_the_same_bytes(archive_run: tuple[Path, Path, Any], tmp_path: Path) -> None:
    source, made, _ = archive_run
    run(source, tmp_path / "again", shard_size=3)
    assert hashes(tmp_path / "again", "shards", "samples") == hashes(made, "shards", "samples")


def test_a_killed_run_goes_on_with_the_missing_shards(
    archive_run: tuple[Path, Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.datasets import making

    source, made, _ = archive_run
    destination, commit = tmp_path / "made", commit_files

    def killed(root: Location, number: int, *, folder: Path, **arguments: Any) -> Any:
        if number == 0:
            return commit(root, number, folder=folder, **arguments)
        root.join("shards", f"{number:06d}.tar").write_bytes_atomic(b"half of a shard")
        raise RuntimeError("killed between the shard and its commit")

    with monkeypatch.context() as patch:
        patch.setattr(making, "commit_files", killed)
        broken = run(source, destination, shard_size=3)
    assert broken.statistics["broken_shards"] == 2
    assert broken.statistics["samples"] == 7
    assert broken.broken_shards[0][0] == "000001"
    assert "killed" in broken.broken_shards[0][1]
    first = (destination / "shards" / "000000.tar").stat().st_mtime_ns

    again = run(source, destination, shard_size=3)
    assert (again.statistics["made_shards"], again.statistics["kept_shards"]) == (2, 1)
    assert (destination / "shards" / "000000.tar").stat().st_mtime_ns == first
    assert hashes(destination, "shards", "samples") == hashes(made, "shards", "samples")

    (destination / "shards" / "000002.tar").write_bytes(b"damaged")
    third = run(source, destination, shard_size=3)
    assert (third.statistics["made_shards"], third.statistics["kept_shards"]) == (1, 2)
    assert third.statistics["statuses"] == again.statistics["statuses"]
    assert hashes(destination, "shards", "samples") == hashes(made, "shards", "samples")


def test_tar_shards_keep_their_keys_and_other_members(picture: Any, tmp_path: Path) -> None:
    first = {
        "s/0001.txt": b"a disc",
        "s/0001.png": picture(2, noise_sigma=25),
        "s/0001.cls": b"7",
        "s/0002.png": picture(1),
        "s/0002.json": b'{"caption": "clean"}',
        "s/0003.json": b'{"caption": "no picture"}',
    }
    second = {"s/0001.png": picture(4), "s/0001.txt": b"same key, other shard", "x.jpg": b"\xff\xd8\xff no picture"}
    write_tar(tmp_path / "in" / "train-0.tar", first)
    write_tar(tmp_path / "in" / "train-1.tar", second)
    (tmp_path / "in" / "README.md").write_text("what is in it")
    summary = run(tmp_path / "in", tmp_path / "out", shard_size=100)
    assert summary.input == "tar"
    members = members_of(tmp_path / "out" / "shards" / "000000.tar")
    assert list(members) == [
        *("s/0001.png", "s/0001.txt", "s/0001.cls", "s/0002.png", "s/0002.json"),
        *("train-1/s/0001.png", "train-1/s/0001.txt"),
    ]
    for name, data in first.items():
        if name not in ("s/0001.png", "s/0003.json"):
            assert members[name] == data
    assert members["s/0001.png"] != first["s/0001.png"]
    assert members["train-1/s/0001.txt"] == second["s/0001.txt"]
    rows = rows_of(tmp_path / "out")
    assert [row["status"] == "failed" for row in rows] == [False, False, True, False, True]
    assert [row["error_kind"] for row in rows if row["error_kind"]] == ["no_picture", "truncated"]
    assert rows[0]["members"] == ["txt", "cls"]
    assert rows[0]["source"].endswith("train-0.tar!/s/0001.png")

    pattern = run(f"{tmp_path}/in/train-{{1..1}}.tar", tmp_path / "files", layout="folder")
    assert pattern.statistics["samples"] == 2
    assert (tmp_path / "files" / "images" / "train-1" / "s" / "0001.txt").read_bytes() == second["s/0001.txt"]
    assert (tmp_path / "files" / "images" / "train-1" / "s" / "0001.png").read_bytes() == picture(4)


def test_a_list_becomes_files_with_its_other_columns(picture: Any, tmp_path: Path) -> None:
    for name, data in {"one.png": picture(1), "sub/two.jpg": picture(2, suffix=".jpg"), "bare": picture(4)}.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    places = [
        "one.png",
        f"file://{tmp_path}/in/sub/two.jpg",
        "gone.png",
        None,
        str(tmp_path / "in" / "bare"),
        "../x.png",
    ]
    columns = {
        "url": places,
        "caption": ["a", "b", "c", "d", "é", None],
        "status": [1, 2, 3, 4, 5, 6],
        "box": [[1.5, 2.0], [], None, [3.0], [4.0], [5.0]],
    }
    pq.write_table(pa.table(columns), tmp_path / "in" / "list.parquet", row_group_size=2)
    summary = run(tmp_path / "in" / "list.parquet", tmp_path / "out", layout="folder", column="url", shard_size=4)
    assert summary.input == "parquet"
    assert summary.statistics["shards"] == 2
    rows = rows_of(tmp_path / "out")
    assert [row["error_kind"] for row in rows] == [None, None, "missing", "missing", None, "unsafe_path"]
    assert [row["caption"] for row in rows] == columns["caption"]
    assert [row["carried_status"] for row in rows] == columns["status"]
    assert [row["box"] for row in rows] == columns["box"]
    assert [row["output"] for row in rows if row["output"]] == [
        *("images/000000000.png", "images/000000001.jpg", "images/000000004.png")
    ]
    for row in (row for row in rows if row["output"]):
        data = (tmp_path / "out" / row["output"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["output_sha256"]
    run(tmp_path / "in" / "list.parquet", tmp_path / "tar", column="url")
    labels = members_of(tmp_path / "tar" / "shards" / "000000.tar")
    assert list(labels)[:2] == ["000000000.png", "000000000.json"]
    assert json.loads(labels["000000004.json"]) == {"box": [4.0], "caption": "é", "status": 5}
    assert rows_of(tmp_path / "tar")[0]["members"] == ["json"]
    with pytest.raises(OutputError, match="lies inside the destination"):
        run(tmp_path / "in" / "list.parquet", tmp_path / "in" / "sub", column="url")

    again = run(tmp_path / "in" / "list.parquet", tmp_path / "out", layout="folder", column="url", shard_size=4)
    assert again.statistics["made_shards"] == 0
    assert again.statistics["images_per_second"] is None
    (tmp_path / "out" / "images" / "000000004.png").unlink()
    again = run(tmp_path / "in" / "list.parquet", tmp_path / "out", layout="folder", column="url", shard_size=4)
    assert again.statistics["made_shards"] == 1
    assert (tmp_path / "out" / "images" / "000000004.png").exists()


def test_a_folder_keeps_its_tree_or_takes_one_format(picture: Any, tmp_path: Path) -> None:
    noisy = picture(2, noise_sigma=25, suffix=".tif")
    names = {"cat/a.png": picture(1), "cat/a.tif": noisy, "cat/b.c.png": picture(4), "cat/note.txt": b"no picture"}
    for name, data in names.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    run(tmp_path / "in", tmp_path / "kept", layout="folder")
    assert list(hashes(tmp_path / "kept", "images")) == [f"images/{name}" for name in list(names)[:3]]
    assert (tmp_path / "kept" / "images" / "cat" / "b.c.png").read_bytes() == picture(4)

    run(tmp_path / "in", tmp_path / "png", layout="folder", format="png")
    assert list(hashes(tmp_path / "png", "images")) == [
        *("images/cat/a%tif.png", "images/cat/a.png", "images/cat/b%2Ec.png")
    ]
    assert (tmp_path / "png" / "images" / "cat" / "a.png").read_bytes() == picture(1)
    rows = {row["source"].rsplit("/", 1)[1]: row for row in rows_of(tmp_path / "png")}
    assert rows["a.tif"]["status"] == "restored"
    assert rows["a.tif"]["output"] == "images/cat/a%tif.png"
    assert (tmp_path / "png" / "images" / "cat" / "a%tif.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(OutputError, match=r"holds another data set \(format: there 'png', now 'webp'\)"):
        run(tmp_path / "in", tmp_path / "png", layout="folder", format="webp")


def test_a_new_format_has_upright_pixels_where_the_file_was_turned(picture: Any, tmp_path: Path) -> None:
    turned = pyvips.Image.new_from_buffer(picture(1), "").copy()
    turned.set_type(pyvips.GValue.gint_type, "orientation", 6)
    (tmp_path / "in").mkdir()
    turned.jpegsave(str(tmp_path / "in" / "turned.jpg"), Q=95)
    upright = pyvips.Image.new_from_file(str(tmp_path / "in" / "turned.jpg")).autorot()
    upright.jpegsave(str(tmp_path / "in" / "upright.jpg"), Q=95, keep="none")
    run(tmp_path / "in", tmp_path / "out", layout="folder", format="jpeg")
    made = {path.name: path.read_bytes() for path in (tmp_path / "out" / "images").iterdir()}
    assert {row["status"] for row in rows_of(tmp_path / "out")} == {"untouched"}
    assert made["upright.jpg"] == (tmp_path / "in" / "upright.jpg").read_bytes()
    seen = pyvips.Image.new_from_buffer(made["turned.jpg"], "")
    assert "orientation" not in seen.get_fields()
    assert (seen - upright).abs().max() < 12


def test_a_shorter_input_leaves_no_shards_behind(picture: Any, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (source / name).write_bytes(picture(1))
    assert run(source, tmp_path / "out", shard_size=1).statistics["shards"] == 3
    (source / "b.png").unlink()
    late = run(source, tmp_path / "out", shard_size=1, restore=replace(CPU, stop_at="2020-01-01T00:00"))
    assert not late.complete
    assert late.retired_shards == 0
    summary = run(source, tmp_path / "out", shard_size=1)
    assert summary.retired_shards == 1
    assert summary.statistics["made_shards"] == 1
    assert list(hashes(tmp_path / "out", "shards", "samples")) == [
        *("samples/000000.parquet", "samples/000001.parquet", "shards/000000.tar", "shards/000001.tar")
    ]


@pytest.fixture
def listed(picture: Any, tmp_path: Path) -> Path:
    """A list of one clean picture."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(picture(1))
    pq.write_table(pa.table({"path": ["in/a.png"], "caption": ["x"]}), tmp_path / "list.parquet")
    return tmp_path / "list.parquet"


@pytest.mark.timeout(600)  # starting the engine's server on a busy machine takes minutes
def test_the_command_runs_the_flow_and_shows_what_became_of_it(
    listed: Path, tmp_path: Path, prefect_server: None
) -> None:
    good = RUNNER.invoke(app, ["dataset", str(listed), f"{tmp_path}/out", "--device", "cpu", "--json"])
    assert good.exit_code == 0, good.output
    assert json.loads(good.stdout)["statistics"]["statuses"] == {"untouched": 1}
    (tmp_path / "in" / "b.png").write_bytes(b"\x89PNG no picture")
    some = RUNNER.invoke(app, ["dataset", f"{tmp_path}/in", f"{tmp_path}/some", "--device", "cpu"])
    assert some.exit_code == 1
    for words in ("2 samples in 1 shards", "error not_an_image", "samples/*.parquet", "statistics.json", "images/s"):
        assert words in some.output


def test_wrong_usage_ends_with_one_sentence(listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import flows.restore_dataset as module

    monkeypatch.setattr(module, "restore_dataset", module.restore_dataset.fn)
    place = f"{tmp_path}/in"
    for arguments, words in (
        ([str(listed), f"{tmp_path}/x", "--column", "pth"], "did you mean path?"),
        ([place, f"{place}/out"], "lies inside the source"),
        ([f"{tmp_path}/none", f"{tmp_path}/x"], "There is no"),
        ([place, f"{tmp_path}/x", "--quality", "80"], "--quality: it is for --format webp or jpeg"),
        ([place, f"{tmp_path}/x", "--input", "tar"], "holds no samples of the kind tar"),
        ([place, f"{tmp_path}/x", "--strength", "denoise=2"], "--strength: got 'denoise=2'"),
    ):
        result = RUNNER.invoke(app, ["dataset", *arguments, "--device", "cpu"])
        assert result.exit_code == 2, result.output
        assert words in result.stderr
