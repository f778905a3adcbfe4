"""Measure shapes-sam: ``python -m zs_operators.shapes.evaluate_sam``."""

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

WEIGHTS = Path(__file__).parent / "weights" / "shapes-sam"
_SCENES_OFFSET = 30_000_000  # clear of the scenes that measure the other models


def scenes(seed: int, count: int) -> list[Scene]:
    """``count`` default scenes (1-6 objects, all 64 classes) from consecutive seeds."""
    return [make_scene(seed + _SCENES_OFFSET + k) for k in range(count)]


def load_sam(folder: Path = WEIGHTS):
    """The trained Sam in fp32 and eval mode, from a weights folder."""
    from zs_operators.shapes.sam_model import build_shapes_sam

    return load_checkpoint(build_shapes_sam, folder)


def measure(model, test_scenes: Sequence[Scene]) -> dict[str, float]:
    """Mean IoU over objects through SamPredictor: true boxes, and one point inside each object.

    A point is drawn from the object's visible pixels, from the scene's own seed.
    """
    from segment_anything import SamPredictor

    predictor = SamPredictor(model)
    rows, errors = [], []
    for scene in test_scenes:
        rng = np.random.default_rng([scene.seed, 4])
        predictor.set_image(scene.image)
        for item in scene.objects:
            ys, xs = np.nonzero(item.mask)
            k = int(rng.integers(len(ys)))
            point = {
                "point_coords": np.array([[xs[k] + 0.5, ys[k] + 0.5]]),
                "point_labels": np.array([1]),
            }
            box = {"box": np.array(item.box_px)}
            by_box, _, _ = predictor.predict(**box, multimask_output=False)
            by_point, _, _ = predictor.predict(**point, multimask_output=False)
            several, predicted, _ = predictor.predict(**point, multimask_output=True)
            overlaps = [mask_iou(mask, item.mask) for mask in several]
            best = int(predicted.argmax())
            errors.append(abs(float(predicted[best]) - overlaps[best]))
            rows.append(
                (
                    mask_iou(by_box[0], item.mask),
                    mask_iou(by_point[0], item.mask),
                    overlaps[best],
                    item.label in UNSEEN,
                )
            )
    table = np.array(rows, dtype=float)
    unseen = table[:, 3] > 0
    return {
        "scenes": len(test_scenes),
        "objects": len(table),
        "box": float(table[:, 0].mean()),
        "box_unseen": float(table[unseen, 0].mean()),
        "box_below_0.75": float((table[:, 0] < 0.75).mean()),
        "point": float(table[:, 1].mean()),
        "point_unseen": float(table[unseen, 1].mean()),
        "point_best_of_3": float(table[:, 2].mean()),
        "iou_head_error": float(np.mean(errors)),
    }


def mask_iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two (H, W) bool masks; 0 if both are empty."""
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 0.0


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--validation", action="store_true", help="validation seeds, not test")
    options = parser.parse_args(arguments)
    seed = VALIDATION_SEED if options.validation else TEST_SEED
    table = measure(load_sam(options.weights), scenes(seed, options.scenes))
    sys.stdout.write(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
