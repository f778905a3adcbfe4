"""Images on their way into a network that resizes them: bounded memory, no lost pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zs_operators.errors import InvalidInputError

if TYPE_CHECKING:
    import numpy as np

    from zs_operators.images import UprightImage


@dataclass(frozen=True)
class Frame:
    """Pixels for a network's own resize, and how far they reach in the upright image.

    Attributes:
        pixels: (h, w, 3) uint8 RGB
        width_px, height_px: what ``w`` and ``h`` are in pixels of the full-size upright image;
            whatever the pixels are resized to, they are still this wide and high
        image_size_px: (width, height) of that image
    """

    pixels: np.ndarray
    width_px: float
    height_px: float
    image_size_px: tuple[int, int]


def as_pixels(image: UprightImage | np.ndarray) -> tuple[np.ndarray, int, int]:
    """Pixels of an image, and the width and height of the full-size upright image.

    Args:
        image: an upright image, or (H, W, 3) uint8 RGB, which is taken to be full-size

    Raises:
        InvalidInputError: if it is neither, or is empty
    """
    import numpy as np

    pixels = getattr(image, "pixels", image)
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.ndim != 3
        or pixels.shape[2] != 3
        or 0 in pixels.shape
    ):
        found = (
            f"{pixels.dtype} of shape {pixels.shape}"
            if isinstance(pixels, np.ndarray)
            else type(pixels).__name__
        )
        raise InvalidInputError(f"expected an RGB image as (H, W, 3) uint8, got {found}")
    height, width = pixels.shape[:2]
    return pixels, getattr(image, "width_px", width), getattr(image, "height_px", height)


def make_frame(
    image: UprightImage | np.ndarray, min_size_px: int, max_size_px: int | None
) -> Frame:
    """An image that a resize to these sizes can take.

    Resizing in a network makes a float copy of the whole image first. Images of more than four
    times the network's size are therefore averaged down before, to at least twice that size. A
    side that would be rounded to no pixels is repeated.

    Args:
        image: an upright image, or (H, W, 3) uint8 RGB
        min_size_px: what the shorter side will be resized to
        max_size_px: unless the longer side is then longer than this; None for no limit

    Raises:
        InvalidInputError: if the image is not (H, W, 3) uint8 or is empty
    """
    import numpy as np
    from PIL import Image

    pixels, image_width, image_height = as_pixels(image)
    rows, columns = pixels.shape[:2]
    scale = resize_scale(columns, rows, min_size_px, max_size_px)
    covered_x, covered_y = float(columns), float(rows)
    factor = int(1 / (2 * scale))
    if factor >= 2:
        pixels = np.asarray(Image.fromarray(pixels).reduce(factor))
        # cells at the far edges may reach beyond the image; the reduced image is whole cells
        covered_x, covered_y = (float(cells * factor) for cells in pixels.shape[1::-1])
        scale *= factor
    short = min(pixels.shape[:2])
    if short * scale < 1:
        repeats = math.ceil(1 / (short * scale)) + 1
        pixels = np.repeat(pixels, repeats, axis=int(np.argmin(pixels.shape[:2])))
    if not pixels.flags.writeable or not pixels.flags.c_contiguous:
        pixels = np.array(pixels, order="C")  # torch wants to own what it may write to
    return Frame(
        pixels,
        covered_x * image_width / columns,
        covered_y * image_height / rows,
        (image_width, image_height),
    )


def resize_scale(width: int, height: int, min_size: int, max_size: int | None) -> float:
    """What takes the shorter side to ``min_size``, and the longer to ``max_size`` at most."""
    scale = min_size / min(width, height)
    return scale if max_size is None else min(scale, max_size / max(width, height))
