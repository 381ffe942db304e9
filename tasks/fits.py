"""Methods that fit each picture anew, for minutes or hours: limits, news, and what is kept of files that are finished.

The result of a stage is kept once its whole shard is through. That is too late for hours of fits, so every file of them
leaves a note of its outcome as soon as it is written; the next run takes finished files of a killed one from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any

from models.deep_prior.budget import fits_told_to, limited_iterations
from models.types import ImageRecord, from_json, to_json
from tasks.caching import STEP_VERSIONS
from tasks.jobs import Restored, ShardJob
from tasks.picture import Picture
from tasks.progress import FitNews, announce_fit

# A GPU fits so many pictures of one size in less time than one after the other; a core gains nothing by it.
_TOGETHER_ON_A_GPU = 8


@lru_cache(maxsize=256)
def fits_each_picture(method_id: str) -> bool:
    """Whether a method learns from every picture anew."""
    # Importing the flow must not load torch for the cards.
    from models.registry import get_method

    return get_method(method_id).card.fits_each_picture


def are_fitted(pages: Sequence[Picture]) -> bool:
    """Whether the plan of any page of a file has such a method."""
    return any(fits_each_picture(method) for picture in pages for method in picture.methods)


def files_together(device: str) -> int:
    """Return how many files are fitted before they are written."""
    return 1 if device == "cpu" else _TOGETHER_ON_A_GPU


@contextmanager
def fits_of(pictures: Sequence[Picture], *, job: ShardJob) -> Iterator[None]:
    """Within the block, the fits of this thread are of these pictures: limited as the options say, and announced."""
    names = sorted({picture.record.relative_path for picture in pictures})
    what, fit = (names[0] if len(names) == 1 else f"{len(names)} files"), 0

    def hear(iteration: int, iterations: int, last: bool) -> None:
        nonlocal fit
        fit += iteration == 1
        announce_fit(FitNews(what=what, fit=fit, iteration=iteration, iterations=iterations, last=last))

    with ExitStack() as stack:
        stack.enter_context(fits_told_to(hear))
        if job.options.fit_iterations is not None:
            stack.enter_context(limited_iterations(job.options.fit_iterations))
        yield


def finished_key(record: ImageRecord) -> str:
    """Return the key, among the working copies, of the note on the file that a record is a page of."""
    name = hashlib.sha256(record.relative_path.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{record.source_sha256[:2]}/{record.source_sha256}-{name}.finished"


def remember_finished(pages: Sequence[Picture], outcomes: Sequence[Restored], *, job: ShardJob) -> None:
    """Note the outcome of a file that was written; one of which a page failed is tried again, so nothing is noted."""
    if any(outcome.output.status == "failed" for outcome in outcomes):
        return
    note = {"made_of": _made_of(pages, job=job), "outcomes": to_json(tuple(outcomes))}
    job.copies.save_note(finished_key(pages[0].record), json.dumps(note).encode())


def finished(
    pages: Sequence[Picture], *, job: ShardJob, intact: Callable[[Sequence[dict[str, Any]]], bool]
) -> list[Restored] | None:
    """Return the noted outcome of a file, per page, when it was made of the same and is still `intact`; else None."""
    data = job.copies.note(finished_key(pages[0].record))
    try:
        note = {} if data is None else json.loads(data)
    except ValueError:  # damaged by a full disk
        return None
    if note.get("made_of") != _made_of(pages, job=job) or not intact(note["outcomes"]):
        return None
    return [from_json(Restored, item) for item in note["outcomes"]]


def _made_of(pages: Sequence[Picture], *, job: ShardJob) -> str:
    """Return a hash of everything that the restoring stage makes of a file depends on."""
    parts = [(picture.record, picture.scratches, picture.estimate, picture.plan) for picture in pages]
    options, identities = job.options, job.identities
    used = [options.tile, options.seed, options.fit_iterations, to_json(options.limits)]
    computed = [to_json(identities.methods), identities.device, identities.precision]
    text = json.dumps([STEP_VERSIONS["restore"], job.destination, used, computed, to_json(parts)], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
