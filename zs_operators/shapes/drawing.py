"""Draw silhouettes, textures and backgrounds with numpy, and lay objects out in a frame.

Coordinates: x to the right, y down, pixel (0, 0) covers [0, 1) x [0, 1). Colours are RGB in 0-1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "arrow")
TEXTURES = ("solid", "striped", "dotted")

MIN_VISIBLE = 0.75
_SUBSAMPLES = 3  # per axis, for anti-aliased edges
_MIN_RADIUS_PX = 12.0
_MIN_CONTRAST = 0.42  # Euclidean distance in RGB 0-1 between an object and the background


def _ring_of_points(count: int, outer: float, inner: float) -> list[tuple[float, float]]:
    points = []
    for k in range(2 * count):
        radius = outer if k % 2 == 0 else inner
        angle = math.pi * k / count - math.pi / 2
        points.append((radius * math.cos(angle), radius * math.sin(angle)))
    return points


_POLYGONS: dict[str, list[tuple[float, float]]] = {
    "triangle": [(0.0, -1.0), (0.98, 0.8), (-0.98, 0.8)],
    "star": _ring_of_points(5, 1.0, 0.42),
    "arrow": [
        (-1.0, -0.28),
        (0.05, -0.28),
        (0.05, -0.82),
        (1.0, 0.0),
        (0.05, 0.82),
        (0.05, 0.28),
        (-1.0, 0.28),
    ],
}


def inside(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Which points lie in a silhouette of radius about 1 centred on the origin.

    Args:
        shape: one of ``SHAPES``.
        u, v: float arrays of the same shape; right and down, in radii.

    Returns:
        bool array of the same shape.
    """
    if shape == "circle":
        return u * u + v * v <= 0.96
    if shape == "ring":
        distance = u * u + v * v
        return (distance <= 1.0) & (distance >= 0.3)
    if shape == "square":
        return np.maximum(np.abs(u), np.abs(v)) <= 0.86
    if shape == "cross":
        a, b = np.abs(u), np.abs(v)
        return (np.maximum(a, b) <= 1.0) & (np.minimum(a, b) <= 0.33)
    if shape == "heart":
        x, y = u * 1.18, 0.12 - v * 1.18
        body = x * x + y * y - 1.0
        return body * body * body - x * x * y * y * y <= 0.0
    return _inside_polygon(_POLYGONS[shape], u, v)


def _inside_polygon(points: Sequence[tuple[float, float]], u, v) -> np.ndarray:
    hit = np.zeros(u.shape, dtype=bool)
    for (x1, y1), (x2, y2) in zip(points, [*points[1:], points[0]], strict=True):
        if y1 == y2:
            continue
        crosses = (v < y1) != (v < y2)
        hit ^= crosses & (u < x1 + (v - y1) * ((x2 - x1) / (y2 - y1)))
    return hit


@dataclass(frozen=True)
class Look:
    """How one object is painted: silhouette, texture and its two tones (RGB 0-1)."""

    shape: str
    texture: str
    rgb: tuple[float, float, float]
    second_rgb: tuple[float, float, float]


@dataclass(frozen=True)
class Drawing:
    """A composed frame.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        owner: (H, W) int16, the index of the object seen at each pixel; -1 = background.
        full_area_px: for each object, the pixels it would have if nothing covered it.
    """

    image: np.ndarray
    owner: np.ndarray
    full_area_px: tuple[int, ...]


