"""Cuts an archive into shards whose borders depend on the names of its files alone.

Editing a file never moves a border; adding or removing one moves at most the borders next to it. A shard too large is
split before the member whose path hashes lowest, again and again, as in a treap: the cuts of one part do not depend
on what happens in another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from storage.errors import IngestError
from storage.sources import Source, SourceMember
from storage.working_copies import WorkingCopies

# A larger member is hashed as a stream and read again: it must not be in memory whole.
_KEPT_FILE_BYTES = 1 << 26


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A run of neighbouring members, the unit of work.

    shard_id: 16 hex digits from the path of the member the shard begins with; the same after any edit of contents.
    content_sha256: over path and sha256 of every member; None until `hash_members` has read them.
    member_sha256s, member_errors: one per member once hashed; None for a member that cannot be read, or could be.
    """

    shard_id: str
    members: tuple[SourceMember, ...]
    content_sha256: str | None = None
    member_sha256s: tuple[str | None, ...] = ()
    member_errors: tuple[str | None, ...] = ()

    @property
    def size(self) -> int:
        return sum(member.size for member in self.members)


def cut_shards(members: Iterable[SourceMember], *, target_bytes: int, target_count: int) -> list[Shard]:
    """Return shards of about `target_count` members and `target_bytes` bytes each, at most twice either.

    A single member larger than that is a shard of its own. Members are ordered by path first.
    """
    if target_bytes < 1 or target_count < 1:
        raise ValueError(f"target_bytes and target_count must be at least 1, got {target_bytes} and {target_count}.")
    ordered = sorted(members, key=lambda member: member.relative_path)
    ranks = [_digest(member.relative_path) for member in ordered]
    totals = [0]
    for member in ordered:
        totals.append(totals[-1] + member.size)
    shards: list[Shard] = []
    stack = [(0, len(ordered))] if ordered else []
    while stack:
        first, end = stack.pop()
        too_large = end - first > 2 * target_count or totals[end] - totals[first] > 2 * target_bytes
        if too_large and end - first > 1:
            cut = min(range(first + 1, end), key=ranks.__getitem__)
            stack += [(cut, end), (first, cut)]
        else:
            shards.append(_shard(ordered[first:end], anchor=ranks[first] if first else _digest("")))
    return shards


def cut_runs(members: Iterable[SourceMember], *, target_bytes: int, target_count: int) -> list[Shard]:
    """Return shards of `target_count` members, or of the fewest that come to `target_bytes` bytes, in order of path.

    What a shard holds depends on nothing after it: when whole shards are taken out of the members, the others stay as
    they are, up to the last. `identified` gives them ids that no other content can have.
    """
    if target_bytes < 1 or target_count < 1:
        raise ValueError(f"target_bytes and target_count must be at least 1, got {target_bytes} and {target_count}.")
    shards: list[Shard] = []
    taken: list[SourceMember] = []
    for member in sorted(members, key=lambda member: member.relative_path):
        taken.append(member)
        if len(taken) >= target_count or sum(item.size for item in taken) >= target_bytes:
            shards.append(_shard(taken, anchor=_digest(taken[0].relative_path)))
            taken = []
    return [*shards, _shard(taken, anchor=_digest(taken[0].relative_path))] if taken else shards


def hash_members(source: Source, shard: Shard, *, keep: WorkingCopies | None = None) -> Shard:
    """Return `shard` with the sha256 of every member, read as a stream, and of the whole.

    keep: where the bytes that came over a network stay for the ingest.

    A member known to be bad, or that turns out unreadable, counts by its error, so that mending it changes the hash.
    """
    hashes: list[str | None] = []
    errors: list[str | None] = []
    for member in shard.members:
        value, kind = None, member.error_kind
        if kind is None:
            try:
                value = source.sha256(member) if keep is None else _kept(source, member, keep=keep)
            except IngestError as error:
                kind = error.kind
        hashes.append(value)
        errors.append(kind)
    return _hashed(shard, hashes, errors)


def _kept(source: Source, member: SourceMember, *, keep: WorkingCopies) -> str:
    """Return the sha256 of a member whose bytes are kept where that is worth it."""
    if not source.is_remote or member.size > _KEPT_FILE_BYTES:
        return source.sha256(member)
    data = source.read(member)
    sha256 = hashlib.sha256(data).hexdigest()
    keep.save_file(data, sha256=sha256)
    return sha256


def identified(shard: Shard, hashed: Mapping[str, tuple[str | None, str | None]]) -> Shard:
    """Return `shard` with the (sha256, error kind) that is known of every member by its path, and an id by its content.

    Such an id never meets that of a shard with other members or other contents.
    """
    pairs = [hashed[member.relative_path] for member in shard.members]
    found = _hashed(shard, [sha256 for sha256, _ in pairs], [kind for _, kind in pairs])
    return replace(found, shard_id=(found.content_sha256 or "")[:16])


def _hashed(shard: Shard, hashes: Sequence[str | None], errors: Sequence[str | None]) -> Shard:
    total = hashlib.sha256()
    for member, sha256, kind in zip(shard.members, hashes, errors, strict=True):
        mark = f"!{kind}" if sha256 is None else sha256
        total.update(f"{member.relative_path}\0{mark}\n".encode("utf-8", "surrogateescape"))
    content = total.hexdigest()
    return replace(shard, content_sha256=content, member_sha256s=tuple(hashes), member_errors=tuple(errors))


def find_duplicates(shards: Sequence[Shard]) -> dict[str, str]:
    """Return {relative path: path of the first member with the same bytes} over hashed shards, firsts left out."""
    first: dict[str, str] = {}
    duplicates: dict[str, str] = {}
    pairs = (pair for shard in shards for pair in zip(shard.members, shard.member_sha256s, strict=True))
    for member, sha256 in sorted(pairs, key=lambda pair: pair[0].relative_path):
        if sha256 is None:
            continue
        if sha256 in first:
            duplicates[member.relative_path] = first[sha256]
        else:
            first[sha256] = member.relative_path
    return duplicates


def _digest(path: str) -> str:
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()


def _shard(members: Sequence[SourceMember], *, anchor: str) -> Shard:
    return Shard(shard_id=anchor[:16], members=tuple(members))
