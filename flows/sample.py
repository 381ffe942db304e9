"""Builds the sample archive: damaged pictures with their ground truth, offline, from pictures in scikit-image's wheel.

    destination/originals/<album>/<picture>    the archive as a digitization project would deliver it
    destination/originals.zip                  the same, packed
    destination/reference/<album>/<picture>.*  what the damaged pictures looked like before (lossless)
    destination/reference/manifest.json        which damage each picture carries

The damage comes from `models.degradations`, the operators of benchmarks and training. A seed gives one set of bytes.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.float32]  # (H, W, 1 or 3), sRGB in [0, 1]

DamageKind = Literal["scratches", "cracks", "holes", "noise", "blur", "jpeg", "fading"]
Damage = tuple[DamageKind, float]

ARCHIVE_FOLDER = "originals"
REFERENCE_FOLDER = "reference"
MANIFEST_NAME = "manifest.json"
ZIP_TIME = (2020, 1, 1, 0, 0, 0)
XMP = (
    '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title><rdf:Alt><rdf:li xml:lang="x-default">{title}</rdf:li>'
    '</rdf:Alt></dc:title></rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePicture:
    """One file of the archive: where its clean pages come from, what is done to them and how they are written.

    sources: file stems in scikit-image's data folder, one per page. `long_side` scales them down (never up) so that the
    ground truth is free of the source's own noise and, at 16 bit, has values between the 8-bit levels.
    damage: (kind, amount) in the order applied. noise: σ in 8-bit levels; blur: σ in pixels; jpeg: IJG quality;
    scratches, cracks, holes, fading: strength, 1 = typical.
    """

    path: str
    sources: tuple[str, ...]
    damage: tuple[Damage, ...] = ()
    long_side: int = 480
    grey: bool = False
    bits: int = 8
    quality: int = 95
    orientation: int = 1
    dots_per_inch: float = 300.0
    profile: str | None = None
    title: str | None = None

    @property
    def clean(self) -> bool:
        return not self.damage


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleArchive:
    """Where a built sample lies. `corrupt` and `ignored`: members that are no pictures, relative to `originals`."""

    originals: Path
    reference: Path
    archive_zip: Path
    manifest: Path
    pictures: tuple[SamplePicture, ...]
    corrupt: tuple[str, ...]
    ignored: tuple[str, ...]


PICTURES: tuple[SamplePicture, ...] = (
    SamplePicture(path="family_album/astronaut.png", sources=("astronaut",), damage=(("scratches", 2.0),)),
    SamplePicture(path="family_album/cat.jpg", sources=("chelsea",), damage=(("scratches", 1.4),)),
    SamplePicture(path="family_album/photographer.png", sources=("camera",), damage=(("scratches", 1.0),)),
    SamplePicture(
        path="family_album/coffee.png", sources=("coffee",), damage=(("cracks", 1.4), ("holes", 0.3)), long_side=540
    ),
    SamplePicture(path="family_album/launch.png", sources=("rocket",), damage=(("scratches", 1.0), ("noise", 15.0))),
    SamplePicture(path="family_album/faded_coffee.png", sources=("coffee",), damage=(("fading", 1.0),), long_side=420),
    SamplePicture(path="night_prints/cat.png", sources=("chelsea",), damage=(("noise", 25.0),)),
    SamplePicture(path="night_prints/photographer.png", sources=("camera",), damage=(("noise", 35.0),), long_side=420),
    SamplePicture(path="night_prints/retina.webp", sources=("retina",), damage=(("noise", 15.0),), long_side=400),
    SamplePicture(path="night_prints/astronaut.jpg", sources=("astronaut",), damage=(("noise", 15.0), ("jpeg", 50.0))),
    SamplePicture(
        path="masters/motorcycle.tif",
        sources=("motorcycle_left",),
        damage=(("noise", 20.0),),
        bits=16,
        profile="p3",
        title="Motorcycle, scan 0017",
    ),
    SamplePicture(
        path="masters/motorcycle_negative.tif",
        sources=("motorcycle_right",),
        damage=(("scratches", 1.0),),
        grey=True,
        bits=16,
        dots_per_inch=600.0,
        title="Motorcycle, negative 0018",
    ),
    SamplePicture(
        path="masters/index_pages.tif",
        sources=("page", "text"),
        damage=(("noise", 20.0),),
        grey=True,
        title="Index, two pages",
    ),
    SamplePicture(path="newspaper/coins.jpg", sources=("coins",), damage=(("jpeg", 15.0),), grey=True),
    SamplePicture(path="newspaper/launch.jpg", sources=("rocket",), damage=(("jpeg", 12.0),), orientation=6),
    SamplePicture(path="newspaper/astronaut.png", sources=("astronaut",), damage=(("blur", 1.4),)),
    SamplePicture(path="well_kept/motorcycle.png", sources=("motorcycle_right",)),
    SamplePicture(path="well_kept/coffee.jpg", sources=("coffee",), quality=97, long_side=420),
    SamplePicture(path="well_kept/photographer.png", sources=("camera",), long_side=400, grey=True),
)
STRUCTURED_DAMAGE: dict[DamageKind, tuple[tuple[str, float], ...]] = {
    "scratches": (("scratches", 0.6), ("film_lines", 0.15), ("dust", 0.15), ("hairs", 0.1)),
    "cracks": (("cracks", 0.7), ("folds", 0.3)),
    "holes": (("holes", 1.0),),
}
CORRUPT_MEMBER = "newspaper/broken_upload.jpg"
IGNORED_MEMBER = "newspaper/delivery_note.txt"
DELIVERY_NOTE = "Delivery 3 of 3. One upload broke off; the scanner operator has been told.\n"


def build_sample_archive(destination: Path, *, seed: int = 0) -> SampleArchive:
    """Write the sample archive and its ground truth under `destination` and return where everything lies.

    An earlier sample at the same place is replaced; a folder that holds something else raises FileExistsError. Needs no
    network. Takes a few seconds; the same `seed` gives the same bytes.
    """
    sample = SampleArchive(
        originals=destination / ARCHIVE_FOLDER,
        reference=destination / REFERENCE_FOLDER,
        archive_zip=destination / f"{ARCHIVE_FOLDER}.zip",
        manifest=destination / REFERENCE_FOLDER / MANIFEST_NAME,
        pictures=PICTURES,
        corrupt=(CORRUPT_MEMBER,),
        ignored=(IGNORED_MEMBER,),
    )
    _clear_previous(sample)
    entries = [_write_picture(picture, sample, seed=seed, index=index) for index, picture in enumerate(PICTURES)]
    whole = (sample.originals / "newspaper/coins.jpg").read_bytes()
    (sample.originals / CORRUPT_MEMBER).write_bytes(whole[: len(whole) * 2 // 5])
    (sample.originals / IGNORED_MEMBER).write_text(DELIVERY_NOTE, encoding="utf-8")
    manifest = {"seed": seed, "pictures": entries, "corrupt": [CORRUPT_MEMBER], "ignored": [IGNORED_MEMBER]}
    sample.manifest.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    _write_zip(sample.originals, sample.archive_zip)
    return sample


def _clear_previous(sample: SampleArchive) -> None:
    folders = (sample.originals, sample.reference)
    taken = [folder for folder in folders if folder.exists() and any(folder.iterdir())]
    taken += [sample.archive_zip] if sample.archive_zip.exists() else []
    if taken and not _is_ours(sample.manifest):
        raise FileExistsError(
            f"{' and '.join(str(path) for path in taken)} would be replaced, and {sample.manifest} does not say that a "
            "sample archive was built here; choose an empty destination"
        )
    shutil.rmtree(sample.originals, ignore_errors=True)
    shutil.rmtree(sample.reference, ignore_errors=True)
    sample.archive_zip.unlink(missing_ok=True)


def _is_ours(manifest: Path) -> bool:
    try:
        return {"seed", "pictures"} <= set(json.loads(manifest.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return False


def _write_picture(picture: SamplePicture, sample: SampleArchive, *, seed: int, index: int) -> dict[str, Any]:
    import numpy as np

    rng = np.random.default_rng([seed, index])
    clean = [_load_clean(source, picture) for source in picture.sources]
    damaged = [_apply_damage(page, picture.damage, rng) for page in clean]
    quality = next((int(amount) for kind, amount in picture.damage if kind == "jpeg"), picture.quality)
    target = sample.originals / picture.path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(_encode(damaged, picture, suffix=target.suffix, quality=quality))
    suffix = ".tif" if picture.bits == 16 or len(clean) > 1 else ".png"
    reference = sample.reference / (picture.path + suffix)
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_bytes(_encode(clean, _as_reference(picture), suffix=suffix, quality=100))
    described = {key: value for key, value in asdict(picture).items() if value is not None}
    return {**described, "clean": picture.clean, "reference": picture.path + suffix}


def _as_reference(picture: SamplePicture) -> SamplePicture:
    return SamplePicture(path=picture.path, sources=picture.sources, bits=picture.bits)


def _load_clean(source: str, picture: SamplePicture) -> Pixels:
    """Return one clean page as (H, W, C) in [0, 1], scaled down to the picture's long side."""
    import numpy as np
    import pyvips
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    candidates = (folder / (source + suffix) for suffix in (".png", ".jpg"))
    path = next((candidate for candidate in candidates if candidate.exists()), None)
    if path is None:
        raise FileNotFoundError(
            f"the picture {source!r} is missing in {folder}; the sample needs the pictures in scikit-image's wheel: "
            "reinstall scikit-image"
        )
    image = pyvips.Image.new_from_file(str(path))
    if picture.grey and image.bands > 1:
        image = image.colourspace("b-w")
    scale = min(1.0, picture.long_side / max(image.width, image.height))
    image = image.cast("float")
    if scale < 1.0:
        image = image.resize(scale, kernel="lanczos3")
    pixels = image.numpy().reshape(image.height, image.width, image.bands) / 255.0
    clean: Pixels = np.clip(pixels, 0.0, 1.0).astype(np.float32)
    return clean


