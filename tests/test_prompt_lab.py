"""Prompt Lab: versions of a vocabulary on stored embeddings, and what they say about the words."""

import math
import os
import shutil
import time

import fiftyone as fo
import numpy as np
import pytest

import zs_operators as zs
from zs_operators import provenance
from zs_operators.embeddings import image_key
from zs_operators.errors import FieldError, InvalidInputError, VocabularyError
from zs_operators.model_stores import image_store
from zs_operators.prompt_lab import PromptLab, embedded_models
from zs_operators.prompt_versions import CLOSE_MARGIN, LabVersion, seconds
from zs_operators.shapes.dataset import OBJECT

pytestmark = pytest.mark.usefixtures("store_dir")
NUM_SCENES = 8

BAD = ["red thing", "blue thing", "green thing"]
GOOD = ["red circle", "blue star", "green square", "yellow triangle"]


@pytest.fixture
def objects(shapes, clip, tmp_path):
    """Embedded objects with files of their own, and names for what they are."""
    dataset = shapes.match_tags(OBJECT).limit(40).clone()
    copies = [
        str(shutil.copy(path, tmp_path / f"{i}.png"))
        for i, path in enumerate(dataset.values("filepath"))
    ]
    dataset.set_values("filepath", copies)
    zs.classify(dataset, GOOD, label_field="first", model=clip, embeddings="reuse", progress=False)
    yield dataset
    dataset.delete()


@pytest.fixture
def lab(objects, clip):
    return PromptLab(objects, model=clip, gt_field="ground_truth")


def made_version(best, second, margin, *, classes=("a", "b", "c"), **columns):
    count = len(best)
    values = {
        "ids": np.array([str(i) for i in range(count)], dtype=object),
        "best": np.array(best),
        "second": np.array(second),
        "margin": np.array(margin, np.float32),
        "confidence": np.linspace(0.1, 1, count, dtype=np.float32),
        "cosine": np.linspace(0, 0.3, count, dtype=np.float32),
        "rejected_by": np.full(count, None, dtype=object),
        "prompt_wins": np.zeros(len(classes), int),
        "truth": np.full(count, None, dtype=object),
        "changed": np.zeros(count, bool),
        **columns,
    }
    return LabVersion(vocabulary=zs.Vocabulary.parse(list(classes)), **values)


@pytest.mark.parametrize(
    "classes",
    [
        GOOD,
        {"circle": ["red circle", "blue circle"], "star": "blue star", "square": None},
        zs.Vocabulary.parse({"round": ["circle", "disc"], "star": None}, merge="max"),
        zs.Vocabulary.parse(GOOD, background=["a photo of nothing"], thresholds={GOOD[0]: 0.9}),
    ],
)
def test_labels_and_scores_are_those_of_a_run(lab, objects, clip, classes):
    version = lab.score(classes)
    zs.classify(objects, classes, label_field="run", model=clip, progress=False)
    assert version.ids.tolist() == objects.values("id")
    assert version.labels.tolist() == objects.values("run.label")
    assert version.rejected_by.tolist() == objects.values("run.rejected_by")
    for name, tolerance in (("confidence", 0.02), ("cosine", 5e-4), ("margin", 0.1)):
        theirs = np.array(objects.values(f"run.{name}"), float)
        np.testing.assert_allclose(getattr(version, name), theirs, atol=tolerance)


@pytest.mark.parametrize("limits", [{"min_confidence": 0.9}, {"min_margin": 3, "min_cosine": 0.2}])
def test_thresholds_are_those_of_a_run_and_are_written(lab, objects, clip, limits):
    version = lab.score(GOOD, **limits)
    assert 0 < version.histogram()[None] < len(objects)
    assert version.limits == limits
    lab.write("names", progress=False)
    zs.classify(objects, GOOD, label_field="run", model=clip, progress=False, **limits)
    for field in ("names", "run"):
        assert objects.values(f"{field}.rejected_by") == version.rejected_by.tolist()
    with pytest.raises(InvalidInputError, match="min_confidence"):
        lab.score(GOOD, min_confidence=2)
    assert lab.versions == [version]


def test_no_image_is_read_and_only_new_words_are_encoded(lab, clip, monkeypatch):
    lab.score(GOOD)
    asked = []
    real = lab._texts.encode_texts._encode
    monkeypatch.setattr(
        lab._texts.encode_texts,
        "_encode",
        lambda texts, *a, **k: asked.extend(texts) or real(texts, *a, **k),
    )
    monkeypatch.setattr(
        type(clip), "encode_images", lambda *a, **k: pytest.fail("an image was encoded")
    )
    lab.score([*GOOD, "cyan heart"])
    assert asked
    assert all("cyan heart" in text for text in asked)