def draw_background(
    rng: np.random.Generator, width: int, height: int, rgb: tuple[float, float, float]
) -> np.ndarray:
    """Background around a mean colour: linear gradient + blotches + pixel noise.

    Returns:
        (height, width, 3) float64, RGB, about 0-1 (not clipped).
    """
    x = np.linspace(-0.5, 0.5, width)
    y = np.linspace(-0.5, 0.5, height)
    slope = rng.uniform(-0.16, 0.16, size=2)
    gradient = slope[0] * x[None, :] + slope[1] * y[:, None]
    cells_y, cells_x = int(rng.integers(3, 9)), int(rng.integers(3, 11))
    coarse = rng.normal(0.0, rng.uniform(0.0, 0.06), size=(cells_y, cells_x, 3))
    rows = np.einsum("ya,abc->ybc", _linear_weights(height, cells_y), coarse)
    blotches = np.matmul(_linear_weights(width, cells_x), rows)
    noise = rng.normal(0.0, rng.uniform(0.004, 0.035), size=(height, width, 1))
    return np.asarray(rgb)[None, None, :] + gradient[:, :, None] + blotches + noise


def _linear_weights(length: int, cells: int) -> np.ndarray:
    """(length, cells) weights that interpolate ``cells`` values linearly over ``length``."""
    position = np.linspace(0.0, cells - 1.0, length)
    return np.clip(1.0 - np.abs(position[:, None] - np.arange(cells)[None, :]), 0.0, 1.0)


def pick_background_rgb(
    rng: np.random.Generator,
    looks: Sequence[Look],
    *,
    max_saturation: float = 0.35,
) -> tuple[float, float, float]:
    """A mean background colour that contrasts with every object (best of 24 draws)."""
    best, best_contrast = (0.5, 0.5, 0.5), -1.0
    for _ in range(24):
        hue, saturation, value = rng.random(), rng.uniform(0.0, max_saturation), rng.random()
        rgb = hsv_to_rgb(360.0 * hue, saturation, 0.12 + 0.76 * value)
        contrast = min((math.dist(rgb, look.rgb) for look in looks), default=9.0)
        if contrast >= _MIN_CONTRAST:
            return rgb
        if contrast > best_contrast:
            best, best_contrast = rgb, contrast
    return best


def hsv_to_rgb(hue_deg: float, saturation: float, value: float) -> tuple[float, float, float]:
    """HSV (hue in degrees, the rest 0-1) to RGB 0-1."""

    def channel(n: float) -> float:
        k = (n + hue_deg / 60.0) % 6.0
        return value - value * saturation * max(0.0, min(k, 4.0 - k, 1.0))

    return channel(5.0), channel(3.0), channel(1.0)


def radius_range_px(num_objects: int, width: int, height: int) -> tuple[float, float]:
    """Radii an object may have: a lone object is large, company makes smaller ones possible."""
    side = min(width, height)
    if num_objects <= 1:
        return 0.20 * side, 0.36 * side
    return _MIN_RADIUS_PX, (0.30 if num_objects == 2 else 0.26) * side


def compose(
    rng: np.random.Generator,
    looks: Sequence[Look],
    *,
    width: int,
    height: int,
    background: np.ndarray,
) -> Drawing:
    """Lay ``looks`` out over a background, later ones on top, each >= 75 % visible.

    Args:
        rng: the scene's own generator.
        looks: objects in painting order.
        width, height: frame in px.
        background: (height, width, 3) float RGB 0-1.

    Returns:
        The frame and, for each pixel, the index of the object seen there.
    """
    image = background.copy()
    owner = np.full((height, width), -1, dtype=np.int16)
    full_area_px: list[int] = []
    low, high = radius_range_px(len(looks), width, height)
    for index, look in enumerate(looks):
        radius = math.exp(rng.uniform(math.log(low), math.log(high)))
        while True:
            alpha, left, top = _silhouette(rng, look.shape, radius, width, height)
            window = np.s_[top : top + alpha.shape[0], left : left + alpha.shape[1]]
            solid = alpha >= 0.5
            if _may_cover(owner[window][solid], owner, look, looks, full_area_px):
                break
            # A crowded frame: shrink slowly, so that every requested object finds a place.
            radius = max(0.96 * radius, _MIN_RADIUS_PX)
        paint = _texture(rng, look, radius, alpha.shape)
        image[window] += alpha[:, :, None] * (paint - image[window])
        owner[window][solid] = index
        full_area_px.append(int(solid.sum()))
    return Drawing(
        np.clip(np.rint(image * 255.0), 0, 255).astype(np.uint8), owner, tuple(full_area_px)
    )


