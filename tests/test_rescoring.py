"""Labels from stored embeddings: the same labels, without reading images or running the encoder."""

import contextlib
import errno
import os
import shutil
import subprocess

import fiftyone as fo
import numpy as np
import pytest

import zs_operators as zs
from zs_operators import fields, provenance
from zs_operators.classifier import ZeroShotClassifier
from zs_operators.embeddings import MODES
from zs_operators.errors import InvalidInputError
from zs_operators.guarded_writes import write_values
from zs_operators.model_stores import image_store, text_store, with_stored_texts
from zs_operators.proposals import load_proposer
from zs_operators.shapes.dataset import OBJECT, SCENE

pytestmark = pytest.mark.usefixtures("store_dir")
NUM_SCENES = 4

NAMES = ["red circle", "blue star", "green square", "yellow triangle"]
OTHER = ["a circle", "a star", "a square"]


@pytest.fixture
def objects(shapes, tmp_path):
    """Objects with image files of their own."""
    dataset = shapes.match_tags(OBJECT).limit(20).clone()
    paths = dataset.values("filepath")
    copies = [str(shutil.copy(path, tmp_path / f"{i}.png")) for i, path in enumerate(paths)]
    dataset.set_values("filepath", copies)
    yield dataset
    dataset.delete()


def classify(samples, clip, classes=NAMES, field="a", **options):
    return zs.classify(samples, classes, label_field=field, model=clip, progress=False, **options)


def contents(dataset, field):
    values = dataset.values(field)
    documents = [value.to_dict() for value in values]
    for document in documents:
        document.pop("_id", None)
        document.pop(fields.RUN_ATTRIBUTE)
        for one in document.get("classifications", ()):
            one.pop("_id")
    return documents


def no_model(*args, **kwargs):
    raise AssertionError("the image encoder was asked, or an image was read")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 3},
        {"multi_label": True},
        {"store_logits": True},
        {"background": ["a photo of nothing"], "min_confidence": 0.9, "reject_label": "none"},
        {"top_k": 2, "min_confidence": 0.99, "reject_label": "none"},
        {"min_margin": 3.0},
    ],
)
def test_labels_are_those_of_the_pass_that_stored_and_no_image_is_read(
    objects, clip, monkeypatch, options
):
    first = classify(objects, clip, field="a", embeddings="reuse", **options)
    assert first.reused == 0
    monkeypatch.setattr("zs_operators.classifier.read_image", no_model)
    monkeypatch.setattr(type(clip), "encode_images", no_model)
    second = classify(objects, clip, field="b", embeddings="reuse", **options)

    assert second.reused == len(objects)
    assert second.counts == first.counts
    assert second.labels == first.labels
    left, right = contents(objects, "a"), contents(objects, "b")
    for one, two in zip(left, right, strict=True):
        assert_same_numbers(one, two)
    assert objects.get_field_schema(flat=True).keys() >= {"b.run", "a.run"}


def assert_same_numbers(one, two):
    """The same, but for the last digit, which depends on how many are multiplied at once."""
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_same_numbers(one[key], two[key])
    elif isinstance(one, list):
        assert len(one) == len(two)
        for pair in zip(one, two, strict=True):
            assert_same_numbers(*pair)
    elif isinstance(one, float):
        assert one == pytest.approx(two, abs=2e-5)
    else:
        assert one == two


def test_labels_are_those_without_a_store(objects, clip):
    classify(objects, clip, field="off")
    classify(objects, clip, field="first", embeddings="reuse")
    classify(objects, clip, field="again", embeddings="reuse")
    names = objects.values("off.label")
    assert objects.values("first.label") == names
    assert objects.values("again.label") == names
    cosines = [objects.values(f"{field}.cosine") for field in ("off", "again")]
    np.testing.assert_allclose(*cosines, atol=5e-4)  # float16


def test_new_names_reuse_the_images(objects, clip, monkeypatch):
    classify(objects, clip, embeddings="reuse")
    monkeypatch.setattr(type(clip), "encode_images", no_model)
    report = classify(objects, clip, OTHER, field="b", embeddings="reuse")
    assert report.reused == len(objects)
    assert "embeddings reused" in str(report)
    assert report.to_dict()["reused"] == len(objects)
    assert set(objects.distinct("b.label")) <= set(OTHER)


