"""Training views for shapes-clip: 64 px pictures of seen pairs, spare colours and background.

Nothing here can show a held-out pair: objects are either one of the 48 seen classes, or painted in
a colour whose hue keeps clear of all eight named ones. Those spare colours come in all eight
shapes, so that the image tower learns a shape without leaning on its colour.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from zs_operators.shapes.drawing import (
    SHAPES,
    TEXTURES,
    Look,
    compose,
    draw_background,
    hsv_to_rgb,
    pick_background_rgb,
)
from zs_operators.shapes.world import (
    COLOR_RANGES,
    COLORS,
    is_held_out,
    mask_box_px,
    paint,
    sample_rgb,
)

logger = logging.getLogger(__name__)

VIEW_PX = 64

# Spare colours with a name; they exist in training only and are never test classes.
# Hue range in degrees, saturation range, value range.
SPARE_COLORS: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "pink": ((330.0, 345.0), (0.32, 0.50), (0.90, 1.0)),
    "brown": ((18.0, 28.0), (0.55, 0.80), (0.28, 0.45)),
    "black": ((0.0, 360.0), (0.0, 0.20), (0.02, 0.12)),
    "gray": ((0.0, 360.0), (0.0, 0.06), (0.35, 0.60)),
    "lime": ((78.0, 94.0), (0.80, 1.0), (0.85, 1.0)),
    "teal": ((172.0, 182.0), (0.70, 1.0), (0.30, 0.45)),
    "magenta": ((306.0, 322.0), (0.80, 1.0), (0.80, 1.0)),
}
ALL_COLORS = (*COLORS, *SPARE_COLORS)
NO_COLOR = -1  # the object's colour has no name
BACKGROUND = -1  # as a shape: there is no object

SEEN_PAIRS = [(c, s) for c in COLORS for s in SHAPES if not is_held_out(c, s)]
_HUE_CLEARANCE_DEG = 11.0


@dataclass(frozen=True)
class Views:
    """Training pictures and what is on them, N rows each.

    Attributes:
        image: (N, 64, 64, 3) uint8 RGB.
        color: (N,) int64 index into ``ALL_COLORS``, or ``NO_COLOR``.
        shape: (N,) int64 index into ``SHAPES``, or ``BACKGROUND``.
        texture: (N,) int64 index into ``TEXTURES``; 0 for background.
    """

    image: np.ndarray
    color: np.ndarray
    shape: np.ndarray
    texture: np.ndarray

    def __len__(self) -> int:
        return len(self.color)


def sample_unnamed_rgb(rng: np.random.Generator) -> tuple[float, float, float]:
    """A colour that none of the eight names covers: a clear hue gap, or a dull grey."""
    if rng.random() < 0.3:
        return hsv_to_rgb(rng.uniform(0.0, 360.0), rng.uniform(0.0, 0.15), rng.uniform(0.05, 0.72))
    while True:
        hue = rng.uniform(0.0, 360.0)
        if all(
            abs((hue - centre + 180.0) % 360.0 - 180.0) >= half_width + _HUE_CLEARANCE_DEG
            for name, (centre, half_width, _, _) in COLOR_RANGES.items()
            if name != "white"
        ):
            return hsv_to_rgb(hue, rng.uniform(0.35, 1.0), rng.uniform(0.25, 1.0))


def sample_spare_look(rng: np.random.Generator) -> tuple[int, Look]:
    """A look in a spare colour, any shape; and the colour's index in ALL_COLORS or NO_COLOR."""
    shape = SHAPES[int(rng.integers(len(SHAPES)))]
    texture = TEXTURES[int(rng.integers(len(TEXTURES)))]
    if rng.random() < 0.4:
        names = list(SPARE_COLORS)
        color = int(rng.integers(len(names)))
        hue, saturation, value = SPARE_COLORS[names[color]]
        rgb = hsv_to_rgb(rng.uniform(*hue), rng.uniform(*saturation), rng.uniform(*value))
        look = paint(rng, shape, texture, rgb)
        if names[color] == "black":  # a darker tone of black would hide the texture
            lighter = rng.uniform(0.3, 0.5)
            look = Look(shape, texture, rgb, (lighter, lighter, lighter))
        return len(COLORS) + color, look
    look = paint(rng, shape, texture, sample_unnamed_rgb(rng))
    if rng.random() < 0.4:
        other = sample_unnamed_rgb(rng)
        if sum((a - b) ** 2 for a, b in zip(look.rgb, other, strict=True)) > 0.12:
            look = Look(shape, texture, look.rgb, other)
    return NO_COLOR, look


def sample_seen_look(rng: np.random.Generator) -> tuple[int, Look]:
    """A look of one of the 48 seen classes, textures in equal shares."""
    color, shape = SEEN_PAIRS[int(rng.integers(len(SEEN_PAIRS)))]
    texture = TEXTURES[int(rng.integers(len(TEXTURES)))]
    return COLORS.index(color), paint(rng, shape, texture, sample_rgb(rng, color))