def _apply_damage(clean: Pixels, damage: tuple[Damage, ...], rng: np.random.Generator) -> Pixels:
    """Return the page (H, W, C) with each damage in turn; "jpeg" is left to the writing of the file itself."""
    image = clean
    for kind, amount in damage:
        if kind in STRUCTURED_DAMAGE:
            image = _scratch(image, STRUCTURED_DAMAGE[kind], rng, strength=amount)
        elif kind != "jpeg":
            image = _degrade(image, kind, amount, rng)
    return image


def _scratch(
    image: Pixels, weights: tuple[tuple[str, float], ...], rng: np.random.Generator, *, strength: float
) -> Pixels:
    """Return the page with `strength` times three opaque layers of structured damage of the given kinds."""
    import numpy as np

    from models.degradations.scratches import DamageSettings, damage_image

    layers = max(1, round(3 * strength))
    settings = DamageSettings(weights=weights, layers_min=layers, layers_max=layers, light_share=0.85, opacity_min=0.7)
    grey = image.shape[2] == 1
    damaged = damage_image(image[:, :, 0] if grey else image, rng, settings=settings).image
    return np.asarray(damaged[:, :, None] if grey else damaged, np.float32)


def _degrade(image: Pixels, kind: DamageKind, amount: float, rng: np.random.Generator) -> Pixels:
    """Return the page with noise (σ in 8-bit levels), blur (σ in pixels) or fading (1 = typical, with yellowing)."""
    import numpy as np
    import torch

    from models.degradations.blur import GaussianBlur
    from models.degradations.fading import ColourCast, Fading
    from models.degradations.noise import GaussianNoise

    batch = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))[None])
    if kind == "noise":
        batch = GaussianNoise.draw(rng, batch=1, sigma=(amount, amount), clip=True).apply(batch)
    elif kind == "blur":
        batch = GaussianBlur.draw(rng, batch=1, sigma_px=(amount, amount)).apply(batch)
    else:
        batch = Fading(black=(0.16 * amount,), white=(1 - 0.14 * amount,), gamma=(1.0,)).apply(batch)
        yellow = (1.0, 1 - 0.06 * amount, 1 - 0.2 * amount)
        batch = ColourCast(gain=(yellow,), desaturation=(0.15 * amount,)).apply(batch)
    return np.asarray(batch[0].permute(1, 2, 0).numpy(), np.float32)