def test_one_changed_file_is_computed_alone(objects, clip):
    classify(objects, clip, embeddings="reuse")
    one, other = objects.values("filepath")[:2]
    shutil.copy(other, one)
    os.utime(one, ns=(1, 1))
    report = classify(objects, clip, field="b", embeddings="reuse")
    assert report.reused == len(objects) - 1
    assert report.counts == {"labeled": len(objects)}
    labels_now = objects.values("b.label")
    assert labels_now[0] == labels_now[1]
    assert classify(objects, clip, field="c", embeddings="reuse").reused == len(objects)


def test_other_weights_or_preprocessing_reuse_nothing(objects, clip):
    classify(objects, clip, embeddings="reuse")
    other = zs.load_clip("shapes-tiny", precision="fp32")
    other.plan = other.plan.__class__(**{**vars(other.plan), "sha256": "0" * 64})
    assert classify(objects, other, field="b", embeddings="reuse").reused == 0
    other = zs.load_clip("shapes-tiny", precision="fp32")
    other.preprocessing = {**other.preprocessing, "mean": [0, 0, 0]}
    assert classify(objects, other, field="c", embeddings="reuse").reused == 0


def test_weights_that_came_from_no_file_are_told_apart_by_what_they_are(clip):
    import torch

    one = zs.load_clip("shapes-tiny", precision="fp32")
    one.plan = one.plan.__class__(**{**vars(one.plan), "sha256": None})
    first = image_store(one).folder
    other = zs.load_clip("shapes-tiny", precision="fp32")
    other.plan = one.plan
    assert image_store(other).folder == first
    other = zs.load_clip("shapes-tiny", precision="fp32")
    other.plan = one.plan
    with torch.no_grad():
        next(other.module.parameters()).view(-1)[0] += 1
    assert image_store(other).folder != first


def test_refresh_computes_again_and_off_stores_nothing(objects, clip, store_dir):
    classify(objects, clip)
    assert not store_dir.exists()
    classify(objects, clip, field="b", embeddings="reuse")
    stored = sum(path.stat().st_size for path in store_dir.glob("embeddings/*/*.emb"))
    report = classify(objects, clip, field="c", embeddings="refresh")
    assert report.reused == 0
    assert sum(p.stat().st_size for p in store_dir.glob("embeddings/*/*.emb")) > stored
    assert len(image_store(clip)) >= len(objects)


def test_a_file_that_is_gone_is_missing_media_whatever_is_stored(objects, clip):
    classify(objects, clip, embeddings="reuse")
    os.remove(objects.first().filepath)
    report = classify(objects, clip, field="b", embeddings="reuse")
    assert report.counts == {"labeled": len(objects) - 1, "missing_media": 1}
    assert report.reused == len(objects) - 1
    assert objects.first()["b_error"].startswith("missing_media")


def test_an_error_is_cleared_when_its_sample_is_labelled_from_the_store(objects, clip):
    path = objects.first().filepath
    os.rename(path, path + ".away")
    assert classify(objects, clip, embeddings="reuse").num_failed == 1
    os.rename(path + ".away", path)
    classify(objects, clip, field="b", embeddings="reuse")
    classify(objects, clip, embeddings="reuse")
    assert objects.first()["a_error"] is None
    assert objects.first()["a"].label is not None


def test_a_cancelled_run_goes_on_where_it_ended(objects, clip, monkeypatch):
    monkeypatch.setattr("zs_operators.rescoring.CHUNK_SAMPLES", 6)
    classify(objects, clip, embeddings="reuse")
    steps = zs.iter_classify(objects, NAMES, label_field="b", model=clip, embeddings="reuse")
    progress = [next(steps) for _ in range(3)]
    assert [one.done for one in progress] == [0, 6, 12]
    steps.close()
    assert sum(label is not None for label in objects.values("b.label")) == 12
    assert provenance.find(objects, "classify", "b")["state"] == provenance.CANCELLED

    report = classify(objects, clip, field="b", embeddings="reuse")
    assert (report.resumed, report.reused) == (12, len(objects) - 12)
    assert objects.values("b.label") == objects.values("a.label")


