"""zs.classify from names to labels with the trained shapes-tiny CLIP on drawn objects."""

import fiftyone as fo
import fiftyone.brain as fob
import numpy as np
import pytest
from PIL import Image

import zs_operators as zs
from zs_operators import provenance
from zs_operators.errors import (
    DeviceError,
    FieldError,
    InvalidInputError,
    SamplesError,
    UnknownModelError,
    VocabularyError,
    WeightsError,
)
from zs_operators.shapes.dataset import OBJECT

NUM_SCENES = 12

NAMES = ["red circle", "blue star", "green square", "yellow triangle"]
FAST = {"model": "shapes-tiny", "precision": "fp32", "progress": False}


@pytest.fixture
def objects(shapes):
    """A fresh copy of the cut-out objects."""
    dataset = shapes.match_tags(OBJECT).clone()
    yield dataset
    dataset.delete()


def test_objects_get_their_own_names(objects, clip):
    names = objects.distinct("ground_truth.label")
    report = zs.classify(objects, names, model=clip, progress=False)

    right = [
        a == b
        for a, b in zip(
            objects.values("zs_classification.label"),
            objects.values("ground_truth.label"),
            strict=True,
        )
    ]
    assert np.mean(right) >= 0.85
    assert report.counts == {"labeled": len(objects)}
    assert report.label_field == "zs_classification"
    label = objects.first().zs_classification
    assert 0 < label.confidence <= 1
    assert -1 <= label.cosine <= 1
    assert label.margin >= 0


def test_classes_come_from_a_label_field_by_name(objects, clip):
    report = zs.classify(objects, "ground_truth", model=clip, progress=False)

    record = provenance.find(objects, "classify", "zs_classification")
    assert record["columns"] == objects.distinct("ground_truth.label")
    assert sum(report.labels.values()) == len(objects)


def test_classes_come_from_default_classes(objects, clip):
    objects.default_classes = NAMES
    zs.classify(objects, "default_classes", model=clip, progress=False)

    assert set(objects.distinct("zs_classification.label")) <= set(NAMES)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "red circle\nblue star\n"),
        ("classes.yaml", "- red circle\n- blue star\n"),
        ("classes.json", '["red circle", "blue star"]'),
    ],
)
def test_classes_come_from_a_file(objects, clip, tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    for spec in (path, str(path)):
        zs.classify(objects, spec, model=clip, progress=False, overwrite=True, resume=False)
        assert set(objects.distinct("zs_classification.label")) <= {"red circle", "blue star"}


def test_synonyms_are_written_under_their_class(objects, clip):
    zs.classify(
        objects,
        {"warm": ["red circle", "orange star"], "cold": "blue circle"},
        model=clip,
        progress=False,
    )

    assert set(objects.distinct("zs_classification.label")) == {"warm", "cold"}


def test_top_k_and_logits(objects, clip):
    zs.classify(objects, NAMES, model=clip, top_k=3, store_logits=True, progress=False)

    labels = objects.values("zs_classification")
    for label in labels:
        scores = [entry.confidence for entry in label.classifications]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)
        assert len(label.logits) == 4
        best = NAMES[int(np.argmax(label.logits))]
        assert label.classifications[0].label == best
        assert label.classifications[0].margin >= 0 >= label.classifications[1].margin


def test_multi_label_scores_each_class_on_its_own(objects, clip):
    both = ["red circle", "blue star"]
    zs.classify(objects, NAMES, model=clip, multi_label=True, label_field="many", progress=False)
    zs.classify(objects, both, model=clip, multi_label=True, label_field="few", progress=False)

    def scores(field):
        return [
            {c.label: c.confidence for c in label.classifications}
            for label in objects.values(field)
        ]

    # A class does not lose probability because others are asked for
    for many, few in zip(scores("many"), scores("few"), strict=True):
        for name in set(many) & set(few):
            assert many[name] == pytest.approx(few[name], abs=1e-5)


