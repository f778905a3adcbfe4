"""What decides shapes-clip: architecture, preprocessing and training settings, as data."""

from __future__ import annotations

from dataclasses import dataclass

from zs_operators.shapes.training_data import VIEW_PX

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)  # open_clip's defaults, so any loader is right
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result, apart from the seed."""

    steps: int = 1600
    batch_size: int = 160
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    warmup_steps: int = 60
    frozen_norm_share: float = 0.15  # of the steps, at the end, with batch norm statistics fixed
    spare_share: float = 0.4  # of a batch: spare colours
    background_share: float = 0.05
    dull_share: float = 0.2  # of the named objects: shown in grey, so they teach shape only
    max_logit_scale: float = 50.0
    # Weights of the levels.
    pair: float = 0.25
    textured_pair: float = 0.15
    shape: float = 0.35
    color: float = 0.10
    texture: float = 0.12
    textured_shape: float = 0.12
    additive: float = 1.0
    # Share of the pair levels' gradient that reaches the image tower: it may learn P(shape|colour).
    pair_image_gradient: float = 0.3
    # A held-out shape is a negative for its colour only because training lacks the pair; this
    # factor on its exp(logit) says how much that absence counts. The same for colours.
    absent_pair_weight: float = 0.25


def model_config(vocab_size: int) -> dict:
    """open_clip ``model_cfg``."""
    return {
        "embed_dim": 128,
        "vision_cfg": {
            "layers": [1, 1, 2, 1],
            "width": 20,
            "head_width": 32,
            "image_size": VIEW_PX,
        },
        "text_cfg": {
            "context_length": 32,
            "vocab_size": vocab_size,
            "width": 128,
            "heads": 4,
            "layers": 2,
        },
    }


def preprocess_config() -> dict:
    """open_clip ``preprocess_cfg``: the whole picture squashed to the model's square."""
    return {
        "mean": list(PIXEL_MEAN),
        "std": list(PIXEL_STD),
        "interpolation": "bicubic",
        "resize_mode": "squash",
    }
