"""FiftyOne brain's scores from what runs store, and what is said where they do not."""

from __future__ import annotations

import fiftyone as fo
import numpy as np
import pytest

import zs_operators as zs
from zs_operators.analysis.brain_scores import (
    score_hardness,
    score_mistakenness,
    score_uniqueness,
)
from zs_operators.embeddings import image_key
from zs_operators.errors import FieldError, InvalidInputError
from zs_operators.model_stores import image_store


@pytest.fixture
def images(dataset):
    """Certain and right, certain and wrong, undecided, rejected, failed."""
    for logits, truth in (
        ([9.0, 0.0], "cat"),
        ([9.0, 0.0], "dog"),
        ([1.0, 0.9], "cat"),
        (None, "cat"),
        (None, None),
    ):
        sample = fo.Sample(filepath=f"/{len(dataset)}.png")
        if truth is not None:
            sample["truth"] = fo.Classification(label=truth)
            sample["said"] = fo.Classification(label=None, rejected_by="margin", confidence=0.5)
        if logits is not None:
            odds = np.exp(logits)
            sample["said"] = fo.Classification(
                label="cat", confidence=float(odds[0] / odds.sum()), logits=np.array(logits)
            )
        dataset.add_sample(sample, dynamic=True)
    return dataset


def test_hardness_is_the_entropy_of_the_undecided(images):
    assert score_hardness(images, "said", progress=False) == 3
    found = images.values("hardness")
    assert found[2] > found[0] == pytest.approx(found[1])
    assert found[3:] == [None, None]


def test_hardness_needs_logits_of_all(images):
    sample = images.first()
    sample["said"].logits = None
    sample.save()
    with pytest.raises(FieldError, match="store_logits=True"):
        score_hardness(images, "said")


@pytest.mark.parametrize("logits", [True, False])
def test_mistakenness_points_at_the_wrong_truth(images, logits):
    if not logits:
        images.set_values("said.logits", [None] * len(images))
    assert score_mistakenness(images, "said", "truth", progress=False) == 3
    found = images.values("mistakenness")
    assert max(found[:3]) == found[1]
    assert found[3:] == [None, None]
    with pytest.raises(FieldError, match="overwrite=True"):
        score_mistakenness(images, "said", "truth")
    assert score_mistakenness(images, "said", "truth", overwrite=True, progress=False) == 3


def test_mistakenness_of_boxes(dataset):
    def box(label, x, confidence=None):
        where = [x, 0.1, 0.1, 0.1]
        return fo.Detection(label=label, bounding_box=where, confidence=confidence)

    dataset.add_sample(
        fo.Sample(
            filepath="/a.png",
            truth=fo.Detections(detections=[box("cat", 0.1), box("dog", 0.5)]),
            said=fo.Detections(detections=[box("cat", 0.1, 0.9), box("cat", 0.5, 0.9)]),
        )
    )
    assert score_mistakenness(dataset, "said", "truth", progress=False) == 1
    right, wrong = dataset.first().truth.detections
    assert wrong.mistakenness > right.mistakenness


def test_what_is_missing_is_said(images):
    with pytest.raises(FieldError, match="no confidence"):
        score_mistakenness(images, "truth", "truth")
    images.set_values("boxes", [fo.Detections()] * len(images))
    with pytest.raises(FieldError, match="both"):
        score_mistakenness(images, "said", "boxes")
    with pytest.raises(InvalidInputError, match="embeddings='reuse'"):
        score_uniqueness(images)


def test_uniqueness_reads_stored_embeddings_and_no_image(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("ZS_STORE_DIR", str(tmp_path / "stores"))
    paths = [tmp_path / f"{number}.png" for number in range(20)]
    for path in paths:
        path.touch()
    clip = zs.load_clip("shapes-tiny")
    vectors = np.eye(clip.dim)[0] + np.random.default_rng(0).normal(size=(20, clip.dim)) * 0.01
    vectors[7] = np.eye(clip.dim)[1]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with image_store(clip) as store:
        store.put([image_key(path) for path in paths], vectors)
    dataset.add_samples([fo.Sample(filepath=str(path)) for path in paths])
    dataset.add_sample(fo.Sample(filepath="/nowhere.png"))
    assert score_uniqueness(dataset, progress=False) == 20  # of the model that embedded them
    found = dataset.values("uniqueness")
    assert found[-1] is None
    assert max(found[:-1]) == found[7]