def _encode(pages: list[Pixels], picture: SamplePicture, *, suffix: str, quality: int) -> bytes:
    """Return the bytes of one file; TIFF pages may differ in size, every other format takes one page."""
    if len(pages) > 1:
        return _encode_multipage_tiff(pages, picture)
    image = _with_metadata(_to_vips(pages[0], bits=picture.bits), picture)
    if suffix == ".tif":
        return bytes(image.tiffsave_buffer(compression="deflate", predictor="horizontal", resunit="inch"))
    if suffix == ".png":
        return bytes(image.pngsave_buffer(compression=6))
    if suffix == ".webp":
        return bytes(image.webpsave_buffer(lossless=True))
    return bytes(image.jpegsave_buffer(Q=quality, optimize_coding=True, subsample_mode="off" if quality > 90 else "on"))


def _quantize(pixels: Pixels, *, bits: int) -> NDArray[Any]:
    import numpy as np

    levels = 2**bits - 1
    return np.asarray(np.rint(np.clip(pixels, 0.0, 1.0) * levels), np.uint16 if bits == 16 else np.uint8)


def _to_vips(pixels: Pixels, *, bits: int) -> Any:
    import pyvips

    image = pyvips.Image.new_from_array(_quantize(pixels, bits=bits))
    names = {(1, 8): "b-w", (3, 8): "srgb", (1, 16): "grey16", (3, 16): "rgb16"}
    return image.copy(interpretation=names[image.bands, bits])


