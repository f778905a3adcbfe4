"""Seconds an image of zs.segment against FiftyOne's own SAM, and the peak memory of both.

    python benchmarks/bench_segment.py [--rounds 3] [--boxes 1 10 50] [--device cpu]
    python benchmarks/bench_segment.py --memory

The other side is the class of ``segment-anything-vitb-torch``, applied with ``apply_model``. Both
have the same random ViT-B weights, read the same file and write masks of the same boxes to the same
dataset, in turns in one process; a ratio is the median over rounds of ratios within a round. Masks
of random weights are noise over the whole image, so ours are cut to their boxes too
(``tight_boxes=False``). Needs FiftyOne's database. Prints markdown for docs/performance.md.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine

SIZES = ((640, 480), (1920, 1080))
THEIRS, FP32, AUTO, STORED = "FiftyOne's SAM", "ours, fp32", "ours, auto", "ours, stored"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boxes", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", action="store_true", help="peak memory by boxes an image")
    parser.add_argument("--peak-of", nargs=2, metavar=("SIDE", "BOXES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("FIFTYONE_DATABASE_VALIDATION", "false")
    os.environ["FIFTYONE_SHOW_PROGRESS_BARS"] = "false"
    if options.peak_of:
        print(peak_mb(options.peak_of[0], int(options.peak_of[1]), options.device))
        return
    print(machine.describe(options.device))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ZS_STORE_DIR"] = folder
        if options.memory:
            memory(options.device)
        else:
            throughput(options, Path(folder))


def throughput(options, folder: Path) -> None:
    for size in SIZES:
        for count in options.boxes:
            dataset = pictures(folder, size, count)
            sides = make_sides(dataset, load_models(options.device))
            seconds: dict[str, list[float]] = {name: [] for name in sides}
            for number in range(options.rounds + 1):
                for name, side in sides.items():
                    started = time.perf_counter()
                    side()
                    if number:  # the first round warms up, and fills the store
                        seconds[name].append(time.perf_counter() - started)
            print(f"\n{size[0]} x {size[1]} px, {count} boxes\n")
            print("| | seconds an image (median) | against FiftyOne's SAM |\n|---|---|---|")
            for name, taken in seconds.items():
                pairs = zip(seconds[THEIRS], taken, strict=True)
                ratio = statistics.median(a / b for a, b in pairs)
                print(f"| {name} | {statistics.median(taken):.2f} | {ratio:.1f} x |", flush=True)
            print(f"\nIoU of auto's masks with fp32's: {agreement(dataset):.3f} (random weights)")
            dataset.delete()


def load_models(device: str, model: str = "sam-vit-b") -> tuple:
    """FiftyOne's, and ours in fp32 and in the precision of "auto", of the same random weights."""
    from zs_operators.sam import load_sam

    fp32, auto = (
        load_sam(model, "random", device=device, precision=precision)
        for precision in ("fp32", "auto")
    )
    return fiftyone_model(fp32, device), fp32, auto


def make_sides(dataset, models: tuple) -> dict:
    model, fp32, auto = models
    return {
        THEIRS: theirs(dataset, model),
        FP32: ours(dataset, fp32, "fp32"),
        AUTO: ours(dataset, auto, "auto"),
        STORED: ours(dataset, auto, "stored", embeddings="reuse"),
    }


def fiftyone_model(sam, device: str):
    """The class of ``segment-anything-vitb-torch`` with our weights."""
    import torch
    from fiftyone.utils.sam import SegmentAnythingModel, SegmentAnythingModelConfig

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "weights.pth")
        torch.save(sam.module.state_dict(), path)
        config = {
            "entrypoint_fcn": f"segment_anything.build_sam.build_{sam.name.replace('-', '_')}",
            "entrypoint_args": {},
            "model_path": path,
            "device": device,
        }
        return SegmentAnythingModel(SegmentAnythingModelConfig(config))


def theirs(dataset, model):
    def run() -> None:
        dataset.apply_model(model, "theirs", prompt_field="boxes", progress=False)

    return run


def ours(dataset, sam, field: str, **options):
    import zs_operators as zs

    def run() -> None:
        zs.segment(
            dataset,
            label_field=field,
            prompts="boxes",
            model=sam,
            tight_boxes=False,
            overwrite=True,
            resume=False,
            progress=False,
            **options,
        )

    return run


def pictures(folder: Path, size: tuple[int, int], boxes: int, images: int = 1):
    """A dataset of images with some boxes of a tenth to four tenths of each side."""
    import fiftyone as fo
    import numpy as np
    from PIL import Image

    samples = []
    for seed in range(images):
        rng = np.random.default_rng(seed)
        path = folder / f"{size[0]}-{boxes}-{seed}.jpg"
        coarse = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
        sides = rng.uniform(0.1, 0.4, (boxes, 2))
        corners = rng.uniform(0, 1 - sides)
        labels = [
            fo.Detection(label="thing", bounding_box=[*corner, *side])
            for corner, side in zip(corners.tolist(), sides.tolist(), strict=True)
        ]
        samples.append(fo.Sample(filepath=path, boxes=fo.Detections(detections=labels)))
    dataset = fo.Dataset()
    dataset.add_samples(samples)
    return dataset


def agreement(dataset) -> float:
    """Mean IoU of the masks of reduced precision with those of float32."""
    sample = dataset.first()
    overlaps = []
    for a, b in zip(sample["fp32"].detections, sample["auto"].detections, strict=True):
        if a.mask.shape == b.mask.shape:
            overlaps.append((a.mask & b.mask).sum() / max(1, (a.mask | b.mask).sum()))
    return float(statistics.mean(overlaps)) if overlaps else float("nan")


def memory(device: str) -> None:
    print("\nPeak memory of the process, 1920 x 1080 px, less what importing and loading took\n")
    print("| | 1 box | 50 boxes | 200 boxes |\n|---|---|---|---|")
    for side in (THEIRS, FP32, AUTO):
        cells = [f"{peak_in_subprocess(side, count, device):,.0f} MB" for count in (1, 50, 200)]
        print(f"| {side} | {' | '.join(cells)} |", flush=True)


def peak_in_subprocess(side: str, boxes: int, device: str) -> float:
    command = [sys.executable, __file__, "--device", device, "--peak-of", side, str(boxes)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.strip().splitlines()[-1])


def peak_mb(side: str, boxes: int, device: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        dataset = pictures(Path(folder), SIZES[1], boxes)
        from zs_operators.sam import load_sam

        precision = "auto" if side == AUTO else "fp32"
        sam = load_sam("sam-vit-b", "random", device=device, precision=precision)
        if side == THEIRS:
            run = theirs(dataset, fiftyone_model(sam, device))
        else:
            run = ours(dataset, sam, "mine")
        before = resident_mb()
        run()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        dataset.delete()
        return peak - before


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


if __name__ == "__main__":
    main()
