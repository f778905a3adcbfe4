"""Tiny open_clip models of every family, on disk as a checkpoint would be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
VIT = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
    "text_cfg": TEXT,
}
RESNET = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
    "text_cfg": TEXT,
}
# SigLIP's recipe with a tokenizer that needs no files: sigmoid, no causal mask, last token
SIGLIP = {
    "embed_dim": 32,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": VIT["vision_cfg"],
    "text_cfg": {**TEXT, "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
}
CUSTOM_TEXT = {**VIT, "custom_text": True}
CLIP_PREPROCESS = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
SIGLIP_PREPROCESS = {
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "resize_mode": "squash",
}
NAMES = ("cat", "dog", "a fire truck", *(f"thing number {i}" for i in range(20)))


def build(config, seed=0):
    """open_clip's own network of a config, with scale, bias and batch norm as if trained."""
    torch.manual_seed(seed)
    settings = json.loads(json.dumps(config))
    kind = open_clip.CustomTextCLIP if settings.pop("custom_text", False) else open_clip.CLIP
    module = kind(**settings).eval()
    with torch.no_grad():
        module.logit_scale.fill_(4.0)
        if module.logit_bias is not None:
            module.logit_bias.fill_(-12.93)
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):  # bn3 starts at 0: the branch would be dead
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.normal_(0, 0.1)
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
    return module


def save(folder: Path, config, preprocess=CLIP_PREPROCESS, *, module=None, name="open_clip_model"):
    folder.mkdir(parents=True, exist_ok=True)
    document = {"model_cfg": config}
    if preprocess is not None:
        document["preprocess_cfg"] = preprocess
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    save_file((module or build(config)).state_dict(), folder / f"{name}.safetensors")
    return folder


def pictures(count=5, height=70, width=90, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def batch_of(model, images):
    return torch.stack([model.preprocess(image) for image in images])
