"""What of a source is new or changed since the catalogue's last committed state: by ETag and size, then by sha256.

Never by date: a date says when a file was copied, not what is in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from models.types import from_json
from storage.catalogue import ShardKey
from storage.catalogue_state import PRESENT, SOURCE_MISSING, CatalogueState, KnownFile, amend_shard, load_state
from storage.errors import UNAVAILABLE, MaskError
from storage.locations import Location
from storage.shards import Shard, cut_runs, identified
from storage.sources import SourceMember
from tasks.given_masks import Listed, MaskListing, given_as, list_masks, masks_of
from tasks.jobs import RestoreOptions, ShardJob
from tasks.retrying import NETWORK_FAULTS
from tasks.sources import listed_members

Notes = dict[str, dict[str, Any]]
# (sha256, kind of error) of a member that was read.
Hashed = Mapping[str, tuple[str | None, str | None]]


@dataclass(slots=True, kw_only=True)
class Comparison:
    """A listing beside the catalogue's state, before anything was read.

    new: without a row. changed: surely not what was restored. unsure: only their bytes can tell. same: how many are
    surely unchanged. gone: known files that the listing does not have. missing: those that were there until now. notes:
    columns to change in rows that stay, by relative path.
    """

    state: CatalogueState
    new: list[SourceMember] = field(default_factory=list)
    changed: list[SourceMember] = field(default_factory=list)
    unsure: list[SourceMember] = field(default_factory=list)
    same: int = 0
    gone: set[str] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)
    notes: Notes = field(default_factory=dict)

    @property
    def certain(self) -> list[SourceMember]:
        """What is to be restored whatever else is found."""
        return [*self.new, *self.changed]


@dataclass(slots=True, kw_only=True)
class Increment:
    """What an incremental run has to do.

    shards: the pictures to be restored. notes: columns to change in rows that stay, by shard and relative path. stale:
    rows to be taken out since newer ones are committed already. replaced: the shard of the row that each picture to be
    restored has now. missing: sources newly found to be gone. unsuccessful: unchanged pictures that failed earlier
    and are still there. unread: pictures of which the listing could not tell, and whose bytes have not been compared.
    """

    shards: list[Shard]
    duplicates: list[tuple[tuple[str, str], ...]]
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    missing: int = 0
    unsuccessful: int = 0
    unread: int = 0
    notes: dict[ShardKey, Notes] = field(default_factory=dict)
    stale: dict[ShardKey, set[str]] = field(default_factory=dict)
    replaced: dict[str, ShardKey] = field(default_factory=dict)

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to restore, to note or to tidy up."""
        return not (self.shards or self.notes or self.stale)


def compare_listing(
    members: Iterable[SourceMember],
    state: CatalogueState,
    *,
    outputs: Collection[str],
    masks: MaskListing | None = None,
) -> Comparison:
    """Sort the members of a source by what its listing alone says about them.

    outputs: what the listing of the results holds. A picture whose result is gone, or whose store did not give it, is
    not done, and counts as changed. masks: what the listing of the masks holds, None = none are given; a picture that
    was restored by others, or whose mask could not be used, counts as changed.
    """
    compared, listed = Comparison(state=state), set()
    for member in members:
        listed.add(member.relative_path)
        known = state.files.get(member.relative_path)
        if known is None:
            compared.new.append(member)
        elif (
            known.error_kind == UNAVAILABLE
            or (known.has_output and member.relative_path not in outputs)
            or (masks is not None and _masked_otherwise(known, masks_of(member.relative_path, masks)))
        ):
            compared.changed.append(member)
        elif _certainly_same(member, known):
            compared.same += 1
            _note_presence(compared.notes, member, known)
        elif _certainly_other(member, known):
            compared.changed.append(member)
        else:
            compared.unsure.append(member)
    compared.gone = state.files.keys() - listed
    for path, known in state.files.items():
        if path in compared.gone and not known.missing:
            compared.missing.append(path)
            compared.notes[path] = {"source_state": SOURCE_MISSING}
    return compared


