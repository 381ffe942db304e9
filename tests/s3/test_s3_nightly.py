"""The night on a real S3 server: what is new or changed is read and restored, and nothing else is even looked at."""

from __future__ import annotations

import json
from typing import Any

import pandas
import pytest
from drawn_pictures import png
from real_server import Requests
from typer.testing import CliRunner

import flows.prefect_settings  # noqa: F401 - before prefect
from flows.cli import app
from flows.restore_archive import restore_archive
from flows.run_summary import RunSummary
from storage.catalogue import query
from storage.fixity import check_outputs
from storage.leftovers import find_leftovers, remove_leftover
from storage.locations import Location
from tasks.jobs import RestoreOptions

pytestmark = [pytest.mark.s3, pytest.mark.timeout(900)]
RUNNER = CliRunner()
OPTIONS = RestoreOptions(shard_images=8, device="cpu", precision="float32", write_report=False, incremental=True)
ADDED = ("a/05b.png", "b/20.png", "c/new ä.png")
CHANGED, REMOVED = "a/03.png", "b/15.png"


@pytest.fixture(scope="module")
def source(filesystem: Any, bucket: str) -> str:
    folder = {number: "a" if number < 10 else "b" for number in range(20)}
    pictures = {f"{bucket}/in/{folder[number]}/{number:02d}.png": png(number) for number in range(20)}
    filesystem.pipe(pictures)
    return f"s3://{bucket}/in"


class Night:
    """The second night: what it said, the objects before and after, and every request it made."""

    def __init__(self, summary: RunSummary, before: dict[str, Any], after: dict[str, Any], read: set[str]) -> None:
        self.summary, self.before, self.after, self.read = summary, before, after, read

    def written(self, folder: str) -> set[str]:
        found = {path: said for path, said in self.after.items() if path.startswith(f"{folder}/")}
        return {path.removeprefix(f"{folder}/") for path, said in found.items() if self.before.get(path) != said}


def objects(filesystem: Any, place: str) -> dict[str, Any]:
    prefix = place.removeprefix("s3://")
    found = filesystem.find(prefix, detail=True)
    return {path.removeprefix(f"{prefix}/"): (item["ETag"], item["LastModified"]) for path, item in found.items()}


@pytest.fixture(scope="module")
def night(prefect_server: None, filesystem: Any, source: str, bucket: str) -> Night:
    destination = f"s3://{bucket}/out"
    first = restore_archive(source, destination, OPTIONS)
    assert (first.images, first.failed) == (20, 0)
    before = objects(filesystem, destination)
    filesystem.pipe({f"{source}/{name}": png(100 + len(name), noise_sigma=25) for name in (*ADDED, CHANGED)})
    filesystem.rm(f"{source}/{REMOVED}")
    with pytest.MonkeyPatch.context() as patch:
        requests = _counted(patch)
        summary = restore_archive(source, destination, OPTIONS)
    prefix = f"{source.split('/', 3)[3]}/"
    read = {key.removeprefix(prefix) for operation, key, _ in requests.made
            if key.startswith(prefix) and operation in ("get_object", "head_object")}  # fmt: skip
    return Night(summary, before, objects(filesystem, destination), read)


def _counted(patch: pytest.MonkeyPatch) -> Requests:
    import s3fs

    seen, call = Requests(), s3fs.S3FileSystem._call_s3

    async def counted(self: Any, method: Any, *args: Any, **kwargs: Any) -> Any:
        seen.made.append((method if isinstance(method, str) else method.__name__, kwargs.get("Key", ""), 0))
        return await call(self, method, *args, **kwargs)

    patch.setattr(s3fs.S3FileSystem, "_call_s3", counted)
    return seen


def test_only_what_is_new_or_changed_is_read(night: Night) -> None:
    assert night.read == {*ADDED, CHANGED}


def test_only_what_is_new_or_changed_is_written(night: Night) -> None:
    assert (night.summary.new, night.summary.changed, night.summary.unchanged) == (3, 1, 18)
    assert night.written("images") == {*ADDED, CHANGED}
    assert night.before.keys() - night.after.keys() == {
        path for path in night.before if path.startswith("catalogue/") and path not in night.after
    }, "no output went"


