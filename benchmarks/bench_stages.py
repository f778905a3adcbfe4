"""Where the time of a whole run goes, and how much of it is not the model's forward pass.

    python benchmarks/bench_stages.py [--tasks classify crops roi segment] [--images N]
        [--precisions fp32 auto] [--rounds 3] [--threads N] [--device cpu]

Full-size models with random weights on 640x480 JPEGs of about 90 KB, labels in a private database:
``zs.classify`` with ViT-B-32; ``zs.detect`` with torchvision's Faster R-CNN and 100 regions an
image, as crops for ViT-B-32 or regions of RN50's features; ``zs.segment`` with SAM ViT-B and 10
boxes an image. The bare forward pass is the same calls of the networks with the same tensors:
backbone, region proposals and heads of the Faster R-CNN, towers of CLIP, encoder and decoder of
SAM. Runs and bare passes take turns; what is not forward is ``1 - bare / run``, the median over
rounds. Masks of random weights are noise over the whole image, so they are cut to their boxes.
Prints markdown for docs/performance.md.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import machine
from replay import Replay, Timed, timed
from worlds import make_dataset, private_database

CLASSES = [f"thing {i}" for i in range(10)]
#: One after the other, and beside them in reader threads.
STAGES = ("read", "crops", "model", "masks", "score", "labels", "write")
BESIDE = ("decode", "preprocess")
IMAGES = {"classify": 192, "crops": 2, "roi": 4, "segment": 2}


class Side(NamedTuple):
    """One task in one precision."""

    name: str
    run: Callable
    bare: Replay


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=IMAGES, default=list(IMAGES))
    parser.add_argument("--images", type=int, help="of each task; else as many as take similarly")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "auto"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of torch; else its own choice")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    with private_database(), tempfile.TemporaryDirectory() as folder:
        import torch

        if options.threads:
            torch.set_num_threads(options.threads)
        print(machine.describe(options.device))
        for task in options.tasks:
            dataset = make_dataset(Path(folder), options.images or IMAGES[task])
            for precision in options.precisions:
                torch.manual_seed(0)
                side = SIDES[task](dataset, precision, options.device)
                print(table(side, len(dataset), options.rounds), flush=True)
                del side
            dataset.delete()


def table(side: Side, count: int, rounds: int) -> str:
    """Runs both in turns, and says what was found."""
    with side.bare.recording():
        side.run()
    side.bare()
    reports, runs, bares = [], [], []
    for _ in range(rounds):
        report, run = timed(side.run)
        reports.append(report)
        runs.append(Timed(report.seconds["total"], run.cpu))
        bares.append(timed(side.bare)[1])
    total = statistics.median(one.wall for one in runs)
    lines = [f"\n{side.name}, {count} images, {len(reports[0].labels)} kinds of labels\n"]
    lines += ["| stage | ms an image | share |", "|---|---|---|"]
    seconds = {name: middle(reports, name) for name in STAGES}
    seconds["all else"] = total - sum(seconds.values())
    for name, value in seconds.items():
        if value:
            lines.append(f"| {name} | {1000 * value / count:.2f} | {value / total:.1%} |")
    lines.append(f"| whole run | {1000 * total / count:.2f} | 100 % |")
    for name in BESIDE:
        value = middle(reports, name)
        lines.append(f"| ({name}, in reader threads) | {1000 * value / count:.2f} | |")
    bare = statistics.median(one.wall for one in bares)
    lines.append(f"| bare forward pass | {1000 * bare / count:.2f} | {bare / total:.1%} |")
    for kind in ("wall", "cpu"):
        pairs = [(getattr(a, kind), getattr(b, kind)) for a, b in zip(bares, runs, strict=True)]
        shares = [1 - a / b for a, b in pairs]
        lines.append(
            f"| **not forward**, by {kind} time | | **{statistics.median(shares):.1%}** "
            f"({min(shares):.1%} to {max(shares):.1%}) |"
        )
    return "\n".join(lines)


def middle(reports, stage: str) -> float:
    return statistics.median(report.seconds.get(stage, 0.0) for report in reports)


def classify(dataset, precision: str, device: str) -> Side:
    import zs_operators as zs

    clip = zs.load_clip("ViT-B-32", "random", device=device, precision=precision)

    def run():
        return zs.classify(dataset, CLASSES, model=clip, **common("classify", precision))

    bare = Replay(device, [(clip.module.visual, "forward")])
    return Side(f"zs.classify, ViT-B-32, {clip.precision}", run, bare)


def detect(dataset, precision: str, device: str, model: str, method: str) -> Side:
    import zs_operators as zs
    from zs_operators import regions, roi_head
    from zs_operators.proposals import load_proposer

    clip = zs.load_clip(model, "random", device=device, precision=precision)
    proposer = load_proposer(
        "fasterrcnn_resnet50_fpn_v2",
        "random",
        device=device,
        precision=precision,
        max_proposals=100,
    )

    def run():
        return zs.detect(
            dataset,
            CLASSES,
            model=clip,
            proposals=proposer,
            region_embedding=method,
            max_regions=100,
            min_confidence=0.0,
            **common(method, precision),
        )

    calls = [(proposer.module.backbone, "forward"), (proposer, "_propose"), (proposer, "_refine")]
    visual = clip.module.visual
    if method == "crops":
        calls.append((visual, "forward"))
    else:
        layers = (visual.layer1, visual.layer2, visual.layer3)
        calls += [(visual, "stem"), *((layer, "forward") for layer in layers)]
        calls += [(regions, "RoiMaps"), (roi_head.RoiMaps, "sample")]
        calls += [(regions, "last_stage"), (regions, "pool_first_query")]
    name = f"zs.detect, Faster R-CNN ({proposer.precision}), {model} ({clip.precision}), {method}"
    return Side(name, run, Replay(device, calls))


def crops(dataset, precision: str, device: str) -> Side:
    return detect(dataset, precision, device, "ViT-B-32", "crops")


def roi(dataset, precision: str, device: str) -> Side:
    return detect(dataset, precision, device, "RN50-quickgelu", "roi")


def segment(dataset, precision: str, device: str) -> Side:
    import zs_operators as zs

    add_boxes(dataset, 10)
    sam = zs.load_sam("sam-vit-b", "random", device=device, precision=precision)

    def run():
        return zs.segment(
            dataset,
            prompts="boxes",
            model=sam,
            tight_boxes=False,
            **common("segment", precision),
        )

    parts = sam.module
    calls = [(parts.image_encoder, "forward"), (parts.prompt_encoder, "forward")]
    calls.append((parts.mask_decoder, "predict_masks"))
    return Side(f"zs.segment, SAM ViT-B, {sam.precision}, 10 boxes", run, Replay(device, calls))


SIDES = {"classify": classify, "crops": crops, "roi": roi, "segment": segment}


def common(task: str, precision: str) -> dict:
    field = f"{task}_{precision}"
    return {"label_field": field, "overwrite": True, "resume": False, "progress": False}


def add_boxes(dataset, count: int) -> None:
    """Boxes of a tenth to four tenths of each side."""
    import fiftyone as fo
    import numpy as np

    rng = np.random.default_rng(0)
    values = []
    for _ in range(len(dataset)):
        sides = rng.uniform(0.1, 0.4, (count, 2))
        boxes = np.concatenate([rng.uniform(0, 1 - sides), sides], axis=1).tolist()
        found = [fo.Detection(label="thing", bounding_box=box) for box in boxes]
        values.append(fo.Detections(detections=found))
    dataset.set_values("boxes", values)


if __name__ == "__main__":
    main()
