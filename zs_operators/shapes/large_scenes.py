"""Large pictures of the shapes world: many small objects, and some nearly as large as a tile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zs_operators.errors import InvalidInputError
from zs_operators.shapes.drawing import TEXTURES, compose, draw_background, pick_background_rgb
from zs_operators.shapes.world import COLORS, SHAPES, mask_box_px, paint, sample_rgb

#: Sides of the cells that hold one object each: of 26-60 px, and of 400-900 px.
SMALL_CELL_PX, LARGE_CELL_PX = 64, 1024


@dataclass(frozen=True, eq=False)
class LargeScene:
    """A large picture, and what is in it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        labels: of each object, such as "red circle"; the large ones first.
        boxes_px: (N, 4) float32 ``x1, y1, x2, y2`` around the visible pixels.
    """

    image: np.ndarray
    labels: tuple[str, ...]
    boxes_px: np.ndarray


def make_large_scene(
    seed: int, *, side_px: int = 4096, num_small: int = 60, num_large: int = 2
) -> LargeScene:
    """Draw the large scene of a seed: objects in cells of a grid, so that none covers another.

    Args:
        seed: non-negative integer.
        side_px: of the square picture, a multiple of 64.
        num_small: objects of 26-60 px.
        num_large: objects of 400-900 px.

    Raises:
        InvalidInputError: if they do not fit
    """
    rng = np.random.default_rng(seed)
    names, looks = [], []
    for _ in range(num_large + num_small):
        color, shape, texture = (str(rng.choice(kind)) for kind in (COLORS, SHAPES, TEXTURES))
        names.append(f"{color} {shape}")
        looks.append(paint(rng, shape, texture, sample_rgb(rng, color)))
    background = draw_background(rng, side_px, side_px, pick_background_rgb(rng, looks))
    image = np.clip(np.rint(background * 255.0), 0, 255).astype(np.uint8)
    del background
    boxes = []
    for look, (left, top, cell_px) in zip(
        looks, _cells(rng, side_px, num_large, num_small), strict=True
    ):
        cell = image[top : top + cell_px, left : left + cell_px]
        drawing = compose(rng, [look], width=cell_px, height=cell_px, background=cell / 255.0)
        cell[:] = drawing.image
        boxes.append(np.add(mask_box_px(drawing.owner == 0), (left, top, left, top)))
    return LargeScene(image, tuple(names), np.array(boxes, np.float32).reshape(-1, 4))


def _cells(
    rng: np.random.Generator, side_px: int, num_large: int, num_small: int
) -> list[tuple[int, int, int]]:
    """``left, top, side`` of a cell for each object; no two overlap."""
    count = side_px // SMALL_CELL_PX
    free = np.ones((count, count), dtype=bool)
    cells = []
    for cell_px, number in ((LARGE_CELL_PX, num_large), (SMALL_CELL_PX, num_small)):
        span = cell_px // SMALL_CELL_PX
        for _ in range(number):
            blocks = np.lib.stride_tricks.sliding_window_view(free, (min(span, count),) * 2)
            places = np.argwhere(blocks.all(axis=(2, 3))) if span <= count else ()
            if not len(places):
                raise InvalidInputError(
                    f"{num_large} large and {num_small} small objects do not fit into "
                    f"{side_px} x {side_px} px"
                )
            row, column = places[int(rng.integers(len(places)))]
            free[row : row + span, column : column + span] = False
            cells.append((int(column) * SMALL_CELL_PX, int(row) * SMALL_CELL_PX, cell_px))
    return cells
