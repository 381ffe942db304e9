"""Previews kept at a remote destination, so that the next report shows them whichever machine writes it."""

from __future__ import annotations

import io
import zipfile
from concurrent.futures import ThreadPoolExecutor

from storage.locations import Location
from tasks.reporting.previews import Preview, PreviewFolder

_AT_ONCE = 8


class SharedPreviews:
    """Previews of this machine first, then those that earlier reports showed. Implements PreviewProvider.

    Only what a report shows is kept at `place`, one object per image: it is a hundred or so, not the archive.
    """

    def __init__(self, folder: PreviewFolder, place: Location) -> None:
        self.folder = folder
        self.place = place
        self._kept = {entry.path: entry.size for entry in place.entries()}
        self._shown: list[str] = []

    def get(self, image_id: str) -> Preview | None:
        """Return the preview of `image_id`, or None when there is none here nor there."""
        found = self.folder.get(image_id)
        name = self._name(image_id)
        if found is None and name in self._kept:
            try:
                with zipfile.ZipFile(io.BytesIO(self.place.join(name).read_bytes())) as packed:
                    self.folder.put_files(image_id, {entry: packed.read(entry) for entry in packed.namelist()})
            except (FileNotFoundError, zipfile.BadZipFile, ValueError):
                return None  # a report without one picture is better than none
            found = self.folder.get(image_id)
        if found is not None:
            self._shown.append(image_id)
        return found

    def keep(self) -> None:
        """Put what was shown and is not there yet, or is not the same there, to `place`; many at once."""
        packed = {self._name(image_id): self._packed(image_id) for image_id in self._shown}
        fresh = {name: data for name, data in packed.items() if self._kept.get(name) != len(data)}
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda name: self.place.join(name).write_bytes_atomic(fresh[name]), fresh))

    def _name(self, image_id: str) -> str:
        return f"{self.folder.stem(image_id)}.zip"

    def _packed(self, image_id: str) -> bytes:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:  # stored: what it holds is compressed
            for ending, data in self.folder.files(image_id).items():
                archive.writestr(zipfile.ZipInfo(ending), data)
        return packed.getvalue()
