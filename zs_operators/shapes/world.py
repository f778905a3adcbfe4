"""The shapes world: deterministic synthetic scenes with exact labels, boxes and masks.

8 colours x 8 shapes make 64 classes named like "red circle". 16 of them are held out: no model of
the shapes-tiny family ever saw one in an image or in a caption, so they test zero-shot transfer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np

from zs_operators.errors import InvalidInputError
from zs_operators.shapes.drawing import (
    SHAPES,
    TEXTURES,
    Look,
    compose,
    draw_background,
    hsv_to_rgb,
    pick_background_rgb,
)

__all__ = [
    "CLASSES",
    "COLORS",
    "SEEN",
    "SHAPES",
    "TEXTURES",
    "UNSEEN",
    "Scene",
    "SceneObject",
    "is_held_out",
    "make_scene",
]

COLORS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white")

# Hue centre and half width in degrees, saturation range, value range.
COLOR_RANGES: dict[str, tuple[float, float, tuple[float, float], tuple[float, float]]] = {
    "red": (358.0, 5.0, (0.82, 1.0), (0.78, 0.98)),
    "orange": (28.0, 4.0, (0.85, 1.0), (0.88, 1.0)),
    "yellow": (55.0, 4.0, (0.78, 1.0), (0.88, 1.0)),
    "green": (125.0, 9.0, (0.75, 1.0), (0.60, 0.85)),
    "cyan": (184.0, 5.0, (0.70, 1.0), (0.80, 1.0)),
    "blue": (226.0, 7.0, (0.78, 1.0), (0.75, 1.0)),
    "purple": (277.0, 8.0, (0.65, 0.95), (0.60, 0.88)),
    "white": (0.0, 180.0, (0.0, 0.04), (0.94, 1.0)),
}

MAX_OBJECTS = 8
_TEXTURE_SHARES = (0.5, 0.25, 0.25)  # in the order of TEXTURES


def is_held_out(color: str, shape: str) -> bool:
    """Whether the pair is one of the 16 that no training image or caption contains.

    Every colour and every shape loses exactly two of its eight pairs.
    """
    return (3 * COLORS.index(color) + SHAPES.index(shape)) % 4 == 0


CLASSES = tuple(f"{color} {shape}" for color in COLORS for shape in SHAPES)
UNSEEN = tuple(f"{c} {s}" for c in COLORS for s in SHAPES if is_held_out(c, s))
SEEN = tuple(name for name in CLASSES if name not in UNSEEN)


@dataclass(frozen=True, eq=False)
class SceneObject:
    """One object of a scene.

    Attributes:
        label: one of ``CLASSES``, such as "red circle".
        color, shape, texture: its parts; texture is one of ``TEXTURES``.
        box_px: (x1, y1, x2, y2), half-open, around the visible pixels.
        mask: (H, W) bool, the visible pixels.
    """

    label: str
    color: str
    shape: str
    texture: str
    box_px: tuple[float, float, float, float]
    mask: np.ndarray


@dataclass(frozen=True, eq=False)
class Scene:
    """One picture and everything true about it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        objects: in painting order, so later ones may cover earlier ones.
        caption: such as "a red circle and a striped blue star".
        seed: what it was made from.
    """

    image: np.ndarray
    objects: tuple[SceneObject, ...]
    caption: str
    seed: int


def make_scene(
    seed: int,
    *,
    num_objects: int | tuple[int, int] = (1, 6),
    classes: Sequence[str] = CLASSES,
) -> Scene:
    """Draw the scene of a seed; the same seed and arguments give the same scene everywhere.

    Args:
        seed: non-negative integer.
        num_objects: how many objects, 0 to 8, or an inclusive range to draw the number from.
            Objects of a scene with exactly one are larger (radius 0.20-0.36 of the short side).
        classes: the classes to draw from, uniformly; default all 64.

    Returns:
        A scene 160-320 px wide and 160-240 px high, every object at least 75 % visible.
    """
    fewest, most = _object_range(num_objects)
    pairs = _class_pairs(classes)
    if not isinstance(seed, Integral) or seed < 0:
        raise InvalidInputError(f"seed must be a non-negative integer, not {seed!r}")
    rng = np.random.default_rng(int(seed))
    width, height = int(rng.integers(160, 321)), int(rng.integers(160, 241))
    count = int(rng.integers(fewest, most + 1))
    names, looks = [], []
    for _ in range(count):
        color, shape = pairs[int(rng.integers(len(pairs)))]
        texture = TEXTURES[int(np.searchsorted(np.cumsum(_TEXTURE_SHARES), rng.random(), "right"))]
        names.append((color, shape, texture))
        looks.append(paint(rng, shape, texture, sample_rgb(rng, color)))
    background = draw_background(rng, width, height, pick_background_rgb(rng, looks))
    drawing = compose(rng, looks, width=width, height=height, background=background)
    objects = tuple(
        _scene_object(color, shape, texture, drawing.owner == index)
        for index, (color, shape, texture) in enumerate(names)
    )
    return Scene(drawing.image, objects, _caption(names), int(seed))


def sample_rgb(rng: np.random.Generator, color: str) -> tuple[float, float, float]:
    """One RGB (0-1) out of the range that a named colour covers."""
    hue, half_width, saturation, value = COLOR_RANGES[color]
    return hsv_to_rgb(
        (hue + rng.uniform(-half_width, half_width)) % 360.0,
        rng.uniform(*saturation),
        rng.uniform(*value),
    )


def paint(
    rng: np.random.Generator, shape: str, texture: str, rgb: tuple[float, float, float]
) -> Look:
    """A look whose stripes or dots are a darker tone of the same colour."""
    darker = rng.uniform(0.38, 0.58)
    return Look(shape, texture, rgb, (rgb[0] * darker, rgb[1] * darker, rgb[2] * darker))


def mask_box_px(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Half-open (x1, y1, x2, y2) around the true pixels of a non-empty (H, W) bool mask."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _scene_object(color: str, shape: str, texture: str, mask: np.ndarray) -> SceneObject:
    return SceneObject(f"{color} {shape}", color, shape, texture, mask_box_px(mask), mask)


def _caption(names: Sequence[tuple[str, str, str]]) -> str:
    parts = [
        with_article(f"{color} {shape}" if texture == "solid" else f"{texture} {color} {shape}")
        for color, shape, texture in names
    ]
    if not parts:
        return "an empty background"
    if len(parts) == 1:
        return parts[0]
    return ", ".join(parts[:-1]) + " and " + parts[-1]


def with_article(noun: str) -> str:
    """The noun phrase with "a" or "an" before it."""
    return f"{'an' if noun[:1] in 'aeio' else 'a'} {noun}"


def _object_range(num_objects: int | tuple[int, int]) -> tuple[int, int]:
    if isinstance(num_objects, Integral):
        num_objects = (num_objects, num_objects)
    fewest, most = num_objects
    if not 0 <= fewest <= most <= MAX_OBJECTS:
        raise InvalidInputError(
            f"num_objects must be a number, or a (fewest, most) pair, within 0-{MAX_OBJECTS}, "
            f"not {num_objects!r}"
        )
    return fewest, most


def _class_pairs(classes: Sequence[str]) -> list[tuple[str, str]]:
    if isinstance(classes, str) or not classes:
        raise InvalidInputError(
            "classes must be a non-empty sequence of names such as 'red circle'"
        )
    unknown = [name for name in classes if name not in CLASSES]
    if unknown:
        raise InvalidInputError(
            f"not classes of the shapes world: {unknown[:5]}; "
            f"a class is one of {', '.join(COLORS)} and one of {', '.join(SHAPES)}"
        )
    return [tuple(name.split(" ")) for name in classes]
