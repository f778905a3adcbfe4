"""Train shapes-proposals: ``python -m zs_operators.shapes.train_proposals --out DIR``.

Every step draws fresh scenes of the 48 seen classes; held-out pairs never appear. All objects carry
the one label "object".
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

from zs_operators.shapes import evaluate_proposals
from zs_operators.shapes.checkpoints import save_checkpoint, training_command
from zs_operators.shapes.evaluate import VALIDATION_SEED
from zs_operators.shapes.proposal_model import CONFIG, build_shapes_proposer
from zs_operators.shapes.world import SEEN, make_scene

logger = logging.getLogger("zs_operators.shapes.train_proposals")

TRAINING_SEED = 100_000_000
EMPTY_SHARE = 0.04


def training_batch(
    first_seed: int, size: int, rng: np.random.Generator
) -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    """``size`` scenes of seen classes, mirrored or not, as torchvision's detectors want them."""
    images, targets = [], []
    for seed in range(first_seed, first_seed + size):
        empty = rng.random() < EMPTY_SHARE
        scene = make_scene(seed, num_objects=0 if empty else (1, 6), classes=SEEN)
        image = scene.image.astype(np.float32) / 255.0
        boxes = np.array([o.box_px for o in scene.objects], dtype=np.float32).reshape(-1, 4)
        if rng.random() < 0.5:
            image = image[:, ::-1]
            boxes = boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [image.shape[1], 0] * 2
        image = np.clip(image * rng.uniform(0.8, 1.2) + rng.uniform(-0.08, 0.08), 0.0, 1.0)
        images.append(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float())
        targets.append(
            {
                "boxes": torch.from_numpy(boxes.astype(np.float32)),
                "labels": torch.ones(len(boxes), dtype=torch.int64),
            }
        )
    return images, targets


def train(*, seed: int, steps: int, out: Path, batch_size: int = 8) -> None:
    """Train one proposer from scratch and save it in ``out``."""
    torch.manual_seed(seed)  # torchvision draws weights and samples anchors with torch's generator
    rng = np.random.default_rng([seed, 2])
    model = build_shapes_proposer().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    started, running = time.perf_counter(), 0.0
    for step in range(steps):
        share = min(1.0, (step + 1) / 40) * (
            0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps))
        )
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * share
        first = TRAINING_SEED + (seed * steps + step) * batch_size
        losses = model(*training_batch(first, batch_size, rng))
        loss = sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        running += loss.item()
        if (step + 1) % 50 == 0:
            spent = time.perf_counter() - started
            logger.info("%d loss %.3f %.0f s", step + 1, running / 50, spent)
            running = 0.0
        if (step + 1) % 300 == 0 or step + 1 == steps:
            save_checkpoint(model, CONFIG, out)
            loaded = evaluate_proposals.load_proposer(out)
            scenes = evaluate_proposals.scenes(VALIDATION_SEED, 150)
            logger.info("validation %s", json.dumps(evaluate_proposals.measure(loaded, scenes)))


def main(arguments: Sequence[str] | None = None) -> None:
    training_command(train, __doc__, steps=2000, arguments=arguments)


if __name__ == "__main__":
    main()
