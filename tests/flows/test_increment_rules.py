"""Which pictures count as new, changed or the same: listing first, bytes where the listing cannot tell."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from storage.catalogue_state import CatalogueState, KnownFile
from storage.sources import SourceMember
from tasks.increment import Increment, choose, compare_listing, first_increment, second_increment, together
from tasks.jobs import RestoreOptions

SHARD = ("run", "plates", "s1")
A, B, C = "a" * 64, "b" * 64, "c" * 64
KNOWN = KnownFile(
    shard=SHARD, source_uri="s3://in/x.png", source_bytes=10, source_sha256=A, source_etag="e1", source_state="present",
    error_kind=None, unsuccessful=False, has_output=True, duplicate_of=None, finished_at=datetime.now(UTC),
)  # fmt: skip
BROKEN = replace(KNOWN, unsuccessful=True, has_output=False, error_kind="truncated")
OPTIONS = RestoreOptions(shard_images=2)


def member(path: str = "x.png", *, size: int = 10, etag: str | None = "e1", error: str | None = None) -> SourceMember:
    return SourceMember(relative_path=path, source_uri=path, size=size, etag=etag, error_kind=error)


def decided(
    *members: SourceMember,
    known: dict[str, KnownFile] | None = None,
    hashed: dict[str, tuple[str | None, str | None]] | None = None,
    outputs: tuple[str, ...] = ("x.png", "y.png", "z.png"),
) -> tuple[list[str], Increment]:
    """Return (what had to be read, the increment); what is read has the sha256 A unless `hashed` says otherwise."""
    state = CatalogueState(files={"x.png": KNOWN} if known is None else known)
    compared = compare_listing(members, state, outputs=outputs)
    read = [item.relative_path for item in [*compared.certain, *compared.unsure]]
    found = dict.fromkeys(read, (A, None)) | (hashed or {})
    first = first_increment(compared, found, options=OPTIONS)
    return read, together(first, second_increment(first, compared, found, options=OPTIONS))


def restored(increment: Increment) -> list[str]:
    return [item.relative_path for shard in increment.shards for item in shard.members]


def test_equal_etag_and_size_is_not_read() -> None:
    read, found = decided(member())
    assert (read, found.unchanged, found.nothing) == ([], 1, True)


@pytest.mark.parametrize("etag", ["e2", None])
def test_without_an_equal_etag_the_bytes_tell(etag: str | None) -> None:
    read, found = decided(member(etag=etag))
    assert (read, restored(found), found.unchanged) == (["x.png"], [], 1)
    read, found = decided(member(etag=etag), hashed={"x.png": (B, None)})
    assert (restored(found), found.changed, found.unchanged) == (["x.png"], 1, 0)


def test_an_etag_that_changed_alone_is_noted() -> None:
    _, found = decided(member(etag="e2"))
    assert found.notes == {SHARD: {"x.png": {"source_etag": "e2"}}}
    assert not found.nothing


def test_a_folder_on_disk_has_no_etag_and_is_always_read() -> None:
    known = {"x.png": replace(KNOWN, source_etag=None)}
    read, found = decided(member(etag=None), known=known)
    assert (read, found.nothing) == (["x.png"], True)


def test_another_size_is_changed_without_a_doubt() -> None:
    _, found = decided(member(size=11))
    assert (restored(found), found.changed) == (["x.png"], 1)
    assert found.replaced == {"x.png": SHARD}


def test_a_result_that_is_gone_is_made_again() -> None:
    _, found = decided(member(), outputs=())
    assert restored(found) == ["x.png"]


def test_new_and_missing() -> None:
    _, found = decided(member("y.png"))
    assert (restored(found), found.new, found.missing) == (["y.png"], 1, 1)
    assert found.notes == {SHARD: {"x.png": {"source_state": "source_missing"}}}


def test_missing_is_noted_once_and_its_return_too() -> None:
    gone = {"x.png": replace(KNOWN, source_state="source_missing"), "y.png": KNOWN}
    assert decided(member("y.png"), known=gone)[1].nothing
    _, found = decided(member(), member("y.png"), known=gone)
    assert (restored(found), found.notes) == ([], {SHARD: {"x.png": {"source_state": "present"}}})


@pytest.mark.parametrize(
    ("known", "listed", "hashed", "taken"),
    [
        (BROKEN, member(), None, False),  # same bytes, same failure: `retry` is for that
        (BROKEN, member(etag="e2"), (B, None), True),
        (replace(BROKEN, source_sha256=None, error_kind="link"), member(error="link"), None, False),
        (replace(BROKEN, source_sha256=None, error_kind="link"), member(error="unsafe_path"), None, True),
        (replace(BROKEN, source_sha256=None, error_kind="link"), member(etag=None), (A, None), True),
        (replace(BROKEN, source_sha256=None, error_kind="unreadable"), member(etag=None), (None, "unreadable"), False),
        (replace(BROKEN, source_sha256=None, error_kind="unreadable"), member(etag=None), (A, None), True),
        (KNOWN, member(error="duplicate_name"), (None, "duplicate_name"), True),
    ],
)
def test_what_failed_is_taken_up_once_it_changes(
    known: KnownFile, listed: SourceMember, hashed: tuple[str | None, str | None] | None, taken: bool
) -> None:
    _, found = decided(listed, known={"x.png": known}, hashed={} if hashed is None else {"x.png": hashed})
    assert restored(found) == (["x.png"] if taken else [])
    assert found.unsuccessful == (0 if taken or not known.unsuccessful else 1)


def test_what_failed_and_is_gone_is_not_to_be_tried_again() -> None:
    known = {"x.png": KNOWN, "y.png": BROKEN, "z.png": replace(BROKEN, source_state="source_missing")}
    assert decided(member(), known=known)[1].unsuccessful == 0
    back = [member(path, etag="e2") for path in ("y.png", "z.png")]
    assert decided(member(), *back, known=known)[1].unsuccessful == 2
    assert decided(member(), *back, known=known, hashed={"z.png": (B, None)})[1].unsuccessful == 1


def test_shards_are_named_by_their_content() -> None:
    members = [member(f"n{index}.png") for index in range(5)]
    hashes = {f"n{index}.png": (f"{index}" * 64, None) for index in range(5)}
    _, first = decided(*members, known={}, hashed=hashes)
    assert [len(shard.members) for shard in first.shards] == [2, 2, 1]
    _, changed = decided(*members, known={}, hashed={**hashes, "n0.png": (C, None)})
    ids = [[shard.shard_id for shard in found.shards] for found in (first, changed)]
    assert ids[0][0] != ids[1][0]
    assert ids[0][1:] == ids[1][1:]


def test_the_cut_stays_when_whole_shards_are_done() -> None:
    members = [member(f"n{index}.png") for index in range(7)]
    _, whole = decided(*members, known={})
    done = {f"n{index}.png": KNOWN for index in (2, 3)}
    _, rest = decided(*members, known=done, outputs=tuple(done))
    assert [shard.shard_id for shard in rest.shards] == [
        shard.shard_id for index, shard in enumerate(whole.shards) if index != 1
    ]


def test_a_known_file_stays_the_first_of_its_twins() -> None:
    known = {"x.png": KNOWN, "z.png": replace(KNOWN, duplicate_of="x.png")}
    _, found = decided(member(), member("z.png"), member("a.png"), known=known)
    assert found.duplicates == [(("a.png", "x.png"),)]


def test_twins_are_told_the_same_after_a_kill() -> None:
    new = [member("a.png"), member("b.png"), member("c.png")]
    _, undisturbed = decided(*new, known={})
    assert undisturbed.duplicates == [(("b.png", "a.png"),), (("c.png", "a.png"),)]
    committed = {"c.png": replace(KNOWN, duplicate_of="a.png")}
    _, after = decided(*new, known=committed, outputs=("c.png",))
    assert after.duplicates == [(("b.png", "a.png"),)]


def test_retry_chooses_by_kind_and_by_name() -> None:
    state = CatalogueState(files={"x.png": KNOWN, "y.png": BROKEN, "z.png": replace(BROKEN, error_kind="RuntimeError")})
    members = [member("x.png"), member("y.png"), member("z.png"), member("new.png")]

    def chosen(options: RestoreOptions) -> list[str]:
        return [item.relative_path for item in choose(members, state, options=options)]

    assert chosen(RestoreOptions(retry=())) == ["y.png", "z.png"]
    assert chosen(RestoreOptions(retry=("truncated",))) == ["y.png"]
    assert chosen(RestoreOptions(only=("x.png", "gone.png"))) == ["x.png"]


def test_what_was_not_read_is_neither_same_nor_changed() -> None:
    state = CatalogueState(files={"x.png": KNOWN, "y.png": KNOWN})
    compared = compare_listing([member(etag=None), member("y.png", etag=None)], state, outputs=("x.png", "y.png"))
    first = first_increment(compared, {}, options=OPTIONS)
    assert (first.unread, first.unchanged, first.nothing) == (2, 0, True)
    whole = together(first, second_increment(first, compared, {"y.png": (A, None)}, options=OPTIONS))
    assert (whole.unread, whole.unchanged) == (1, 1)
