"""Boxes: frames, validity, fusion and suppression, against brute force and torchvision."""

from __future__ import annotations

import math

import pytest
import torch
from eta.core.geometry import BoundingBox
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms, nms

from zs_operators import boxes as B
from zs_operators.errors import InvalidInputError

NAN, INF = math.nan, math.inf


def random_boxes(count: int, seed: int = 0, size: float = 100.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * size * 0.7
    return torch.cat([corners, corners + torch.rand(count, 2, generator=generator) * size * 0.3], 1)


def random_scores(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)) / count


# ---- frames ----


@settings(max_examples=50, deadline=None)
@given(
    width=st.integers(1, 20_000),
    height=st.integers(1, 20_000),
    box=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_relative_boxes_survive_the_way_to_pixels_and_back(width, height, box):
    x, y, w, h = box
    relative = torch.tensor([[x, y, w * (1 - x), h * (1 - y)]], dtype=torch.float64)
    pixels = B.xywh_rel_to_xyxy_px(relative, width, height)
    assert pixels.dtype == torch.float32
    back = B.xyxy_px_to_xywh_rel(pixels, width, height)
    torch.testing.assert_close(back, relative.float().double(), atol=1e-6, rtol=0)


def test_frames_agree_with_fiftyones_convention():
    # right half of a 200 x 100 image
    torch.testing.assert_close(
        B.xywh_rel_to_xyxy_px([[0.5, 0, 0.5, 1]], 200, 100), torch.tensor([[100.0, 0, 200, 100]])
    )


@pytest.mark.parametrize("empty", [[], torch.empty(0), torch.empty(0, 4)])
def test_no_boxes_are_of_shape_0_4(empty):
    assert B.as_boxes(empty).shape == (0, 4)
    assert B.xyxy_px_to_xywh_rel(empty, 10, 10).shape == (0, 4)


@pytest.mark.parametrize("bad", [[1, 2, 3, 4], [[1, 2, 3]], [["a", 0, 0, 0]], torch.empty(0, 3, 4)])
def test_what_is_not_n_by_4_is_refused(bad):
    with pytest.raises(InvalidInputError, match=r"boxes must be"):
        B.as_boxes(bad)


def test_an_image_without_pixels_is_refused():
    with pytest.raises(InvalidInputError, match="0 x 10"):
        B.select_usable([[0, 0, 1, 1]], 0, 10)


# ---- validity ----

CASES = [
    # box in a 100 x 50 image, what it becomes or why it is refused
    ([10, 10, 20, 20], [10, 10, 20, 20]),
    ([-5, -5, 20, 20], [0, 0, 20, 20]),
    ([-1e9, -1e9, 1e9, 1e9], [0, 0, 100, 50]),
    ([99.5, 49.5, 300, 300], [99.5, 49.5, 100, 50]),
    ([10, 10, 10.01, 10.01], [10, 10, 10.01, 10.01]),
    ([10, 10, 10, 20], B.TOO_SMALL),
    ([10, 10, 20, 10], B.TOO_SMALL),
    ([10, 10, 10, 10], B.TOO_SMALL),
    ([20, 10, 10, 20], B.INVERTED),
    ([10, 20, 20, 10], B.INVERTED),
    ([100, 0, 120, 10], B.OUTSIDE),
    ([-20, 0, 0, 10], B.OUTSIDE),
    ([0, 60, 10, 70], B.OUTSIDE),
    ([NAN, 0, 10, 10], B.NOT_FINITE),
    ([0, 0, INF, 10], B.NOT_FINITE),
    ([-INF, 0, 10, 10], B.NOT_FINITE),
    ([NAN, NAN, NAN, NAN], B.NOT_FINITE),
]


def test_each_box_is_clipped_or_refused_with_its_position():
    usable = B.select_usable([box for box, _ in CASES], 100, 50)
    good = [i for i, (_, outcome) in enumerate(CASES) if not isinstance(outcome, str)]
    assert usable.index.tolist() == good
    torch.testing.assert_close(
        usable.boxes_px, torch.tensor([CASES[i][1] for i in good], dtype=torch.float32)
    )
    assert usable.refused == {
        i: outcome for i, (_, outcome) in enumerate(CASES) if isinstance(outcome, str)
    }


def test_min_size_is_measured_after_clipping():
    usable = B.select_usable([[-10, 0, 3, 10], [0, 0, 4, 4]], 100, 100, min_size_px=4)
    assert usable.index.tolist() == [1]
    assert usable.refused == {0: B.TOO_SMALL}


# ---- fusion ----


def test_weight_0_is_the_probability_and_1_the_objectness():
    p, o = torch.rand(100), torch.rand(100)
    assert torch.equal(B.fuse_scores(p, o, 0.0), p)
    assert torch.equal(B.fuse_scores(p, o, 1.0), o)
    assert B.fuse_scores(torch.tensor(0.3), torch.tensor(0.0), 0.0) == torch.tensor(0.3)


@settings(max_examples=100, deadline=None)
@given(p=st.floats(allow_nan=True), o=st.floats(allow_nan=True), weight=st.floats(0, 1))
def test_fused_scores_are_in_0_1_whatever_comes_in(p, o, weight):
    fused = float(B.fuse_scores(torch.tensor(p), torch.tensor(o), weight))
    assert 0 <= fused <= 1


def test_fusion_is_monotone_in_both():
    steps = torch.linspace(0, 1, 50)
    for weight in (0.1, 0.5, 0.9):
        grid = B.fuse_scores(steps[:, None], steps[None, :], weight)
        assert (grid.diff(dim=0) >= 0).all()
        assert (grid.diff(dim=1) >= 0).all()
        assert grid[-1, -1] == 1


@pytest.mark.parametrize("weight", [-0.1, 1.1, NAN])
def test_a_weight_outside_0_1_is_refused(weight):
    with pytest.raises(InvalidInputError, match="objectness_weight"):
        B.fuse_scores(torch.tensor(0.5), torch.tensor(0.5), weight)


# ---- overlap ----


def overlap(first, second, metric):
    x1, y1 = max(first[0], second[0]), max(first[1], second[1])
    x2, y2 = min(first[2], second[2]), min(first[3], second[3])
    shared = max(0.0, x2 - x1) * max(0.0, y2 - y1)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (min(areas) if metric == "ios" else sum(areas) - shared)


def brute_force(boxes, scores, classes, metric, threshold):
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        rivals = [j for j in kept if classes is None or classes[i] == classes[j]]
        if all(overlap(boxes[i], boxes[j], metric) <= threshold for j in rivals):
            kept.append(i)
    return kept


@pytest.mark.parametrize("metric", ["iou", "ios"])
@pytest.mark.parametrize("mode", ["agnostic", "per_class"])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
def test_suppression_equals_brute_force(metric, mode, threshold):
    boxes, scores = random_boxes(120), random_scores(120)
    classes = torch.arange(120) % 3
    kept = B.suppress_overlaps(
        boxes, scores, classes, overlap=mode, metric=metric, threshold=threshold
    )
    expected = brute_force(
        boxes.double().tolist(),
        scores.tolist(),
        classes.tolist() if mode == "per_class" else None,
        metric,
        threshold,
    )
    assert kept.tolist() == expected


def test_iou_equals_torchvision():
    boxes, scores = random_boxes(500), random_scores(500)
    classes = torch.arange(500) % 7
    assert B.suppress_overlaps(boxes, scores).tolist() == nms(boxes, scores, 0.5).tolist()
    assert (
        B.suppress_overlaps(boxes, scores, classes, overlap="per_class").tolist()
        == batched_nms(boxes, scores, classes, 0.5).tolist()
    )


@pytest.mark.parametrize("metric", ["iou", "ios"])
def test_suppressing_twice_changes_nothing(metric):
    boxes, scores = random_boxes(200), random_scores(200)
    once = B.suppress_overlaps(boxes, scores, metric=metric)
    again = B.suppress_overlaps(boxes[once], scores[once], metric=metric)
    assert again.tolist() == list(range(len(once)))


def test_a_part_inside_a_whole_goes_by_ios_only():
    boxes = torch.tensor([[0.0, 0, 100, 100], [10, 10, 30, 30]])
    scores = torch.tensor([0.9, 0.8])
    assert B.suppress_overlaps(boxes, scores, metric="iou").tolist() == [0, 1]
    assert B.suppress_overlaps(boxes, scores, metric="ios").tolist() == [0]


def test_none_only_sorts_and_limits():
    boxes = torch.zeros(4, 4)
    scores = torch.tensor([0.1, 0.4, 0.4, 0.3])
    assert B.suppress_overlaps(boxes, scores, overlap="none").tolist() == [1, 2, 3, 0]
    assert B.suppress_overlaps(boxes, scores, overlap="none", limit=2).tolist() == [1, 2]


@pytest.mark.parametrize("metric", ["iou", "ios"])
def test_of_equal_scores_the_first_stays(metric):
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 5)
    assert B.suppress_overlaps(boxes, torch.full((5,), 0.5), metric=metric).tolist() == [0]


