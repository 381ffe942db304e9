"""Making a degraded set: one unit of work is a few pictures x all recipes x all seeds, noted when all is written."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from models.types import to_json
from storage.benchmark_pictures import (
    as_floats,
    decode_picture,
    encode_mask,
    encode_picture,
    pixels_sha256,
)
from storage.benchmark_sets import SCHEMA_VERSION, read_member, read_part, write_part, write_tar
from storage.dataset_samples import escaped_key
from storage.errors import StorageError
from storage.locations import Location
from tasks.benchmarking.cases import Pixels, draw_seed, folder_name
from tasks.benchmarking.clean_pictures import CleanPicture, read_clean
from tasks.boundary import attempt
from tasks.jobs import Failure

if TYPE_CHECKING:
    from models.degradations.recipes import DegradationRecipe, Degraded


@dataclass(frozen=True, slots=True, kw_only=True)
class SetOptions:
    """What a set is made of. format: "png" (a folder of files) or "webdataset" (tar shards of `block` pictures)."""

    recipes: tuple[str, ...]
    seeds: tuple[int, ...]
    format: str = "png"
    block: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SetJob:
    """One unit of work: its number among those of its recipe, its pictures, what to make of them, and where."""

    number: int
    recipe: str
    pictures: tuple[CleanPicture, ...]
    options: SetOptions
    destination: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPart:
    """What a unit of work came to: manifest rows, whether it was done before, and (picture, kind, text) of failures.

    seconds: spent in the recipe itself, without reading and writing; 0 when it was done before.
    """

    recipe: str
    rows: tuple[dict[str, Any], ...]
    kept: bool
    seconds: float
    failures: tuple[tuple[str, str, str], ...]


def checked_options(options: SetOptions) -> SetOptions:
    """Return the options with each recipe once, under its canonical id.

    Raises ValueError for an unknown recipe (naming the nearest) or format, a bad seed, or nothing to do.
    """
    from models.degradations.recipes import get_recipe

    recipes = tuple(dict.fromkeys(get_recipe(recipe).id for recipe in options.recipes))
    if options.format not in ("png", "webdataset"):
        raise ValueError(f"--format: got {options.format!r}, expected png or webdataset")
    if not options.recipes or not options.seeds or min(options.seeds) < 0:
        raise ValueError(
            f"got recipes {list(options.recipes)} and seeds {list(options.seeds)}, expected at least one of each, and "
            "no seed below 0"
        )
    return replace(options, recipes=recipes, seeds=tuple(dict.fromkeys(options.seeds)))


def set_jobs(pictures: Sequence[CleanPicture], *, options: SetOptions, destination: str) -> list[SetJob]:
    """Cut the work into units: some pictures by one recipe, so that adding a recipe makes that recipe's alone."""
    step = options.block
    return [
        SetJob(
            number=number,
            recipe=recipe,
            pictures=tuple(pictures[start : start + step]),
            options=options,
            destination=destination,
        )
        for recipe in options.recipes
        for number, start in enumerate(range(0, len(pictures), step))
    ]


def make_part(job: SetJob) -> SetPart:
    """Degrade the pictures of one unit and write them, unless that is done and every file still has its sha256."""
    root = Location(job.destination)
    data: dict[str, bytes] = {}
    failures: list[tuple[str, str, str]] = []
    for picture in job.pictures:
        content, failure = attempt(partial(read_clean, picture), stage="read")
        if content is None:
            failures.append(_failure(picture, failure))
        else:
            data[picture.image_id] = content
    key = _part_key(job, data)
    noted = read_part(root, key)
    if noted is not None and _intact(root, noted):
        return SetPart(recipe=job.recipe, rows=tuple(noted), kept=True, seconds=0.0, failures=tuple(failures))
    files: dict[str, bytes] = {}
    rows: list[dict[str, Any]] = []
    seconds = 0.0
    for picture in (picture for picture in job.pictures if picture.image_id in data):
        made, failure = attempt(partial(_samples, picture, data[picture.image_id], job=job), stage="degrade")
        if made is None:
            failures.append(_failure(picture, failure))
            continue
        rows += made[0]
        files.update(made[1])
        seconds += made[2]
    rows = _write(root, files, rows, job=job)
    if rows and not failures:
        write_part(root, key, rows)
    return SetPart(recipe=job.recipe, rows=tuple(rows), kept=False, seconds=seconds, failures=tuple(failures))


def _failure(picture: CleanPicture, failure: Failure | None) -> tuple[str, str, str]:
    kind, text = (failure.error_kind, failure.error_text) if failure is not None else ("unknown", "")
    return picture.path, kind, text


