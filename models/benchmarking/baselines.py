"""Every method of a benchmark behind one call: the registered ones, the untouched input and plain bicubic enlargement.

Pictures are whole floats (H, W) or (H, W, 3); neither tiled, clipped nor rounded, as published protocols do it.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import re
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.benchmarking.code_identity import code_sha256
from models.degradations.resample import resize
from models.degradations.single_faults import NOISY_BLUR_PX
from models.method import CombiningMethod, Method
from models.registry import METHODS, UnknownMethodError, get_method, unavailable, written_in
from models.run import Runner
from models.scratches.detector import shipped_settings
from models.self_ensemble import SelfEnsemble
from models.types import DegradationEstimate, Estimated, plain_id

Pixels = npt.NDArray[np.float32]
INPUT = "input"
BICUBIC = "bicubic-upscale"
# Lacuna as a whole: it estimates, plans and checks each picture by itself. A router, so no choice of the oracle.
ROUTED = "lacuna"
TITLES = {
    INPUT: "Input, left untouched",
    BICUBIC: "Bicubic enlargement (Keys, a = -0.5)",
    ROUTED: "Lacuna's own plan for each picture",
}
_TOLD = re.compile(r"^(awgn|blur|noisy-blur)/(\d+(?:\.\d+)?)$")


def baseline_for(scale: int) -> str:
    """Return the method that does nothing: the input itself, or its plain enlargement."""
    return INPUT if scale == 1 else BICUBIC


def method_ids() -> list[str]:
    """Return the ids that a benchmark accepts."""
    return sorted([*TITLES, *(method.card.id for method in METHODS)])


def check_method(method_id: str) -> None:
    """Raise UnknownMethodError, naming the nearest, for an id that no benchmark knows."""
    known = method_ids()
    if method_id not in known:
        near = difflib.get_close_matches(method_id, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UnknownMethodError(f"method: got {method_id!r}, expected one of {known}{hint}")


def method_title(method_id: str) -> str:
    """Return what the method is called in tables."""
    return TITLES.get(method_id) or get_method(method_id).card.title


def unfit_reason(method_id: str, *, scale: int, has_mask: bool) -> str | None:
    """Return why a method cannot be run on a case, as a sentence, or None when it can."""
    if method_id in TITLES:
        offered = scale if method_id == BICUBIC else 1
        needs_mask = False
    else:
        method = get_method(method_id)
        offered, needs_mask = method.card.scale, method.card.needs_mask
        if reason := unavailable(method):
            return f"{method_id} {reason}"
    if offered != scale or (method_id == BICUBIC and scale == 1):
        return f"{method_id} does not enlarge {scale} times" if scale > 1 else f"{method_id} changes the size"
    if needs_mask and not has_mask:
        return f"{method_id} fills holes and needs a mask, and there is none"
    return None


@lru_cache(maxsize=256)
def method_identity(method_id: str) -> tuple[str, str, str | None]:
    """Return (id, sha256 of the code it runs, sha256 of its weights): what a result depends on."""
    if method_id == INPUT:
        return method_id, "1", None
    if method_id == BICUBIC:
        return method_id, code_sha256(Path(inspect.getfile(resize))), None
    if method_id == ROUTED:
        return method_id, _program_sha256(), None
    parts = _parts(method_id)
    # A method may be made in its file of a class of another one: what it says there counts as much.
    files = [(written_in(part.card.id), Path(inspect.getfile(type(part)))) for part in parts]
    code = [[code_sha256(file) for file in both] for both in files]
    weights = [Runner.weights_sha256(part.card.id) for part in parts]
    return method_id, hashlib.sha256(repr([code, weights]).encode()).hexdigest(), weights[0]


def _parts(method_id: str) -> list[Method]:
    """Return a method and those that it runs inside."""
    method = get_method(method_id)
    inner = method.parts if isinstance(method, CombiningMethod) else ()
    inner = (plain_id(method_id),) if isinstance(method, SelfEnsemble) else inner
    return [method, *(part for inside in inner for part in _parts(inside))]


def _program_sha256() -> str:
    """Return a hash over the code of models, of the checks between steps, over all weights and the thresholds."""
    root = Path(__file__).parents[1]
    files = [*root.rglob("*.py"), *root.glob("weights/*.safetensors"), root.parent / "tasks" / "acceptance.py"]
    digest = hashlib.sha256(repr(shipped_settings()).encode())
    for path in sorted(path for path in files if "training" not in path.parts and path.parent != Path(__file__).parent):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def told_estimate(recipe: str) -> DegradationEstimate | None:
    """Return the σ that a protocol tells its methods (of awgn/σ, blur/σ, and of the blur of noisy-blur), or None."""
    found = _TOLD.match(recipe)
    if found is None:
        return None
    family, number = found.groups()
    unknown = Estimated(value=None, confidence=0.0)
    told = Estimated(value=NOISY_BLUR_PX if family == "noisy-blur" else float(number), confidence=1.0)
    return DegradationEstimate(
        noise_sigma=told if family == "awgn" else unknown,
        blur_sigma_px=unknown if family == "awgn" else told,
        jpeg_quality=unknown,
        effective_scale=unknown,
        scratch_coverage=unknown,
        fading=unknown,
        colour_cast=unknown,
    )


def restore(
    method_id: str,
    degraded: Pixels,
    *,
    runner: Runner,
    mask: npt.NDArray[np.bool_] | None,
    scale: int,
    estimate: DegradationEstimate | None,
    seed: int,
) -> Pixels:
    """Run one method on one whole picture and return floats of its shape times `scale`; grey stays (H, W).

    With a mask (H, W, 3), channels lost on their own, a hole filler treats each channel as a grey picture.
    """
    if method_id == INPUT:
        return degraded
    if mask is not None and mask.ndim == 3 and unfit_reason(method_id, scale=scale, has_mask=False):
        parts = [(degraded[:, :, channel], mask[:, :, channel]) for channel in range(3)]
        fill = partial(restore, method_id, runner=runner, scale=scale, estimate=estimate, seed=seed)
        return np.stack([fill(part, mask=lost) for part, lost in parts], axis=-1)
    planes = _to_planes(degraded)
    if method_id == BICUBIC:
        height, width = degraded.shape[0] * scale, degraded.shape[1] * scale
        restored = resize(planes.double(), height=height, width=width).float()
    else:
        needs_mask = get_method(method_id).card.needs_mask
        hole = torch.from_numpy(mask)[None].float() if needs_mask and mask is not None else None
        restored = runner.restore_planes(method_id, planes, mask=hole, estimate=estimate, seed=seed)
    if degraded.ndim == 2:
        return np.asarray(restored.mean(0).numpy(), np.float32)
    return np.ascontiguousarray(restored.permute(1, 2, 0).numpy(), dtype=np.float32)


def _to_planes(picture: Pixels) -> Tensor:
    planes = torch.from_numpy(np.ascontiguousarray(picture, dtype=np.float32))
    return planes.expand(3, -1, -1).contiguous() if picture.ndim == 2 else planes.permute(2, 0, 1).contiguous()
