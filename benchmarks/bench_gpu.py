"""Images, regions and masks per second on a GPU, and the most memory each task took of it.

    python benchmarks/bench_gpu.py [--device cuda] [--quick] [--only classify segment regions]

Models of full size with random weights: ViT-B-32 and ViT-L-14 on 640x480 JPEGs against the bare
forward pass and FiftyOne's own open_clip model, boxes as crops and from features against one crop
at a time, and SAM ViT-B and ViT-H against FiftyOne's own. Sides are those of bench_classify.py,
bench_regions.py and bench_segment.py; they take turns in one process, and a ratio is the median
over rounds of ratios within a round. Prints markdown for docs/performance.md.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import bench_classify
import bench_regions
import bench_segment
from worlds import copy_in_precision, make_dataset, private_database

WORKERS = min(8, os.cpu_count() or 1)
BATCH_SIZE = 256  # of FiftyOne's model at its best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small models, few items, one round")
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS))
    options = parser.parse_args()
    options.rounds = 1 if options.quick else 2
    with private_database(), tempfile.TemporaryDirectory() as folder:
        os.environ["ZS_STORE_DIR"] = folder
        print(bench_classify.machine(options.device), flush=True)
        for name in options.only:
            begun = time.perf_counter()
            TASKS[name](Path(folder), options)
            print(f"\n{name} took {time.perf_counter() - begun:.0f} s", flush=True)


def classify(folder: Path, options) -> None:
    """Images per second, where they are read, resized, classified and written."""
    import torch

    import zs_operators as zs

    models = {"ViT-B-32": 16} if options.quick else {"ViT-B-32": 2048, "ViT-L-14": 256}
    dataset = make_dataset(folder, max(models.values()))
    for name, count in models.items():
        images = dataset.limit(count).clone()
        fp32 = zs.load_clip(name, "random", device=options.device, precision="fp32")
        auto = copy_in_precision(fp32, "auto", options.device)
        theirs = bench_classify.fiftyone_model(fp32, options.device)
        distinct = images.limit(min(count, 128)).values("filepath")
        items = torch.stack([bench_classify.load(fp32, path) for path in distinct])
        items = items.repeat(count // len(items), 1, 1, 1)
        on_device = items.to(options.device)
        best = {"batch_size": BATCH_SIZE, "num_workers": WORKERS}
        few = images.limit(count // 16)
        bare, bare_auto = "bare forward, fp32", f"bare forward, auto ({auto.precision})"
        sides = {
            bare: Timed(count, forward(fp32, items)),
            "zs.classify, fp32": Timed(count, labels(images, fp32, "fp32"), bare),
            bare_auto: Timed(count, forward(auto, items)),
            f"{bare_auto}, pixels on the GPU": Timed(count, forward(auto, on_device), bare_auto),
            "zs.classify, auto": Timed(count, labels(images, auto, "auto"), bare_auto),
            "apply_model, defaults": Timed(len(few), apply(few, theirs, "defaults"), bare),
            f"apply_model, batch {BATCH_SIZE}, {WORKERS} workers": Timed(
                count, apply(images, theirs, "best", **best), bare
            ),
        }
        in_turns(sides, f"{name}, {count:,} images of 640 x 480 px", "images", options)
        images.delete()
    dataset.delete()


def forward(clip, items) -> Callable:
    return lambda: bench_classify.forward(clip, items)


def labels(images, clip, label_field: str) -> Callable:
    return lambda: bench_classify.ours(images, clip, label_field)


def apply(images, model, label_field: str, **how) -> Callable:
    return lambda: bench_classify.apply(images, model, label_field, **how)


def regions(folder: Path, options) -> None:
    """Regions per second: embedded alone, and read, named and written by zs.detect."""
    images, boxes = (1, 10) if options.quick else (4, 100)
    pixels = [bench_regions.picture(seed) for seed in range(images)]
    boxes_px = [bench_regions.some_boxes(boxes, seed) for seed in range(images)]
    many = 2 if options.quick else 32
    dataset = bench_segment.pictures(folder, (640, 480), boxes, many)
    count, total = images * boxes, many * boxes
    for name, method in (("ViT-B-32", "crops"), ("RN50-quickgelu", "roi")):
        fp32, auto = bench_regions.models(name, options.device)
        loop = "one crop at a time, fp32"
        sides = {loop: Side(count, bench_regions.loop(fp32, pixels, boxes_px))}
        for clip in (fp32, auto):
            for contexts in ((1.0,), (1.0, 1.5))[: 2 if method == "crops" else 1]:
                encode = bench_regions.ours(clip, method, contexts, pixels, boxes_px)
                crops = f", {len(contexts)} a region" if method == "crops" else ""
                sides[f"{method}, {clip.precision}{crops}"] = Side(count, encode, loop)
        for clip in (fp32, auto):
            sides[f"zs.detect, {clip.precision}"] = Side(total, detect(dataset, clip, method), loop)
        in_turns(sides, f"{name}, {boxes} regions an image of 640 x 480 px", "regions", options)
    dataset.delete()


def detect(dataset, clip, method: str) -> Callable:
    import zs_operators as zs

    return lambda: zs.detect(
        dataset, bench_classify.CLASSES, regions="boxes", model=clip, label_field="zs",
        region_embedding=method, overwrite=True, resume=False, progress=False,
    )  # fmt: skip


def segment(folder: Path, options) -> None:
    """Images per second of SAM's first pass with boxes, and of the next from stored embeddings."""
    images, counts = (1, [2]) if options.quick else (4, [10, 50])
    models = ("sam-vit-b",) if options.quick else ("sam-vit-b", "sam-vit-h")
    for name in models:
        loaded = bench_segment.load_models(options.device, name)
        for count in counts:
            dataset = bench_segment.pictures(folder, bench_segment.SIZES[0], count, images)
            made = bench_segment.make_sides(dataset, loaded)
            sides = {label: Side(images, run, bench_segment.THEIRS) for label, run in made.items()}
            in_turns(sides, f"{name}, {count} boxes an image of 640 x 480 px", "images", options)
            print(f"\nIoU of auto's masks with fp32's: {bench_segment.agreement(dataset):.3f}")
            dataset.delete()


