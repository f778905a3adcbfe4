"""Everything: the masks of segment_anything's SamAutomaticMaskGenerator, in bounded memory."""

from __future__ import annotations

import copy
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image
from segment_anything import SamAutomaticMaskGenerator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zs_operators.errors import InvalidInputError
from zs_operators.everything import EverythingOptions, count_work, find_everything
from zs_operators.images import UprightImage
from zs_operators.sam import SamModel, load_sam
from zs_operators.shapes.world import make_scene

# the small Sam is less sure of itself than Meta's, for whom the defaults are
LIMITS = {"min_iou": 0.65, "min_stability": 0.8}
LOOSE = {"min_iou": 0.0, "min_stability": 0.0}
NAMES = {
    "min_iou": "pred_iou_thresh",
    "min_stability": "stability_score_thresh",
    "stability_offset": "stability_score_offset",
    "box_nms_threshold": "box_nms_thresh",
    "crop_nms_threshold": "crop_nms_thresh",
    "crop_overlap": "crop_overlap_ratio",
    "crop_n_points_downscale": "crop_n_points_downscale_factor",
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def sam() -> SamModel:
    return load_sam("shapes-tiny", precision="fp32")


@pytest.fixture(scope="module")
def confident() -> SamModel:
    """Says of most masks that their IoU is above 1, as Meta's Sam does of many."""
    model = load_sam("shapes-tiny", precision="fp32")
    with torch.no_grad():
        model.module.mask_decoder.iou_prediction_head.layers[-1].bias += 0.5
    return model


def grid(sam, image, embedding=None, **options):
    return find_everything(sam, image, embedding, EverythingOptions(**options))


def library_masks(sam, image, **options):
    """What SamAutomaticMaskGenerator finds, most confident first."""
    renamed = {NAMES.get(name, name): value for name, value in options.items()}
    found = SamAutomaticMaskGenerator(sam.module, **renamed).generate(image)
    return sorted(found, key=lambda one: -one["predicted_iou"])


def full(one, image):
    pixels = np.zeros(image.shape[:2], dtype=bool)
    x1, y1, x2, y2 = one.mask.box_px
    pixels[y1:y2, x1:x2] = one.mask.pixels
    return pixels


def assert_same(found, expected, image):
    assert len(found) == len(expected) > 0
    for mine, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(full(mine, image), other["segmentation"])
        assert mine.raw_iou == pytest.approx(other["predicted_iou"], abs=1e-5)
        assert mine.mask.stability == pytest.approx(other["stability_score"], abs=1e-6)
        assert mine.mask.area_px == other["area"]
        assert mine.point_px == pytest.approx(other["point_coords"][0])
        x1, y1, x2, y2 = mine.crop_box_px
        assert [x1, y1, x2 - x1, y2 - y1] == other["crop_box"]
        # the library's box ends on its last pixel
        x1, y1, x2, y2 = mine.mask.box_px
        assert [x1, y1, x2 - x1 - 1, y2 - y1 - 1] == other["bbox"]


@pytest.mark.parametrize("seed", [1000, 1002, 1005])
def test_masks_are_those_of_the_library(sam, seed):
    image = make_scene(seed).image
    options = {**LIMITS, "points_per_side": 10}
    assert_same(grid(sam, image, **options), library_masks(sam, image, **options), image)


@pytest.mark.parametrize(
    "more",
    [
        {"crop_n_points_downscale": 2},
        {"crop_overlap": 0.1, "crop_nms_threshold": 0.3, "crop_n_points_downscale": 2},
        {"crop_n_layers": 2, "crop_n_points_downscale": 2},
    ],
)
def test_masks_of_crops_are_those_of_the_library(sam, more):
    image = make_scene(1002).image
    options = {**LIMITS, "points_per_side": 8, "crop_n_layers": 1, **more}
    found = grid(sam, image, **options)
    assert_same(found, library_masks(sam, image, **options), image)
    height, width = image.shape[:2]
    assert any(one.crop_box_px != (0, 0, width, height) for one in found)


@pytest.mark.parametrize(
    "changed",
    [
        {"min_iou": 0.9},
        {"min_iou": 0.0, "min_stability": 0.95},
        {"min_stability": 0.95, "stability_offset": 0.3},
        {"box_nms_threshold": 0.05},
        {"box_nms_threshold": 1.0},
        {"points_per_side": 1},
    ],
)
def test_every_option_means_what_it_means_there(sam, changed):
    image = make_scene(1000).image
    options = {**LIMITS, "points_per_side": 6, **changed}
    found = grid(sam, image, **options)
    expected = library_masks(sam, image, **options)
    assert len(found) == len(expected)
    if expected:
        # duplicates of equal confidence have no order
        order = [tuple(one.point_px) for one in found]
        assert sorted(order) == sorted(tuple(one["point_coords"][0]) for one in expected)
        both = [sum(full(one, image).sum() for one in found)]
        assert both == [sum(one["area"] for one in expected)]
    assert len(found) != len(grid(sam, image, **LIMITS, points_per_side=6))


def test_of_masks_that_are_all_sure_the_surest_stays(confident):
    image = make_scene(1000).image
    options = {**LIMITS, "points_per_side": 8}
    found = grid(confident, image, **options)
    assert_same(found, library_masks(confident, image, **options), image)
    assert sum(one.raw_iou > 1 for one in found) > 1
    assert all(0 <= one.predicted_iou <= 1 for one in found)
    assert [one.raw_iou for one in found] == sorted((one.raw_iou for one in found), reverse=True)


def test_a_threshold_of_one_keeps_what_the_library_keeps(confident):
    image = make_scene(1000).image
    options = {"min_iou": 1.0, "min_stability": 0.8, "points_per_side": 6}
    assert_same(
        grid(confident, image, **options), library_masks(confident, image, **options), image
    )


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_chunks_change_nothing(sam, chunk):
    image = make_scene(1001).image
    options = {**LIMITS, "points_per_side": 6}
    other = SamModel(copy.deepcopy(sam.module), sam.plan, prompt_chunk=chunk)
    expected, found = grid(sam, image, **options), grid(other, image, **options)
    assert len(found) == len(expected) > 0
    for mine, before in zip(found, expected, strict=True):
        assert mine.mask.box_px == before.mask.box_px
        np.testing.assert_array_equal(mine.mask.pixels, before.mask.pixels)
        assert mine.raw_iou == pytest.approx(before.raw_iou, abs=1e-5)
        assert mine.point_px == before.point_px


def test_a_known_embedding_is_not_computed_again(sam, monkeypatch):
    image = make_scene(1001).image
    options = {**LIMITS, "points_per_side": 6}
    expected = grid(sam, image, **options)
    (embedding,) = sam.encode([sam.frame(image)])
    encode, sizes = sam.encode, []

    def counted(frames):
        sizes.extend((one.width_px, one.height_px) for one in frames)
        return encode(frames)

    monkeypatch.setattr(sam, "encode", counted)
    assert grid(sam, None, embedding, **options) == expected
    assert sizes == []
    grid(sam, image, embedding, **options, crop_n_layers=1)
    assert len(sizes) == 4
    assert all(size != image.shape[1::-1] for size in sizes)


def test_masks_of_an_image_that_was_reduced_are_at_its_full_size(sam):
    scene = make_scene(1000).image
    height, width = scene.shape[:2]
    large = np.array(Image.fromarray(scene).resize((width * 4, height * 4), Image.BICUBIC))
    options = {**LIMITS, "points_per_side": 6}
    found = grid(sam, UprightImage(scene, width * 4, height * 4), **options)
    whole = grid(sam, large, **options)
    assert {one.crop_box_px for one in found} == {(0, 0, width * 4, height * 4)}
    best, other = full(found[0], large), full(whole[0], large)
    assert (best & other).sum() / (best | other).sum() > 0.9


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (2, 3), (41, 37)])
@pytest.mark.parametrize("layers", [0, 1, 2])
def test_images_of_any_shape_work(sam, shape, layers):
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    options = {**LOOSE, "points_per_side": 3, "crop_n_layers": layers}
    found = grid(sam, image, **options)
    for one in found:
        x1, y1, x2, y2 = one.mask.box_px
        assert 0 <= x1 < x2 <= shape[1]
        assert 0 <= y1 < y2 <= shape[0]
        assert one.mask.pixels.shape == (y2 - y1, x2 - x1)
        assert one.mask.pixels.sum() == one.mask.area_px > 0
    crops, prompts = count_work(EverythingOptions(**options), shape[1], shape[0])
    assert 1 <= crops <= 1 + 4 * (layers > 0) + 16 * (layers > 1)
    assert prompts == crops * 9


