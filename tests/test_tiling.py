"""Tiles: where they lie, that seams neither double nor cut, and that small objects are found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import zs_operators as zs
from zs_operators import provenance, tiling
from zs_operators.boxes import suppress_overlaps
from zs_operators.detect_options import DetectOptions
from zs_operators.detections import DetectItem
from zs_operators.detector import ZeroShotDetector
from zs_operators.errors import InvalidInputError
from zs_operators.images import UprightImage
from zs_operators.proposals import Proposals, load_proposer
from zs_operators.shapes.evaluate_proposals import pair_iou
from zs_operators.shapes.large_scenes import SMALL_CELL_PX, make_large_scene
from zs_operators.shapes.world import CLASSES
from zs_operators.vocabulary import Vocabulary

TILE, OVERLAP = 320, 0.2
SIDE = 832  # 3 x 3 tiles


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def proposer():
    return load_proposer("shapes-tiny", device="cpu")


@pytest.fixture(scope="module")
def scene():
    return make_large_scene(3, side_px=SIDE, num_small=24, num_large=0)


@pytest.fixture(scope="module")
def detector(clip, proposer):
    def make(**options):
        return ZeroShotDetector(
            clip,
            Vocabulary.parse(list(CLASSES)),
            DetectOptions(min_confidence=0.5, max_regions=100, **options),
            proposer=proposer,
        )

    return make


@pytest.fixture(scope="module")
def tiled(detector):
    return detector(tile_size_px=TILE, tile_overlap=OVERLAP)


def look(detector, pixels):
    height, width = pixels.shape[:2]
    return detector.predict([DetectItem(UprightImage(pixels, width, height))])[0].detections


def boxes_of(detections):
    return np.array([one.box_px for one in detections], np.float32).reshape(-1, 4)


# ---- where tiles lie ----

sides = st.integers(1, 3000)
sizes = st.integers(tiling.MIN_TILE_PX, 900)
overlaps = st.floats(0, tiling.MAX_OVERLAP)


@settings(deadline=None, max_examples=60)
@given(sides, sides, sizes, overlaps)
def test_tiles_cover_the_image_and_lie_inside(width, height, size, overlap):
    tiles = tiling.make_tiles(width, height, size, overlap)
    covered = np.zeros((height, width), dtype=bool)
    for left, top, right, bottom in tiles:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert (right - left, bottom - top) == (min(size, width), min(size, height))
        covered[top:bottom, left:right] = True
    assert covered.all()
    assert len(set(tiles)) == len(tiles)
    assert (len(tiles) > 1) == tiling.is_tiled(width, height, size)


@settings(deadline=None)
@given(st.data(), sides, sides, sizes, overlaps)
def test_what_is_no_longer_than_the_overlap_is_whole_in_a_tile(data, width, height, size, overlap):
    corner, length = [], []
    for side in (width, height):
        shared = side if side <= size else int(size * overlap)
        length.append(data.draw(st.integers(0, min(shared, side))))
        corner.append(data.draw(st.integers(0, side - length[-1])))
    x, y = corner
    assert any(
        left <= x and x + length[0] <= right and top <= y and y + length[1] <= bottom
        for left, top, right, bottom in tiling.make_tiles(width, height, size, overlap)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile_size_px": 63}, "tile_size_px"),
        ({"tile_size_px": 640.0}, "tile_size_px"),
        ({"tile_size_px": True}, "tile_size_px"),
        ({"tile_overlap": 0.95}, "tile_overlap"),
        ({"tile_overlap": -0.1}, "tile_overlap"),
    ],
)
def test_what_cannot_be_tiled_with_is_refused(options, message):
    with pytest.raises(InvalidInputError, match=message):
        DetectOptions(**options)


def test_options_of_tiles_are_recorded_only_where_there_are_tiles():
    """Runs of earlier versions, whose signature has none, can go on."""
    assert not {"tile_size_px", "tile_overlap"} & DetectOptions().decisive().keys()
    with_tiles = DetectOptions(tile_size_px=640).decisive()
    assert (with_tiles["tile_size_px"], with_tiles["tile_overlap"]) == (640, 0.2)
    assert with_tiles["max_regions"] == 300


# ---- what seams cut ----

corners = st.floats(0, 80)
cut_boxes = st.lists(
    st.tuples(
        corners, corners, st.floats(1, 60), st.floats(1, 60), st.integers(0, 2), st.booleans(),
        st.sampled_from([0.2, 0.5, 0.8]),
    ),
    max_size=12,
)  # fmt: skip


def ios(a, b):
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return shared / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))


@settings(deadline=None)
@given(cut_boxes, st.sampled_from(["agnostic", "per_class", "none"]))
def test_a_cut_box_gives_way_as_the_docstring_says(given_boxes, overlap):
    boxes = [(x, y, x + w, y + h) for x, y, w, h, *_ in given_boxes]
    classes = [one[4] for one in given_boxes]
    cut = [one[5] for one in given_boxes]
    scores = [one[6] for one in given_boxes]
    stays = tiling.outlast_seams(
        torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4),
        torch.tensor(scores),
        torch.tensor(classes, dtype=torch.int64),
        torch.tensor(cut, dtype=torch.bool),
        overlap=overlap,
        threshold=0.5,
    )

    for i in range(len(boxes)):
        gives_way = False
        for j in range(len(boxes)):
            if not cut[i] or i == j or overlap == "none" or ios(boxes[i], boxes[j]) <= 0.5:
                continue
            same = classes[i] == classes[j]
            surer = (scores[j], -j) > (scores[i], -i)
            gives_way |= (same and not cut[j]) or (surer and (same or overlap == "agnostic"))
        assert bool(stays[i]) is not gives_way


class Bright:
    """Proposes the box around all bright pixels, as sure as its area is large."""

    reduce_to_px = 16

    def __init__(self):
        self.most = 0

    def budget(self):
        return None

    def propose(self, images, budget=None):
        self.most = max(self.most, len(images))
        return [self._one(image) for image in images]

    def _one(self, image):
        rows, columns = np.nonzero(np.asarray(image)[..., 0] > 128)
        if not len(rows):
            return Proposals(torch.zeros(0, 4), torch.zeros(0))
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return Proposals(torch.tensor([box]).float(), torch.tensor([len(rows) / 1e6]))


def propose(x1, y1, x2, y2, side=400):
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[y1:y2, x1:x2] = 255
    return tiling.propose_in_tiles(Bright(), pixels, size_px=150, overlap=0.2, max_regions=300)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 370), st.integers(0, 370), st.integers(1, 30), st.integers(1, 30))
def test_a_small_object_is_one_whole_region_wherever_it_lies(x, y, width, height):
    """30 px is what neighbouring tiles share."""
    found = propose(x, y, x + width, y + height)
    whole = (found.boxes_px == torch.tensor([[x, y, x + width, y + height]]).float()).all(1)
    assert whole.sum() == 1
    # whatever else is left of it ends at a seam, so it gives way once it has a name
    assert found.is_cut[~whole].all()
    stays = tiling.outlast_seams(
        found.boxes_px,
        torch.rand(len(found)),
        torch.zeros(len(found), dtype=torch.int64),
        found.is_cut,
        overlap="agnostic",
        threshold=0.5,
    )
    kept = found.boxes_px[stays]
    assert len(suppress_overlaps(kept, torch.ones(len(kept)))) == 1


def test_a_large_object_is_found_whole_and_its_parts_are_known_as_such():
    found = propose(40, 60, 320, 360)
    whole = (found.boxes_px == torch.tensor([[40.0, 60, 320, 360]])).all(1)
    assert whole.sum() == 1
    assert len(found) > 4
    assert found.is_cut[~whole].all()
    assert not found.is_cut[whole].any()


def test_memory_does_not_grow_with_the_number_of_tiles():
    proposer = Bright()
    pixels = np.zeros((2000, 2000, 3), np.uint8)
    found = tiling.propose_in_tiles(proposer, pixels, size_px=100, overlap=0.2, max_regions=5)
    assert len(found.tiles) > 600
    assert proposer.most <= 16


# ---- real models ----


def test_small_objects_are_found_in_tiles_once_each_and_not_without(detector, tiled, scene):
    found = look(tiled, scene.image)
    overlap = pair_iou(scene.boxes_px, boxes_of(found))
    named = [found[j].label for j in overlap.argmax(axis=1)]

    assert (overlap > 0.5).sum(axis=1).tolist() == [1] * len(scene.labels)
    assert len(found) == len(scene.labels)
    assert np.mean([a == b for a, b in zip(named, scene.labels, strict=True)]) > 0.9
    assert len({one.region_index for one in found}) == len(found)
    without = pair_iou(scene.boxes_px, boxes_of(look(detector(), scene.image)))
    assert (without.max(axis=1, initial=0) > 0.5).mean() < 0.5


def test_an_object_in_one_tile_alone_is_found_as_in_that_crop(detector, tiled, scene):
    found, plain = look(tiled, scene.image), detector()
    tiles = tiling.make_tiles(SIDE, SIDE, TILE, OVERLAP)
    compared = 0
    for left, top, right, bottom in tiles:
        in_crop = look(plain, scene.image[top:bottom, left:right].copy())
        for one in in_crop:
            box = np.add(one.box_px, (left, top, left, top))
            touching = [t for t in tiles if pair_iou(box[None], np.array([t]))[0, 0] > 0]
            if len(touching) > 1 or one.box_px[0] < 10 or one.box_px[1] < 10:
                continue
            same = found[int(np.abs(boxes_of(found) - box).max(axis=1).argmin())]
            assert same.box_px == pytest.approx(tuple(box), abs=1e-2)
            assert same.label == one.label
            assert same.confidence == pytest.approx(one.confidence, abs=1e-4)
            assert same.cosine == pytest.approx(one.cosine, abs=1e-4)
            compared += 1
    assert compared >= 5


def test_an_object_larger_than_a_tile_is_not_cut(tiled, detector):
    scene = make_large_scene(5, side_px=1024, num_small=0, num_large=1)
    found = look(tiled, scene.image)
    whole = [one for one in found if pair_iou(scene.boxes_px, boxes_of([one]))[0, 0] > 0.8]
    assert len(whole) == 1
    assert whole[0].label == scene.labels[0]
    assert whole[0].box_px == pytest.approx(look(detector(), scene.image)[0].box_px, abs=1e-2)
    same = [one for one in found if one.label == scene.labels[0]]
    assert same == whole


def test_an_image_no_larger_than_a_tile_is_not_tiled(detector, tiled, scene):
    small = scene.image[:TILE, :TILE].copy()
    assert look(tiled, small) == look(detector(), small)


# ---- as a run ----


@pytest.fixture
def large(dataset, scene, tmp_path):
    import fiftyone as fo

    # a JPEG that would be decoded smaller for the networks alone
    Image.fromarray(scene.image).save(tmp_path / "large.jpg", quality=95)
    Image.fromarray(scene.image[:300, :300]).save(tmp_path / "small.jpg", quality=95)
    names = ("large.jpg", "small.jpg")
    dataset.add_samples([fo.Sample(filepath=str(tmp_path / name)) for name in names])
    return dataset


def test_a_run_with_tiles_is_recorded_stored_and_repeated(large, clip, proposer, scene):
    options = {
        "model": clip,
        "proposals": proposer,
        "min_confidence": 0.3,
        "max_regions": 40,
        "embeddings": "reuse",
        "progress": False,
    }
    zs.detect(large, list(CLASSES), label_field="tiled", tile_size_px=TILE, **options)
    found = large.first().tiled.detections
    boxes = np.array([one.bounding_box for one in found], np.float32) * SIDE
    boxes[:, 2:] += boxes[:, :2]
    assert (pair_iou(scene.boxes_px, boxes).max(axis=1) > 0.5).all()
    record = provenance.find(large, "detect", "tiled")
    assert record["options"]["tile_size_px"] == TILE
    assert record["options"]["tile_overlap"] == 0.2

    # with other names from the store, and the same with seams still known
    again = zs.detect(large, list(CLASSES), label_field="again", tile_size_px=TILE, **options)
    assert again.reused == 2
    for a, b in zip(large.values("tiled"), large.values("again"), strict=True):
        assert [one.label for one in a.detections] == [one.label for one in b.detections]
        assert [one.region_index for one in a.detections] == [
            one.region_index for one in b.detections
        ]
    # another size of tiles is another thing to store
    other = zs.detect(large, list(CLASSES), label_field="other", tile_size_px=400, **options)
    assert other.reused == 0


def test_masks_of_what_was_found_in_tiles(large, clip, proposer, scene):
    zs.segment(
        large.limit(1),
        prompts="proposals",
        classes=list(CLASSES),
        model="shapes-tiny",
        clip=clip,
        proposals=proposer,
        min_confidence=0.3,
        max_regions=40,
        tile_size_px=TILE,
        progress=False,
    )
    assert len(large.first().zs_masks.detections) >= 0.8 * len(scene.labels)


def test_large_scenes_are_the_same_everywhere_and_refuse_too_many_objects():
    a, b = (make_large_scene(1, side_px=256, num_small=4, num_large=0) for _ in range(2))
    assert (a.image == b.image).all()
    assert a.labels == b.labels
    sizes = a.boxes_px[:, 2:] - a.boxes_px[:, :2]
    assert (sizes > 16).all()
    assert (sizes <= SMALL_CELL_PX).all()
    with pytest.raises(InvalidInputError, match="do not fit"):
        make_large_scene(1, side_px=256, num_small=17, num_large=0)
    with pytest.raises(InvalidInputError, match="do not fit"):
        make_large_scene(1, side_px=256, num_small=0, num_large=1)