TASKS = {"classify": classify, "segment": segment, "regions": regions}


@dataclass
class Side:
    """``run`` does ``count`` things; ``base`` is the name of the side that it is compared with."""

    count: int
    run: Callable
    base: str | None = None
    rates: list[float] = field(default_factory=list)
    peak_mib: float = 0.0

    def seconds(self) -> float:
        begun = time.perf_counter()
        self.run()
        return time.perf_counter() - begun


class Timed(Side):
    """A side whose ``run`` ends on the CPU and returns what it did and the seconds it took."""

    def seconds(self) -> float:
        return self.run()[1]


def in_turns(sides: dict[str, Side], title: str, things: str, options) -> None:
    """Measures the sides round by round and prints them as a table."""
    for number in range(options.rounds + 1):
        for side in sides.values():
            rate, peak_mib = measured(side, options.device)
            side.peak_mib = max(side.peak_mib, peak_mib)
            if number:  # the first round warms up
                side.rates.append(rate)
    print(f"\n{title}\n\n| | {things}/s (median) | min | max | times | peak of the GPU |")
    print("|---|---|---|---|---|---|")
    for name, side in sides.items():
        rates, times = side.rates, ""
        if side.base not in (None, name):
            pairs = zip(rates, sides[side.base].rates, strict=True)
            times = f"{statistics.median(a / b for a, b in pairs):.2f} x {side.base}"
        middle = statistics.median(rates)
        print(
            f"| {name} | {middle:,.1f} | {min(rates):,.1f} | {max(rates):,.1f} | {times} "
            f"| {side.peak_mib:,.0f} MiB |",
            flush=True,
        )


def measured(side: Side, device: str) -> tuple[float, float]:
    """Things per second, and the most GPU memory beyond what was taken before, MiB."""
    import torch

    on_gpu = device.startswith("cuda")
    gc.collect()
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    seconds = side.seconds()
    peak = torch.cuda.max_memory_allocated() - before if on_gpu else 0
    return side.count / seconds, peak / 2**20


if __name__ == "__main__":
    main()
