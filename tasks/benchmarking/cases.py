"""Cases of a benchmark: which there are in a suite or a degraded set, and the pixels of each.

A case travels as a small record; its pixels are read, or made again from its seed, where they are needed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.types import from_json
from storage.benchmark_pictures import as_floats, decode_mask, decode_picture, pixels_sha256
from storage.benchmark_sets import BenchmarkSetError, read_manifest, read_member
from storage.locations import Location

if TYPE_CHECKING:
    from models.benchmarking.protocols import Protocol
    from models.benchmarking.suites import Group

Pixels = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
PICTURE_SUFFIXES = (".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseRef:
    """Where the pixels of one case come from.

    recipe: made from the reference with `draw_seed`, None = the degraded picture is read as it is. pixels_sha256: what
    they must hash to, None = not known beforehand. example: whether the leaderboard shows a crop of it.
    """

    suite: str
    dataset: str
    level: str
    seed: int
    image_id: str
    protocol: dict[str, Any]
    reference_uri: str
    degraded_uri: str | None = None
    mask_uri: str | None = None
    mask_from_zeros: bool = False
    grey: bool = False
    recipe: str | None = None
    draw_seed: int = 0
    pixels_sha256: str | None = None
    example: bool = False

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.level}/{self.image_id}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """The pixels of a case, float32; `scale` is how many times larger the reference is."""

    degraded: Pixels
    reference: Pixels
    mask: Mask | None
    scale: int
    protocol: Protocol
    sha256: str


def draw_seed(recipe: str, image_id: str, seed: int) -> int:
    """Return the seed of one picture's draw, so that no two pictures of a set carry the same noise."""
    digest = hashlib.sha256(f"{recipe}\0{image_id}\0{seed}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") >> 2


def folder_name(text: str) -> str:
    """Return a recipe or level as a part of paths: letters, digits, dots, dashes and slashes."""
    return re.sub(r"[^A-Za-z0-9./_-]+", "-", text).strip("-") or "unnamed"


def is_place(target: str) -> bool:
    """Whether `target` names a folder or URL rather than a suite; a suite's id always names the suite."""
    from models.benchmarking.suites import suite_ids

    return target not in suite_ids() and ("/" in target or "\\" in target or Location(target).exists())


def cases_of(
    target: str, *, data: str, seeds: Sequence[int], limit: int | None
) -> tuple[list[CaseRef], dict[str, Any]]:
    """Return (cases, description) of a suite by its id, or of the degraded set at a folder or URL ("set" says which).

    Raises ValueError for an unknown suite, FileNotFoundError without data, BenchmarkSetError for a bad manifest.
    """
    from models.benchmarking.suites import get_suite
    from models.registry import get_method, unavailable

    if is_place(target):
        root = Location(target)
        description: dict[str, Any] = {
            "suite": root.name,
            "title": f"Degraded set {root.name}",
            "note": "",
            "methods": [],
            "set": root.uri,
        }
        return list_set(root, name=root.name, limit=limit), description
    suite = get_suite(target)
    methods = [*suite.methods, *(name for name in suite.if_available if unavailable(get_method(name)) is None)]
    description = {"suite": suite.id, "title": suite.title, "note": suite.note, "methods": methods, "set": ""}
    return list_suite(target, data=data, seeds=seeds, limit=limit), description


def list_suite(suite_id: str, *, data: str, seeds: Sequence[int], limit: int | None) -> list[CaseRef]:
    """Return every case of a suite; FileNotFoundError when a set is not in the data folder, ValueError for the id."""
    from models.benchmarking.suites import get_suite
    from models.degradations.recipes import get_recipe

    suite, root, refs = get_suite(suite_id), Location(data), []
    if not root.exists():
        raise FileNotFoundError(f"There is no data folder {data}; point --data or LACUNA_DATA at the standard sets.")
    for group in suite.groups:
        if group.pairs is None:
            get_recipe(group.level)
            found = _recipe_refs(group, root=root, seeds=seeds, limit=limit)
        else:
            found = _paired_refs(group, root=root, limit=limit)
        if not found:
            raise FileNotFoundError(
                f"There are no pictures in {root.join(group.folder)}; {suite_id} needs {group.dataset}."
            )
        refs += [replace(ref, suite=suite_id, example=index == 0) for index, ref in enumerate(found)]
    return refs


def _pictures(folder: Location) -> dict[str, str]:
    """Return {stem: URI} of the pictures directly in a folder, sorted."""
    names = [name for name in folder.list() if "/" not in name and name.lower().endswith(PICTURE_SUFFIXES)]
    return {PurePosixPath(name).stem: folder.join(name).uri for name in sorted(names)}


def _recipe_refs(group: Group, *, root: Location, seeds: Sequence[int], limit: int | None) -> list[CaseRef]:
    pictures = list(_pictures(root.join(group.folder)).items())[:limit]
    return [
        CaseRef(
            suite="",
            dataset=group.dataset,
            level=group.level,
            seed=seed,
            image_id=stem,
            protocol=_protocol_json(group.protocol),
            reference_uri=uri,
            grey=group.grey,
            recipe=group.level,
            draw_seed=draw_seed(group.level, stem, seed),
        )
        for seed in seeds
        for stem, uri in pictures
    ]