def _scene_views(rng: np.random.Generator, *, spare: bool, alone: bool) -> list[tuple]:
    """(picture, colour, shape, texture) rows of one freshly drawn training scene."""
    width, height = int(rng.integers(160, 321)), int(rng.integers(160, 241))
    count = 1 if alone else int(rng.integers(2, 7))
    sample = sample_spare_look if spare else sample_seen_look
    colors, looks = zip(*(sample(rng) for _ in range(count)), strict=True)
    # A vivid ground makes edges of every colour for spare objects; but seen through a ring it
    # would be a disc of that colour, which may be a held-out pair.
    vivid = spare and rng.random() < 0.5 and all(look.shape != "ring" for look in looks)
    rgb = pick_background_rgb(rng, looks, max_saturation=1.0 if vivid else 0.35)
    ground = draw_background(rng, width, height, rgb)
    drawing = compose(rng, looks, width=width, height=height, background=ground)
    picture = Image.fromarray(drawing.image)
    rows = []
    for index, (color, look) in enumerate(zip(colors, looks, strict=True)):
        box = mask_box_px(drawing.owner == index)
        for window in _windows(rng, box, width, height, alone=alone):
            what = (color, SHAPES.index(look.shape), TEXTURES.index(look.texture))
            rows.append((_resize(picture, window), *what))
    if rng.random() < (0.25 if alone else 0.12):
        window = _empty_window(rng, drawing.owner)
        if window is not None:
            rows.append((_resize(picture, window), NO_COLOR, BACKGROUND, 0))
    return rows


def _windows(rng, box, width: int, height: int, *, alone: bool) -> list[tuple]:
    """Windows from the tight box to the whole frame, as inference will see them."""
    windows = [_grown_box(rng, box, 1.0 if rng.random() < 0.5 else rng.uniform(1.0, 1.25))]
    if not alone:
        windows.append(_grown_box(rng, box, rng.uniform(1.25, 1.7)))
        return windows
    x1, y1, x2, y2 = box
    share = rng.random()  # 0 = the tight box, 1 = the frame
    windows.append(
        (x1 * (1 - share), y1 * (1 - share), x2 + (width - x2) * share, y2 + (height - y2) * share)
    )
    windows.append((0.0, 0.0, float(width), float(height)))
    return windows


def _grown_box(rng, box, scale: float) -> tuple[float, float, float, float]:
    """The box scaled about its centre, each side moved by up to 5 % as proposals are off."""
    x1, y1, x2, y2 = box
    dx, dy = x2 - x1, y2 - y1
    off = rng.uniform(-0.05, 0.05, size=4)
    grow_x, grow_y = (scale - 1.0) / 2.0 * dx, (scale - 1.0) / 2.0 * dy
    return (
        x1 - grow_x + off[0] * dx,
        y1 - grow_y + off[1] * dy,
        x2 + grow_x + off[2] * dx,
        y2 + grow_y + off[3] * dy,
    )


def _empty_window(rng, owner: np.ndarray) -> tuple[float, float, float, float] | None:
    height, width = owner.shape
    for _ in range(20):
        w, h = int(rng.uniform(20, 0.6 * width)), int(rng.uniform(20, 0.6 * height))
        x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
        if (owner[y : y + h, x : x + w] >= 0).mean() < 0.02:
            return float(x), float(y), float(x + w), float(y + h)
    return None


def _resize(picture: Image.Image, window) -> np.ndarray:
    """(64, 64, 3) uint8: the clipped window squashed to the model's square."""
    x1, y1 = max(0, round(window[0])), max(0, round(window[1]))
    x2, y2 = min(picture.width, round(window[2])), min(picture.height, round(window[3]))
    crop = picture.crop((x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)))
    return np.asarray(crop.resize((VIEW_PX, VIEW_PX), Image.Resampling.BICUBIC))


# (name, scenes, spare colours, one object); the name and index seed each scene.
_SOURCES = (
    ("seen crowded", 4600, False, False),
    ("seen alone", 3600, False, True),
    ("spare crowded", 3000, True, False),
    ("spare alone", 3000, True, True),
)


def make_views(scale: float = 1.0) -> Views:
    """Draw the training set (about 65 000 views at ``scale`` 1; three minutes on one core)."""
    rows: list[tuple] = []
    for kind, (name, scenes, spare, alone) in enumerate(_SOURCES):
        for index in range(max(1, int(scenes * scale))):
            # A list seeds another stream than any integer, so no make_scene() seed collides.
            rng = np.random.default_rng([20261, kind, index])
            rows.extend(_scene_views(rng, spare=spare, alone=alone))
        logger.info("%s: %d views so far", name, len(rows))
    image, color, shape, texture = zip(*rows, strict=True)
    return Views(np.stack(image), np.array(color), np.array(shape), np.array(texture))


def load_views(cache: Path) -> Views:
    """The training set, drawn once and then memory-mapped from ``cache``."""
    if not (cache / "labels.npy").exists():
        views = make_views()
        cache.mkdir(parents=True, exist_ok=True)
        np.save(cache / "images.npy", views.image)
        np.save(cache / "labels.npy", np.stack([views.color, views.shape, views.texture]))
    color, shape, texture = np.load(cache / "labels.npy")
    return Views(np.load(cache / "images.npy", mmap_mode="r"), color, shape, texture)
