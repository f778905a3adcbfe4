"""Train shapes-sam: ``python -m zs_operators.shapes.train_sam --out DIR``.

Every step draws fresh scenes of the 48 seen classes and prompts their objects with points, boxes or
both. ``Sam.forward`` and ``SamPredictor`` never keep gradients, so this calls Sam's parts directly.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from zs_operators.shapes import evaluate_sam
from zs_operators.shapes.checkpoints import save_checkpoint, training_command
from zs_operators.shapes.evaluate import VALIDATION_SEED
from zs_operators.shapes.sam_model import CONFIG, build_shapes_sam
from zs_operators.shapes.world import SEEN, Scene, make_scene

logger = logging.getLogger("zs_operators.shapes.train_sam")

TRAINING_SEED = 300_000_000
PROMPTS = 4  # an image
LOW_RES_PX = 128


def frame(scene: Scene, size_px: int) -> tuple[np.ndarray, np.ndarray, float]:
    """The scene as Sam takes it: longest side ``size_px``.

    Returns:
        (3, h, w) float32 0-255; (N, h, w) float32 masks 0-1; the scale from scene to frame px.
    """
    image = torch.from_numpy(scene.image.copy()).permute(2, 0, 1).float()
    masks = torch.from_numpy(np.stack([o.mask for o in scene.objects])).float()
    scale = size_px / max(image.shape[1:])
    size = [int(side * scale + 0.5) for side in image.shape[1:]]
    resize = {"size": size, "mode": "bilinear", "antialias": True, "align_corners": False}
    return F.interpolate(image[None], **resize)[0], F.interpolate(masks[None], **resize)[0], scale


def prompt_image(
    scene: Scene, scale: float, rng: np.random.Generator
) -> tuple[list[int], torch.Tensor | None, torch.Tensor | None]:
    """Prompts of one kind for up to four objects of a scene, in frame px.

    Returns:
        object indices (P,), -1 for a click on the background; points (P, 1, 2) or None;
        boxes (P, 4) or None.
    """
    chosen = rng.permutation(len(scene.objects))[:PROMPTS].tolist()
    kind = rng.random()
    points = boxes = None
    if kind < 0.45:
        chosen.append(-1)
    if kind < 0.45 or kind >= 0.80:
        empty = ~np.any([item.mask for item in scene.objects], axis=0)
        masks = [empty if index < 0 else scene.objects[index].mask for index in chosen]
        clicks = [_pixel_of(mask, rng) for mask in masks]
        points = torch.tensor(np.array(clicks) * scale, dtype=torch.float32)[:, None]
    if kind >= 0.45:
        boxes = np.array([scene.objects[index].box_px for index in chosen]) * scale
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        boxes = torch.tensor(boxes + rng.normal(0.0, 0.03, boxes.shape) * sides).float()
    return chosen, points, boxes


def _pixel_of(mask: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """The centre (x, y) of a random true pixel."""
    ys, xs = np.nonzero(mask)
    k = int(rng.integers(len(ys)))
    return xs[k] + 0.5, ys[k] + 0.5


def decode(
    model: Sam, embedding: torch.Tensor, points: torch.Tensor | None, boxes: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(P, 4, 128, 128) mask logits and (P, 4) predicted IoU; token 0 is the single mask."""
    labels = None if points is None else torch.ones(points.shape[:2])
    sparse, dense = model.prompt_encoder(
        points=None if points is None else (points, labels), boxes=boxes, masks=None
    )
    return model.mask_decoder.predict_masks(
        image_embeddings=embedding,
        image_pe=model.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
    )


def mask_loss(
    logits: torch.Tensor, iou: torch.Tensor, truth: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss over prompts, and the mean IoU of the single mask over prompts on objects.

    Clicks on the background teach only the IoU head, to predict 0: that keeps "segment everything"
    clean. Meta's Sam was not trained so.

    Args:
        logits: (P, 4, h, w).
        iou: (P, 4), what the IoU head predicts.
        truth: (P, h, w) 0-1; all 0 for a click on the background.
    """
    on_object = truth.sum((1, 2)) > 0
    truth = truth[:, None].expand_as(logits)
    probability = logits.sigmoid()
    wrong = (probability - truth).abs()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    # By object area, not by image area: a small object would weigh nothing.
    focal = (wrong.square() * cross_entropy).sum((2, 3)) / truth.sum((2, 3)).clamp(min=4.0)
    overlap = (probability * truth).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (probability.sum((2, 3)) + truth.sum((2, 3)) + 1)
    each = (2.0 * focal + dice)[on_object]
    masks = each[:, 0] + each[:, 1:].amin(dim=1) + 0.05 * each[:, 1:].mean(dim=1)
    mask, solid = logits.detach() > 0, truth > 0.5
    real = (mask & solid).sum((2, 3)) / (mask | solid).sum((2, 3)).clamp(min=1)
    return masks.mean() + 2.0 * (iou - real).square().mean(), real[on_object, 0].mean()


def train(*, seed: int, steps: int, out: Path, batch_size: int = 6) -> None:
    """Train one small Sam from scratch and save it in ``out``."""
    torch.manual_seed(seed)  # segment_anything draws its weights from torch's generator
    rng = np.random.default_rng([seed, 3])
    model = build_shapes_sam().train()
    model.image_encoder.to(memory_format=torch.channels_last)
    size = model.image_encoder.img_size
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.997), use_buffers=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05, fused=True)
    started, running = time.perf_counter(), np.zeros(2)
    for step in range(steps):
        share = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 60) * share
        first = TRAINING_SEED + (seed * steps + step) * batch_size
        batch = [make_scene(first + k, classes=SEEN) for k in range(batch_size)]
        frames = [frame(scene, size) for scene in batch]
        pixels = torch.stack([model.preprocess(image) for image, _, _ in frames])
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = model.image_encoder(pixels.contiguous(memory_format=torch.channels_last))
        losses, overlaps = [], []
        for scene, (_, masks, scale), embedding in zip(
            batch, frames, embeddings.float(), strict=True
        ):
            chosen, points, boxes = prompt_image(scene, scale, rng)
            truth = torch.cat([masks, torch.zeros_like(masks[:1])])[chosen]  # -1: nothing
            truth = F.pad(truth, (0, size - masks.shape[2], 0, size - masks.shape[1]))
            truth = F.avg_pool2d(truth[:, None], size // LOW_RES_PX)[:, 0]
            loss, overlap = mask_loss(*decode(model, embedding[None], points, boxes), truth)
            losses.append(loss)
            overlaps.append(overlap)
        loss = torch.stack(losses).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        averaged.update_parameters(model)
        running += [loss.item(), torch.stack(overlaps).mean().item()]
        if (step + 1) % 50 == 0:
            spent = time.perf_counter() - started
            logger.info("%d loss %.3f IoU %.3f %.0f s", step + 1, *(running / 50), spent)
            running[:] = 0.0
        if (step + 1) % 400 == 0 or step + 1 == steps:
            save_checkpoint(averaged.module, CONFIG, out)
            scenes = evaluate_sam.scenes(VALIDATION_SEED, 60)
            table = evaluate_sam.measure(evaluate_sam.load_sam(out), scenes)
            logger.info("validation %s", json.dumps(table))


def main(arguments: Sequence[str] | None = None) -> None:
    training_command(train, __doc__, steps=7500, arguments=arguments)


if __name__ == "__main__":
    main()