def _with_metadata(image: Any, picture: SamplePicture) -> Any:
    """Return `image` (upright, sRGB) in the picture's colour space and orientation, with its profile, DPI and XMP."""
    import pyvips

    if picture.profile is not None:
        image = image.icc_transform(picture.profile, input_profile="srgb", depth=picture.bits)
    if picture.orientation == 6:  # stored lying on its left side: the viewer turns it clockwise
        image = image.rot270()
    image = image.copy()
    if picture.orientation != 1:
        image.set_type(pyvips.GValue.gint_type, "orientation", picture.orientation)
    image = image.copy(xres=picture.dots_per_inch / 25.4, yres=picture.dots_per_inch / 25.4)
    if picture.title is not None:
        image.set_type(pyvips.GValue.blob_type, "xmp-data", XMP.format(title=picture.title).encode())
    return image


def _encode_multipage_tiff(pages: list[Pixels], picture: SamplePicture) -> bytes:
    import io

    import tifffile

    buffer = io.BytesIO()
    dots = picture.dots_per_inch
    with tifffile.TiffWriter(buffer) as writer:
        for page in pages:
            values = _quantize(page, bits=picture.bits)
            writer.write(
                values[:, :, 0] if values.shape[2] == 1 else values,
                photometric="minisblack" if values.shape[2] == 1 else "rgb",
                compression="deflate",
                resolution=(dots, dots),
                resolutionunit="inch",
                metadata=None,
                software="Lacuna sample",
            )
    return buffer.getvalue()


def _write_zip(folder: Path, target: Path) -> None:
    """Pack `folder`'s files in name order with a fixed time stamp, so that equal files give an equal archive."""
    with zipfile.ZipFile(target, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), date_time=ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes())
