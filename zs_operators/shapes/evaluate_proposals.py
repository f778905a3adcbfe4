"""Measure shapes-proposals: ``python -m zs_operators.shapes.evaluate_proposals``.

Recall of objects by the best k boxes of an image, for the region proposal network's own boxes and
for the refined detections.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zs_operators.shapes.checkpoints import load_checkpoint
from zs_operators.shapes.evaluate import TEST_SEED, VALIDATION_SEED
from zs_operators.shapes.world import UNSEEN, Scene, make_scene

WEIGHTS = Path(__file__).parent / "weights" / "shapes-proposals"
_SCENES_OFFSET = 20_000_000  # clear of the scenes that measure shapes-clip


def scenes(seed: int, count: int) -> list[Scene]:
    """``count`` default scenes (1-6 objects, all 64 classes) from consecutive seeds."""
    return [make_scene(seed + _SCENES_OFFSET + k) for k in range(count)]


def load_proposer(folder: Path = WEIGHTS):
    """The trained Faster R-CNN in fp32 and eval mode, from a weights folder."""
    from zs_operators.shapes.proposal_model import build_shapes_proposer

    return load_checkpoint(build_shapes_proposer, folder)


def proposals(model, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """RPN boxes, refined boxes and refined scores of one image, each best first.

    Args:
        model: Faster R-CNN in eval mode.
        image: (H, W, 3) uint8 RGB.

    Returns:
        (P, 4) and (D, 4) float32 x1, y1, x2, y2 in px of the image; (D,) float32 0-1.
    """
    import torch

    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255.0
    with torch.inference_mode():
        batch, _ = model.transform([tensor])
        features = model.backbone(batch.tensors)
        boxes, _ = model.rpn(batch, features)
        found, _ = model.roi_heads(features, boxes, batch.image_sizes)
    height, width = batch.image_sizes[0]
    scale = torch.tensor([image.shape[1] / width, image.shape[0] / height]).repeat(2)
    refined = found[0]
    return (boxes[0] * scale).numpy(), (refined["boxes"] * scale).numpy(), refined["scores"].numpy()


def pair_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N, M) intersection over union of (N, 4) and (M, 4) x1, y1, x2, y2 boxes."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(b[:, 2:] - b[:, :2], 0, None).prod(axis=1) for b in (first, second)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None, :] - shared, 1e-9)


def measure(model, test_scenes: Sequence[Scene]) -> dict:
    """Recall at 10 and 50 boxes and at IoU 0.5 and 0.75; detections scored > 0.5 too many."""
    best: dict[str, list[np.ndarray]] = {
        f"{kind}@{k}": [] for kind in ("rpn", "refined") for k in (10, 50)
    }
    unseen, extra = [], 0
    for scene in test_scenes:
        truth = np.array([item.box_px for item in scene.objects], dtype=np.float32)
        unseen += [item.label in UNSEEN for item in scene.objects]
        raw, refined, scores = proposals(model, scene.image)
        for kind, boxes in (("rpn", raw), ("refined", refined)):
            for k in (10, 50):
                overlap = pair_iou(truth, boxes[:k])
                best[f"{kind}@{k}"].append(overlap.max(axis=1, initial=0.0))
        confident = refined[scores > 0.5]
        extra += int((pair_iou(truth, confident).max(axis=0, initial=0.0) < 0.5).sum())
    held_out = np.array(unseen)
    table: dict = {"scenes": len(test_scenes), "objects": len(held_out)}
    for name, parts in best.items():
        overlap = np.concatenate(parts)
        for threshold in (0.5, 0.75):
            hit = overlap >= threshold
            table[f"{name} IoU {threshold}"] = {
                "all": float(hit.mean()),
                "seen": float(hit[~held_out].mean()),
                "unseen": float(hit[held_out].mean()),
            }
    table["extra_boxes_per_image"] = extra / len(test_scenes)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--validation", action="store_true", help="validation seeds, not test")
    options = parser.parse_args(arguments)
    seed = VALIDATION_SEED if options.validation else TEST_SEED
    table = measure(load_proposer(options.weights), scenes(seed, options.scenes))
    sys.stdout.write(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
