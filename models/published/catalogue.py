"""The published weights Lacuna can use: where they come from, how they are found on disk, and their tensors.

Nothing is downloaded and nothing is shipped: the user puts the authors' files, unaltered, into one folder and names it
in LACUNA_PUBLISHED_WEIGHTS. A file may lie up to two folders deep in it. Files are known by their sha256.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from models.published.checksums import DNCNN_25_FILES, OWAN_FILES, RL_RESTORE_FILES
from models.published.converters import read_dncnn, read_owan, read_toolchain
from models.published.sstable import CheckpointError
from models.weights import WeightCard, WeightsError, load_card, load_weights

SETTING = "LACUNA_PUBLISHED_WEIGHTS"
Found = Mapping[str, Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedWeights:
    """One set of published files: `files` maps their names to their sha256, `read` turns them into tensors."""

    card: WeightCard
    origin: str
    files: Mapping[str, str]
    read: Callable[[Found], dict[str, Tensor]]


def _digest(files: Mapping[str, str]) -> str:
    """One sha256 for several files: of their `sha256sum` listing in the order of their names."""
    listing = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(files.items()))
    return hashlib.sha256(listing.encode()).hexdigest()


def _published(
    name: str,
    *,
    origin: str,
    network: str,
    parameters: int,
    data: list[str],
    licence: str,
    files: Mapping[str, str],
    read: Callable[[Found], dict[str, Tensor]],
) -> PublishedWeights:
    card = WeightCard(
        id=name,
        sha256=_digest(files),
        network=network,
        parameters=parameters,
        data=data,
        licence=licence,
        command=f"published: {origin}",
        steps=0,
        seed=0,
        commit=origin.rpartition("@")[2],
        notes=f"The authors' files, read from the folder {SETTING} names; sha256 is that of their sha256sum listing.",
    )
    return PublishedWeights(card=card, origin=origin, files=files, read=read)


def _read_rl_restore(found: Found) -> dict[str, Tensor]:
    prefixes = {name: path.with_suffix("") for name, path in found.items() if name.endswith(".index")}
    tools = {number: prefixes[f"tool{number:02d}.index"] for number in range(1, 13)}
    return read_toolchain(tools, prefixes["model.index"])


PUBLISHED = (
    _published(
        "rl-restore-released",
        origin="github.com/yuke93/RL-Restore@dd1463dfed37073005b85822961adf5a2bbca528",
        network="ToolchainNetwork",
        parameters=523_931,
        data=["DIV2K, first 750 training pictures (Yu et al., CVPR 2018)"],
        licence="MIT (code and weights, by its authors)",
        files=RL_RESTORE_FILES,
        read=_read_rl_restore,
    ),
    _published(
        "owan",
        origin="github.com/sg-nm/Operation-wise-attention-network@d66c319884c89ac613064136977a16d06418f276",
        network="OperationAttentionNetwork",
        parameters=391_456,
        data=["DIV2K, as RL-Restore (Suganuma et al., CVPR 2019)"],
        licence="MIT (code and weights, by its authors)",
        files=OWAN_FILES,
        read=lambda found: read_owan(found["model_best.pth"]),
    ),
    _published(
        "dncnn-25",
        origin="github.com/cszn/KAIR@fc1732f4a4514e42ce15e5b3a1e18c828af47a1e",
        network="DnCNN",
        parameters=555_137,
        data=["BSD400 (Zhang et al., TIP 2017)"],
        licence="MIT (code and weights, by its authors)",
        files=DNCNN_25_FILES,
        read=lambda found: read_dncnn(found["dncnn_25.pth"]),
    ),
)
_BY_NAME = {published.card.id: published for published in PUBLISHED}


def card_of(name: str) -> WeightCard:
    """Return the card of shipped or published weights; WeightsError names the nearest shipped ones for others."""
    return _BY_NAME[name].card if name in _BY_NAME else load_card(name)


def tensors_of(name: str) -> dict[str, Tensor]:
    """Return the tensors of shipped or published weights, verified; WeightsError says what is missing or altered."""
    return published_tensors(name) if name in _BY_NAME else load_weights(name)


def missing_weights(name: str | None) -> str | None:
    """Return what a user must do before weights can be used, as a sentence, or None when they are there."""
    if name not in _BY_NAME:
        return None
    try:
        _locate(_BY_NAME[name], os.environ.get(SETTING, ""))
    except WeightsError as error:
        return str(error)
    return None


def published_tensors(name: str) -> dict[str, Tensor]:
    """Return the tensors of published weights; WeightsError says what is missing or altered."""
    published = _BY_NAME[name]
    found = _locate(published, os.environ.get(SETTING, ""))
    try:
        return published.read(found)
    except CheckpointError as error:
        raise WeightsError(f"weights {name!r}: {error}") from error


def _locate(published: PublishedWeights, folder: str) -> dict[str, Path]:
    name = published.card.id
    where = f"get {_spoken(published.files)} from {published.origin} and name their folder in {SETTING}"
    if not folder:
        raise WeightsError(f"needs weights: {SETTING} is not set; {where}")
    if not Path(folder).is_dir():
        raise WeightsError(f"needs weights: {SETTING} is {folder!r}, which is not a folder; {where}")
    found = {}
    for file_name, sha256 in published.files.items():
        candidates = [path for level in ("", "*/", "*/*/") for path in sorted(Path(folder).glob(level + file_name))]
        if not candidates:
            raise WeightsError(f"needs weights: {file_name} of {name!r} is not in {folder}; {where}")
        matching = [path for path in candidates if _sha256(path, path.stat().st_mtime_ns) == sha256]
        if not matching:
            raise WeightsError(
                f"needs weights: {candidates[0]} is not the published file (its sha256 differs); {where}"
            )
        found[file_name] = matching[0]
    return found


def _spoken(files: Mapping[str, str]) -> str:
    first = next(iter(files))
    return first if len(files) == 1 else f"{first} and the {len(files) - 1} files that belong to it"


@lru_cache(maxsize=256)
def _sha256(path: Path, _modified: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
