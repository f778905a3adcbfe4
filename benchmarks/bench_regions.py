"""Regions per second of RegionEncoder against the loop of the literature, and its peak memory.

    python benchmarks/bench_regions.py [--regions 100] [--rounds 3] [--device cuda]
    python benchmarks/bench_regions.py --memory

The loop is what a tutorial writes: crop each box from the PIL image at whole pixels, open_clip's
own preprocess, encode_image of one crop, in fp32 without gradients. All sides have the same random
weights and the same boxes and take turns in one process; a ratio is the median over rounds of
ratios within a round, so a machine whose speed drifts moves both sides. Prints markdown for
docs/performance.md.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

import machine

WIDTH_PX, HEIGHT_PX = 640, 480


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--regions", type=int, default=100, help="regions an image")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", action="store_true", help="peak memory by regions an image")
    parser.add_argument("--peak-of", nargs=2, metavar=("MODEL", "REGIONS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_of:
        print(peak_mb(options.peak_of[0], int(options.peak_of[1]), options.device))
        return
    print(machine.describe(options.device))
    if options.memory:
        memory(options.device)
    else:
        throughput(options)


def throughput(options) -> None:
    import torch

    pixels = [picture(seed) for seed in range(options.images)]
    boxes = [some_boxes(options.regions, seed) for seed in range(options.images)]
    sides = {}
    for architecture, method in (("RN50-quickgelu", "roi"), ("ViT-B-32", "crops")):
        fp32, auto = models(architecture, options.device)
        sides[f"{architecture}, loop, fp32"] = loop(fp32, pixels, boxes)
        for clip in (fp32, auto):
            contexts = ((1.0,), (1.0, 1.5)) if method == "crops" else ((1.0,),)
            for context in contexts:
                name = f"{architecture}, {method}, {clip.precision}"
                if method == "crops":
                    name += f", {len(context)} crop{'s' if len(context) > 1 else ''} a region"
                sides[name] = ours(clip, method, context, pixels, boxes)

    rounds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(options.rounds + 1):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            if options.device.startswith("cuda"):
                torch.cuda.synchronize()
            if number:  # the first round warms up
                rounds[name].append(time.perf_counter() - started)

    count = options.regions * options.images
    print(f"\n{options.regions} regions of a {WIDTH_PX} x {HEIGHT_PX} px image")
    print("\n| | regions/s (median) | min | max | against its loop |\n|---|---|---|---|---|")
    for name, seconds in rounds.items():
        base = next(other for other in rounds if other.split(",")[0] == name.split(",")[0])
        ratio = statistics.median(a / b for a, b in zip(rounds[base], seconds, strict=True))
        rates = sorted(count / s for s in seconds)
        print(
            f"| {name} | {statistics.median(rates):.1f} | {rates[0]:.1f} | {rates[-1]:.1f} "
            f"| {ratio:.1f} x |"
        )


def models(architecture: str, device: str):
    """The same random weights in float32 and in the precision that "auto" takes."""
    from zs_operators.clip import load_clip

    return tuple(
        load_clip(architecture, "random", device=device, precision=precision)
        for precision in ("fp32", "auto")
    )


def loop(clip, pixels, boxes):
    """One crop at a time, as the literature and most tutorials have it."""
    import open_clip
    import torch
    from PIL import Image

    _, _, preprocess = open_clip.create_model_and_transforms(
        clip.architecture, pretrained=None, load_weights=False
    )

    def run() -> None:
        with torch.no_grad():
            for image, rows in zip(pixels, boxes, strict=True):
                image = Image.fromarray(image)
                for box in rows.tolist():
                    crop = image.crop([int(value) for value in box])
                    batch = preprocess(crop)[None].to(clip.device)
                    embedding = clip.module.encode_image(batch)
                    embedding /= embedding.norm(dim=-1, keepdim=True)

    return run


def ours(clip, method, contexts, pixels, boxes):
    from zs_operators.regions import RegionEncoder

    encoder = RegionEncoder(clip, method, contexts=contexts)
    return lambda: encoder.encode(pixels, boxes)


def memory(device: str) -> None:
    print("\n| | 100 regions | 1,000 | 4,000 | 4,000 / 100 |\n|---|---|---|---|---|")
    for model, method in (("RN50-quickgelu", "roi"), ("ViT-B-32", "crops")):
        peaks = [peak_in_subprocess(model, count, device) for count in (100, 1_000, 4_000)]
        cells = " | ".join(f"{peak:,.0f} MB" for peak in peaks)
        print(f"| {model}, {method} | {cells} | {peaks[-1] / peaks[0]:.3f} |")


def peak_in_subprocess(model: str, regions: int, device: str) -> float:
    command = [sys.executable, __file__, "--device", device, "--peak-of", model, str(regions)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_mb(model: str, regions: int, device: str) -> float:
    """Peak memory of the process, or on the device, while one image's regions are embedded."""
    import resource

    import torch

    from zs_operators.clip import load_clip
    from zs_operators.regions import RegionEncoder

    encoder = RegionEncoder(load_clip(model, "random", device=device))
    encoder.encode([picture(0)], [some_boxes(regions, 0)])
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def picture(seed: int):
    import numpy as np
    from PIL import Image

    coarse = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.BICUBIC))


def some_boxes(count: int, seed: int):
    """Boxes of 5 to 40 % of each side, as proposals are."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor([WIDTH_PX, HEIGHT_PX])
    sides = (torch.rand(count, 2, generator=generator) * 0.35 + 0.05) * size
    corners = torch.rand(count, 2, generator=generator) * (size - sides)
    return torch.cat([corners, corners + sides], dim=1)


if __name__ == "__main__":
    main()
