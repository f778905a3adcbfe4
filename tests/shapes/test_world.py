"""The synthetic world: the same scene everywhere, and labels that are true of its pixels."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from zs_operators.errors import InvalidInputError
from zs_operators.shapes.drawing import SHAPES, TEXTURES, Look, compose
from zs_operators.shapes.world import (
    CLASSES,
    COLOR_RANGES,
    COLORS,
    SEEN,
    UNSEEN,
    is_held_out,
    make_scene,
)


def _digest(seed: int) -> str:
    return hashlib.sha256(make_scene(seed).image.tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("seed", "digest"),
    [(0, "b38374ec80354be7"), (7, "ed3e385c6c4d4ff9"), (900_000_000, "0e76a33feea23ab3")],
)
def test_a_seed_always_gives_the_same_pixels(seed, digest):
    assert _digest(seed) == digest


def test_the_whole_scene_is_deterministic():
    first, second = make_scene(11), make_scene(11)
    assert first.caption == second.caption
    assert [o.label for o in first.objects] == [o.label for o in second.objects]
    assert all(
        np.array_equal(a.mask, b.mask) for a, b in zip(first.objects, second.objects, strict=True)
    )


def test_global_random_state_is_neither_read_nor_written():
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    digest = _digest(3)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    assert _digest(3) == digest


def test_the_hold_out_rule():
    assert len(CLASSES) == 64
    assert len(SEEN) == 48
    assert len(UNSEEN) == 16
    assert set(SEEN) | set(UNSEEN) == set(CLASSES)
    for color in COLORS:
        assert sum(is_held_out(color, shape) for shape in SHAPES) == 2
    for shape in SHAPES:
        assert sum(is_held_out(color, shape) for color in COLORS) == 2


@pytest.mark.parametrize("num_objects", [0, 1, 2, 6, 8])
def test_exactly_as_many_objects_as_asked(num_objects):
    for seed in range(5):
        assert len(make_scene(seed, num_objects=num_objects).objects) == num_objects


def test_boxes_masks_and_names_agree():
    for seed in range(40):
        scene = make_scene(seed)
        height, width = scene.image.shape[:2]
        assert scene.image.dtype == np.uint8
        assert 160 <= width <= 320
        assert 160 <= height <= 240
        assert 1 <= len(scene.objects) <= 6
        assert not np.sum([o.mask for o in scene.objects], axis=0).max() > 1
        for item in scene.objects:
            assert item.label == f"{item.color} {item.shape}"
            assert item.texture in TEXTURES
            assert item.mask.shape == (height, width)
            x1, y1, x2, y2 = map(int, item.box_px)
            assert item.mask[y1:y2, x1:x2].sum() == item.mask.sum()
            edges = (
                item.mask[y1],
                item.mask[y2 - 1],
                item.mask[:, x1],
                item.mask[:, x2 - 1],
            )
            assert all(edge.any() for edge in edges)


def test_every_object_stays_three_quarters_visible():
    tones = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (1, 0, 1), (1, 1, 1)]
    looks = [Look(SHAPES[k], "solid", tone, (0, 0, 0)) for k, tone in enumerate(tones)]
    covered = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        drawing = compose(rng, looks, width=160, height=160, background=np.zeros((160, 160, 3)))
        for index, full_area_px in enumerate(drawing.full_area_px):
            visible_px = int((drawing.owner == index).sum())
            covered += visible_px < full_area_px
            assert visible_px >= 0.75 * full_area_px
    assert covered > 10, "objects never overlap, so this test shows nothing"


def test_colours_are_what_they_are_called():
    reference = {
        "red": (230, 20, 20),
        "orange": (240, 125, 20),
        "yellow": (240, 225, 25),
        "green": (20, 185, 35),
        "cyan": (20, 215, 230),
        "blue": (30, 70, 225),
        "purple": (135, 35, 190),
        "white": (250, 250, 250),
    }
    assert set(reference) == set(COLOR_RANGES) == set(COLORS)
    for seed in range(40):
        scene = make_scene(seed)
        for item in scene.objects:
            if item.texture != "solid":
                continue
            median = np.median(scene.image[item.mask], axis=0)
            nearest = min(COLORS, key=lambda name: np.linalg.norm(median - reference[name]))
            assert nearest == item.color


def test_the_caption_names_every_object():
    scene = make_scene(4, num_objects=3)
    for item in scene.objects:
        assert item.label in scene.caption
    assert make_scene(4, num_objects=0).caption == "an empty background"


def test_classes_restrict_what_is_drawn():
    for seed in range(10):
        labels = {o.label for o in make_scene(seed, classes=["white star", "red ring"]).objects}
        assert labels <= {"white star", "red ring"}


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_objects": 9},
        {"num_objects": -1},
        {"num_objects": (3, 2)},
        {"classes": []},
        {"classes": "red circle"},
        {"classes": ["red dog"]},
        {"seed": -1},
        {"seed": 1.5},
        {"seed": "7"},
    ],
)
def test_impossible_requests_are_named(arguments):
    with pytest.raises(InvalidInputError):
        make_scene(arguments.pop("seed", 0), **arguments)


def test_importing_the_world_does_not_import_torch():
    code = "import sys, zs_operators.shapes.world; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
