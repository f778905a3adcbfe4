"""Masks computed in their window only equal those of segment_anything at full size."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from segment_anything.modeling import Sam
from segment_anything.utils.amg import calculate_stability_score, remove_small_regions

from zs_operators import masks
from zs_operators.masks import Mask, MaskResizer, clean, snap_outward, tighten

LOW, SIZE = 32, 128
SIZES = [(640, 480), (90, 123), (128, 128), (1000, 7), (1, 50), (1, 1), (37, 1000), (20, 15)]


def frame_of(width, height, size=SIZE):
    scale = size / max(width, height)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def blobs(count, low=LOW, seed=0):
    """Smooth logits with regions of every size, from -8 to 8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 1, 5, 5, generator=generator)
    smooth = F.interpolate(coarse, (low, low), mode="bicubic", align_corners=False)[:, 0]
    fine = torch.randn(count, low, low, generator=generator)
    return 4 * smooth + 0.3 * fine


def library_logits(logits, width, height, size=SIZE):
    """(P, H, W) of Sam's own two resizes."""
    sam = SimpleNamespace(image_encoder=SimpleNamespace(img_size=size))
    return Sam.postprocess_masks(
        sam, logits[:, None], frame_of(width, height, size), (height, width)
    )[:, 0]


def resizer(width, height, low=LOW, size=SIZE, **options):
    return MaskResizer((low, low), size, frame_of(width, height, size), width, height, **options)


def pasted(mask, width, height):
    full = np.zeros((height, width), dtype=bool)
    x1, y1, x2, y2 = mask.box_px
    full[y1:y2, x1:x2] = mask.pixels
    return full


def assert_same(mine, logits, limit=1e-4):
    """Equal wherever the library's logits are not within rounding of the threshold."""
    certain = (logits.abs() > limit).numpy()
    np.testing.assert_array_equal(mine[certain], (logits > 0).numpy()[certain])
    assert certain.mean() > 0.99


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_masks_are_those_of_the_library(width, height):
    logits = blobs(12)
    expected = library_logits(logits, width, height)
    stability = calculate_stability_score(expected, 0.0, 1.0)
    found = list(resizer(width, height).resize(logits))
    assert len(found) == 12
    for mask, full, stable in zip(found, expected, stability, strict=True):
        assert_same(pasted(mask, width, height), full)
        assert mask.area_px == np.count_nonzero(mask.pixels)
        if mask.area_px:
            rows, columns = np.nonzero(pasted(mask, width, height))
            tight = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert mask.box_px == tight
            assert mask.stability == pytest.approx(float(stable), abs=2e-3)


@pytest.mark.parametrize("low", [16, 64, 256])
def test_side_of_the_decoder_is_read_from_the_logits(low):
    logits = blobs(4, low)
    expected = library_logits(logits, 300, 200, 4 * low)
    for mask, full in zip(resizer(300, 200, low, 4 * low).resize(logits), expected, strict=True):
        assert_same(pasted(mask, 300, 200), full)


def test_masks_within_a_box_equal_the_full_ones_there():
    width, height = 333, 211
    logits = blobs(6, seed=3)
    boxes = [(0, 0, 333, 211), (5, 9, 6, 10), (100, 50, 260, 200), (300, 0, 333, 80),
             (0, 210, 333, 211), (17, 3, 200, 9)]  # fmt: skip
    expected = library_logits(logits, width, height)
    found = resizer(width, height).resize(logits, boxes)
    for mask, full, (x1, y1, x2, y2) in zip(found, expected, boxes, strict=True):
        assert mask.box_px == (x1, y1, x2, y2)
        inside = full[y1:y2, x1:x2]
        assert mask.pixels.shape == inside.shape
        certain = (inside.abs() > 1e-4).numpy()
        np.testing.assert_array_equal(mask.pixels[certain], (inside > 0).numpy()[certain])
        assert mask.area_px == np.count_nonzero(mask.pixels)


def test_large_masks_are_resized_in_stripes(monkeypatch):
    logits = blobs(2, seed=8)
    whole = [pasted(mask, 500, 400) for mask in resizer(500, 400).resize(logits)]
    monkeypatch.setattr(masks, "_STRIPE_PIXELS", 1234)
    stripes = list(resizer(500, 400).resize(logits))
    for one, mask in zip(whole, stripes, strict=True):
        np.testing.assert_array_equal(one, pasted(mask, 500, 400))
        assert mask.area_px == one.sum()


