"""Region embeddings: whole images, shapes of boxes, batches and sizes of images."""

from __future__ import annotations

import json

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torchvision.ops import roi_align

from zs_operators.attention_pool import pool_first_query
from zs_operators.clip import load_clip
from zs_operators.errors import InvalidInputError
from zs_operators.images import UprightImage
from zs_operators.regions import RegionEncoder, supports_roi

SIDE = 64
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
TOWERS = {
    "vit": {"image_size": SIDE, "layers": 2, "width": 32, "patch_size": 16, "head_width": 16},
    "resnet": {"image_size": SIDE, "layers": [1, 2, 1, 1], "width": 8, "patch_size": None},
}


def random_clip(folder, tower):
    """A small CLIP with all branches alive: open_clip starts bn3 at zero."""
    torch.manual_seed(0)
    config = {"embed_dim": 32, "vision_cfg": TOWERS[tower], "text_cfg": TEXT}
    module = open_clip.CLIP(**json.loads(json.dumps(config))).eval()
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.normal_(0, 0.1)
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
    save_file(module.state_dict(), str(folder / "open_clip_model.safetensors"))
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    return load_clip(folder, device="cpu", precision="fp32")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Small networks lose more to a team of threads than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return {name: random_clip(tmp_path_factory.mktemp(name), name) for name in TOWERS}


@pytest.fixture(params=["vit crops", "resnet crops", "resnet roi"])
def encoder(request, clips):
    tower, method = request.param.split()
    return make_encoder(clips[tower], method)


def make_encoder(clip, method, **options):
    if method == "roi":
        options.setdefault("roi_size_px", (SIDE, 4 * SIDE))
    return RegionEncoder(clip, method, **options)