def _paired_refs(group: Group, *, root: Location, limit: int | None) -> list[CaseRef]:
    pairs = group.pairs
    if pairs is None:
        raise ValueError(f"group {group.dataset}: got no pairs, expected a group of ready-made pairs")
    references = _ending(_pictures(root.join(group.folder)), (pairs.reference_ending,))
    degraded = _ending(_pictures(root.join(pairs.degraded_folder)), pairs.degraded_endings)
    missing = sorted(set(degraded) - set(references))
    if missing:
        raise BenchmarkSetError(
            f"{root.join(pairs.degraded_folder)}: {missing[0]} has no reference in {root.join(group.folder)}; "
            "expected one per degraded picture. Fetch the set again."
        )
    return [
        CaseRef(
            suite="",
            dataset=group.dataset,
            level=group.level,
            seed=0,
            image_id=stem,
            protocol=_protocol_json(group.protocol),
            reference_uri=references[stem],
            degraded_uri=degraded[stem],
            mask_from_zeros=pairs.mask_from_zeros,
            grey=group.grey,
        )
        for stem in sorted(set(references) & set(degraded))[:limit]
    ]


def _ending(pictures: dict[str, str], endings: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for stem, uri in pictures.items():
        ending = next((part for part in endings if stem.endswith(part)), None)
        if ending is not None:
            found[stem.removesuffix(ending)] = uri
    return found


def _protocol_json(protocol: Protocol) -> dict[str, Any]:
    from models.types import to_json

    plain: dict[str, Any] = to_json(protocol)
    return plain


def list_set(root: Location, *, name: str, limit: int | None) -> list[CaseRef]:
    """Return every case of a degraded set; `limit` counts images per recipe. BenchmarkSetError without a manifest."""
    import json

    refs: list[CaseRef] = []
    seen: dict[str, list[str]] = {}
    for row in read_manifest(root):
        images = seen.setdefault(row["recipe"], [])
        if row["image_id"] not in images:
            if limit is not None and len(images) >= limit:
                continue
            images.append(row["image_id"])
        refs.append(
            CaseRef(
                suite=name,
                dataset=name,
                level=row["recipe"],
                seed=row["seed"],
                image_id=row["image_id"],
                protocol=json.loads(row["protocol"]),
                reference_uri=f"{root.uri}/{row['clean_path']}",
                degraded_uri=f"{root.uri}/{row['degraded_path']}" if row["exact"] else None,
                mask_uri=None if row["mask_path"] is None else f"{root.uri}/{row['mask_path']}",
                recipe=None if row["exact"] else row["recipe"],
                draw_seed=row["draw_seed"],
                pixels_sha256=row["pixels_sha256"],
                example=images.index(row["image_id"]) == 0,
            )
        )
    return refs


def load_case(ref: CaseRef) -> Case:
    """Return the pixels of a case.

    Raises ValueError when it is too small for recipe or protocol, BenchmarkSetError when a file is missing or the
    pixels are not those of the manifest, IngestError for a damaged file.
    """
    from models.benchmarking.protocols import Protocol, check_size

    protocol = from_json(Protocol, ref.protocol)
    reference = _read(ref.reference_uri, grey=ref.grey)
    if ref.recipe is not None:
        degraded, reference, mask, scale = _degrade(ref, reference)
    else:
        if ref.degraded_uri is None:
            raise BenchmarkSetError(f"{ref.name}: got neither a degraded picture nor a recipe; generate the set again.")
        degraded = _read(ref.degraded_uri, grey=ref.grey)
        mask = None if ref.mask_uri is None else decode_mask(read_member(ref.mask_uri), name=ref.mask_uri)
        scale = _scale(degraded, reference, name=ref.name)
    if ref.mask_from_zeros:
        mask = (_plane(degraded) == 0) & (_plane(reference) > 0)
        degraded = np.where(mask if reference.ndim == 2 else mask[:, :, None], np.float32(0), reference)
    if ref.pixels_sha256 is not None and pixels_sha256(degraded) != ref.pixels_sha256:
        raise BenchmarkSetError(
            f"{ref.name}: the degraded pixels are not those of the manifest; the files or the recipe's code changed "
            "since. Generate the set again."
        )
    check_size(*reference.shape[:2], protocol=protocol, needed=0, name=ref.name)
    sha256 = _case_sha256(degraded, reference, mask)
    return Case(degraded=degraded, reference=reference, mask=mask, scale=scale, protocol=protocol, sha256=sha256)


def _read(uri: str, *, grey: bool) -> Pixels:
    picture = as_floats(decode_picture(read_member(uri), name=uri))
    return np.ascontiguousarray(picture[:, :, 0]) if grey and picture.ndim == 3 else picture


def _degrade(ref: CaseRef, clean: Pixels) -> tuple[Pixels, Pixels, Mask | None, int]:
    from models.benchmarking.protocols import Protocol, check_size
    from models.degradations.recipes import get_recipe

    recipe = get_recipe(ref.recipe or "")
    check_size(*clean.shape[:2], protocol=Protocol(), needed=recipe.min_side, name=ref.name)
    made = recipe.apply(clean, seed=ref.draw_seed)
    return np.asarray(made.image, np.float32), np.asarray(made.reference, np.float32), made.mask, made.scale


def _plane(picture: Pixels) -> Pixels:
    return picture if picture.ndim == 2 else picture[:, :, 0]


def _scale(degraded: Pixels, reference: Pixels, *, name: str) -> int:
    scale = int(reference.shape[0]) // int(degraded.shape[0])
    if scale < 1 or tuple(side * scale for side in degraded.shape[:2]) != reference.shape[:2]:
        raise BenchmarkSetError(
            f"{name}: the degraded picture is {degraded.shape}, its reference {reference.shape}; expected the same "
            "size or a whole multiple of it."
        )
    return scale


def _case_sha256(degraded: Pixels, reference: Pixels, mask: Mask | None) -> str:
    parts = [pixels_sha256(degraded), pixels_sha256(reference)]
    parts += [] if mask is None else [hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()]
    return hashlib.sha256("".join(parts).encode()).hexdigest()