def _silhouette(
    rng: np.random.Generator, shape: str, radius_px: float, width: int, height: int
) -> tuple[np.ndarray, int, int]:
    """Coverage 0-1 of a randomly placed, turned and stretched shape; its left and top px."""
    angle = rng.uniform(-15.0, 15.0) * math.pi / 180.0
    stretch = math.exp(rng.uniform(-0.12, 0.12) / 2.0)
    reach = radius_px * 1.30  # half-diagonal of the square, turned and stretched, is 1.22 + stretch
    reach = min(reach, (min(width, height) - 2) / 2.0)
    cx, cy = rng.uniform(reach, width - reach), rng.uniform(reach, height - reach)
    left, top = int(cx - reach), int(cy - reach)
    right, bottom = min(width, int(cx + reach) + 1), min(height, int(cy + reach) + 1)
    step = 1.0 / _SUBSAMPLES
    x = left + step * (np.arange((right - left) * _SUBSAMPLES) + 0.5) - cx
    y = top + step * (np.arange((bottom - top) * _SUBSAMPLES) + 0.5) - cy
    cos, sin = math.cos(angle), math.sin(angle)
    u = (cos * x[None, :] + sin * y[:, None]) / (radius_px * stretch)
    v = (cos * y[:, None] - sin * x[None, :]) * stretch / radius_px
    fine = inside(shape, u, v)
    blocks = fine.reshape(bottom - top, _SUBSAMPLES, right - left, _SUBSAMPLES)
    return blocks.mean(axis=(1, 3)), left, top


def _may_cover(
    covered: np.ndarray,
    owner: np.ndarray,
    look: Look,
    looks: Sequence[Look],
    full_area_px: list[int],
) -> bool:
    """Whether an object may go over these pixels: all below stay visible and differ in colour."""
    for index in np.unique(covered[covered >= 0]):
        if math.dist(look.rgb, looks[index].rgb) < _MIN_CONTRAST:
            return False
        visible = int((owner == index).sum()) - int((covered == index).sum())
        if visible < MIN_VISIBLE * full_area_px[index]:
            return False
    return True


def _texture(
    rng: np.random.Generator, look: Look, radius_px: float, size: tuple[int, int]
) -> np.ndarray:
    """(h, w, 3) paint for the object's window, with a little grain."""
    first, second = np.asarray(look.rgb), np.asarray(look.second_rgb)
    angle = rng.uniform(0.0, math.pi)
    phase = rng.uniform(0.0, 1.0, size=2)
    spread = rng.uniform(0.0, 1.0)
    y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float64)
    along = math.cos(angle) * x + math.sin(angle) * y
    across = math.cos(angle) * y - math.sin(angle) * x
    if look.texture == "striped":
        period = max(5.0, (0.36 + 0.16 * spread) * radius_px)
        amount = _soft_step(np.abs((along / period + phase[0]) % 1.0 - 0.5) - 0.28, period)
    elif look.texture == "dotted":
        pitch = max(6.0, (0.44 + 0.16 * spread) * radius_px)
        du = (along / pitch + phase[0]) % 1.0 - 0.5
        dv = (across / pitch + phase[1]) % 1.0 - 0.5
        amount = _soft_step(0.30 - np.sqrt(du * du + dv * dv), pitch)
    else:
        amount = np.zeros(size)
    grain = rng.normal(0.0, 0.015, size=(*size, 1))
    return first + amount[:, :, None] * (second - first) + grain


def _soft_step(signed: np.ndarray, period_px: float) -> np.ndarray:
    """0 to 1 over about one pixel around ``signed`` = 0 (in periods)."""
    return np.clip(signed * period_px + 0.5, 0.0, 1.0)