def picture(height, width, seed=0):
    """Smooth colours with edges: differences of a pixel are small, of a place large."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((1, 3, 6, 6), dtype=np.float32)) * 255
    pixels = F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 255)
    pixels[:, :, height // 3 : height // 2, width // 4 : width // 2] = 255
    return pixels[0].byte().permute(1, 2, 0).contiguous().numpy()


def some_boxes(width, height, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(count, 2, generator=generator) * 0.6 + 0.2
    halves = torch.rand(count, 2, generator=generator) * 0.18 + 0.02
    size = torch.tensor([width, height, width, height])
    return torch.cat([centres - halves, centres + halves], dim=1) * size


def cosine(first, second):
    return (first * second).sum(dim=1)


def whole_image(clip, pixels):
    return clip.encode_images(torch.from_numpy(pixels).permute(2, 0, 1)[None])


# ---- a box of the whole image ----


def test_a_whole_image_box_is_the_images_embedding(encoder):
    pixels = picture(SIDE, SIDE)
    found, sizes = encoder.encode([pixels], [[[0, 0, SIDE, SIDE]]])
    assert sizes == [1]
    torch.testing.assert_close(found, whole_image(encoder.clip, pixels), atol=1e-6, rtol=0)


def test_roi_align_must_be_aligned(clips, monkeypatch):
    """The oracle above notices the half-pixel shift of the first RoIAlign."""
    from zs_operators import roi_head

    clip = clips["resnet"]
    pixels = picture(SIDE, SIDE)
    original = roi_head._axis_weights
    monkeypatch.setattr(
        roi_head, "_axis_weights", lambda spans, *sizes: original(spans + 0.5, *sizes)
    )
    found, _ = make_encoder(clip, "roi").encode([pixels], [[[0, 0, SIDE, SIDE]]])
    assert (found - whole_image(clip, pixels)).abs().max() > 1e-4


def test_context_of_a_whole_image_is_the_image(clips):
    pixels = picture(SIDE, SIDE)
    encoder = make_encoder(clips["vit"], "crops", contexts=(1.5,))
    found, _ = encoder.encode([pixels], [[[0, 0, SIDE, SIDE]]])
    torch.testing.assert_close(found, whole_image(clips["vit"], pixels), atol=1e-6, rtol=0)


def test_contexts_are_averaged_after_normalising(clips):
    clip, pixels, boxes = clips["vit"], picture(90, 120), [[30, 20, 70, 60]]
    small, large, both = (
        make_encoder(clip, "crops", contexts=contexts).encode([pixels], [boxes])[0]
        for contexts in ((1,), (1.5,), (1, 1.5))
    )
    torch.testing.assert_close(both, F.normalize(small + large, dim=1), atol=1e-6, rtol=0)
    assert cosine(small, large) < 0.9999


def test_attention_pool_of_one_query_is_the_pool(clips):
    pool = clips["resnet"].module.visual.attnpool
    features = torch.randn(7, pool.k_proj.in_features, SIDE // 32, SIDE // 32)
    with torch.no_grad():
        torch.testing.assert_close(
            pool_first_query(pool, features), pool(features), atol=1e-5, rtol=1e-5
        )


# ---- crops ----


def test_a_crop_at_pixel_bounds_and_native_size_is_the_slice(clips):
    pixels = picture(200, 300)
    encoder = make_encoder(clips["vit"], "crops", contexts=(1,))
    found, _ = encoder.encode([pixels], [[[37, 21, 37 + SIDE, 21 + SIDE]]])
    piece = np.ascontiguousarray(pixels[21 : 21 + SIDE, 37 : 37 + SIDE])
    torch.testing.assert_close(found, whole_image(clips["vit"], piece), atol=1e-6, rtol=0)


def test_crops_of_a_mirrored_image_are_mirrored_crops(clips):
    """Boxes at whole pixels: the two embeddings then come from the same samples."""
    clip = clips["vit"]
    pixels = picture(100, 150)
    box = [20.0, 30.0, 52.0, 78.0]
    encoder = make_encoder(clip, "crops", contexts=(1,))
    mirrored = np.ascontiguousarray(pixels[:, ::-1])
    found, _ = encoder.encode([mirrored], [[[150 - box[2], box[1], 150 - box[0], box[3]]]])
    piece = torch.from_numpy(pixels).permute(2, 0, 1).float()
    crop = roi_align(piece[None], [torch.tensor([box])], SIDE, 1.0, 0, aligned=True)
    expected = clip.encode_images(crop.flip(3).round().clamp(0, 255).byte())
    assert cosine(found, expected) > 0.9999


@pytest.mark.parametrize("box", [[0, 0, 4000, 3000], [100.5, 0, 3900.25, 40], [10, 20, 500, 2900]])
def test_large_boxes_are_resampled_like_pillow_does(clips, box):
    """Averaging before RoIAlign changes the crop by little: compared with Pillow's box filter."""
    from PIL import Image

    pixels = picture(3000, 4000)
    encoder = make_encoder(clips["vit"], "crops", contexts=(1,))
    crops = []
    encode = encoder.clip.encode_images
    try:
        encoder.clip.encode_images = lambda batch: crops.append(batch) or encode(batch)
        encoder.encode([pixels], [[box]])
    finally:
        del encoder.clip.encode_images
    expected = Image.fromarray(pixels).resize(
        (SIDE, SIDE), Image.Resampling.BOX, box=tuple(map(float, box))
    )
    difference = np.abs(
        crops[0][0].permute(1, 2, 0).numpy().astype(int) - np.asarray(expected).astype(int)
    )
    assert difference.mean() < 0.8
    assert np.percentile(difference, 99) <= 12  # edges within a pixel of the crop


def test_a_window_of_a_large_image_is_the_same_as_the_whole(clips, monkeypatch):
    from zs_operators import regions

    pixels, boxes = picture(300, 400), some_boxes(400, 300, 20)
    encoder = make_encoder(clips["vit"], "crops")
    whole, _ = encoder.encode([pixels], [boxes])
    monkeypatch.setattr(regions, "_WHOLE_IMAGE_PIXELS", 0)
    windows, _ = encoder.encode([pixels], [boxes])
    assert cosine(whole, windows).min() > 0.9999


# ---- frames ----