def test_an_image_of_nothing_has_no_masks(sam):
    image = np.full((200, 240, 3), 120, dtype=np.uint8)
    assert grid(sam, image, **LIMITS, points_per_side=6) == []
    assert grid(sam, image, **LIMITS, points_per_side=3, crop_n_layers=1) == []


def test_most_objects_of_a_scene_have_a_mask(sam):
    found, objects = 0, 0
    for seed in range(700, 708):
        scene = make_scene(seed)
        masks = [
            full(one, scene.image) for one in grid(sam, scene.image, **LIMITS, points_per_side=12)
        ]
        for item in scene.objects:
            best = max(((m & item.mask).sum() / (m | item.mask).sum() for m in masks), default=0)
            found += best > 0.75
            objects += 1
    assert objects > 15
    assert found / objects > 0.7


def test_work_is_known_before(sam):
    assert count_work(EverythingOptions(), 640, 480) == (1, 1024)
    options = EverythingOptions(crop_n_layers=2, crop_n_points_downscale=2)
    assert count_work(options, 640, 480) == (21, 1024 + 4 * 256 + 16 * 64)
    options = EverythingOptions(points_per_side=3, crop_n_layers=2, crop_n_points_downscale=2)
    assert count_work(options, 640, 480) == (21, 9 + 4 * 1 + 16 * 1)