def test_histogram_counts_every_image_and_ids_lead_to_them(lab):
    version = lab.score(zs.Vocabulary.parse(GOOD, thresholds={GOOD[0]: 1.0}))
    histogram = version.histogram()
    assert list(histogram) == [*GOOD, None]
    assert sum(histogram.values()) == len(lab.ids)
    for label, count in histogram.items():
        found = version.ids_of(label)
        assert len(found) == count
        assert all(version.labels[list(lab.ids).index(one)] == label for one in found)
    with pytest.raises(InvalidInputError, match="no label"):
        version.ids_of("heart")


def test_distribution_and_its_bars_agree(lab):
    version = lab.score(GOOD)
    for by in ("confidence", "margin", "cosine"):
        counts, edges = version.distribution(by, bins=7)
        assert (len(counts), len(edges)) == (7, 8)
        assert counts.sum() == len(lab.ids)
        assert len(version.ids_between(by, edges[0], edges[-1])) == len(lab.ids)
    with pytest.raises(InvalidInputError, match="margin"):
        version.distribution("loudness")


def test_certainty_is_the_margin(lab):
    version = lab.score(GOOD)
    margin_of = dict(zip(version.ids, version.margin, strict=True))
    least = [margin_of[one] for one in version.least_certain(5)]
    most = [margin_of[one] for one in version.most_certain(5)]
    assert least == sorted(version.margin)[:5]
    assert most == sorted(version.margin)[::-1][:5]


def test_a_single_class_is_ordered_by_cosine():
    version = made_version([0, 0, 0], [-1] * 3, [math.nan] * 3, classes=("a",))
    assert version.most_certain(2) == ["2", "1"]
    assert version.distribution("margin")[0].sum() == 0
    assert version.stealing() == []
    assert seconds(np.zeros((2, 1)), np.zeros(2, int)).tolist() == [-1, -1]


def test_changes_are_against_the_version_before(lab):
    first = lab.score(GOOD)
    assert first.changed_ids == []
    second = lab.score([*GOOD[:-1], "cyan heart"])
    pairs = zip(first.labels, second.labels, first.ids, strict=True)
    assert second.changed_ids == [one for a, b, one in pairs if a != b]
    assert second.changed_ids
    assert lab.score([*GOOD[:-1], "cyan heart"]).changed_ids == []


def test_undo_goes_back_through_versions(lab):
    with pytest.raises(InvalidInputError, match="no earlier version"):
        lab.undo()
    versions = [lab.score(BAD), lab.score(GOOD), lab.score(GOOD[:2])]
    assert lab.undo() is versions[1]
    assert lab.undo() is versions[0] is lab.version
    with pytest.raises(InvalidInputError, match="no earlier version"):
        lab.undo()
    with pytest.raises(VocabularyError):
        lab.score([])
    assert lab.versions == [versions[0]]


def test_better_names_are_seen_in_the_confusion(lab, objects):
    names = sorted(set(objects.values("ground_truth.label")))
    colours = sorted({name.split()[0] for name in names})
    bad = lab.score(colours).confusion()
    good = lab.score(names).confusion()
    assert bad.accuracy == 0
    assert good.accuracy > 0.8
    assert good.truth == tuple(names)
    assert good.labels == (*names, None)
    assert good.counts.sum() == len(objects)
    truth = objects.values("ground_truth.label")
    right = sum(a == b for a, b in zip(lab.version.labels, truth, strict=True))
    assert good.accuracy == right / len(objects)
    both = lab.version.ids_of(names[0], truth=names[0])
    assert len(both) == good.counts[0, 0]


def test_confusion_leaves_out_what_has_no_truth():
    truth = np.array(["b", None, "x", "a"], dtype=object)
    rejected = np.array([None, None, "margin", None], dtype=object)
    version = made_version([0, 1, 2, 0], [1, 0, 0, 1], [9] * 4, truth=truth, rejected_by=rejected)
    found = version.confusion()
    assert found.truth == ("a", "b", "x")
    assert found.labels == ("a", "b", "c", None)
    assert found.counts.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    assert found.accuracy == 1 / 3
    assert math.isnan(made_version([0], [1], [1]).confusion().accuracy)


def test_labels_that_steal_from_each_other():
    best, second = [0, 0, 1, 1, 2, 2, 2], [1, 2, 0, 0, 0, 1, 0]
    margin = [0.1, 5, 0.2, 5, 0.1, 5, CLOSE_MARGIN]
    version = made_version(best, second, margin)
    (pair,) = version.stealing()  # c is often close to a, and a never to c
    assert (pair.labels, pair.close, pair.share) == (("a", "b"), 2, 0.5)
    assert version.stealing(min_share=0.6) == []
    assert version.ids_between_labels("a", "b") == ["0", "2"]