def first_increment(compared: Comparison, hashed: Hashed, *, options: RestoreOptions) -> Increment:
    """Return what the listing alone shows is to be done; `hashed` holds every member of `compared.certain`."""
    found = _to_restore(compared.certain, compared.state, hashed, options=options)
    # Of what is gone nothing can be tried again.
    settled = compared.gone | {member.relative_path for member in compared.changed}
    return replace(
        found,
        new=len(compared.new),
        changed=len(compared.changed),
        unchanged=compared.same,
        missing=len(compared.missing),
        unsuccessful=sum(known.unsuccessful for path, known in compared.state.files.items() if path not in settled),
        unread=len(compared.unsure),
        notes=_by_shard(compared.notes, compared.state),
        stale=compared.state.stale,
    )


def second_increment(first: Increment, compared: Comparison, hashed: Hashed, *, options: RestoreOptions) -> Increment:
    """Return what the bytes of pictures the listing could not tell about (`compared.unsure`) show is to be done more.

    hashed: of those that were read; the others are not decided yet.
    """
    files = compared.state.files
    read = [member for member in compared.unsure if member.relative_path in hashed]
    changed = [member for member in read if _differs(files[member.relative_path], *hashed[member.relative_path])]
    again = {member.relative_path for member in changed}
    notes: Notes = {}
    for member in read:
        if member.relative_path not in again:
            _note_presence(notes, member, files[member.relative_path])
    found = _to_restore(changed, compared.state, hashed, options=options, earlier=first.shards)
    return replace(
        found,
        changed=len(changed),
        unchanged=len(read) - len(changed),
        unsuccessful=-sum(files[path].unsuccessful for path in again),
        unread=-len(read),
        notes=_by_shard(notes, compared.state),
    )


def together(first: Increment, second: Increment) -> Increment:
    """Return both increments as one."""
    counts = ("new", "changed", "unchanged", "missing", "unsuccessful", "unread")
    notes = {shard: dict(found) for shard, found in first.notes.items()}
    for shard, found in second.notes.items():
        notes.setdefault(shard, {}).update(found)
    return Increment(
        shards=[*first.shards, *second.shards],
        duplicates=[*first.duplicates, *second.duplicates],
        notes=notes,
        stale={**first.stale, **second.stale},
        replaced={**first.replaced, **second.replaced},
        **{name: getattr(first, name) + getattr(second, name) for name in counts},
    )


def _differs(known: KnownFile, sha256: str | None, error_kind: str | None) -> bool:
    return sha256 != known.source_sha256 or (sha256 is None and error_kind != known.error_kind)


def choose(members: Iterable[SourceMember], state: CatalogueState, *, options: RestoreOptions) -> list[SourceMember]:
    """Return the members that the options name (`only`), or whose row says failed or quarantined, as `retry` asks."""
    if options.only is not None:
        wanted = set(options.only)
    else:
        failed = {path: known for path, known in state.files.items() if known.unsuccessful}
        wanted = {path for path, known in failed.items() if not options.retry or known.error_kind in options.retry}
    return [member for member in members if member.relative_path in wanted]


def retry_increment(
    members: Sequence[SourceMember], state: CatalogueState, hashed: Hashed, *, options: RestoreOptions
) -> Increment:
    """Return the increment of exactly these members, changed or not."""
    found = _to_restore(members, state, hashed, options=options)
    return replace(found, changed=len(members), unchanged=len(state.files) - len(members))


def _masked_otherwise(known: KnownFile, masks: Sequence[Listed]) -> bool:
    if known.unsuccessful:  # what cannot be read does not get better by a mask
        return known.error_kind == MaskError.kind
    return known.given != (given_as(masks) if masks else None)


def _certainly_same(member: SourceMember, known: KnownFile) -> bool:
    if member.size != (known.source_bytes or 0):
        return False
    if member.error_kind is not None:
        return known.unsuccessful and known.error_kind == member.error_kind
    return member.etag is not None and member.etag == known.source_etag


