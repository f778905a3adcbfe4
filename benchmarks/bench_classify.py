"""Images per second of zs.classify against the bare forward pass and FiftyOne's apply_model.

    python benchmarks/bench_classify.py [--images 256] [--rounds 3] [--memory] [--device cuda]

ViT-B-32 with random weights on 640x480 JPEGs. All sides take turns in one process and write to one
private database; a ratio is the median over rounds of ratios within a round, so a machine whose
speed drifts moves both sides. Prints markdown for docs/performance.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import processor
from worlds import copy_in_precision, make_dataset, private_database

CLASSES = [f"thing {i}" for i in range(10)]
MODEL = "ViT-B-32"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", action="store_true", help="peak memory at 500 and 5,000 images")
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()

    with private_database(), tempfile.TemporaryDirectory() as folder:
        if options.peak_of:
            print(peak_mb(Path(folder), options.peak_of, options.device))
            return
        print(machine(options.device))
        if options.memory:
            peaks = {n: peak_in_subprocess(n, options.device) for n in (500, 5_000)}
            print("\n| images | peak memory |\n|---|---|")
            for n, peak in peaks.items():
                print(f"| {n:,} | {peak:,.0f} MB |")
            print(f"\nRatio {peaks[5_000] / peaks[500]:.3f}")
            return
        throughput(Path(folder), options)


def throughput(folder: Path, options) -> None:
    import torch

    import zs_operators as zs

    dataset = make_dataset(folder, options.images)
    device = options.device
    fp32 = zs.load_clip(MODEL, "random", device=device, precision="fp32")
    auto = copy_in_precision(fp32, "auto", device)
    theirs = fiftyone_model(fp32, device)
    items = torch.stack([load(fp32, path) for path in dataset.values("filepath")])

    sides = {
        "bare forward, fp32": lambda: forward(fp32, items),
        "zs.classify, fp32": lambda: ours(dataset, fp32, "fp32"),
        "apply_model, defaults": lambda: apply(dataset.limit(96), theirs, "defaults"),
        "apply_model, batch 32, 2 workers": lambda: apply(
            dataset, theirs, "best", batch_size=32, num_workers=2
        ),
        f"bare forward, {auto.precision} weights": lambda: forward(auto, items),
        f"zs.classify, auto ({auto.precision})": lambda: ours(dataset, auto, "auto"),
    }
    rounds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(options.rounds + 1):
        for name, side in sides.items():
            count, seconds = side()
            if number:  # the first round warms up
                rounds[name].append(count / seconds)

    print("\n| | images/s (median) | min | max |\n|---|---|---|---|")
    for name, rates in rounds.items():
        print(f"| {name} | {statistics.median(rates):.1f} | {min(rates):.1f} | {max(rates):.1f} |")

    names = list(sides)

    def ratio(top: int, bottom: int) -> float:
        pairs = zip(rounds[names[top]], rounds[names[bottom]], strict=True)
        return statistics.median(a / b for a, b in pairs)

    print("\n| ratio | measured |\n|---|---|")
    for label, top, bottom in (
        ("fp32 / bare forward", 1, 0),
        ("fp32 / apply_model at its defaults", 1, 2),
        ("fp32 / apply_model at its best", 1, 3),
        ("auto / bare forward in the same precision", 5, 4),
        ("auto / apply_model at its defaults", 5, 2),
        ("auto / apply_model at its best", 5, 3),
    ):
        print(f"| {label} | {ratio(top, bottom):.2f} |")
    agreement(dataset, fp32, auto, items)


def agreement(dataset, fp32, auto, items) -> None:
    a, b = fp32.encode_images(items), auto.encode_images(items)
    cosine = (a * b).sum(dim=1).min().item()
    same = [
        x == y
        for x, y in zip(dataset.values("fp32.label"), dataset.values("auto.label"), strict=True)
    ]
    print(f"\nLowest cosine of an image's embeddings, {auto.precision} against fp32: {cosine:.6f}")
    print(f"Labels equal, random weights: {sum(same) / len(same):.4f}")
    print(f"Labels equal, trained shapes-tiny: {trained_agreement():.4f}")


def trained_agreement() -> float:
    """Share of equal labels on drawn objects, with weights that mean something."""
    import zs_operators as zs
    from zs_operators.shapes.dataset import OBJECT, load_shapes_dataset
    from zs_operators.shapes.world import CLASSES as SHAPES

    with tempfile.TemporaryDirectory() as folder:
        objects = load_shapes_dataset("bench-shapes", folder=folder, num_scenes=300).match_tags(
            OBJECT
        )
        for precision in ("fp32", "auto"):
            zs.classify(
                objects, SHAPES, model="shapes-tiny", precision=precision,
                label_field=precision, progress=False,
            )  # fmt: skip
        labels = zip(objects.values("fp32.label"), objects.values("auto.label"), strict=True)
        same = [a == b for a, b in labels]
        return sum(same) / len(same)


def forward(clip, items):
    from zs_operators.device import default_batch_size

    size = default_batch_size(clip.device, clip.precision)
    begun = time.perf_counter()
    for start in range(0, len(items), size):
        clip.encode_images(items[start : start + size])
    return len(items), time.perf_counter() - begun


def ours(dataset, clip, field):
    import zs_operators as zs

    report = zs.classify(
        dataset, CLASSES, model=clip, label_field=field, overwrite=True, resume=False,
        progress=False,
    )  # fmt: skip
    # Text is encoded once a run whatever its length; both sides leave it out
    return len(dataset), report.seconds["total"]


def apply(samples, model, field, **kwargs):
    begun = time.perf_counter()
    samples.apply_model(model, field, progress=False, **kwargs)
    return len(samples), time.perf_counter() - begun


def load(clip, path):
    from zs_operators.images import read_image

    return clip.preprocess(read_image(path, reduce_to_px=clip.reduce_to_px))


def fiftyone_model(clip, device):
    """FiftyOne's own open_clip wrapper with the same weights."""
    from fiftyone.utils.open_clip import TorchOpenClipModel, TorchOpenClipModelConfig

    model = TorchOpenClipModel(
        TorchOpenClipModelConfig(
            {
                "entrypoint_fcn": "",
                "clip_model": clip.architecture,
                "pretrained": "",
                "text_prompt": "A photo of",
                "classes": CLASSES,
                "device": device,
                "output_processor_cls": "fiftyone.utils.torch.ClassifierOutputProcessor",
                "image_size": [224, 224],
                "image_mean": [0.48145466, 0.4578275, 0.40821073],
                "image_std": [0.26862954, 0.26130258, 0.27577711],
                "embeddings_layer": "visual",
            }
        )
    )
    model._model.load_state_dict(clip.module.state_dict())
    return model


def peak_mb(folder: Path, count: int, device: str) -> float:
    """Peak memory of this process after classifying ``count`` images, MB."""
    import resource

    import zs_operators as zs

    dataset = make_dataset(folder, count)
    zs.classify(
        dataset, CLASSES, model=MODEL, weights="random", label_field="auto", device=device,
        progress=False,
    )  # fmt: skip
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peak_in_subprocess(count: int, device: str) -> float:
    command = [sys.executable, __file__, "--peak-of", str(count), "--device", device]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(found.stdout.splitlines()[-1])


def machine(device: str) -> str:
    import open_clip
    import torch

    return (
        f"{processor(device)}, {os.cpu_count()} processors, "
        f"{torch.get_num_threads()} torch threads, torch {torch.__version__}, "
        f"open_clip {open_clip.__version__}, Python {platform.python_version()}"
    )


if __name__ == "__main__":
    main()