@pytest.mark.parametrize("value", [-5.0, float("nan"), float("-inf")])
def test_logits_of_nothing_give_an_empty_mask(value):
    (mask,) = resizer(50, 40).resize(torch.full((1, LOW, LOW), value))
    assert mask == Mask(mask.pixels, (0, 0, 0, 0), 0, 0.0)
    assert mask.pixels.shape == (0, 0)
    (mask,) = resizer(50, 40).resize(torch.full((1, LOW, LOW), value), [(3, 4, 10, 12)])
    assert (mask.box_px, mask.area_px, mask.stability) == ((3, 4, 10, 12), 0, 0.0)
    assert mask.pixels.shape == (8, 7)


def test_logits_everywhere_give_the_whole_image():
    (mask,) = resizer(50, 40).resize(torch.full((1, LOW, LOW), 9.0))
    assert (mask.box_px, mask.area_px, mask.stability) == ((0, 0, 50, 40), 2000, 1.0)


def test_stability_is_below_one_where_the_edge_is_soft():
    (mask,) = resizer(64, 64).resize(torch.linspace(-3, 3, LOW).expand(1, LOW, LOW))
    assert 0.4 < mask.stability < 0.6


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((1.2, 3.9, 5.0, 6.1), (1, 3, 5, 7)),
        ((-4, -4, 100, 100), (0, 0, 20, 10)),
        ((19.5, 9.5, 19.6, 9.7), (19, 9, 20, 10)),
    ],
)
def test_snap_outward(box, expected):
    assert snap_outward(box, 20, 10) == expected


# ---- holes and islands ----


@st.composite
def pictures(draw):
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    seed = draw(st.integers(0, 2**32 - 1))
    share = draw(st.floats(0.05, 0.95))
    return np.random.default_rng(seed).random((height, width)) < share


def sizes_of(picture):
    regions, count = ndimage.label(picture, structure=np.ones((3, 3)))
    return [int((regions == one).sum()) for one in range(1, count + 1)]


def is_one_region(picture):
    return len(sizes_of(picture)) == 1


def is_tie(picture, islands):
    """Whether no island is large enough to stay, and several are the largest."""
    sizes = sizes_of(picture)
    return max(sizes) < islands and sizes.count(max(sizes)) > 1


@settings(max_examples=150, deadline=None)
@example(np.array([[0] * 7 + [1], [0, 0, 1] + [0] * 5], dtype=bool), 0, 2)
@given(pictures(), st.integers(0, 12), st.integers(0, 12))
def test_cleaning_equals_the_library_on_whole_images(picture, holes, islands):
    height, width = picture.shape
    mask = Mask(picture, (0, 0, width, height), int(picture.sum()), 0.5)
    found = clean(mask, width, height, fill_holes_px=holes, drop_islands_px=islands)
    expected = picture
    if picture.any():
        filled, _ = remove_small_regions(expected, holes, mode="holes")
        expected, _ = remove_small_regions(filled, islands, mode="islands")
        if is_tie(filled, islands):  # any of the largest may be the one that stays
            assert is_one_region(found.pixels)
            assert not (found.pixels & ~filled).any()
            expected = found.pixels if found.area_px == expected.sum() else expected
    np.testing.assert_array_equal(found.pixels, expected)
    assert found.area_px == expected.sum()


@settings(max_examples=150, deadline=None)
@given(pictures(), st.integers(0, 12), st.integers(0, 12))
def test_cleaning_a_window_equals_cleaning_the_image(picture, holes, islands):
    """Around the window is so much background that no library would take it for a hole."""
    height, width = picture.shape
    full = np.pad(picture, [(4, 9), (7, 5)])
    mask = tighten(Mask(picture, (7, 4, 7 + width, 4 + height), int(picture.sum()), 0.5))
    found = clean(mask, full.shape[1], full.shape[0], fill_holes_px=holes, drop_islands_px=islands)
    expected = full
    if picture.any():
        expected, _ = remove_small_regions(expected, holes, mode="holes")
        expected, _ = remove_small_regions(expected, islands, mode="islands")
    np.testing.assert_array_equal(pasted(found, *full.shape[::-1]), expected)


def test_what_is_around_a_mask_is_no_hole():
    picture = np.ones((6, 8), dtype=bool)
    picture[0, 0] = False
    mask = Mask(picture, (1, 1, 9, 7), 47, 1.0)
    assert clean(mask, 10, 8, fill_holes_px=500).area_px == 47
    # the same pixels at the corner of the image are enclosed by its edge
    mask = Mask(picture, (0, 0, 8, 6), 47, 1.0)
    assert clean(mask, 10, 8, fill_holes_px=500).area_px == 48