def test_pandas_reads_one_row_for_every_image(night: Night, bucket: str, server: Any) -> None:
    settings = server.settings
    access = {"key": settings["AWS_ACCESS_KEY_ID"], "secret": settings["AWS_SECRET_ACCESS_KEY"]}
    options = {**access, "endpoint_url": settings["AWS_ENDPOINT_URL"]}
    frame = pandas.read_parquet(f"s3://{bucket}/out/catalogue/images", storage_options=options)
    assert len(frame) == 23
    assert frame["relative_path"].is_unique
    assert frame.loc[frame["source_state"] == "source_missing", "relative_path"].tolist() == [REMOVED]
    assert frame["source_etag"].notna().all()


def test_nothing_new_reads_nothing_and_writes_nothing(
    night: Night, filesystem: Any, source: str, bucket: str, requests: Requests
) -> None:
    before = objects(filesystem, f"s3://{bucket}/out")
    requests.made.clear()
    summary = restore_archive(source, f"s3://{bucket}/out", OPTIONS)
    assert summary.nothing_to_do is not None
    prefix = f"{source.split('/', 3)[3]}/"
    asked = {operation for operation, key, _ in requests.made if key.startswith(prefix)}
    assert not asked & {"get_object", "head_object", "put_object"}
    assert requests.count("put_object") == requests.count("delete_object") == 0
    assert objects(filesystem, f"s3://{bucket}/out") == before


def test_equal_bytes_put_once_more_are_read_once_and_not_restored(
    night: Night, filesystem: Any, source: str, bucket: str
) -> None:
    path = f"{source}/a/00.png"
    before, images = filesystem.info(path)["ETag"], objects(filesystem, f"s3://{bucket}/out/images")
    data = filesystem.cat(path)
    upload = filesystem.call_s3("create_multipart_upload", Bucket=bucket, Key="in/a/00.png")
    whole = {"Bucket": bucket, "Key": "in/a/00.png", "UploadId": upload["UploadId"]}
    part = filesystem.call_s3("upload_part", **whole, PartNumber=1, Body=data)
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    filesystem.call_s3("complete_multipart_upload", **whole, MultipartUpload=parts)
    assert filesystem.info(path)["ETag"] != before
    first = restore_archive(source, f"s3://{bucket}/out", OPTIONS)
    assert (first.images, first.unchanged) == (0, 22)
    assert restore_archive(source, f"s3://{bucket}/out", OPTIONS).nothing_to_do is not None
    assert objects(filesystem, f"s3://{bucket}/out/images") == images


def test_fixity_and_retry(night: Night, filesystem: Any, bucket: str) -> None:
    destination = f"s3://{bucket}/out"
    assert check_outputs(destination).damaged == ()
    filesystem.pipe(f"{destination}/images/a/01.png", b"rot")
    filesystem.rm(f"{destination}/images/{ADDED[0]}")
    asked = RUNNER.invoke(app, ["verify", destination, "--json"])
    assert asked.exit_code == 1, asked.output
    assert [(item["path"], item["problem"]) for item in json.loads(asked.stdout)["damaged"]] == [
        ("images/a/01.png", "changed"),
        (f"images/{ADDED[0]}", "missing"),
    ]
    mended = RUNNER.invoke(app, ["retry", destination, "--damaged", "--json"])
    assert mended.exit_code == 0, mended.output
    assert check_outputs(destination).damaged == ()
    assert query(Location(destination).join("catalogue"), "SELECT count(*) AS n FROM images").to_pylist() == [{"n": 23}]
    status = RUNNER.invoke(app, ["status", destination, "--json"])
    assert json.loads(status.stdout)[0]["source_missing"] == 1


def test_unfinished_uploads_of_ours_go_and_others_stay(filesystem: Any, bucket: str) -> None:
    destination = f"s3://{bucket}/left"
    for key in ("left/images/a.tif", "left/of-somebody-else.bin", "leftover/images/b.tif"):
        filesystem.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
    filesystem.pipe({f"{destination}/images/a.png": b"kept", f"{destination}/.lacuna-7-7": b""})
    assert list(find_leftovers(destination, older_than_seconds=3600)) == []
    found = list(find_leftovers(destination, older_than_seconds=-60))
    assert [(leftover.kind, leftover.path) for leftover in found] == [
        ("temporary", ".lacuna-7-7"),
        ("upload", "images/a.tif"),
    ]
    for leftover in found:
        remove_leftover(destination, leftover)
        remove_leftover(destination, leftover)
    left = filesystem.call_s3("list_multipart_uploads", Bucket=bucket).get("Uploads", [])
    assert sorted(item["Key"] for item in left) == ["left/of-somebody-else.bin", "leftover/images/b.tif"]
    assert filesystem.find(destination) == [f"{destination}/images/a.png".removeprefix("s3://")]