class _Largest(TorchDispatchMode):
    """The largest tensor that any operation makes, in bytes."""

    bytes = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, torch.Tensor):
                self.bytes = max(self.bytes, one.untyped_storage().nbytes())
        return made


def test_memory_does_not_grow_with_the_grid(sam):
    width, height = 3000, 2400
    scene = make_scene(77, num_objects=6).image
    image = np.array(Image.fromarray(scene).resize((width, height)))
    (embedding,) = sam.encode([sam.frame(image)])
    peaks, counts = [], []
    for per_side in (2, 6):
        tracemalloc.start()
        with _Largest() as largest:
            found = grid(
                sam, None, embedding, **LOOSE, points_per_side=per_side, box_nms_threshold=1.0
            )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        counts.append(len(found))
        assert largest.bytes < width * height * 4  # less than the logits of a single mask
    assert counts[1] > 5 * counts[0]
    one_mask = width * height
    assert max(peaks) < 3 * one_mask
    # what a further mask costs is far below its pixels
    assert peaks[1] - peaks[0] < 0.02 * one_mask * (counts[1] - counts[0])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("points_per_side", 0),
        ("points_per_side", 2.5),
        ("crop_n_layers", -1),
        ("crop_n_points_downscale", 0),
        ("box_nms_threshold", 1.1),
        ("crop_nms_threshold", -0.1),
        ("crop_overlap", 2),
        ("min_iou", float("nan")),
        ("min_stability", None),
        ("stability_offset", -1.0),
    ],
)
def test_options_out_of_range_are_refused(option, value):
    with pytest.raises(InvalidInputError, match=option):
        EverythingOptions(**{option: value})


def test_images_that_do_not_serve_are_refused(sam):
    image = make_scene(1).image
    height, width = image.shape[:2]
    (embedding,) = sam.encode([sam.frame(image)])
    with pytest.raises(InvalidInputError, match="image is needed"):
        grid(sam, None)
    with pytest.raises(InvalidInputError, match="image is needed"):
        grid(sam, None, embedding, crop_n_layers=1)
    with pytest.raises(InvalidInputError, match=f"of {width} x {height} px, not of this one"):
        grid(sam, image[:-1], embedding)
    with pytest.raises(InvalidInputError, match="without reduce_to_px"):
        grid(sam, UprightImage(image, width * 2, height * 2), crop_n_layers=1)
