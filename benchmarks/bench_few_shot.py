"""What a few labelled samples a class add to zero-shot, on drawn shapes with poor names.

64 classes of the shapes world, cut out and degraded; a third of them have names in which a letter
takes the place of the shape. 48 classes have samples, 16 have none. Prints the table of
docs/few-shot.md: accuracy on samples that no head has seen, means over three draws.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import zs_operators as zs
from zs_operators.heads import gda, kernel_ridge, logistic
from zs_operators.heads.fitting import make_support
from zs_operators.heads.gathering import Gathered
from zs_operators.heads.gda import Moments
from zs_operators.heads.selection import Choice, choose
from zs_operators.heads.support import Support
from zs_operators.shapes.world import CLASSES, COLORS, SHAPES, make_scene

FIRST_SEED = 800_000_000
NUM_SUPPORTED = 48
SEEDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2400)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    options = parser.parse_args()
    clip = zs.load_clip("shapes-tiny", device="cpu", precision="fp32")
    embeddings, columns = embed(clip, options.images)
    vocabulary = zs.Vocabulary.parse(poor_names())
    vectors = clip.class_vectors(vocabulary)
    everything = make_support(clip, vocabulary, vectors, Gathered(embeddings, columns))
    print(f"{'':>6} {'zero-shot':^20} {'head':^20}")
    print(f"{'shots':>6} {'S     U     H':^20} {'S     U     H':^20} method, seconds to fit")
    for shots in options.shots:
        rows, methods, seconds = [], [], []
        for seed in range(SEEDS):
            support, rest, supported = split(everything, shots, seed)
            begun = time.perf_counter()
            choice = choose(support)
            added = offsets(support, choice, rest.embeddings)
            seconds.append(time.perf_counter() - begun)
            methods.append(choice.method)
            logits = rest.prior + added
            rows.append(measure(rest.prior, rest.columns, supported))
            rows[-1] += measure(logits, rest.columns, supported)
        mean = " ".join(f"{value:.3f}" for value in np.mean(rows, axis=0))
        print(f"{shots:>6} {mean}  {', '.join(sorted(set(methods)))}, {np.median(seconds):.1f}")


def poor_names() -> dict[str, list[str]]:
    """Every third shape of a colour is a letter that means nothing."""
    return {
        f"{color} {shape}": [f"{color} {shape if (row + column) % 3 else 'abcdefgh'[column]}"]
        for row, color in enumerate(COLORS)
        for column, shape in enumerate(SHAPES)
    }


def embed(clip, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings and classes of pale, noisy, badly cut-out objects."""
    import torch

    rng = np.random.default_rng(0)
    pixels, columns = [], []
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        scene = make_scene(seed, num_objects=1)
        (item,) = scene.objects
        x1, y1, x2, y2 = item.box_px
        size = np.array([x2 - x1, y2 - y1]) * 1.6
        centre = np.array([x1 + x2, y1 + y2]) / 2 + rng.normal(size=2) * size * 0.1
        (left, top), (right, bottom) = (centre - size / 2).clip(0), centre + size / 2
        crop = scene.image[int(top) : int(bottom), int(left) : int(right)].astype(float)
        grey = crop.mean(axis=2, keepdims=True)
        crop = 0.5 * crop + 0.5 * grey + 15 + rng.normal(size=crop.shape) * 20
        pixels.append(clip.preprocess(np.ascontiguousarray(crop.clip(0, 255).astype(np.uint8))))
        columns.append(CLASSES.index(item.label))
    parts = [clip.encode_images(torch.stack(pixels[i : i + 64])) for i in range(0, count, 64)]
    return torch.cat(parts).numpy(), np.array(columns)


def split(everything: Support, shots: int, seed: int) -> tuple[Support, Support, np.ndarray]:
    """``shots`` samples of 48 classes, all other samples, and which classes have samples."""
    rng = np.random.default_rng(seed)
    supported = np.zeros(len(CLASSES), bool)
    supported[rng.permutation(len(CLASSES))[:NUM_SUPPORTED]] = True
    order = rng.permutation(len(everything))
    rank = np.zeros(len(everything), int)
    for column in range(len(CLASSES)):
        rows = order[everything.columns[order] == column]
        rank[rows] = np.arange(len(rows))
    chosen = supported[everything.columns] & (rank < shots)
    return everything.take(chosen), everything.take(~chosen), supported


def offsets(support: Support, choice: Choice, queries: np.ndarray) -> np.ndarray:
    """What the head adds to logits."""
    if choice.method == "kernel_ridge":
        near = kernel_ridge.kernel(queries, support.embeddings, choice.constants["beta"])
        return choice.alpha * near @ kernel_ridge.fit(support, **choice.constants)
    if choice.method == "gda":
        moments = Moments.of(support.embeddings, support.columns, len(support.texts))
        weight, bias = gda.fit(moments, support.texts, choice.constants["text_scale"])
    else:
        weight, bias = logistic.fit(support, choice.constants["C"])
    return choice.alpha * (queries @ weight.T + bias)


def measure(logits: np.ndarray, columns: np.ndarray, supported: np.ndarray) -> list[float]:
    """S, U and H: means over classes."""
    right = logits.argmax(axis=1) == columns
    by_class = np.array([right[columns == column].mean() for column in range(len(supported))])
    s, u = by_class[supported].mean(), by_class[~supported].mean()
    return [s, u, 2 * s * u / (s + u)]


if __name__ == "__main__":
    main()
