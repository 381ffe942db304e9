"""JPEG compression by the real codec (libjpeg in OpenCV): once or repeatedly, on or off the 8x8 grid of the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.degradations.operator import check_images

Subsampling = Literal["444", "420"]
_SAMPLING_FACTOR = {"444": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444, "420": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420}


@dataclass(frozen=True, slots=True, kw_only=True)
class JpegPass:
    """One compression: IJG quality 1-100, chroma subsampling, and where the picture starts within the 8x8 grid."""

    quality: int
    subsampling: Subsampling = "420"
    offset_y: int = 0
    offset_x: int = 0


def encode_decode(image: npt.NDArray[np.uint8], jpeg: JpegPass) -> npt.NDArray[np.uint8]:
    """Compress and decode one picture, (H, W) or (H, W, 3) RGB uint8; same shape back.

    An offset shifts the grid: the picture is extended above and to the left by repeated pixels, which are cut again.
    """
    colour = image.ndim == 3
    pixels = np.ascontiguousarray(image[:, :, ::-1]) if colour else image  # the codec takes BGR
    if jpeg.offset_y or jpeg.offset_x:
        border = [(jpeg.offset_y, 0), (jpeg.offset_x, 0), (0, 0)][: pixels.ndim]
        pixels = np.pad(pixels, border, mode="edge")
    options = [cv2.IMWRITE_JPEG_QUALITY, jpeg.quality]
    if colour:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, _SAMPLING_FACTOR[jpeg.subsampling]]
    done, code = cv2.imencode(".jpg", pixels, options)
    if not done:
        raise ValueError(f"the JPEG codec refused a picture of shape {image.shape} at {jpeg}; JPEG ends at 65535 px")
    decoded = cv2.imdecode(code, cv2.IMREAD_COLOR if colour else cv2.IMREAD_GRAYSCALE)
    if decoded is None:
        raise ValueError(f"the JPEG codec could not read back its own output for {jpeg}")
    kept = decoded[jpeg.offset_y :, jpeg.offset_x :]
    return np.ascontiguousarray(kept[:, :, ::-1] if colour else kept).astype(np.uint8, copy=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class JpegCompression:
    """Per image the compressions it goes through in order; an empty tuple leaves the image alone."""

    passes: tuple[tuple[JpegPass, ...], ...]

    @classmethod
    def draw(
        cls,
        generator: np.random.Generator,
        *,
        batch: int,
        quality: tuple[int, int] = (10, 95),
        subsampling_420_probability: float = 0.5,
        misaligned_probability: float = 0.0,
        double_probability: float = 0.0,
    ) -> JpegCompression:
        """Draw a quality for each image, and with the given chances a shifted grid and a second compression."""

        def one(*, shifted: bool) -> JpegPass:
            offsets = generator.integers(0, 8, 2) if shifted else (0, 0)
            coarse = bool(generator.random() < subsampling_420_probability)
            return JpegPass(
                quality=int(generator.integers(quality[0], quality[1] + 1)),
                subsampling="420" if coarse else "444",
                offset_y=int(offsets[0]),
                offset_x=int(offsets[1]),
            )

        drawn = []
        for _ in range(batch):
            shifted = bool(generator.random() < misaligned_probability)
            count = 2 if generator.random() < double_probability else 1
            drawn.append(tuple(one(shifted=shifted and index == 0) for index in range(count)))
        return cls(passes=tuple(drawn))

    def apply(self, images: Tensor) -> Tensor:
        """Return the compressed images, rounded to 8 bits, (B, C, H, W); images without a pass come back unchanged."""
        check_images(images, batch=len(self.passes), operator="JpegCompression")
        result = images.clone()
        for index, passes in enumerate(self.passes):
            if not passes:
                continue
            levels = images[index].detach().clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
            pixels = levels.permute(1, 2, 0).numpy()
            pixels = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
            for jpeg in passes:
                pixels = encode_decode(np.ascontiguousarray(pixels), jpeg)
            planes = torch.from_numpy(pixels).reshape(*pixels.shape[:2], -1).permute(2, 0, 1)
            result[index] = planes.to(images) / 255
        return result