def test_rejection_keeps_what_would_have_won(objects, clip):
    zs.classify(objects, NAMES, model=clip, label_field="plain", progress=False)
    report = zs.classify(
        objects, NAMES, model=clip, label_field="strict", min_confidence=0.9, progress=False
    )

    kept = 0
    for plain, strict in zip(objects.values("plain"), objects.values("strict"), strict=True):
        assert strict.confidence == pytest.approx(plain.confidence, abs=1e-6)
        if plain.confidence >= 0.9:
            kept += 1
            assert (strict.label, strict.rejected_by) == (plain.label, None)
        else:
            assert (strict.label, strict.rejected_by) == (None, "confidence")
            assert strict.rejected_label == plain.label
    assert 0 < kept < len(objects)
    assert report.counts == {"labeled": kept, "rejected": len(objects) - kept}


def test_rejected_images_get_the_reject_label(objects, clip):
    zs.classify(
        objects, NAMES, model=clip, min_cosine=0.999, reject_label="unknown", progress=False
    )

    assert objects.distinct("zs_classification.label") == ["unknown"]


def test_background_prompts_take_what_is_none_of_the_classes(dataset, clip, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(6):
        pixels = np.full((64, 64, 3), 120, np.uint8) + rng.integers(0, 6, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        dataset.add_sample(fo.Sample(filepath=str(tmp_path / f"{i}.png")))
    report = zs.classify(
        dataset, NAMES, model=clip, background=["empty background", "nothing"], progress=False
    )

    assert report.counts == {"rejected": 6}
    assert set(dataset.values("zs_classification.rejected_by")) == {"background"}


def test_labels_do_not_depend_on_batches_or_threads(objects, clip):
    reference = None
    for n, (batch_size, workers) in enumerate([(1, 0), (7, 1), (64, 4)]):
        field = f"run_{n}"
        zs.classify(
            objects,
            NAMES,
            model=clip,
            label_field=field,
            batch_size=batch_size,
            workers=workers,
            progress=False,
        )
        labels = objects.values(f"{field}.label")
        confidences = np.array(objects.values(f"{field}.confidence"))
        if reference is None:
            reference = labels, confidences
        assert labels == reference[0]
        assert np.abs(confidences - reference[1]).max() < 1e-5


def test_apply_model_writes_the_same_labels(objects, clip):
    zs.classify(objects, NAMES, model=clip, label_field="ours", batch_size=8, progress=False)
    model = zs.ClipClassifier(NAMES, model=clip)
    objects.apply_model(model, "theirs", batch_size=8, num_workers=0, progress=False)

    for ours, theirs in zip(objects.values("ours"), objects.values("theirs"), strict=True):
        assert (ours.label, ours.confidence) == (theirs.label, theirs.confidence)
        assert (ours.cosine, ours.margin) == (theirs.cosine, theirs.margin)


def test_apply_model_does_not_lose_a_batch_to_one_bad_image(objects, clip):
    with open(objects.skip(2).first().filepath, "rb") as file:
        content = file.read()
    path = objects.skip(2).first().filepath
    try:
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2])
        model = zs.ClipClassifier(NAMES, model=clip)
        objects.apply_model(model, "theirs", batch_size=64, num_workers=0, progress=False)
    finally:
        with open(path, "wb") as file:
            file.write(content)

    missing = [label is None for label in objects.values("theirs")]
    assert sum(missing) == 1
    assert missing[2]


def test_apply_model_stores_logits_and_thresholds_when_asked(objects, clip):
    model = zs.ClipClassifier(NAMES, model=clip)
    objects.apply_model(
        model, "theirs", store_logits=True, confidence_thresh=0.5, batch_size=8, progress=False
    )

    kept = [label for label in objects.values("theirs") if label is not None and label.label]
    assert all(len(label.logits) == 4 and label.confidence >= 0.5 for label in kept)


def test_embeddings_and_text_search_use_the_same_model(objects, clip):
    model = zs.ClipClassifier(model=clip)
    embeddings = objects.compute_embeddings(model, batch_size=8, progress=False)
    assert embeddings.shape == (len(objects), clip.dim)
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)

    fob.compute_similarity(
        objects, model=model, embeddings=embeddings, brain_key="text", progress=False
    )
    name = objects.first().ground_truth.label
    found = objects.sort_by_similarity(f"a photo of a {name}.", k=1, brain_key="text")
    assert found.first().ground_truth.label == name