def test_views_and_samples_in_memory_see_the_labels(objects, clip):
    sample = objects.first()
    view = objects.limit(7)
    classify(view, clip, embeddings="reuse")
    classify(view, clip, OTHER, embeddings="reuse", overwrite=True)
    assert sample["a"].label in OTHER
    assert objects.count("a") == 7
    changed = objects.values("last_modified_at")
    assert all(a > b for a in changed[:7] for b in changed[7:])


def test_values_are_written_by_id(dataset):
    dataset.add_samples([fo.Sample(filepath=f"/{i}.png") for i in range(3)])
    dataset.add_sample_field("word", fo.StringField)
    sample = dataset.first()
    ids = dataset.values("id")
    write_values(dataset, "word", {ids[0]: "first", ids[2]: "last"})
    assert dataset.values("word") == ["first", None, "last"]
    assert sample["word"] == "first"


def test_prompts_are_encoded_once(clip, monkeypatch):
    asked = []
    real = type(clip).encode_texts
    monkeypatch.setattr(
        type(clip),
        "encode_texts",
        lambda self, texts, *a, **k: asked.extend(texts) or real(self, texts, *a, **k),
    )
    vocabulary = zs.Vocabulary.parse(NAMES, templates="simple")
    without = ZeroShotClassifier(clip, vocabulary).vectors
    asked.clear()
    first = ZeroShotClassifier(with_stored_texts(clip, "reuse"), vocabulary).vectors
    assert len(asked) == len(vocabulary.prompts())
    asked.clear()
    second = ZeroShotClassifier(with_stored_texts(clip, "reuse"), vocabulary).vectors
    assert asked == []
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, without, atol=1e-6)

    more = zs.Vocabulary.parse([*NAMES, "red star"], templates="simple")
    ZeroShotClassifier(with_stored_texts(clip, "reuse"), more)
    assert len(asked) == len(more.prompts()) - len(vocabulary.prompts())
    assert all("red star" in text for text in asked)
    asked.clear()
    ZeroShotClassifier(with_stored_texts(clip, "refresh"), vocabulary)
    assert len(asked) == len(vocabulary.prompts())
    assert with_stored_texts(clip, "off") is clip
    assert len(text_store(clip)) >= len(more.prompts())


def test_a_store_that_cannot_be_written_costs_no_label(objects, clip, store_dir):
    store_dir.write_text("a file where the folder should be")
    report = classify(objects, clip, embeddings="reuse")
    assert report.counts == {"labeled": len(objects)}
    assert any("Embeddings are not stored" in warning for warning in report.warnings)


def fill(folder):
    with open(folder / "filler", "wb", 0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(4096)):
            pass


@pytest.fixture(params=["tmpfs", "mocked"])
def fill_disk(request, store_dir, monkeypatch):
    """Fills the disk of the stores: a small one where it may be mounted, and one that says so."""
    if request.param == "mocked":

        def no_space(*args):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        yield lambda: monkeypatch.setattr("zs_operators.embedding_files._write_all", no_space)
        return
    store_dir.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(store_dir)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a disk can be mounted here by nobody but root")
    yield lambda: fill(store_dir)
    subprocess.run(["umount", "--lazy", str(store_dir)], check=True)


def test_a_disk_that_fills_up_costs_no_label(objects, clip, fill_disk):
    first = classify(objects[:5], clip, field="b", embeddings="reuse")
    assert not first.warnings
    fill_disk()
    report = classify(objects, clip, embeddings="reuse")
    assert report.reused == 5
    assert report.counts == {"labeled": len(objects)}
    (warning,) = (text for text in report.warnings if "Embeddings are not stored" in text)
    assert "No space left on device" in warning
    assert "zs embeddings prune" in warning
    classify(objects, clip, field="c")
    assert objects.values("a.label") == objects.values("c.label")
    # what was stored before can still be read
    assert classify(objects[:5], clip, field="d", embeddings="reuse").reused == 5


def test_an_unknown_mode_is_refused(objects, clip):
    with pytest.raises(InvalidInputError, match=", ".join(MODES)):
        classify(objects, clip, embeddings="on")
    assert not objects.has_field("a")


@pytest.fixture(scope="module")
def proposer():
    return load_proposer("shapes-tiny", precision="fp32", max_proposals=30)