def test_twice_the_image_twice_the_boxes_same_embedding(encoder):
    pixels, boxes = picture(120, 160), some_boxes(160, 120, 6)
    once, _ = encoder.encode([pixels], [boxes])
    twice, _ = encoder.encode([pixels.repeat(2, 0).repeat(2, 1)], [boxes * 2])
    assert cosine(once, twice).min() > 0.995


def test_boxes_are_in_the_frame_of_the_full_image(encoder):
    """As after a JPEG was decoded at half its size."""
    pixels, boxes = picture(120, 160), some_boxes(160, 120, 6)
    plain, _ = encoder.encode([pixels], [boxes])
    reduced, _ = encoder.encode([UprightImage(pixels, 320, 240)], [boxes * 2])
    torch.testing.assert_close(reduced, plain, atol=1e-5, rtol=0)


def test_an_object_moved_by_a_stride_keeps_its_features(clips):
    """Interior RoI features are equivariant to shifts by the stride of the network."""
    background = np.full((256, 256, 3), 120, dtype=np.uint8)
    thing = picture(48, 48)
    images, boxes = [], []
    for shift in (96, 112):
        image = background.copy()
        image[96:144, shift : shift + 48] = thing
        images.append(image)
        boxes.append([[shift, 96, shift + 48, 144]])
    encoder = make_encoder(clips["resnet"], "roi", roi_size_px=(256, 1024))
    found, _ = encoder.encode(images, boxes)
    assert cosine(found[:1], found[1:]) > 0.9999


def test_roi_images_are_resized_to_the_policy_and_padded(clips):
    encoder = RegionEncoder(clips["resnet"], "roi")
    assert encoder.roi_size_px == (229, 381)  # 800 and 1333, as 64 is to 224
    seen = []
    visual = clips["resnet"].module.visual
    hook = visual.conv1.register_forward_hook(lambda _, args, out: seen.append(args[0]))
    try:
        encoder.encode([picture(100, 150)], [[[0, 0, 50, 50]]])
    finally:
        hook.remove()
    assert seen[0].shape == (1, 3, 256, 352)  # 229 x 344, up to multiples of 32
    assert (seen[0][..., 229:, :] == 0).all()
    assert (seen[0][..., 344:] == 0).all()
    assert (seen[0][..., :229, :344] != 0).any(dim=1).all()


# ---- batches ----


def test_batches_and_neighbours_do_not_change_an_embedding(encoder):
    shapes = [(90, 120), (64, 64), (150, 70), (90, 120), (80, 80)]
    images = [picture(*shape, seed=i) for i, shape in enumerate(shapes)]
    boxes = [
        some_boxes(shape[1], shape[0], n, seed=n)
        for shape, n in zip(shapes, (3, 0, 11, 1, 6), strict=True)
    ]
    method = encoder.method
    alone = torch.cat([encoder.encode([i], [b])[0] for i, b in zip(images, boxes, strict=True)])
    assert alone.shape == (21, encoder.clip.dim)
    for batch_size in (1, 4, 7):
        other = make_encoder(encoder.clip, method, batch_size=batch_size)
        together, sizes = other.encode(images, boxes)
        assert sizes == [3, 0, 11, 1, 6]
        torch.testing.assert_close(together, alone, atol=2e-6, rtol=0)


def test_order_of_boxes_is_kept(encoder):
    pixels, boxes = picture(100, 140), some_boxes(140, 100, 12)
    order = torch.randperm(12)
    forward, _ = encoder.encode([pixels], [boxes])
    shuffled, _ = encoder.encode([pixels], [boxes[order]])
    torch.testing.assert_close(shuffled, forward[order], atol=2e-6, rtol=0)


def test_2000_regions_go_through_in_bounded_batches(encoder):
    pixels, boxes = picture(100, 140), some_boxes(140, 100, 2000)
    seen = []
    visual = encoder.clip.module.visual
    stage = visual.layer4[0].conv2 if encoder.method == "roi" else visual
    hook = stage.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    try:
        found, sizes = encoder.encode([pixels], [boxes])
    finally:
        hook.remove()
    assert found.shape == (2000, encoder.clip.dim)
    assert sizes == [2000]
    assert max(seen) <= 64
    assert sum(seen) == 2000 * (1 if encoder.method == "roi" else 2)


