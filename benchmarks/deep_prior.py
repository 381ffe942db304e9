"""Deep Image Prior beside its published figures: the curve of denoising, filling, enlarging, and speed.

    python -m benchmarks.deep_prior curve PICTURE … [--sigma 25] [--iterations 2400] [--crop-px 128] --out FILE
    python -m benchmarks.deep_prior denoise PICTURE … [--preset denoise-two-runs] [--crop-px 128] --out FILE
    python -m benchmarks.deep_prior fill DATA [--pictures Cameraman256 …] [--preset fill] [--crop-px 128] --out FILE
    python -m benchmarks.deep_prior enlarge PICTURE … [--factor 4] [--preset published] --out FILE
    python -m benchmarks.deep_prior show FILE [--plot FILE.svg]

`curve`: noise of one seed added in [0, 1] and clipped, not rounded; the published network, rate and perturbation; PSNR
in dB of floats over all values against the clean picture every 20 iterations, of the raw output and of the running
mean, and the iteration that the stopping rule picks (it never sees the clean picture, and does not stop the curve).
`denoise`: what a preset that stops itself keeps of the same noisy picture; of two runs, their mean.
`fill`: the 11 pictures with half of the pixels missing that the authors publish, PSNR in dB of the 8-bit grey picture,
known pixels put back; `fill` and `biharmonic` beside it. `enlarge`: shrunk by Pillow's Lanczos, PSNR of the Y channel,
16-235, without the border of 4 px; Pillow's bicubic and `upscale-x4` beside it. Its presets besides `published` are the
authors' comparison of priors, by 4 alone: the network's (prior-effect), none, and total variation.
Each picture's line is added to FILE when it is done, and a picture that FILE has already is left out. Ctrl-C adds what
there is, as interrupted, which counts as no measurement. The measuring commands take --device (cuda where there is one)
and --threads, and say every minute how far they are.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.computing import add_computing, prepare
from flows.line_chart import lines_svg
from models.deep_prior.data_terms import WholePicture, crop_to_multiple
from models.deep_prior.fitting import fit, with_budget
from models.deep_prior.picture_fit import Progress
from models.deep_prior.restoring import denoise, enlarge, inpaint
from models.deep_prior.settings import (
    DENOISE,
    INPAINT_HALF_MISSING,
    OWN,
    UPSCALE_4,
    UPSCALE_8,
    UPSCALE_PRIOR_EFFECT,
    Preset,
)
from models.deep_prior.stopping import StoppingRule, Verdict, WindowedVariance
from models.deep_prior.without_network import NO_PRIOR, TV_PRIOR, PixelSettings, enlarge_without_network
from models.device import quick_products
from models.run import Runner, RunSettings
from models.training.photographs import read_rgb

EVERY = 20
TELL_SECONDS = 60.0
INTERRUPTED = "interrupt"
SEED = 0
FILLING = {"published": INPAINT_HALF_MISSING, **{name: OWN[name] for name in OWN if name.startswith("fill")}}
DENOISING = {name: OWN[name] for name in OWN if name.startswith("denoise")}
# How a picture is enlarged by each factor. Beside the published settings the authors' comparison of priors.
ENLARGING: dict[str, dict[int, Preset | PixelSettings]] = {
    "published": {4: UPSCALE_4, 8: UPSCALE_8},
    "prior-effect": {4: UPSCALE_PRIOR_EFFECT},
    "no-prior": {4: NO_PRIOR},
    "tv-prior": {4: TV_PRIOR},
}
# Table 1 of the paper; 7 pictures of 512 px and cameraman, house, montage and peppers of 256 px.
PUBLISHED_FILL = {
    "barbara": 32.22,
    "boat": 33.06,
    "house": 39.16,
    "Lena512": 36.16,
    "peppers256": 33.05,
    "Cameraman256": 29.8,
    "couple": 32.52,
    "fingerprint": 32.84,
    "hill": 32.77,
    "man": 32.20,
    "montage": 34.54,
}


def psnr_db(found: Tensor, clean: Tensor) -> float:
    """Return the PSNR in dB over all values of two pictures in [0, 1]."""
    return -10.0 * float(torch.log10((found - clean).square().mean().clamp_min(1e-10)))


def planes(path: Path) -> Tensor:
    """Return a picture (1, 3, H, W), or (1, 1, H, W) where its three channels are equal, in [0, 1]."""
    rgb = torch.from_numpy(np.ascontiguousarray(read_rgb(path))).permute(2, 0, 1)[None] / 255.0
    return rgb[:, :1] if bool((rgb == rgb[:, :1]).all()) else rgb


def middle(picture: Tensor, crop_px: int | None) -> Tensor:
    """Return the middle square of (1, C, H, W), None = all of it; ValueError where it is not so large."""
    if crop_px is None:
        return picture
    if min(picture.shape[2:]) < crop_px:
        raise ValueError(
            f"--crop-px: got {crop_px} of a picture of {picture.shape[3]} x {picture.shape[2]} px, expected no more "
            "than its smaller side"
        )
    top, left = ((side - crop_px) // 2 for side in picture.shape[2:])
    return picture[:, :, top : top + crop_px, left : left + crop_px]


@dataclass(slots=True)
class Watched:
    """A stopping rule that is asked but not obeyed, beside the truth, which it does not see."""

    rule: StoppingRule
    clean: Tensor
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    stopped_at: int | None = None

    def judge(self, output: Tensor, *, candidate: Tensor, iteration: int) -> Verdict:
        verdict = self.rule.judge(output, candidate=candidate, iteration=iteration)
        if self.stopped_at is not None:  # what comes later would not have been seen
            verdict = Verdict()
        elif verdict.stop:
            self.stopped_at = iteration
        if iteration % EVERY == 0:
            self.curve.append((iteration, psnr_db(output, self.clean), psnr_db(candidate, self.clean)))
        return replace(verdict, stop=False)


@dataclass(slots=True)
class Teller:
    """Says on stderr, about every minute, how far a fit is."""

    told: tuple[int, float] = (0, 0.0)

    def __call__(self, made: Progress) -> None:
        if made.iteration <= self.told[0]:  # another run of the same picture
            self.told = (0, 0.0)
        iterations, seconds = made.iteration - self.told[0], made.seconds - self.told[1]
        if seconds < TELL_SECONDS:
            return
        self.told, each = (made.iteration, made.seconds), seconds / iterations
        left = each * (made.iterations - made.iteration) / 60
        text = f"{made.iteration} of {made.iterations} iterations at most, {each:.2f} s each, up to {left:.0f} min left"
        print(text, file=sys.stderr, flush=True)


def with_noise(path: Path, *, sigma: float, crop_px: int | None, device: str) -> tuple[Tensor, Tensor]:
    """Return the clean and the noisy picture (1, 1 or 3, H, W) on a device; the noise is the same on all of them."""
    clean = middle(crop_to_multiple(planes(path), 32), crop_px)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(SEED))
    return clean.to(device), (clean + sigma / 255.0 * noise).clamp(0, 1).to(device)


def denoised(path: Path, *, preset: Preset, sigma: float, crop_px: int | None, device: str) -> dict[str, Any]:
    """Return the PSNR of what a preset that stops itself keeps."""
    clean, noisy = with_noise(path, sigma=sigma, crop_px=crop_px, device=device)
    result = denoise(noisy, preset=preset, seed=SEED, progress=Teller())
    return {
        "noisy_db": round(psnr_db(noisy, clean), 2),
        "psnr_db": round(psnr_db(result.image, clean), 2),
        "iterations": result.iterations,
        "stopped_by": result.stopped_by,
        "restored": result.restored,
        "seconds": round(result.seconds, 1),
        "device": device,
    }


def curve(path: Path, *, sigma: float, iterations: int, crop_px: int | None, device: str) -> dict[str, Any]:
    """Return the PSNR along a fit, its peaks, and what the rule of `deep-image-prior-denoise` picks."""
    clean, noisy = with_noise(path, sigma=sigma, crop_px=crop_px, device=device)
    preset = replace(DENOISE, fit=replace(DENOISE.fit, iterations=iterations))
    watched = Watched(WindowedVariance(), clean)
    result = fit(WholePicture(noisy), preset=preset, seed=SEED, rule=watched, progress=Teller())
    raw = max(watched.curve, key=lambda point: point[1])
    mean = max(watched.curve, key=lambda point: point[2])
    return {
        "noisy_db": round(psnr_db(noisy, clean), 2),
        "peak_raw": [raw[0], round(raw[1], 2)],
        "peak_mean": [mean[0], round(mean[2], 2)],
        "picked": [result.best_iteration, round(psnr_db(result.image, clean), 2)],
        "stopped_at": watched.stopped_at,
        "iterations": result.iterations,
        "stopped_by": result.stopped_by,
        "restored": result.restored,
        "seconds": round(result.seconds, 1),
        "device": device,
        "curve": [[n, round(a, 3), round(b, 3)] for n, a, b in watched.curve],
    }


def fill(data: Path, name: str, *, preset: Preset, crop_px: int | None, device: str) -> dict[str, Any]:
    """Return the PSNR of one of the 11 pictures; what is missing follows from both files, black pixels are known."""
    folder = data / "test" / "dip_inpaint_50"
    clean, masked = (
        middle(torch.from_numpy(read_rgb(folder / f"{name}_{kind}.png")[:, :, 0].copy())[None, None] / 255.0, crop_px)
        for kind in ("GT", "masked")
    )
    missing = ((masked == 0) & (clean != 0)).float()
    began = time.perf_counter()
    result = inpaint(masked.to(device), missing.to(device), preset=preset, seed=SEED, progress=Teller())
    rounded = result.image.cpu().mul(255).round().div(255)
    seconds = round(time.perf_counter() - began, 1)
    levels, gaps = masked[0, 0].mul(255).round().byte().numpy(), missing[0, 0].bool().numpy()
    runner = Runner(RunSettings(device=device, precision="float32"))
    others = {}
    for method_id in ("fill", "biharmonic"):
        (filled,) = runner.apply(method_id, [levels], masks=[gaps])
        others[f"{method_id}_db"] = round(psnr_db(torch.from_numpy(filled) / 255.0, clean[0, 0]), 2)
    return {
        "psnr_db": round(psnr_db(rounded, clean), 2),
        "published_db": PUBLISHED_FILL.get(name) if crop_px is None else None,
        "iterations": result.iterations,
        "best_iteration": result.best_iteration,
        "restored": result.restored,
        "stopped_by": result.stopped_by,
        "seconds": seconds,
        "device": device,
        **others,
    }


def enlarged(path: Path, *, factor: int, preset: Preset | PixelSettings, device: str) -> dict[str, Any]:
    """Return the PSNR on Y of a picture that was shrunk and is enlarged again, and of Pillow's bicubic beside it."""
    clean = crop_to_multiple(planes(path).expand(-1, 3, -1, -1), 32)
    pixels = clean[0].permute(1, 2, 0).mul(255).round().byte().numpy()
    size = (clean.shape[3] // factor, clean.shape[2] // factor)
    small = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    observed = (torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255.0).to(device)
    began = time.perf_counter()
    if isinstance(preset, PixelSettings):
        image = enlarge_without_network(observed, factor=factor, settings=preset, seed=SEED).cpu()
        iterations, ended = preset.iterations, "iterations"
    else:
        result = enlarge(observed, factor=factor, preset=preset, seed=SEED, progress=Teller())
        image, iterations, ended = result.image.cpu(), result.iterations, str(result.stopped_by)
    seconds = round(time.perf_counter() - began, 1)
    others = {}
    if factor == 4:
        runner = Runner(RunSettings(device=device, precision="float32"))
        (learned,) = runner.apply("upscale-x4", [np.array(small)])
        others["upscale_x4_y_db"] = round(_psnr_y(learned, pixels, border=factor), 2)
    plain = np.array(small.resize((clean.shape[3], clean.shape[2]), Image.Resampling.BICUBIC))
    found = image[0].permute(1, 2, 0).mul(255).round().byte().numpy()
    return {
        "psnr_y_db": round(_psnr_y(found, pixels, border=factor), 2),
        "bicubic_y_db": round(_psnr_y(plain, pixels, border=factor), 2),
        **others,
        "iterations": iterations,
        "stopped_by": ended,
        "seconds": seconds,
        "device": device,
    }


def _psnr_y(found: np.ndarray[Any, Any], clean: np.ndarray[Any, Any], *, border: int) -> float:
    weights = np.array([65.481, 128.553, 24.966]) / 255.0
    error = ((found.astype(float) - clean.astype(float)) @ weights)[border:-border, border:-border]
    return float(10 * np.log10(255.0**2 / max(np.mean(error**2), 1e-10)))


def measured(out: Path, names: Iterable[str], measure: Callable[[str], dict[str, Any]], **kind: Any) -> None:
    """Add a line to `out` for every name that has none of this kind; SystemExit 130 after an interrupted one."""
    lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    done = [line for line in lines if line.get("stopped_by") != INTERRUPTED]
    for name in names:
        key = {**kind, "picture": Path(name).stem}
        if any(key.items() <= line.items() for line in done):
            continue
        line = {**key, **measure(name)}
        with out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print({name: value for name, value in line.items() if name != "curve"}, flush=True)
        if line.get("stopped_by") == INTERRUPTED:
            print("interrupted: what there was is kept, and the same command measures it again", file=sys.stderr)
            raise SystemExit(130)


def show(out: Path, *, plot: Path | None) -> None:
    """Print the lines of a file, without the points of the curves, which are drawn."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for text in out.read_text().splitlines():
        line = json.loads(text)
        print("  ".join(f"{name} {value}" for name, value in line.items() if name != "curve"))
        for index, kind in enumerate(("output", "running mean"), start=1):
            points = [(float(point[0]), float(point[index])) for point in line.get("curve", ())]
            if points:
                curves[f"{line['picture']}, {kind}"] = points
    if plot is not None:
        text = lines_svg(curves, title="Denoising: PSNR", across="iterations", up="PSNR, dB", marks=False)
        plot.write_text(text, encoding="utf-8")


def limited(preset: Preset, given: argparse.Namespace) -> Preset:
    """Return the preset with no more iterations a run than the command was given."""
    return with_budget(preset, iterations=given.iterations)


def measure(given: argparse.Namespace, *, device: str) -> None:
    """Add what the command asks for to its file."""
    if given.command == "curve":
        noise = {"sigma": given.sigma, "crop_px": given.crop_px}
        measured(
            given.out,
            given.pictures,
            lambda name: curve(Path(name), **noise, iterations=given.iterations, device=device),
            kind="curve",
            **noise,
        )
    elif given.command == "denoise":
        noise = {"sigma": given.sigma, "crop_px": given.crop_px}
        preset = limited(DENOISING[given.preset], given)
        measured(
            given.out,
            given.pictures,
            lambda name: denoised(Path(name), preset=preset, **noise, device=device),
            kind="denoise",
            preset=given.preset,
            at_most=preset.fit.iterations,
            **noise,
        )
    elif given.command == "fill":
        preset = limited(FILLING[given.preset], given)
        # Lines of whole pictures and all iterations keep the name that they have in older files.
        whole = given.crop_px is None and given.iterations is None
        measured(
            given.out,
            given.pictures,
            lambda name: fill(given.data, name, preset=preset, crop_px=given.crop_px, device=device),
            kind="fill" if whole else "fill, in part",
            preset=given.preset,
            **({} if whole else {"crop_px": given.crop_px, "at_most": preset.fit.iterations}),
        )
    else:
        way = ENLARGING[given.preset][given.factor]
        measured(
            given.out,
            given.pictures,
            lambda name: enlarged(Path(name), factor=given.factor, preset=way, device=device),
            kind="enlarge" if given.preset == "published" else f"enlarge, {given.preset}",
            factor=given.factor,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("curve", "denoise", "fill", "enlarge"):
        command = commands.add_parser(name)
        command.add_argument("--out", type=Path, required=True)
        add_computing(command)
        if name == "fill":
            command.add_argument("data", type=Path)
            command.add_argument("--pictures", nargs="+", default=list(PUBLISHED_FILL), choices=PUBLISHED_FILL)
            command.add_argument("--preset", choices=FILLING, default="fill")
        else:
            command.add_argument("pictures", nargs="+")
        if name in ("curve", "denoise"):
            command.add_argument("--sigma", type=float, default=25.0)
        if name != "enlarge":
            command.add_argument("--crop-px", type=int, help="take the middle square of this side")
        if name == "curve":
            command.add_argument("--iterations", type=int, default=2400)
        elif name != "enlarge":
            command.add_argument("--iterations", type=int, help="of a run, at most; the preset's own if not given")
        if name == "denoise":
            command.add_argument("--preset", choices=DENOISING, default="denoise")
        if name == "enlarge":
            command.add_argument("--factor", type=int, choices=(4, 8), default=4)
            command.add_argument("--preset", choices=ENLARGING, default="published")
    shown = commands.add_parser("show")
    shown.add_argument("out", type=Path)
    shown.add_argument("--plot", type=Path, help="draw the curves")
    given = parser.parse_args()
    if given.command == "show":
        show(given.out, plot=given.plot)
        return
    if given.command == "enlarge" and given.factor not in ENLARGING[given.preset]:
        parser.error(f"--preset: got {given.preset} with --factor {given.factor}, expected --factor 4, as published")
    device = prepare(parser, given)
    with quick_products(device):
        measure(given, device=device)


if __name__ == "__main__":
    main()
