"""The last stage of regions against RoIAlign and layer4 themselves; convolutions with post-ops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torchvision.ops import roi_align

from tests.test_regions import random_clip, some_boxes
from zs_operators import fused_resnet
from zs_operators.clip import load_clip
from zs_operators.roi_head import RoiMaps, last_stage

ROWS, COLUMNS, SIDE = 21, 34, 14
EDGES = [
    [0, 0, COLUMNS, ROWS],
    [0, 0, 0.01, 0.01],
    [COLUMNS - 0.01, ROWS - 0.01, COLUMNS, ROWS],
    [0, 5.5, 0.3, ROWS],
    [COLUMNS - 0.2, 0, COLUMNS, 20.99],
    [3, 4, 17, 18],  # of cells itself
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A ResNet whose features are the image's, not its biases': convolutions of He's variance."""
    folder = tmp_path_factory.mktemp("resnet")
    random_clip(folder, "resnet")
    path = str(folder / "open_clip_model.safetensors")
    state = load_file(path)
    for name, tensor in state.items():
        if name.startswith("visual.") and tensor.ndim == 4:
            tensor *= 6**0.5
    save_file(state, path)
    return folder


@pytest.fixture(scope="module")
def visual(folder):
    return load_clip(folder, device="cpu", precision="fp32").module.visual


def features_of(visual, seed=0):
    generator = torch.Generator().manual_seed(seed)
    channels = visual.layer4[0].conv1.in_channels
    return torch.randn(1, channels, ROWS, COLUMNS, generator=generator)


def boxes_of_cells():
    return torch.cat([torch.tensor(EDGES), some_boxes(COLUMNS, ROWS, 30)])


# ---- RoIAlign ----


@torch.no_grad()
def test_regions_are_those_of_torchvision(visual):
    """Also that the first convolution and its norm, with its bias, may come before RoIAlign."""
    features, boxes = features_of(visual), boxes_of_cells()
    block = visual.layer4[0]
    regions = roi_align(features, [boxes], SIDE, sampling_ratio=0, aligned=True)
    reduced, shortcut = RoiMaps(visual, features).sample(boxes, SIDE)
    expected = block.act1(block.bn1(block.conv1(regions)))
    torch.testing.assert_close(reduced, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(shortcut, F.avg_pool2d(regions, 2), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_last_stage_is_layer4(visual):
    features, boxes = features_of(visual), boxes_of_cells()
    regions = roi_align(features, [boxes], SIDE, sampling_ratio=0, aligned=True)
    found = last_stage(visual, *RoiMaps(visual, features).sample(boxes, SIDE))
    torch.testing.assert_close(found, visual.layer4(regions), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_way_of_other_devices_agrees(visual):
    features, boxes = features_of(visual), boxes_of_cells()
    maps = RoiMaps(visual, features)
    found = maps._sample_by_torchvision(boxes, SIDE)
    for one, another in zip(found, maps.sample(boxes, SIDE), strict=True):
        torch.testing.assert_close(one, another, atol=1e-4, rtol=1e-4)


# ---- bfloat16 ----


@pytest.fixture
def plain(monkeypatch):
    """Turns oneDNN's post-ops off."""

    def turn_off():
        monkeypatch.setattr(fused_resnet, "_has_fused_convolutions", lambda: False)

    return turn_off


@pytest.mark.parametrize("kernel", [1, 3])
@torch.no_grad()
def test_fused_convolutions_equal_plain_ones(kernel, plain):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(32, 48, kernel, padding=kernel // 2)
    norm = torch.nn.Identity()
    half = torch.nn.Conv2d(32, 48, kernel, padding=kernel // 2)
    half.load_state_dict(conv.state_dict())
    half.to(torch.bfloat16, memory_format=torch.channels_last)
    conv.load_state_dict({k: v.float() for k, v in half.state_dict().items()})
    x, other = (
        torch.randn(2, channels, 9, 7).to(torch.bfloat16, memory_format=torch.channels_last)
        for channels in (32, 48)
    )
    fused = fused_resnet.conv_relu(half, norm, x), fused_resnet.conv_relu(half, norm, x, other)
    exact = F.relu(conv(x.float())), F.relu(conv(x.float()) + other.float())
    for found, expected in zip(fused, exact, strict=True):
        # Some processors round what they convolved to bf16 before they add the other
        torch.testing.assert_close(found.float(), expected, atol=2**-7, rtol=2**-7)
    plain()
    plainly = fused_resnet.conv_relu(half, norm, x)
    torch.testing.assert_close(fused[0], plainly, atol=2**-7, rtol=2**-7)


def trunk(clip, x):
    """Features that leave the last stage, in float32."""
    visual = clip.module.visual
    x = x.to(next(visual.parameters()).dtype, memory_format=torch.channels_last)
    for stage in (visual.stem, visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = stage(x)
    return x.float()


@pytest.mark.skipif(not fused_resnet._has_fused_convolutions(), reason="needs oneDNN in bfloat16")
@torch.no_grad()
def test_fused_towers_give_the_same_features(folder, plain):
    exact = load_clip(folder, device="cpu", precision="fp32")
    half = load_clip(folder, device="cpu", precision="bf16")
    coarse = torch.randn(4, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    x = F.interpolate(coarse * 2, (64, 96), mode="bicubic")
    expected, fused = trunk(exact, x), trunk(half, x)
    plain()
    unfused = trunk(half, x)
    assert not torch.equal(fused, unfused)  # the sums are rounded once, so they were fused

    def error(found):
        return float((found - expected).norm() / expected.norm())

    assert error(fused) < 0.02
    assert error(fused) < 1.2 * error(unfused)
    assert error(expected.roll(1, dims=0)) > 0.1  # of another image


@torch.no_grad()
def test_regions_in_bfloat16_are_those_in_float32(folder):
    exact = load_clip(folder, device="cpu", precision="fp32").module.visual
    half = load_clip(folder, device="cpu", precision="bf16").module.visual
    features, boxes = features_of(exact), boxes_of_cells()
    expected = last_stage(exact, *RoiMaps(exact, features).sample(boxes, SIDE))
    lower = features.to(torch.bfloat16, memory_format=torch.channels_last)
    found = last_stage(half, *RoiMaps(half, lower).sample(boxes, SIDE))
    assert found.dtype == torch.bfloat16
    assert (found - expected).norm() < 0.02 * expected.norm()


def test_gradients_take_the_plain_path(folder):
    clip = load_clip(folder, device="cpu", precision="bf16")
    assert fused_resnet.fuse_activations(clip.module.visual) == 5
    x = torch.randn(1, 3, 64, 64, dtype=torch.bfloat16).contiguous(
        memory_format=torch.channels_last
    )
    clip.module.visual(x.requires_grad_()).float().sum().backward()
    assert x.grad.abs().max() > 0


def test_other_towers_stay_as_they_are():
    assert fused_resnet.fuse_activations(torch.nn.Linear(2, 2)) == 0
