"""The archive's night end to end, each part a process of its own: Prefect's server, its worker, the S3 server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from drawn_pictures import png
from night import Night, rows, wait_until
from real_server import Server

pytestmark = [pytest.mark.s3, pytest.mark.slow, pytest.mark.timeout(1800)]


def written(filesystem: Any, destination: str) -> dict[str, Any]:
    found = filesystem.find(f"{destination}/images", detail=True)
    return {path.split("/images/")[1]: item["LastModified"] for path, item in found.items()}


def test_each_night_takes_what_is_new(server: Server, filesystem: Any, place: str, tmp_path: Path) -> None:
    source, destination = f"{place}/in", f"{place}/out"
    filesystem.pipe({f"{source}/{number:02d}.png": png(number) for number in range(20)})
    night = Night.below(tmp_path, store=server.settings)
    night.of(source, destination)
    with night.server(), night.worker():
        wait_until(lambda: len(rows(destination)) == 20, seconds=600, what="the first night")
        before, first = written(filesystem, destination), {row["relative_path"]: row for row in rows(destination)}
        new = [f"{source}/{name}.png" for name in ("05b", "20", "21")]
        filesystem.pipe({path: png(50 + len(path)) for path in [*new, f"{source}/07.png"]})
        old = first["07.png"]["source_sha256"]

        def done() -> bool:
            found = rows(destination)
            now = {row["relative_path"]: row for row in found}
            return len(found) == len(now) == 23 and now["07.png"]["source_sha256"] != old

        wait_until(done, seconds=600, what="the second night")
    after = written(filesystem, destination)
    assert {path for path in after if after[path] != before.get(path)} == {"05b.png", "20.png", "21.png", "07.png"}
    now = rows(destination)
    assert len(now) == 23
    assert [row for row in now if row["relative_path"] in first and row["relative_path"] != "07.png"] == [
        row for path, row in first.items() if path != "07.png"
    ]
