import numpy as np
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image

from zs_operators.clip_preprocess import ClipPreprocess
from zs_operators.errors import InvalidInputError, WeightsError

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
SIZES = [(480, 640), (640, 480), (224, 224), (100, 50), (31, 517), (517, 31), (225, 224), (1, 1)]


def picture(height, width):
    """Smooth and sharp parts, and noise: resizing filters differ on the latter two."""
    rng = np.random.default_rng(height * 10_000 + width)
    small = rng.integers(0, 256, (max(1, height // 9), max(1, width // 9), 3), dtype=np.uint8)
    image = np.array(Image.fromarray(small).resize((width, height), Image.Resampling.NEAREST))
    noise = rng.integers(-30, 31, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def levels(normalized, preprocess):
    """Back to 0..255."""
    std, mean = (torch.tensor(v).view(3, 1, 1) for v in (preprocess.std, preprocess.mean))
    return (normalized * std + mean) * 255


@pytest.fixture
def horizontal_first(monkeypatch):
    """Resize rows before columns, as Pillow did before 13, which takes the cheaper order.

    Between the passes bicubic overshoot is clipped, so the order shows where an image is squeezed
    more one way than the other; models were trained with this one.
    """
    original = Image.Image.resize

    def resize(self, size, resample=None, box=None):
        if box is not None:  # ours, not open_clip's
            return original(self, size, resample, box)
        rows = original(self, (size[0], self.height), resample)
        return original(rows, size, resample)

    monkeypatch.setattr(Image.Image, "resize", resize)


def assert_like_open_clip(preprocess, image):
    size = preprocess.size_px[0] if len(set(preprocess.size_px)) == 1 else preprocess.size_px
    reference = image_transform(
        size,
        False,
        preprocess.mean,
        preprocess.std,
        resize_mode=preprocess.resize_mode,
        interpolation=preprocess.interpolation,
        fill_color=preprocess.fill_color,
    )
    expected = levels(reference(Image.fromarray(image)), preprocess)
    pixels = preprocess.pixels(image)
    assert pixels.shape == (3, *preprocess.size_px)
    assert pixels.dtype == torch.uint8
    enlarged = min(image.shape[:2]) < max(preprocess.size_px)
    assert (pixels.float() - expected).abs().max() < (2.001 if enlarged else 1.001)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_like_open_clips_transform(horizontal_first, size, mode, interpolation):
    preprocess = ClipPreprocess((224, 224), MEAN, STD, interpolation, mode, fill_color=7)
    assert_like_open_clip(preprocess, picture(*size))


@pytest.mark.parametrize("target", [(32, 64), (64, 32)])
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_targets_that_are_not_square(horizontal_first, target, mode):
    assert_like_open_clip(ClipPreprocess(target, MEAN, STD, "bicubic", mode), picture(120, 90))


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (333, 500)])
def test_ordinary_photographs_need_no_such_care(size):
    assert_like_open_clip(ClipPreprocess((224, 224), MEAN, STD), picture(*size))


def test_normalising_is_to_tensor_and_normalize_bit_for_bit():
    image = picture(224, 224)
    preprocess = ClipPreprocess((224, 224), MEAN, STD)
    expected = image_transform(224, False, MEAN, STD)(Image.fromarray(image))
    assert torch.equal(preprocess.normalize(preprocess.pixels(image)[None])[0], expected)


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (224, 224), (50, 90)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_resizing_is_torchvisions_bit_for_bit(size, interpolation):
    from torchvision.transforms.v2 import functional as F

    image = picture(*size)
    preprocess = ClipPreprocess((224, 224), MEAN, STD, interpolation, "squash")
    whole = torch.from_numpy(image).permute(2, 0, 1)
    expected = F.resize(whole, [224, 224], F.InterpolationMode(interpolation))
    pixels = preprocess.pixels(image)
    assert torch.equal(pixels, expected)
    assert pixels.stride() == expected.stride()


def test_a_very_long_image_is_not_blown_up(monkeypatch):
    monkeypatch.setattr(ClipPreprocess, "_resize", lambda *args: pytest.fail("resized whole"))
    preprocess = ClipPreprocess((224, 224), MEAN, STD)
    assert preprocess.pixels(picture(1, 20_000)).shape == (3, 224, 224)


@pytest.mark.parametrize("layout", ["read_only", "strided", "fortran"])
def test_any_memory_layout(layout):
    image = picture(60, 80)
    preprocess = ClipPreprocess((32, 32), MEAN, STD)
    expected = preprocess.pixels(image)
    if layout == "read_only":
        other = image.copy()
        other.flags.writeable = False
    elif layout == "strided":
        other = np.repeat(image, 2, axis=1)[:, ::2]
    else:
        other = np.asfortranarray(image)
    before = other.copy()
    assert torch.equal(preprocess.pixels(other), expected)
    np.testing.assert_array_equal(other, before)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        [[0]],
    ],
)
def test_refuses_what_is_not_an_rgb_image(image):
    with pytest.raises(InvalidInputError, match="RGB"):
        ClipPreprocess((32, 32), MEAN, STD).pixels(image)


def test_from_open_clip_prefers_the_models_own_size():
    config = {"size": 224, "mean": 0.5, "std": (0.5, 0.5, 0.5), "interpolation": "random"}
    preprocess = ClipPreprocess.from_open_clip(config, (48, 32))
    assert preprocess == ClipPreprocess((48, 32), (0.5,) * 3, (0.5,) * 3)
    assert preprocess.to_dict()["size_px"] == [48, 32]


@pytest.mark.parametrize(
    "change", [{"resize_mode": "stretch"}, {"interpolation": "lanczos"}, {"mean": (0.5, 0.5)}]
)
def test_from_open_clip_refuses_what_it_cannot_do(change):
    config = {"size": 224, "mean": MEAN, "std": STD, **change}
    with pytest.raises(WeightsError, match="preprocess_cfg"):
        ClipPreprocess.from_open_clip(config, None)