def test_running_out_of_memory_halves_the_batch(clips, monkeypatch):
    clip = clips["vit"]
    pixels, boxes = picture(100, 140), some_boxes(140, 100, 20)
    expected, _ = make_encoder(clip, "crops").encode([pixels], [boxes])
    encode = type(clip).encode_images

    def scarce(self, batch):
        if len(batch) > 6:
            raise RuntimeError("out of memory")
        return encode(self, batch)

    monkeypatch.setattr(type(clip), "encode_images", scarce)
    found, _ = make_encoder(clip, "crops").encode([pixels], [boxes])
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_features_of_an_image_are_computed_once(clips):
    encoder = make_encoder(clips["resnet"], "roi", batch_size=1)
    calls = []
    hook = clips["resnet"].module.visual.layer3.register_forward_hook(lambda *_: calls.append(1))
    try:
        images = [picture(70, 90, seed=i) for i in range(3)]
        encoder.encode(images, [some_boxes(90, 70, 10, seed=i) for i in range(3)])
    finally:
        hook.remove()
    assert len(calls) == 3


# ---- nothing, and too much ----


def test_no_regions_are_0_by_d(encoder):
    found, sizes = encoder.encode([picture(50, 50)] * 2, [[], torch.empty(0, 4)])
    assert found.shape == (0, encoder.clip.dim)
    assert sizes == [0, 0]
    assert encoder.encode([], [])[0].shape == (0, encoder.clip.dim)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 700), (6000, 8000)])
def test_images_of_any_shape(encoder, size):
    height, width = size
    pixels = np.random.default_rng(0).integers(0, 255, (1, 1, 3), dtype=np.uint8)
    pixels = np.broadcast_to(pixels, (height, width, 3))
    box = [[0, 0, width, height], [0.25 * width, 0, 0.75 * width, height]]
    found, _ = encoder.encode([pixels], [box])
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "box",
    [
        [10, 10, 10, 20],
        [20, 10, 10, 20],
        [60, 10, 70, 20],
        [float("nan"), 0, 10, 10],
        [0, 0, float("inf"), 10],
    ],
)
def test_boxes_that_cover_nothing_are_refused_by_position(encoder, box):
    with pytest.raises(InvalidInputError, match="box 1 of image 0"):
        encoder.encode([picture(50, 50)], [[[0, 0, 10, 10], box]])


def test_images_and_lists_of_boxes_must_match(encoder):
    with pytest.raises(InvalidInputError, match="1 images need as many"):
        encoder.encode([picture(50, 50)], [])


# ---- which method ----


def test_auto_takes_roi_for_clip_resnets_of_usual_size(clips, monkeypatch):
    assert RegionEncoder(clips["vit"]).method == "crops"
    assert RegionEncoder(clips["resnet"]).method == "crops"  # 64 px: a 2 x 2 grid
    monkeypatch.setattr(clips["resnet"], "image_size_px", 224)
    encoder = RegionEncoder(clips["resnet"])
    assert encoder.method == "roi"
    assert encoder.roi_size_px == (800, 1333)
    assert (supports_roi(clips["vit"]), supports_roi(clips["resnet"])) == (False, True)


def test_describe_is_json(encoder):
    assert json.loads(json.dumps(encoder.describe()))["method"] == encoder.method


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"region_embedding": "dense"}, "must be one of auto, roi, crops"),
        ({"region_embedding": "roi"}, "needs a CLIP ResNet"),
        ({"contexts": ()}, "contexts"),
        ({"contexts": (0.5,)}, "contexts"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_options_that_cannot_work_are_refused(clips, options, message):
    with pytest.raises(InvalidInputError, match=message):
        RegionEncoder(clips["vit"], **options)