@pytest.mark.parametrize("metric", ["iou", "ios"])
def test_boxes_without_area_do_no_harm(metric):
    boxes = torch.tensor([[5.0, 5, 5, 5], [0, 0, 10, 10], [5, 5, 5, 5]])
    kept = B.suppress_overlaps(boxes, torch.tensor([0.9, 0.8, 0.7]), metric=metric)
    assert 1 in kept.tolist()


@pytest.mark.parametrize("mode", B.OVERLAPS)
def test_nothing_in_nothing_out(mode):
    empty = torch.empty(0, dtype=torch.int64)
    kept = B.suppress_overlaps(torch.empty(0, 4), torch.empty(0), empty, overlap=mode)
    assert kept.shape == (0,)


@pytest.mark.parametrize("wrong", [{"overlap": "some"}, {"metric": "giou"}])
def test_unknown_names_are_refused(wrong):
    with pytest.raises(InvalidInputError, match="must be one of"):
        B.suppress_overlaps(random_boxes(2), random_scores(2), **wrong)


def test_per_class_needs_classes():
    with pytest.raises(InvalidInputError, match="class of each box"):
        B.suppress_overlaps(random_boxes(2), random_scores(2), overlap="per_class")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whole_pixels_survive_truncation(data):
    """As eta, FiftyOne's core, finds a mask's pixels: ``int(w * 1.0 * x)`` of both corners."""
    size = data.draw(st.tuples(*[st.integers(1, 20_000)] * 2))
    box = []
    for side in size:
        start = data.draw(st.integers(0, side - 1))
        box.append((start, data.draw(st.integers(start + 1, side))))
    (x1, x2), (y1, y2) = box
    x, y, w, h = B.whole_px_to_rel((x1, y1, x2, y2), *size)
    corners = BoundingBox.from_coords(x, y, x + w, y + h)
    assert corners.coords_in(frame_size=size) == (x1, y1, x2 - x1, y2 - y1)
    assert (x * size[0], w * size[0]) == pytest.approx((x1, x2 - x1), abs=1e-9)
    assert (y * size[1], h * size[1]) == pytest.approx((y1, y2 - y1), abs=1e-9)