def test_patches_can_be_embedded(shapes, clip):
    scenes = shapes.match_tags("scene").limit(2)
    model = zs.ClipClassifier(model=clip)
    patches = scenes.compute_patch_embeddings(model, "objects", batch_size=4, progress=False)

    for sample in scenes:
        assert patches[sample.id].shape == (len(sample.objects.detections), clip.dim)


def test_a_model_without_classes_cannot_classify(objects, clip):
    with pytest.raises(InvalidInputError, match="classes"):
        zs.ClipClassifier(model=clip).predict(np.zeros((8, 8, 3), np.uint8))


def test_only_the_samples_of_the_view_are_labelled(objects, clip):
    chosen = objects.take(3, seed=1)
    zs.classify(chosen, NAMES, model=clip, progress=False)

    labelled = objects.match(fo.ViewField("zs_classification") != None)  # noqa: E711
    assert set(labelled.values("id")) == set(chosen.values("id"))


def test_progress_callback_follows_fiftyones_convention(objects, clip):
    seen = []
    zs.classify(objects, NAMES, model=clip, progress=lambda bar: seen.append(bar.iteration))

    assert seen[-1] == len(objects)
    assert seen == sorted(seen)


def test_prompts_beyond_the_context_are_named(objects, clip):
    name = "a " + "very " * 100 + "red circle"
    report = zs.classify(objects, [name, "blue star"], model=clip, progress=False)

    assert any("cut off" in warning and "very very" in warning for warning in report.warnings)


def test_the_record_tells_how_the_field_came_to_be(objects):
    report = zs.classify(objects, NAMES, **FAST)

    record = provenance.find(objects, "classify", "zs_classification")
    assert report.run_key == "zs_classify_zs_classification"
    assert record["state"] == "complete"
    assert record["columns"] == NAMES
    assert len(record["prompts"]) == 7 * len(NAMES)
    assert len(record["model"]["weights_sha256"]) == 64
    assert record["model"]["precision"] == "fp32"
    assert record["model"]["logit_scale"] > 1
    assert zs.Vocabulary.from_dict(record["vocabulary"]).classes == tuple(NAMES)
    assert objects.get_run_info(report.run_key).config.method == "zs/classify"


