"""Images of one object each, and samples of them with its name as ground truth."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from zs_operators.shapes.world import make_scene


def draw(folder: Path, count: int) -> list[tuple[str, str]]:
    """Writes so many images; the path of each and the name of its object."""
    found = []
    for seed in range(count):
        scene = make_scene(seed, num_objects=1)
        path = folder / f"{seed:03}.png"
        Image.fromarray(scene.image).save(path)
        found.append((str(path), scene.objects[0].label))
    return found


def add(dataset, pictures: list[tuple[str, str]]) -> None:
    """Adds a sample of each of what :func:`draw` wrote, its name in ``ground_truth``."""
    import fiftyone as fo  # not before the tests have a database of their own

    dataset.add_samples(
        fo.Sample(filepath=path, ground_truth=fo.Classification(label=name))
        for path, name in pictures
    )
