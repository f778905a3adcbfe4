"""Embeddings taken over from a dataset, and ours as a similarity index with text search."""

import os
import shutil

import fiftyone as fo
import fiftyone.brain as fob
import numpy as np
import pytest

import zs_operators as zs
from zs_operators.embedding_index import register_index, take_over
from zs_operators.errors import FieldError, InvalidInputError
from zs_operators.shapes.dataset import OBJECT

pytestmark = pytest.mark.usefixtures("store_dir")
NUM_SCENES = 4

NAMES = ["red circle", "blue star"]


@pytest.fixture
def objects(shapes, tmp_path):
    dataset = shapes.match_tags(OBJECT).limit(20).clone()
    paths = dataset.values("filepath")
    copies = [str(shutil.copy(path, tmp_path / f"{i}.png")) for i, path in enumerate(paths)]
    dataset.set_values("filepath", copies)
    yield dataset
    dataset.delete()


def reused(samples, clip):
    report = zs.classify(
        samples, NAMES, label_field="x", model=clip, embeddings="reuse", progress=False
    )
    return report.reused


def test_embeddings_of_a_field_are_taken_over(objects, clip):
    embeddings = objects.compute_embeddings(zs.ClipClassifier(model=clip), progress=False)
    objects.set_values("emb", list(3.0 * embeddings))  # of any length
    assert take_over(objects, clip, "emb") == len(objects)
    assert reused(objects, clip) == len(objects)


def test_embeddings_of_a_similarity_index_are_taken_over(objects, clip):
    fob.compute_similarity(
        objects, model=zs.ClipClassifier(model=clip), brain_key="theirs", progress=False
    )
    assert take_over(objects.limit(5), clip, "theirs") == 5
    assert reused(objects, clip) == 5


def test_a_missing_file_is_left_out(objects, clip):
    embeddings = objects.compute_embeddings(zs.ClipClassifier(model=clip), progress=False)
    objects.set_values("emb", list(embeddings))
    os.remove(objects.first().filepath)
    assert take_over(objects, clip, "emb") == len(objects) - 1


@pytest.mark.parametrize("change", [lambda e: e[::-1], lambda e: np.full_like(e, np.nan)])
def test_embeddings_of_something_else_are_refused(objects, clip, change):
    embeddings = objects.compute_embeddings(zs.ClipClassifier(model=clip), progress=False)
    objects.set_values("emb", list(change(embeddings)))
    with pytest.raises(InvalidInputError, match="are not those of"):
        take_over(objects, clip, "emb")
    assert reused(objects, clip) == 0


def test_sources_that_hold_no_embeddings_are_refused(objects, clip):
    objects.set_values("short", [np.zeros(3)] * len(objects))
    objects.add_sample_field("empty", fo.VectorField)
    for source, message in [
        ("short", "of shape"),
        ("empty", "holds no embeddings"),
        ("nowhere", "neither a field nor a brain run"),
        ("ground_truth", "does not hold vectors"),
    ]:
        with pytest.raises(FieldError, match=message):
            take_over(objects, clip, source)


def test_ours_become_an_index_whose_text_search_works_in_a_later_session(objects, clip):
    reused(objects, clip)
    assert register_index(objects, clip, "ours") == len(objects)
    objects.clear_cache()
    objects = fo.load_dataset(objects.name)
    info = objects.get_brain_info("ours")
    assert info.config.supports_prompts
    assert info.config.model == "shapes-tiny"

    index = objects.load_brain_results("ours")
    assert index.supports_prompts
    name = objects.first().ground_truth.label
    nearest = objects.sort_by_similarity(f"a {name}", k=1, brain_key="ours").first()
    assert nearest.ground_truth.label == name
    by_image = objects.sort_by_similarity(objects.first().id, k=1, brain_key="ours")
    assert by_image.first().id == objects.first().id


def test_an_index_needs_stored_embeddings_and_a_free_name(objects, clip):
    with pytest.raises(InvalidInputError, match="is stored"):
        register_index(objects, clip, "ours")
    assert not objects.has_brain_run("ours")
    reused(objects.limit(3), clip)
    assert register_index(objects, clip, "ours") == 3
    with pytest.raises(InvalidInputError, match="is taken"):
        register_index(objects, clip, "ours")
