"""Which collections of a nightly file an object of a store belongs to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flows.listening_messages import ObjectEvent
from flows.nightly_file import NightlyPlan, read_nightly_file
from storage.archives import TAR_SUFFIXES, ZIP_SUFFIX
from storage.locations import Location

_SCHEMES = ("s3", "s3a")


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket and the prefix in it that ends at a slash or is an object; an empty prefix is the whole bucket."""

    bucket: str
    prefix: str

    def holds(self, other: Place) -> bool:
        """Return whether the other place is this one or lies in it."""
        inside = not self.prefix or other.prefix == self.prefix or other.prefix.startswith(f"{self.prefix}/")
        return self.bucket == other.bucket and inside


class Places:
    """The sources and destinations of a plan that lie in stores."""

    def __init__(self, plan: NightlyPlan) -> None:
        found = [(item.name, _place(item.source), _place(item.destination)) for item in plan.collections]
        self._sources = [(name, source) for name, source, _ in found if source is not None]
        self._destinations = [destination for _, _, destination in found if destination is not None]

    @property
    def sources(self) -> dict[str, Place]:
        """The place of every collection whose source is in a store."""
        return dict(self._sources)

    def concerned(self, event: ObjectEvent) -> frozenset[str]:
        """Return the collections whose source holds the object, unless a destination within that source holds it."""
        at = Place(event.bucket, event.key)
        results = [place for place in self._destinations if place.holds(at)]
        return frozenset(
            name
            for name, source in self._sources
            if source.holds(at) and not any(source.holds(place) and place != source for place in results)
        )


class WatchedPlaces:
    """The places of a file that somebody may edit meanwhile; while it is unusable, those of before hold.

    Raises what `read_nightly_file` does, and ValueError when no source is in a store, but only when it is made.
    """

    def __init__(self, file: Path, *, say: Callable[[str], None]) -> None:
        self._file, self._say = file, say
        self._signature = self._sign()
        self._places = read_places(file)

    def current(self) -> Places:
        """Return the places as the file says now."""
        signature = self._sign()
        if signature != self._signature:
            self._signature = signature
            try:
                self._places = read_places(self._file)
                self._say(f"{self._file} has changed and was read again")
            except (OSError, ValueError) as error:
                self._say(f"{self._file} has changed and is unusable; what it said before holds: {error}")
        return self._places

    def _sign(self) -> tuple[int, int] | None:
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size


def bucket_prefixes(places: Places, bucket: str) -> list[str]:
    """Return the prefixes to be told of, without those that lie in another; Amazon refuses such an overlap.

    Folders end with a slash, so that their neighbours of a longer name are not told of; "" is the whole bucket.
    """
    found = sorted({place.prefix for place in places.sources.values() if place.bucket == bucket})
    held = [Place(bucket, prefix) for prefix in found]
    outer = [place.prefix for place in held if not any(other.holds(place) for other in held if other != place)]
    return [
        prefix if not prefix or prefix.lower().endswith((ZIP_SUFFIX, *TAR_SUFFIXES)) else f"{prefix}/"
        for prefix in outer
    ]


def read_places(file: Path) -> Places:
    """Return the places of a nightly file; raises ValueError when no source is in a store, FileNotFoundError."""
    places = Places(read_nightly_file(file))
    if not places.sources:
        raise ValueError(
            f"{file}: no collection has a source in a store (s3://…), so no store can tell of it; start such a file "
            "by a schedule"
        )
    return places


def _place(uri: str) -> Place | None:
    scheme, _, rest = Location(uri).uri.partition("://")
    if scheme.lower() not in _SCHEMES:
        return None
    bucket, _, prefix = rest.partition("/")
    return Place(bucket, prefix.strip("/"))
