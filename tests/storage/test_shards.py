"""Borders of shards depend on names alone, so that a change stays local."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_files import LIMITS

from storage.archives import open_source
from storage.shards import Shard, cut_shards, find_duplicates, hash_members
from storage.sources import SourceMember


def _members(count: int, size: int = 1000) -> list[SourceMember]:
    return [SourceMember(relative_path=f"{i:05d}.jpg", source_uri=f"x/{i}", size=size) for i in range(count)]


def _cut(members: list[SourceMember]) -> dict[str, tuple[str, ...]]:
    shards = cut_shards(members, target_bytes=50_000, target_count=20)
    return {shard.shard_id: tuple(member.relative_path for member in shard.members) for shard in shards}


def test_shards_cover_everything_in_order_within_the_limits() -> None:
    members = _members(2000)
    shards = cut_shards(reversed(members), target_bytes=30_000, target_count=20)
    assert [member for shard in shards for member in shard.members] == members
    assert all(len(shard.members) <= 40 and shard.size <= 60_000 for shard in shards)
    assert 10 <= 2000 / len(shards) <= 40
    assert len({shard.shard_id for shard in shards}) == len(shards)
    assert cut_shards([], target_bytes=1, target_count=1) == []
    assert len(cut_shards(_members(3, size=10**9), target_bytes=1000, target_count=5)) == 3


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 499))
def test_adding_or_removing_one_file_touches_few_shards(index: int) -> None:
    members = _members(500)
    whole, without = _cut(members), _cut(members[:index] + members[index + 1 :])
    for one, other in ((whole, without), (without, whole)):
        changed = {shard_id for shard_id, paths in one.items() if other.get(shard_id) != paths}
        assert len(changed) <= 3
    common = set(whole) & set(without)
    assert len(common) >= len(whole) - 2


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    for index in range(60):
        (tmp_path / f"{index:02d}.jpg").write_bytes(b"%d" % (index % 50))
    return tmp_path


def _hashed(folder: Path) -> list[Shard]:
    source = open_source(str(folder), limits=LIMITS)
    return [hash_members(source, s) for s in cut_shards(source.members(), target_bytes=10**9, target_count=5)]


def test_editing_one_file_changes_its_shard_alone(archive: Path) -> None:
    before = _hashed(archive)
    (archive / "33.jpg").write_bytes(b"edited and much longer than before")
    after = _hashed(archive)
    assert [shard.shard_id for shard in before] == [shard.shard_id for shard in after]
    pairs = list(zip(before, after, strict=True))
    changed = [new for old, new in pairs if new.content_sha256 != old.content_sha256]
    assert len(changed) == 1
    assert "33.jpg" in [member.relative_path for member in changed[0].members]
    assert _hashed(archive) == after


def test_duplicates_name_the_first_of_them(archive: Path) -> None:
    duplicates = find_duplicates(_hashed(archive))
    assert duplicates == {f"{index + 50}.jpg": f"{index:02d}.jpg" for index in range(10)}
