"""New names for known images: from the store of embeddings against running the model again.

    python benchmarks/bench_embeddings.py [--images 10000] [--model-images 192] [--million]

ViT-B-32 with random weights, 100 classes, one private database, a store in a temporary folder. The
model is timed on a few hundred images and its time scaled up to all of them, which is stated; all
else is measured at full size. Images of the full size are hard links to a few hundred files.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_classify import machine
from worlds import make_dataset, private_database

MODEL = "ViT-B-32"
CLASSES = [f"thing {i}" for i in range(100)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--model-images", type=int, default=192)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--million", action="store_true", help="only 1,000,000 made-up vectors")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ZS_STORE_DIR"] = folder
        if options.million:
            million()
            return
        with private_database():
            rescore(Path(folder), options)


def rescore(folder: Path, options: argparse.Namespace) -> None:
    import fiftyone as fo

    import zs_operators as zs
    from zs_operators.classifier import ZeroShotClassifier
    from zs_operators.embeddings import image_key
    from zs_operators.model_stores import image_store, with_stored_texts

    print(machine("cpu"))
    few = make_dataset(folder, options.model_images)
    clip = zs.load_clip(MODEL, "random", device="cpu", precision=options.precision)
    common = {"model": clip, "progress": False}
    zs.classify(few, CLASSES, label_field="warm", embeddings="reuse", **common)  # prompts too

    # 1. The model, with and without storing, in turns
    seconds: dict[str, list[float]] = {"off": [], "refresh": []}
    for number in range(3):
        for mode, taken in seconds.items():
            report = zs.classify(
                few, CLASSES, label_field=f"{mode}{number}", embeddings=mode, **common
            )
            taken.append(report.seconds["total"])
    off, refresh = (min(taken) for taken in seconds.values())
    store = image_store(clip)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((options.model_images, clip.dim)).astype(np.float32)
    begun = time.perf_counter()
    keys = [image_key(path) for path in few.values("filepath")]
    for start in range(0, len(keys), 32):
        store.put(keys[start : start + 32], vectors[start : start + 32])
    store.close()
    alone = time.perf_counter() - begun
    scaled = off * options.images / options.model_images

    # 2. All images, with made-up embeddings
    paths = []
    for i in range(options.images):
        path = folder / f"link{i}.jpg"
        os.link(few.values("filepath")[0] if i == 0 else paths[0], path)
        paths.append(str(path))
    vectors = rng.standard_normal((options.images, clip.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with image_store(clip) as store:
        store.put([image_key(path) for path in paths], vectors)
    many = fo.Dataset()
    many.add_samples([fo.Sample(filepath=path) for path in paths])
    runs = []
    for number in range(3):
        begun = time.perf_counter()
        report = zs.classify(
            many, CLASSES, label_field=f"from_store{number}", embeddings="reuse", **common
        )
        visible = many.count(f"from_store{number}.label")
        runs.append((time.perf_counter() - begun, report.seconds))
        if (visible, report.reused) != (options.images, options.images):
            raise SystemExit(f"{visible} labels, {report.reused} reused: not all from the store")
    total, stages = min(runs, key=lambda run: run[0])

    classifier = ZeroShotClassifier(with_stored_texts(clip, "reuse"), zs.Vocabulary.parse(CLASSES))
    store = image_store(clip)
    wanted = [image_key(path) for path in paths]
    scoring = []
    for _ in range(5):
        begun = time.perf_counter()
        found, _ = store.vectors(store.find(wanted))
        classifier.predict_embeddings(found)
        scoring.append(time.perf_counter() - begun)

    n = options.images
    print(f"\n| {n:,} images x {len(CLASSES)} classes, {MODEL}, {clip.precision} | |\n|---|---|")
    print(f"| the model on {options.model_images} images (best of 3) | {off:.2f} s |")
    print(f"| scaled up to {n:,} images | {scaled:.0f} s |")
    print(f"| the same with storing (best of 3) | {refresh:.2f} s |")
    print(f"| storing alone, share of the run | {100 * alone / off:.2f} % |")
    print(f"| find, read and score {n:,} (best of 5) | {min(scoring):.3f} s |")
    print(f"| zs.classify from the store until labels are counted (best of 3) | {total:.2f} s |")
    for stage, value in stages.items():
        print(f"| - {stage} | {value:.2f} s |")
    print(f"| ratio | {scaled / total:.0f} |")


def million() -> None:
    from zs_operators import scoring
    from zs_operators.embeddings import EmbeddingStore, derived_key

    print(machine("cpu"))
    count, dim, step = 1_000_000, 512, 8192
    identity = {"kind": "image", "architecture": "made up"}
    rng = np.random.default_rng(0)
    made_up = rng.standard_normal((step, dim)).astype(np.float32)
    made_up /= np.linalg.norm(made_up, axis=1, keepdims=True)
    with EmbeddingStore(identity, dim) as store:
        for start in range(0, count, step):
            keys = [derived_key(i) for i in range(start, min(start + step, count))]
            store.put(keys, made_up[: len(keys)])
    scoring.score(made_up[:2], made_up[:100], logit_scale=100.0)  # torch is there
    begun = time.perf_counter()
    store = EmbeddingStore(identity, dim)
    opened = time.perf_counter() - begun
    before = peak_mb()
    begun = time.perf_counter()
    for start in range(0, count, step):
        keys = [derived_key(i) for i in range(start, min(start + step, count))]
        vectors, readable = store.vectors(store.find(keys))
        scoring.decide(scoring.score(vectors, made_up[:100], logit_scale=100.0))
        if not readable.all():
            raise SystemExit("vectors were lost")
        store.release()
    scored = time.perf_counter() - begun
    print("\n| 1,000,000 x 512 float16 | |\n|---|---|")
    print(f"| open | {opened:.2f} s |")
    print(f"| find, read, check and score against 100 classes | {scored:.1f} s |")
    print(f"| peak memory above that of opening | {peak_mb() - before:.0f} MB |")


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