def _certainly_other(member: SourceMember, known: KnownFile) -> bool:
    if member.error_kind is not None:
        return True
    # A row without a size is one of a member that could not be read: its hash, or the error, tells.
    return known.source_bytes is not None and member.size != known.source_bytes


def _note_presence(notes: Notes, member: SourceMember, known: KnownFile) -> None:
    changes: dict[str, Any] = {"source_state": PRESENT} if known.missing else {}
    if member.etag is not None and member.etag != known.source_etag:
        changes["source_etag"] = member.etag  # the same bytes were put again: tomorrow the listing tells
    if changes:
        notes[member.relative_path] = changes


def _to_restore(
    members: Sequence[SourceMember],
    state: CatalogueState,
    hashed: Hashed,
    *,
    options: RestoreOptions,
    earlier: Sequence[Shard] = (),
) -> Increment:
    cut = cut_runs(members, target_bytes=options.shard_bytes, target_count=options.shard_images)
    shards = [identified(shard, hashed) for shard in cut]
    restored = {member.relative_path for member in members}
    return Increment(
        shards=shards,
        duplicates=_duplicates(shards, state, restored=restored, earlier=earlier),
        replaced={path: state.files[path].shard for path in restored if path in state.files},
    )


def _duplicates(
    shards: Sequence[Shard], state: CatalogueState, *, restored: set[str], earlier: Sequence[Shard]
) -> list[tuple[tuple[str, str], ...]]:
    """Return per shard its members with the same bytes as a known file or as a new one with an earlier path.

    A known file stays the first one, whatever its path; so a run that was killed and one that was not say the same.
    """
    first: dict[str, str] = {}
    for path, known in sorted(state.files.items()):
        if path not in restored and known.source_sha256 is not None and not known.missing:
            first.setdefault(known.source_sha256, known.duplicate_of or path)
    for group in (earlier, shards):
        pairs = [
            (member.relative_path, sha256)
            for shard in group
            for member, sha256 in zip(shard.members, shard.member_sha256s, strict=True)
        ]
        for path, sha256 in sorted(pairs):
            if sha256 is not None:
                first.setdefault(sha256, path)
    return [
        tuple(
            (member.relative_path, first[sha256])
            for member, sha256 in zip(shard.members, shard.member_sha256s, strict=True)
            if sha256 is not None and first[sha256] != member.relative_path
        )
        for shard in shards
    ]


def _by_shard(notes: Notes, state: CatalogueState) -> dict[ShardKey, Notes]:
    found: dict[ShardKey, Notes] = {}
    for path, changes in notes.items():
        found.setdefault(state.files[path].shard, {})[path] = changes
    return found


@task(name="compare", cache_policy=NO_CACHE, persist_result=False, **NETWORK_FAULTS)
def compare_source(*, run: dict[str, Any]) -> Any:
    """List the source of a job and put it beside the catalogue's state; returns (members, Comparison, masks).

    Raises IngestError when the source is missing, unusable, or holds nothing: an empty folder is rather one that is not
    mounted than one whose every picture was removed.
    """
    job = from_json(ShardJob, run)
    members = listed_members(job.source, limits=job.options.limits)
    state = load_state(job.catalogue_root, collection=job.collection)
    outputs = set(job.images_root.list()) if state.files else set()
    masks = list_masks(job.options.masks)
    given = None if job.options.masks is None else masks
    return members, compare_listing(members, state, outputs=outputs, masks=given), masks


@task(name="amend", cache_policy=NO_CACHE, **NETWORK_FAULTS)
def amend_rows(*, catalogue: str, shard: list[str], drop: list[str], notes: dict[str, Any]) -> None:
    """Task over `amend_shard`: what it changes are rows of the catalogue, never an output."""
    run_id, collection, shard_id = shard
    amend_shard(Location(catalogue), (run_id, collection, shard_id), drop=set(drop), notes=notes)
