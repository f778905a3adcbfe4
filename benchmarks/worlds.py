"""What benchmarks share: a database of their own, pictures, and the same weights twice."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


@contextlib.contextmanager
def private_database():
    """A mongod of its own, set up before FiftyOne is imported."""
    from zs_operators.mongod import fiftyone_environment, start_private_mongod

    with start_private_mongod() as server, tempfile.TemporaryDirectory() as home:
        os.environ.update(fiftyone_environment(server.uri, home=home))
        os.environ["FIFTYONE_SHOW_PROGRESS_BARS"] = "false"
        yield


def make_dataset(folder: Path, count: int):
    import fiftyone as fo

    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(filepath=str(p)) for p in make_jpegs(folder, count)])
    return dataset


def make_jpegs(folder: Path, count: int, distinct: int = 128) -> list[Path]:
    """640x480 JPEGs of about 90 KB, like photographs; beyond ``distinct`` they are copies."""
    import numpy as np
    from PIL import Image, ImageFilter

    paths = []
    for i in range(count):
        path = folder / f"{i:05d}.jpg"
        if i < distinct:
            rng = np.random.default_rng(i)
            coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
            pixels = np.asarray(coarse.resize((640, 480), Image.BICUBIC), np.int16)
            noise = Image.fromarray(rng.integers(0, 256, (480, 640), np.uint8))
            grain = np.asarray(noise.filter(ImageFilter.GaussianBlur(0.8)), np.int16) - 128
            pixels = np.clip(pixels + grain[..., None] // 2, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(path, quality=90)
        else:
            path.write_bytes(paths[i % distinct].read_bytes())
        paths.append(path)
    return paths


def copy_in_precision(clip, precision, device):
    """The same random weights in another precision."""
    import copy

    from zs_operators.clip import ClipModel
    from zs_operators.clip_loading import LoadedClip
    from zs_operators.device import resolve_precision

    parts = LoadedClip(
        plan=clip.plan,
        module=copy.deepcopy(clip.module),
        tokenizer=clip.tokenizer,
        preprocess=clip._preprocess,
    )
    return ClipModel(parts, device=device, precision=resolve_precision(precision, device))
