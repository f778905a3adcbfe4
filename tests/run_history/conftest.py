"""A dataset of drawn shapes, and settings that are fast."""

from __future__ import annotations

import pytest
from PIL import Image

import zs_operators as zs
from zs_operators.shapes.world import make_scene

NAMES = ["circle", "heart", "star"]
FAST = {"model": "shapes-tiny", "precision": "fp32", "device": "cpu", "progress": False}
REUSE = {**FAST, "embeddings": "reuse"}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Paths of 8 scenes of one or two objects, and their boxes in relative coordinates."""
    folder = tmp_path_factory.mktemp("run-history")
    found = []
    for seed in range(8):
        scene = make_scene(seed, num_objects=1 + seed % 2)
        path = folder / f"{seed}.png"
        Image.fromarray(scene.image).save(path)
        height, width = scene.image.shape[:2]
        boxes = []
        for thing in scene.objects:
            x1, y1, x2, y2 = thing.box_px
            boxes.append([x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height])
        found.append((str(path), boxes))
    return found


@pytest.fixture
def scenes(dataset, pictures):
    import fiftyone as fo

    for path, boxes in pictures:
        found = [fo.Detection(label="thing", bounding_box=box) for box in boxes]
        dataset.add_sample(fo.Sample(filepath=path, things=fo.Detections(detections=found)))
    return dataset


@pytest.fixture
def classified(scenes):
    """Two runs with other names; ``a`` and ``b``."""
    zs.classify(scenes, NAMES, label_field="a", **REUSE)
    zs.classify(scenes, ["circle", "square", "star"], label_field="b", **REUSE)
    return scenes
