"""Train shapes-clip from scratch: ``python -m zs_operators.shapes.train_clip --seed 0 --out DIR``.

One recipe, one process, about a quarter of an hour on one CPU core with bf16 units. Every step
scores the same pictures at several levels of detail at once: pair, pair with texture, shape,
colour, texture, and shape with texture.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from zs_operators.shapes import captions, evaluate
from zs_operators.shapes.clip_losses import Levels, TextEncoder
from zs_operators.shapes.clip_recipe import (
    PIXEL_MEAN,
    PIXEL_STD,
    Recipe,
    model_config,
    preprocess_config,
)
from zs_operators.shapes.training_data import BACKGROUND, NO_COLOR, VIEW_PX, Views, load_views
from zs_operators.shapes.world import COLORS

logger = logging.getLogger("zs_operators.shapes.train_clip")


def batches(
    views: Views, recipe: Recipe, rng: np.random.Generator
) -> Iterator[tuple[torch.Tensor, np.ndarray, np.ndarray, np.ndarray]]:
    """Endless (images (B, 3, 64, 64) fp32 0-1, colour (B,), shape (B,), texture (B,))."""
    named = (views.color >= 0) & (views.color < len(COLORS))
    empty = views.shape == BACKGROUND
    pools = [np.flatnonzero(x) for x in (named, empty, ~named & ~empty)]
    sizes = [
        0,
        *(round(recipe.batch_size * s) for s in (recipe.background_share, recipe.spare_share)),
    ]
    sizes[0] = recipe.batch_size - sum(sizes)
    # Drawing fresh noise for every step would cost as much as the text tower.
    noise = torch.from_numpy(rng.standard_normal((512, 3, VIEW_PX, VIEW_PX), dtype=np.float32))
    while True:
        rows = np.concatenate([rng.choice(p, n) for p, n in zip(pools, sizes, strict=True)])
        dull = (rng.random(len(rows)) < recipe.dull_share) & named[rows]
        color = np.where(dull, NO_COLOR, views.color[rows])
        start = int(rng.integers(0, len(noise) - len(rows)))
        grain = noise[start : start + len(rows)]
        images = augment([views.image[row] for row in rows], torch.from_numpy(dull), grain, rng)
        yield images, color, views.shape[rows], views.texture[rows]


def augment(
    pictures: list[np.ndarray], dull: torch.Tensor, noise: torch.Tensor, rng: np.random.Generator
) -> torch.Tensor:
    """Shift by up to 3 px, brightness, contrast and noise; ``dull`` rows lose their colour.

    Args:
        pictures: B of (64, 64, 3) uint8.
        dull: (B,) bool.
        noise: (B, 3, 64, 64) of unit variance.

    Returns:
        (B, 3, 64, 64) fp32 0-1.
    """
    shifts = rng.integers(0, 7, size=(len(pictures), 2))
    place = np.arange(VIEW_PX)
    shifted = [
        picture[np.clip(place + y - 3, 0, VIEW_PX - 1)][:, np.clip(place + x - 3, 0, VIEW_PX - 1)]
        for picture, (y, x) in zip(pictures, shifts, strict=True)
    ]
    images = torch.from_numpy(np.stack(shifted)).permute(0, 3, 1, 2).float().div_(255.0)
    images[dull] = images[dull].mean(dim=1, keepdim=True)

    def column(low: float, high: float) -> torch.Tensor:
        values = rng.uniform(low, high, size=(len(images), 1, 1, 1))
        return torch.from_numpy(values.astype(np.float32))

    centre = images.mean(dim=(1, 2, 3), keepdim=True)
    images.sub_(centre).mul_(column(0.85, 1.1)).add_(centre + column(-0.08, 0.08))
    return images.addcmul_(column(0.0, 0.025), noise).clamp_(0.0, 1.0)


def normalize_pixels(images: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) 0-1 to the model's input, channels last, which is twice as fast in bf16."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (PIXEL_MEAN, PIXEL_STD))
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def learning_rate(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine down to 1 %."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def optimizer_of(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; norms, biases and the logit scale do not decay."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True)


def recalibrate_norms(model: nn.Module, source: Iterator, steps: int = 40) -> None:
    """Estimate the batch norm statistics anew under the present weights, then fix them."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for _ in range(steps):
            model.visual(normalize_pixels(next(source)[0]))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def train(
    views: Views, recipe: Recipe, *, seed: int, out: Path, validate_every: int = 500
) -> nn.Module:
    """Train one model from scratch and save it in ``out`` as a folder that open_clip loads."""
    from open_clip.model import CLIP
    from open_clip.tokenizer import SimpleTokenizer

    out.mkdir(parents=True, exist_ok=True)
    config = model_config(captions.write_bpe(out / "bpe.txt.gz"))
    tokenizer = SimpleTokenizer(
        bpe_path=str(out / "bpe.txt.gz"), context_length=config["text_cfg"]["context_length"]
    )
    rng = np.random.default_rng([seed, 1])
    torch.manual_seed(seed)  # open_clip draws its initial weights from torch's generator
    model = CLIP(**config).to(memory_format=torch.channels_last).train()
    encode = TextEncoder(model, tokenizer)
    levels = Levels(recipe, encode)
    optimizer = optimizer_of(model, recipe)
    source = batches(views, recipe, rng)
    validation = [
        evaluate.scenes(evaluate.VALIDATION_SEED, 250),
        evaluate.scenes(evaluate.VALIDATION_SEED, 300, alone=True),
    ]
    freeze_at = recipe.steps - int(recipe.frozen_norm_share * recipe.steps)
    started, running = time.perf_counter(), 0.0
    for step in range(recipe.steps):
        if step == freeze_at:
            recalibrate_norms(model, source)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe)
        images, *labels = next(source)
        with torch.autocast("cpu", torch.bfloat16):
            image = F.normalize(model.visual(normalize_pixels(images)).float(), dim=-1)
            loss = levels(image, model.logit_scale.exp(), tuple(labels), rng)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0.0, math.log(recipe.max_logit_scale))
        running += loss.item()
        if (step + 1) % 100 == 0:
            scale, spent = model.logit_scale.exp().item(), time.perf_counter() - started
            logger.info("%d loss %.3f scale %.1f %.0f s", step + 1, running / 100, scale, spent)
            running = 0.0
        if (step + 1) % validate_every == 0 or step + 1 == recipe.steps:
            save(model, config, out)
            table = evaluate.measure(*evaluate.load_clip(out), *validation)
            logger.info("validation %s", json.dumps(_rounded(table)))
    report = {
        "seed": seed,
        "recipe": asdict(recipe),
        "seconds": round(time.perf_counter() - started),
        "threads": torch.get_num_threads(),
        "validation": _rounded(table),
    }
    (out / "training.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return model


def save(model: nn.Module, config: dict, out: Path) -> None:
    """Write weights (fp16) and config; ``bpe.txt.gz`` is there already."""
    from safetensors.torch import save as serialize

    state = {
        name: value.detach().to(torch.float16 if value.is_floating_point() else value.dtype)
        for name, value in model.state_dict().items()
    }
    state = {name: value.contiguous().clone() for name, value in state.items()}
    (out / "open_clip_model.safetensors").write_bytes(serialize(state))
    text = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess_config()}, indent=2)
    (out / "open_clip_config.json").write_text(text + "\n", encoding="utf-8")


def _rounded(table: dict) -> dict:
    return {
        key: _rounded(value) if isinstance(value, dict) else round(value, 4)
        for key, value in table.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "zs-shapes")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("zs_operators").setLevel(logging.INFO)
    torch.set_num_threads(options.threads)
    views = load_views(options.cache / "views")
    train(views, Recipe(steps=options.steps), seed=options.seed, out=options.out)


if __name__ == "__main__":
    main()
