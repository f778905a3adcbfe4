"""Animations for README and docs, from pictures that browser tests take."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from PIL import Image

WIDTH_PX = 900
#: Nearly all a GIF can have: with fewer, what the dimmed page shows changes its colours
NUM_COLORS = 255


def write_gif(path: Path, frames: list[tuple[bytes, float]]) -> None:
    """An endless GIF of pictures and the seconds for which each is shown."""
    pictures = [_scaled(content) for content, _ in frames]
    palette = _palette(pictures)
    # One palette and no dithering: what does not change between two frames costs nothing
    drawn = [one.quantize(palette=palette, dither=Image.Dither.NONE) for one in pictures]
    drawn[0].save(
        path,
        save_all=True,
        append_images=drawn[1:],
        duration=[round(seconds * 1000) for _, seconds in frames],
        loop=0,
        optimize=True,
    )


def _scaled(content: bytes) -> Image.Image:
    with Image.open(BytesIO(content)) as opened:
        height = round(opened.height * WIDTH_PX / opened.width)
        return opened.convert("RGB").resize((WIDTH_PX, height), Image.Resampling.LANCZOS)


def _palette(pictures: list[Image.Image]) -> Image.Image:
    """The colours of all pictures together."""
    width, height = pictures[0].size
    strip = Image.new("RGB", (width, height * len(pictures)))
    for index, picture in enumerate(pictures):
        strip.paste(picture, (0, index * height))
    return strip.quantize(NUM_COLORS, method=Image.Quantize.MEDIANCUT)
