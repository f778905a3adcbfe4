"""Cut-out shapes with poor names for half of them, and a few to learn from."""

from __future__ import annotations

import pytest

import zs_operators as zs
from tests.head_worlds import MODEL, POOR_NAMES


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """45 scenes and their objects, by shape; the first 60 objects are tagged "reviewed"."""
    import fiftyone as fo  # not before the tests have a database of their own

    from zs_operators.shapes.dataset import OBJECT, SCENE, load_shapes_dataset

    folder = tmp_path_factory.mktemp("shapes")
    dataset = load_shapes_dataset(f"heads-{folder.name}", num_scenes=45, folder=folder, fresh=True)
    objects = dataset.match_tags(OBJECT)
    shape_of = objects.values("ground_truth.shape")
    objects.set_values("shape", [fo.Classification(label=name) for name in shape_of])
    objects.limit(60).tag_samples("reviewed")
    scenes = dataset.match_tags(SCENE)
    boxes = scenes.values("objects")
    for found in boxes:
        for box in found.detections:
            box.label = box.label.split()[1]
    scenes.set_values("shape_boxes", boxes)
    yield dataset
    dataset.delete()


@pytest.fixture(scope="session")
def reviewed(shapes):
    return shapes.match_tags("reviewed")


@pytest.fixture(scope="session")
def rest(shapes):
    from zs_operators.shapes.dataset import OBJECT

    return shapes.match_tags(OBJECT).match_tags("reviewed", bool=False)


@pytest.fixture(scope="session")
def head(reviewed):
    return zs.fit_head(reviewed, POOR_NAMES, "shape", progress=False, **MODEL)
