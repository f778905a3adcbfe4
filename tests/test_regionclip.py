"""RegionCLIP's names -> open_clip's: every tensor in its place, the same outputs."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

from zs_operators import regionclip
from zs_operators.clip import load_clip
from zs_operators.clip_weights import load_weights, read_state_dict
from zs_operators.errors import WeightsError
from zs_operators.regions import RegionEncoder
from zs_operators.weights import plan_weights

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
SMALL = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 8, "patch_size": None},
    "text_cfg": TEXT,
}


def regionclip_shapes(config) -> dict[str, tuple[int, ...]]:
    """Names and shapes of RegionCLIP's student, written down from its module definitions.

    detectron2/modeling/backbone/clip_backbone.py: ModifiedResNet with FrozenBatchNorm2d (weight,
    bias, running_mean, running_var; no counter) as ``backbone``, CLIPLangEncoder without a logit
    scale as ``lang_encoder``.
    """
    vision, text, dim = config["vision_cfg"], config["text_cfg"], config["embed_dim"]
    width, shapes = vision["width"], {}

    def conv(name, out_channels, in_channels, kernel):
        shapes[f"backbone.{name}.weight"] = (out_channels, in_channels, kernel, kernel)

    def norm(name, channels):
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"backbone.{name}.{part}"] = (channels,)

    def linear(name, outputs, inputs):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs), (outputs,)

    half = width // 2
    for i, (inputs, outputs) in enumerate([(3, half), (half, half), (half, width)], 1):
        conv(f"conv{i}", outputs, inputs, 3)
        norm(f"bn{i}", outputs)
    inputs = width
    for stage, blocks in enumerate(vision["layers"], 1):
        planes = width * 2 ** (stage - 1)
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            kernels = ((inputs, planes, 1), (planes, planes, 3), (planes, 4 * planes, 1))
            for i, (a, b, kernel) in enumerate(kernels, 1):
                conv(f"{name}.conv{i}", b, a, kernel)
                norm(f"{name}.bn{i}", b)
            if block == 0:
                conv(f"{name}.downsample.0", 4 * planes, inputs, 1)
                norm(f"{name}.downsample.1", 4 * planes)
            inputs = 4 * planes
    channels, grid = 32 * width, vision["image_size"] // 32
    shapes["backbone.attnpool.positional_embedding"] = (grid**2 + 1, channels)
    for name in ("k_proj", "q_proj", "v_proj"):
        linear(f"backbone.attnpool.{name}", channels, channels)
    linear("backbone.attnpool.c_proj", dim, channels)

    d = text["width"]
    shapes["lang_encoder.token_embedding.weight"] = (text["vocab_size"], d)
    shapes["lang_encoder.positional_embedding"] = (text["context_length"], d)
    shapes["lang_encoder.text_projection"] = (d, dim)
    shapes["lang_encoder.ln_final.weight"] = shapes["lang_encoder.ln_final.bias"] = (d,)
    for layer in range(text["layers"]):
        name = f"lang_encoder.transformer.resblocks.{layer}"
        shapes[f"{name}.attn.in_proj_weight"] = (3 * d, d)
        shapes[f"{name}.attn.in_proj_bias"] = (3 * d,)
        linear(f"{name}.attn.out_proj", d, d)
        linear(f"{name}.mlp.c_fc", 4 * d, d)
        linear(f"{name}.mlp.c_proj", d, 4 * d)
        for norm_name in ("ln_1", "ln_2"):
            shapes[f"{name}.{norm_name}.weight"] = shapes[f"{name}.{norm_name}.bias"] = (d,)
    return shapes


def checkpoint(config, seed=0):
    """A detectron2 checkpoint with random values and the other modules a real one carries."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in regionclip_shapes(config).items():
        fan_in = math.prod(shape[1:]) or 1
        value = torch.randn(shape, generator=generator) / fan_in**0.5
        if re.search(r"(bn\d|downsample\.1|ln_\w+)\.(weight|running_var)$", name):
            value = torch.rand(shape, generator=generator) + 0.5
        state[name] = value
    state["pixel_mean"] = torch.zeros(3, 1, 1)
    state["teacher_backbone.conv1.weight"] = torch.zeros(1)
    state["offline_backbone.bottom_up.stem.conv1.weight"] = torch.zeros(1)
    state["roi_heads.box_predictor.cls_score.weight"] = torch.zeros(1)
    return {"model": state, "iteration": 600_000, "__author__": "test"}


def stem_and_stage(state, x):
    """RegionCLIP's stem and first stage from its own names, frozen batch norm written out."""

    def conv_norm(x, conv, bn, padding=0, stride=1):
        x = F.conv2d(x, state[f"backbone.{conv}.weight"], padding=padding, stride=stride)
        part = {
            k: state[f"backbone.{bn}.{k}"].view(1, -1, 1, 1)
            for k in ("weight", "bias", "running_mean", "running_var")
        }
        scale = part["weight"] * (part["running_var"] + 1e-5).rsqrt()
        return x * scale + part["bias"] - part["running_mean"] * scale

    x = F.relu(conv_norm(x, "conv1", "bn1", 1, 2))
    x = F.relu(conv_norm(x, "conv2", "bn2", 1))
    x = F.avg_pool2d(F.relu(conv_norm(x, "conv3", "bn3", 1)), 2)
    name = "layer1.0"
    y = F.relu(conv_norm(x, f"{name}.conv1", f"{name}.bn1"))
    y = F.relu(conv_norm(y, f"{name}.conv2", f"{name}.bn2", 1))
    y = conv_norm(y, f"{name}.conv3", f"{name}.bn3")
    return F.relu(y + conv_norm(x, f"{name}.downsample.0", f"{name}.downsample.1"))