@pytest.fixture
def scenes(shapes, tmp_path):
    """Scenes with image files of their own."""
    dataset = shapes.match_tags(SCENE).clone()
    paths = dataset.values("filepath")
    copies = [str(shutil.copy(path, tmp_path / f"scene{i}.png")) for i, path in enumerate(paths)]
    dataset.set_values("filepath", copies)
    yield dataset
    dataset.delete()


def detect(samples, clip, classes=NAMES, field="a", **options):
    options = {"min_confidence": 0.3, "embeddings": "reuse", **options}
    return zs.detect(samples, classes, label_field=field, model=clip, progress=False, **options)


def boxes(dataset, field):
    found = [value.to_dict() for value in dataset.values(field)]
    for one in found:
        one.pop(fields.RUN_ATTRIBUTE)
        for label in one["detections"]:
            label.pop("_id")
    return found


def test_boxes_are_those_of_the_pass_that_stored_and_no_image_is_read(
    scenes, clip, proposer, monkeypatch
):
    first = detect(scenes, clip, proposals=proposer)
    assert first.reused == 0
    assert sum(len(found.detections) for found in scenes.values("a")) > 0
    monkeypatch.setattr("zs_operators.detector.read_image", no_model)
    monkeypatch.setattr(type(clip), "encode_images", no_model)
    monkeypatch.setattr(type(proposer), "propose", no_model)
    second = detect(scenes, clip, field="b", proposals=proposer)
    assert second.reused == len(scenes)
    assert boxes(scenes, "b") == boxes(scenes, "a")
    other = detect(scenes, clip, OTHER, field="c", proposals=proposer, objectness_weight=0.5)
    assert other.reused == len(scenes)


def test_boxes_are_those_without_a_store(scenes, clip, proposer):
    detect(scenes, clip, field="off", proposals=proposer, embeddings="off")
    detect(scenes, clip, field="on", proposals=proposer)
    assert scenes.values("on.detections.label") == scenes.values("off.detections.label")
    paths = ("off.detections.bounding_box", "on.detections.bounding_box")
    assert scenes.values(paths[0]) == scenes.values(paths[1])


def test_a_higher_threshold_reuses_and_a_lower_one_computes_what_it_needs(scenes, clip, proposer):
    detect(scenes, clip, field="a", proposals=proposer)
    assert detect(scenes, clip, field="b", proposals=proposer, min_confidence=0.6).reused == 4
    detect(scenes, clip, field="off", proposals=proposer, min_confidence=0.6, embeddings="off")
    assert scenes.values("b.detections.region_index") == scenes.values(
        "off.detections.region_index"
    )
    assert detect(scenes, clip, field="c", proposals=proposer, min_confidence=0.05).reused == 0
    assert detect(scenes, clip, field="d", proposals=proposer, min_confidence=0.05).reused == 4


def test_other_limits_of_proposals_reuse_nothing(scenes, clip, proposer):
    detect(scenes, clip, proposals=proposer)
    assert detect(scenes, clip, field="b", proposals=proposer, max_regions=10).reused == 0
    assert detect(scenes, clip, field="c", proposals=proposer, min_size_px=5).reused == 0


def test_named_boxes_are_reused_until_one_moves(scenes, clip, monkeypatch):
    first = detect(scenes, clip, regions="objects")
    assert first.reused == 0
    assert detect(scenes, clip, OTHER, field="b", regions="objects").reused == len(scenes)
    detect(scenes, clip, field="c", regions="objects")
    assert boxes(scenes, "c") == boxes(scenes, "a")
    sample = scenes.first()
    x, y, width, height = sample.objects.detections[0].bounding_box
    sample.objects.detections[0].bounding_box = [x, y, width, height / 2]
    sample.save()
    assert detect(scenes, clip, field="d", regions="objects").reused == len(scenes) - 1


def test_a_box_that_cannot_be_scored_is_refused_from_the_store_too(scenes, clip):
    sample = scenes.first()
    sample.objects.detections[0].bounding_box = [0.5, 0.5, 0, 0]
    sample.save()
    first = detect(scenes, clip, regions="objects")
    second = detect(scenes, clip, OTHER, field="b", regions="objects")
    assert second.reused == len(scenes)
    assert first.warnings == second.warnings
    assert "1 boxes could not be scored" in second.warnings[0]
