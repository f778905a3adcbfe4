"""Recall of small and of large objects in large pictures, with and without tiles.

    python benchmarks/bench_tiles.py [--scenes 4] [--side 4096] [--tiles 320 512]

shapes-tiny on pictures of 60 objects of 26-60 px and two of 400-900 px, all 64 classes, boxes of
confidence 0.3 and above. An object counts as found if a box covers it with an IoU of 0.5 and has
its name. Prints markdown for docs/detection.md.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

NUM_LARGE = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--tiles", type=int, nargs="+", default=[512, 320])
    options = parser.parse_args()

    print("| `tile_size_px` | small objects found | large | boxes that fit none | s/image |")
    print("|---|---|---|---|---|")
    for size in (None, *options.tiles):
        print("|", size or "off", "|", *measure(size, options.scenes, options.side), "|")


def measure(tile_size_px: int | None, num_scenes: int, side_px: int) -> list[str]:
    """Cells of one row, with bars between them."""
    from zs_operators.clip import load_clip
    from zs_operators.detect_options import DetectOptions
    from zs_operators.detections import DetectItem
    from zs_operators.detector import ZeroShotDetector
    from zs_operators.images import UprightImage
    from zs_operators.proposals import load_proposer
    from zs_operators.shapes.evaluate_proposals import pair_iou
    from zs_operators.shapes.large_scenes import make_large_scene
    from zs_operators.shapes.world import CLASSES
    from zs_operators.vocabulary import Vocabulary

    detector = ZeroShotDetector(
        load_clip("shapes-tiny", device="cpu"),
        Vocabulary.parse(list(CLASSES)),
        DetectOptions(min_confidence=0.3, max_detections=None, tile_size_px=tile_size_px),
        proposer=load_proposer("shapes-tiny", device="cpu"),
    )
    found, extra, seconds = [], 0, 0.0
    for seed in range(num_scenes):
        scene = make_large_scene(seed, side_px=side_px, num_large=NUM_LARGE)
        item = DetectItem(UprightImage(scene.image, side_px, side_px))
        begun = time.perf_counter()
        detections = detector.predict([item])[0].detections
        seconds += time.perf_counter() - begun
        boxes = np.array([one.box_px for one in detections], np.float32).reshape(-1, 4)
        named = np.array([[one.label == name for one in detections] for name in scene.labels])
        covers = pair_iou(scene.boxes_px, boxes) >= 0.5
        found.append((covers & named.reshape(covers.shape)).any(axis=1))
        extra += int((~covers.any(axis=0)).sum())
    found = np.array(found)
    return [
        f"{found[:, NUM_LARGE:].mean():.0%} |",
        f"{found[:, :NUM_LARGE].mean():.0%} |",
        f"{extra / num_scenes:.1f} |",
        f"{seconds / num_scenes:.1f}",
    ]


if __name__ == "__main__":
    main()