def test_evaluation_works_on_the_field(objects, clip):
    zs.classify(objects, "ground_truth", model=clip, min_confidence=0.6, progress=False)
    results = objects.evaluate_classifications(
        "zs_classification", gt_field="ground_truth", eval_key="eval"
    )

    assert results.metrics()["support"] == len(objects)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"classes": []}, VocabularyError, "No classes"),
        ({"classes": "no_such_field"}, VocabularyError, "no_such_field"),
        ({"classes": "missing.txt"}, VocabularyError, "missing.txt"),
        ({"classes": "filepath"}, VocabularyError, "not labels"),
        ({"templates": ["a photo"]}, VocabularyError, "{}"),
        ({"model": "shapes-tyni"}, UnknownModelError, "shapes-tiny"),
        ({"model": "ViT-B-32", "weights": "openia"}, UnknownModelError, "openai"),
        ({"model": "ViT-B-32", "weights": "/no/such/file.pt"}, WeightsError, "/no/such/file.pt"),
        ({"device": "cuda:7"}, DeviceError, "cuda:7"),
        ({"precision": "int4"}, InvalidInputError, "int4"),
        ({"batch_size": 0}, InvalidInputError, "batch_size"),
        ({"workers": -1}, InvalidInputError, "workers"),
        ({"top_k": 0}, InvalidInputError, "top_k"),
        ({"min_confidence": 1.5}, InvalidInputError, "min_confidence"),
        ({"min_cosine": float("nan")}, InvalidInputError, "min_cosine"),
        ({"temperature": 0}, InvalidInputError, "temperature"),
        ({"on_error": "ignore"}, InvalidInputError, "on_error"),
        ({"classes": ["one"], "min_margin": 0.1}, InvalidInputError, "min_margin"),
        ({"label_field": "ground_truth"}, FieldError, "overwrit"),
        ({"label_field": "tags"}, FieldError, "reserved"),
        ({"label_field": "filepath"}, FieldError, "reserved"),
        ({"label_field": "my field"}, FieldError, "letters"),
        ({"label_field": "a.b"}, FieldError, "letters"),
        ({"label_field": "_private"}, FieldError, "_"),
        ({"label_field": ""}, FieldError, "name"),
        ({"label_field": "save"}, FieldError, "reserved"),
        ({"label_field": "objects"}, FieldError, "Detections"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(objects, arguments, error, message):
    schema = set(objects.get_field_schema(flat=True))
    arguments = {"classes": NAMES, **FAST, **arguments}
    with pytest.raises(error, match=message.replace("{", r"\{")):
        zs.classify(objects, arguments.pop("classes"), **arguments)

    assert set(objects.get_field_schema(flat=True)) == schema
    assert objects.list_runs() == []


def test_read_only_fields_are_refused(objects, clip):
    zs.classify(objects, NAMES, model=clip, progress=False)
    field = objects.get_field("zs_classification")
    field.read_only = True
    field.save()

    with pytest.raises(FieldError, match="read-only"):
        zs.classify(objects, NAMES, model=clip, overwrite=True, progress=False)


def test_an_error_field_of_another_type_is_refused(objects, clip):
    objects.add_sample_field("zs_classification_error", fo.IntField)
    with pytest.raises(FieldError, match="zs_classification_error"):
        zs.classify(objects, NAMES, model=clip, progress=False)


def test_one_class_is_allowed_and_warned_about(objects, clip):
    report = zs.classify(objects, ["red circle"], model=clip, progress=False)

    assert set(objects.values("zs_classification.confidence")) == {1.0}
    assert objects.first().zs_classification.margin is None
    assert any("one class" in warning for warning in report.warnings)


def test_collections_that_cannot_be_labelled_are_refused(objects, shapes):
    with pytest.raises(SamplesError, match="no samples"):
        zs.classify(objects.limit(0), NAMES, **FAST)
    with pytest.raises(SamplesError, match="no dataset"):
        zs.classify(None, NAMES, **FAST)
    with pytest.raises(SamplesError, match="list"):
        zs.classify(["a.jpg"], NAMES, **FAST)
    with pytest.raises(SamplesError, match="patches"):
        zs.classify(shapes.to_patches("objects"), NAMES, **FAST)


@pytest.mark.parametrize(
    ("filepath", "message"),
    [("clip.mp4", "to_frames"), ("scene.fo3d", "media type"), ("cloud.pcd", "media type")],
)
def test_media_that_is_no_image_is_refused(dataset, filepath, message):
    dataset.add_sample(fo.Sample(filepath=f"/nowhere/{filepath}"))
    with pytest.raises(SamplesError, match=message):
        zs.classify(dataset, NAMES, **FAST)


def test_grouped_datasets_are_labelled_in_their_active_slice(dataset, objects, clip):
    dataset.add_group_field("group", default="left")
    paths = objects.values("filepath")
    for path in paths[:3]:
        group = fo.Group()
        dataset.add_samples(
            [
                fo.Sample(filepath=path, group=group.element("left")),
                fo.Sample(filepath=paths[-1], group=group.element("right")),
            ]
        )
    assert zs.classify(dataset, NAMES, model=clip, progress=False).counts == {"labeled": 3}
    left = dataset.select_group_slices("left")
    assert left.count("zs_classification.label") == 3
    right = dataset.select_group_slices("right")
    assert right.count("zs_classification.label") == 0


def test_memory_stays_flat_because_nothing_keeps_images(objects, clip, monkeypatch):
    """Counts live preprocessed images: prefetch and one batch, however long the run is."""
    import gc
    import weakref

    alive, most = weakref.WeakSet(), 0
    classifier_load = zs.classification.ZeroShotClassifier.load

    def load(self, source):
        nonlocal most
        item = classifier_load(self, source)
        alive.add(item)
        most = max(most, len(alive))
        return item

    monkeypatch.setattr(zs.classification.ZeroShotClassifier, "load", load)
    zs.classify(objects, NAMES, model=clip, batch_size=2, workers=2, progress=False)
    gc.collect()

    assert len(objects) > 24
    assert most <= 2 * 3 + 2 + 2
    assert len(alive) == 0
