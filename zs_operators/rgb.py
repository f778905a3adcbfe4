"""From what Pillow decodes to upright RGB.

What becomes of each kind of pixel:

* colour, palette, CMYK, YCbCr, 1-bit: Pillow's conversion to RGB; 16 bits a colour channel keep
  their high byte, which is what Pillow decodes;
* transparency, in any form: composed on white;
* 16-bit grey: ``round(v / 257)``, so 65535 is white (12-bit TIFF: ``round(v * 255 / 4095)``);
* 32-bit integer and float grey, whose files do not say what white is: values that all lie in
  [0, 1] (float only), [0, 255] or [0, 65535] are read on that scale, any others are stretched
  from their minimum to their maximum; NaN is black, infinities are the nearest finite value;
* animations and multi-page files: the first frame;
* colour profiles: ignored, as in the preprocessing that CLIP and SAM were trained with.

Orientation follows what the App shows: EXIF is applied to JPEG, PNG, AVIF and TIFF, and not to
WebP, where Chromium ignores it.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, TiffImagePlugin

_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright_size(image: Image.Image) -> tuple[int, int, int]:
    """``(width_px, height_px, orientation)``: upright, and what EXIF has still to turn, 1-8."""
    orientation = _orientation(image)
    width_px, height_px = image.size
    if orientation >= 5:
        width_px, height_px = height_px, width_px
    return width_px, height_px, orientation


def _orientation(image: Image.Image) -> int:
    """EXIF orientation still to be applied, 1-8."""
    # Pillow turns TIFF itself (its size is already upright) and Chromium does not turn WebP.
    if image.format in ("TIFF", "WEBP"):
        return 1
    # Without this, getexif() decodes a whole PNG to look for EXIF behind the pixels.
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys():
        return 1
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
        return orientation if orientation in _TRANSPOSE else 1
    except Exception:  # damaged EXIF beside sound pixels
        return 1


def to_rgb(image: Image.Image, orientation: int) -> np.ndarray:
    """Pixels of a decoded image, upright.

    Args:
        image: decoded
        orientation: as :func:`upright_size` says

    Returns:
        (H, W, 3) uint8, C-contiguous and writable
    """
    if orientation != 1:
        image = image.transpose(_TRANSPOSE[orientation])
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        grey = _grey_to_uint8(image)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
        if image.getextrema()[3] != (255, 255):
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    return np.array(image)


def _grey_to_uint8(image: Image.Image) -> np.ndarray:
    """(H, W) uint8 from grey of more than 8 bits, by the rules at the top of this file."""
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16"):
        white = 4095 if tags.get(TiffImagePlugin.BITSPERSAMPLE) == (12,) else 65535
        grey = ((values.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)
        if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:  # white is zero
            grey = 255 - grey
        key = image.info.get("transparency")
        if isinstance(key, int):
            grey[values == key] = 255
        return grey

    values = values.astype(np.float64)
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    if low >= 0 and high <= 1 and image.mode == "F":
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255 and image.format != "PPM":
        low, high = 0.0, 255.0
    elif low >= 0 and high <= 65535:  # where Pillow puts white in a 16-bit PGM
        low, high = 0.0, 65535.0
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    span = high - low if high > low else np.inf
    return np.rint((values - low) * 255.0 / span).clip(0, 255).astype(np.uint8)