def _part_key(job: SetJob, data: Mapping[str, bytes]) -> str:
    hashes = [[name, hashlib.sha256(content).hexdigest()] for name, content in data.items()]
    # The number names a tar shard; files of their own do not depend on it.
    shard = job.number if job.options.format == "webdataset" else None
    chosen = [job.recipe, list(job.options.seeds), job.options.format, shard]
    text = json.dumps([SCHEMA_VERSION, _recipes_identity(), chosen, hashes], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _recipes_identity() -> str:
    """Return a hash over the code of all degradations: what was made by other code is made again."""
    from pathlib import Path

    import models.degradations

    digest = hashlib.sha256()
    for path in sorted(Path(models.degradations.__path__[0]).glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _intact(root: Location, rows: Sequence[Mapping[str, Any]]) -> bool:
    for row in rows:
        for kind in ("clean", "degraded", "mask"):
            path, sha256 = row[f"{kind}_path"], row[f"{kind}_sha256"]
            if path is None:
                continue
            try:
                if hashlib.sha256(read_member(f"{root.uri}/{path}")).hexdigest() != sha256:
                    return False
            except StorageError:
                return False
    return True


def _samples(
    picture: CleanPicture, content: bytes, *, job: SetJob
) -> tuple[list[dict[str, Any]], dict[str, bytes], float]:
    """Return (manifest rows, files by path, seconds in the recipe) of every seed for one clean picture."""
    from models.degradations.recipes import get_recipe

    recipe = get_recipe(job.recipe)
    clean = as_floats(decode_picture(content, name=picture.path))
    rows: list[dict[str, Any]] = []
    files: dict[str, bytes] = {}
    seconds = 0.0
    for seed in job.options.seeds:
        drawn = draw_seed(recipe.id, picture.image_id, seed)
        started = time.perf_counter()
        made = _degrade(recipe, clean, seed=drawn, name=picture.image_id)
        seconds += time.perf_counter() - started
        row, written = _sample(picture.image_id, recipe.id, seed, made=made, whole=clean.shape)
        row.update(draw_seed=drawn, source_sha256=hashlib.sha256(content).hexdigest(), task=recipe.task)
        rows.append(row)
        files.update(written)
    return rows, files, seconds


def _degrade(recipe: DegradationRecipe, clean: Pixels, *, seed: int, name: str) -> Degraded:
    """Apply a recipe so that doing so again to the reference it returns gives the same pixels."""
    from models.benchmarking.protocols import Protocol, check_size

    check_size(*clean.shape[:2], protocol=Protocol(), needed=recipe.min_side, name=name)
    made = recipe.apply(clean, seed=seed)
    return made if made.reference.shape == clean.shape else recipe.apply(made.reference, seed=seed)


def _sample(
    image_id: str, recipe_id: str, seed: int, *, made: Degraded, whole: tuple[int, ...]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    from models.benchmarking.protocols import default_protocol

    image, reference = np.asarray(made.image, np.float32), np.asarray(made.reference, np.float32)
    degraded, exact = encode_picture(image)
    height, width = reference.shape[:2]
    cropped = "" if reference.shape == whole else f"@{width}x{height}"
    place = f"{folder_name(recipe_id)}/seed-{seed}/{image_id}.png"
    files = {f"clean/{image_id}{cropped}.png": encode_picture(reference)[0], f"degraded/{place}": degraded}
    if made.mask is not None:
        files[f"masks/{place}"] = encode_mask(made.mask)
    paths = list(files)
    row = {
        "image_id": image_id,
        "recipe": recipe_id,
        "seed": seed,
        "scale": made.scale,
        "width": width,
        "height": height,
        "channels": 1 if reference.ndim == 2 else 3,
        "exact": exact,
        "pixels_sha256": pixels_sha256(image),
        "provenance": json.dumps(made.provenance, sort_keys=True, ensure_ascii=False),
        "protocol": json.dumps(to_json(default_protocol(scale=made.scale)), sort_keys=True),
    }
    for kind, path in zip(("clean", "degraded", "mask"), [*paths, None], strict=False):
        row[f"{kind}_path"] = path
        row[f"{kind}_sha256"] = None if path is None else hashlib.sha256(files[path]).hexdigest()
    return row, files


def _write(
    root: Location, files: Mapping[str, bytes], rows: Sequence[dict[str, Any]], *, job: SetJob
) -> list[dict[str, Any]]:
    """Write the files of a unit, as such or as one tar shard, and return its rows with the paths they now have."""
    if job.options.format == "png":
        for path in sorted(files):
            root.join(path).write_bytes_atomic(files[path])
        return list(rows)
    shard = f"shards/{folder_name(job.recipe)}/set-{job.number:06d}.tar"
    members: dict[str, bytes] = {}
    renamed = []
    for row in rows:
        sample = escaped_key(f"{folder_name(row['recipe'])}/seed-{row['seed']}/{row['image_id']}")
        new = dict(row)
        for kind in ("clean", "degraded", "mask"):
            path = row[f"{kind}_path"]
            if path is not None:
                members[f"{sample}.{kind}.png"] = files[path]
                new[f"{kind}_path"] = f"{shard}!/{sample}.{kind}.png"
        members[f"{sample}.json"] = json.dumps(new, sort_keys=True, ensure_ascii=False).encode()
        renamed.append(new)
    if members:
        write_tar(root.join(shard), members)
    return renamed