@pytest.mark.parametrize("name", ["RN50-quickgelu", "RN50x4-quickgelu"])
def test_every_tensor_of_the_published_sizes_has_its_place(name):
    config = open_clip.get_model_config(name)
    with torch.device("meta"):
        state = {k: torch.empty(v) for k, v in regionclip_shapes(config).items()}
        expected = open_clip.CLIP(**config).state_dict()
    found = regionclip.remap({"model": state})
    assert regionclip.architecture(state) == name
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in expected.items()}


def test_outputs_are_those_of_the_source():
    source = checkpoint(SMALL)["model"]
    module = open_clip.CLIP(**json.loads(json.dumps(SMALL))).eval()
    module.load_state_dict(regionclip.remap(source), strict=True)
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        ours = module.visual.layer1(module.visual.stem(x))
    torch.testing.assert_close(ours, stem_and_stage(source, x), atol=1e-4, rtol=1e-5)
    assert float(module.logit_scale.detach().exp()) == pytest.approx(100)


def test_a_checkpoint_loads_as_weights_and_embeds_regions(tmp_path):
    """Loading by name and loading by hand give equal outputs, to the last bit."""
    file = tmp_path / "regionclip_pretrained-cc.pth"
    torch.save(checkpoint(SMALL), file)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": SMALL}))
    clip = load_clip(tmp_path, device="cpu", precision="fp32")
    assert clip.logit_scale == pytest.approx(100)
    assert len(clip.plan.sha256) == 64

    by_hand = open_clip.CLIP(**json.loads(json.dumps(SMALL))).eval()
    renamed = {}
    for key, value in checkpoint(SMALL)["model"].items():
        if key.startswith("backbone."):
            renamed[key.replace("backbone.", "visual.", 1)] = value
        elif key.startswith("lang_encoder."):
            renamed[key.replace("lang_encoder.", "", 1)] = value
    by_hand.load_state_dict(renamed, strict=False)
    by_hand.visual.to(memory_format=torch.channels_last)  # as load_clip lays convolutions out
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    tokens = open_clip.tokenize(["a photo of a cat"])
    with torch.no_grad():
        module = clip.module
        images = torch.randn(2, 3, 64, 64)
        assert torch.equal(module.encode_image(images), by_hand.encode_image(images))
        assert torch.equal(module.encode_text(tokens), by_hand.encode_text(tokens))
    regions, _ = RegionEncoder(clip, "roi", roi_size_px=(64, 256)).encode(
        [pixels], [[[0, 0, 64, 64]]]
    )
    torch.testing.assert_close(regions, clip.encode_images(batch), atol=1e-6, rtol=0)


def test_the_fpn_variant_has_its_backbone_one_level_down():
    state = checkpoint(SMALL)["model"]
    fpn = {
        k.replace("backbone.", "backbone.bottom_up.", 1) if k.startswith("backbone.") else k: v
        for k, v in state.items()
    }
    fpn["backbone.fpn_lateral2.weight"] = torch.zeros(1)
    expected, found = regionclip.remap(state), regionclip.remap(fpn)
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert found.keys() == expected.keys()


def test_other_checkpoints_are_not_taken_for_one():
    module = open_clip.CLIP(**json.loads(json.dumps(SMALL)))
    for state in (module.state_dict(), {}, {"model": {"a": 1}}, {"model": module}):
        assert not regionclip.is_regionclip(state)
    with pytest.raises(WeightsError, match="no RegionCLIP checkpoint"):
        regionclip.remap(module.state_dict())
    assert regionclip.is_regionclip(checkpoint(SMALL))


def test_an_unpublished_size_is_named():
    with pytest.raises(WeightsError, match="8 stem channels and 1 blocks"):
        regionclip.architecture(checkpoint(SMALL))


@pytest.mark.parametrize("architecture", ["RN50", "RN50x4"])
def test_the_wrong_activation_is_refused(tmp_path, architecture):
    """Shapes fit the architecture without QuickGELU as well; only the numbers would be wrong."""
    file = tmp_path / "regionclip.pth"
    state = {
        "backbone.conv1.weight": torch.zeros(1),
        "backbone.attnpool.positional_embedding": torch.zeros(1),
        "lang_encoder.token_embedding.weight": torch.zeros(1),
    }
    torch.save({"model": state}, file)
    assert regionclip.is_regionclip(read_state_dict(file))
    with pytest.raises(WeightsError, match=f"{architecture}-quickgelu"):
        load_weights(torch.nn.Linear(1, 1), file, architecture)


def test_proposers_are_planned_by_the_same_function_as_clip():
    assert plan_weights("proposals", "shapes-tiny").state == "bundled"
