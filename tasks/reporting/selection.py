"""Which images get pictures in the report, and which are only listed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.reporting.view import PictureView


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """failures: nothing to show but an error. review, shown: with pictures. listed: one line each."""

    failures: tuple[PictureView, ...]
    review: tuple[PictureView, ...]
    shown: tuple[PictureView, ...]
    listed: tuple[PictureView, ...]


def choose_shown(views: Sequence[PictureView], *, limit: int) -> Selection:
    """Give at most `limit` images pictures: review cases, then losses, the largest changes, and a sample of the rest.

    A run of at most `limit` images is shown whole, in its own order. The sample is drawn by a digest of the identity,
    so that the same run gives the same report. Review cases over half the limit are listed, never dropped.
    """
    failures = tuple(view for view in views if view.failed)
    review = [view for view in views if view.status == "review"]
    others = [view for view in views if not view.failed and view.status != "review"]
    if len(review) + len(others) <= limit:
        return Selection(failures=failures, review=tuple(review), shown=tuple(others), listed=())
    review_shown = review[: max(limit // 2, limit - len(others))]
    room = limit - len(review_shown)
    chosen = _most_telling(others, room=room)
    taken = {view.number for view in (*chosen, *review_shown)}
    listed = tuple(view for view in views if not view.failed and view.number not in taken)
    return Selection(failures=failures, review=tuple(review_shown), shown=chosen, listed=listed)


def _most_telling(views: Sequence[PictureView], *, room: int) -> tuple[PictureView, ...]:
    """Return `room` views: every picture that got worse first, two thirds by change, the last third sampled."""
    worse = sorted((view for view in views if view.gain is not None and view.gain < 0), key=lambda view: view.gain or 0)
    changed = sorted(views, key=lambda view: -(view.changed_fraction or 0.0))
    sampled = sorted(views, key=lambda view: hashlib.sha256(view.image_id.encode("utf-8", "backslashreplace")).digest())
    chosen: dict[int, PictureView] = {}
    for source, until in ((worse, room // 3), (changed, room - room // 3), (sampled, room)):
        for view in source:
            if len(chosen) >= until:
                break
            chosen.setdefault(view.number, view)
    return tuple(chosen.values())