def test_stolen_images_can_be_shown(lab):
    version = lab.score(GOOD)  # most objects are none of these
    found = version.stealing(min_share=0.01)
    assert found
    for pair in found:
        ids = version.ids_between_labels(*pair.labels)
        assert len(ids) == pair.close
        assert {version.labels[list(version.ids).index(one)] for one in ids} == set(pair.labels)


def test_prompts_that_never_win(lab):
    words = {"red": ["red circle", "zzz qqq"], "blue": ["blue star"], "green": ["green square"]}
    version = lab.score(words)
    assert version.prompts == [(name, label) for label in words for name in words[label]]
    assert version.prompt_wins.sum() == len(lab.ids)
    expected = [pair for pair, n in zip(version.prompts, version.prompt_wins, strict=True) if not n]
    assert version.never_win() == expected
    one = made_version([0], [1], [1], prompt_wins=np.array([1, 0, 0]))
    assert one.never_win() == [("b", "b"), ("c", "c")]


def test_written_labels_are_a_normal_run(lab, objects, clip, monkeypatch):
    with pytest.raises(InvalidInputError, match="score some words"):
        lab.write("names", progress=False)
    lab.score(GOOD)
    lab.score(GOOD[:3])
    monkeypatch.setattr(
        type(clip), "encode_images", lambda *a, **k: pytest.fail("an image was encoded")
    )
    report = lab.write("names", progress=False)
    assert report.reused == len(objects)
    assert objects.values("names.label") == lab.version.labels.tolist()
    run = provenance.find(objects, "classify", "names")
    assert run["state"] == provenance.COMPLETE
    lab.score(GOOD)
    with pytest.raises(FieldError, match="overwrite"):
        lab.write("names", progress=False)
    lab.write("names", overwrite=True, progress=False)
    assert objects.values("names.label") == lab.version.labels.tolist()


def test_images_without_an_embedding_take_no_part_until_they_are_written(objects, clip):
    path = objects.first().filepath
    os.utime(path, ns=(1, 1))
    lab = PromptLab(objects, model=clip)
    assert (len(lab.ids), lab.num_missing) == (len(objects) - 1, 1)
    assert objects.first().id not in lab.score(GOOD).ids
    report = lab.write("names", progress=False)
    assert report.reused == len(objects) - 1
    assert objects.count("names") == len(objects)


def test_models_with_embeddings_are_found_without_loading_one(objects, monkeypatch, tmp_path):
    monkeypatch.setattr("zs_operators.clip.load_clip", lambda *a, **k: pytest.fail("loaded"))
    assert embedded_models(objects) == {"shapes-tiny": len(objects)}
    os.utime(objects.first().filepath, ns=(1, 1))
    assert embedded_models(objects) == {"shapes-tiny": len(objects) - 1}
    assert embedded_models(objects.limit(1)) == {}
    monkeypatch.setenv("ZS_STORE_DIR", str(tmp_path / "empty"))
    assert embedded_models(objects) == {}


def test_nothing_stored_and_unfit_ground_truth_are_refused(objects, clip, monkeypatch, tmp_path):
    objects.add_sample_field("boxes", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    with pytest.raises(FieldError, match="must hold a Classification"):
        PromptLab(objects, model=clip, gt_field="boxes")
    with pytest.raises(FieldError, match="There is no field"):
        PromptLab(objects, model=clip, gt_field="nowhere")
    monkeypatch.setenv("ZS_STORE_DIR", str(tmp_path / "empty"))
    with pytest.raises(InvalidInputError, match="embeddings='reuse'"):
        PromptLab(objects, model=clip)


def test_10000_images_and_100_classes_are_scored(dataset, clip, tmp_path):
    paths = []
    for i in range(10_000):
        paths.append(str(tmp_path / f"{i}.jpg"))
        with open(paths[-1], "wb"):
            pass
    vectors = np.random.default_rng(0).normal(size=(len(paths), clip.dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with image_store(clip) as store:
        store.put([image_key(path) for path in paths], vectors)
    dataset.add_samples([fo.Sample(filepath=path) for path in paths])
    lab = PromptLab(dataset, model=clip)
    words = [f"thing number {i}" for i in range(100)]
    lab.score(words)  # the words are encoded
    took = []
    for _ in range(3):
        begun = time.perf_counter()
        version = lab.score(words[::-1])
        version.histogram(), version.distribution(), version.stealing(), version.never_win()
        version.least_certain(), version.most_certain(), version.confusion(), version.labels
        took.append(time.perf_counter() - begun)
    assert len(version.ids) == 10_000
    print(f"10,000 images x 100 classes: {min(took):.3f} s")  # clocks are not tested
