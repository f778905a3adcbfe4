"""What a sanity card says of labels whose truth nobody knows."""

from __future__ import annotations

import json
import math

import fiftyone as fo
import numpy as np
import pytest

import zs_operators as zs
from tests import single_objects
from zs_operators.analysis.entropy import spread_of_counts, spread_of_probabilities
from zs_operators.analysis.sanity import sanity_check
from zs_operators.analysis.suspicions import CertaintyTally, Findings, findings_of_run
from zs_operators.errors import FieldError, InvalidInputError

CLASSES = ["cyan circle", "purple circle", "red heart", "orange star", "white circle", "no such"]


def labels(*rows):
    """(label, confidence, margin, rejected_by) each."""
    return [
        fo.Classification(label=label, confidence=confidence, margin=margin, rejected_by=rule)
        for label, confidence, margin, rule in rows
    ]


@pytest.fixture
def images(dataset):
    rows = labels(
        ("cat", 0.9, 5.0, None),
        ("cat", 0.5, 0.5, None),
        ("dog", 0.7, 2.0, None),
        ("cat", 0.5, 0.1, None),
        (None, 0.2, 0.1, "confidence"),
    )
    dataset.add_samples(
        [fo.Sample(filepath=f"/{i}.png", said=row) for i, row in enumerate(rows)], dynamic=True
    )
    dataset.add_sample(fo.Sample(filepath="/failed.png", said_error="missing_media: gone"))
    dataset.add_sample(fo.Sample(filepath="/new.png"))
    return dataset


def test_the_numbers_are_those_of_the_labels(images):
    card = sanity_check(images, "said")
    assert card.counts == {
        "labeled": 4,
        "rejected": 1,
        "nothing_found": 0,
        "failed": 1,
        "not_run": 1,
    }
    assert card.histogram == {"cat": 3, "dog": 1}
    found = card.findings
    assert found.mean_confidence == pytest.approx(0.65)
    assert found.close_share == 0.5
    assert found.rejected_share == 0.2
    assert found.top == ("cat", 0.75)
    assert found.label_entropy == pytest.approx(0.8112781244591328)  # bits of 3:1
    assert found.class_entropy is None
    assert "store_logits" in card.missing["class_entropy"]
    assert "no run of zs.classify" in card.missing["template_agreement"]
    with pytest.raises(InvalidInputError, match="no run"):
        sanity_check(images, "said", templates=True)


def test_the_card_prints_and_goes_into_json(images):
    card = sanity_check(images, "said")
    text = str(card)
    assert "4 labels on 7 images" in text
    assert "1 failed" in text
    assert text.index("cat") < text.index("dog")
    again = json.loads(card.to_json())
    assert again == card.to_dict()
    assert again["histogram"][0] == {"label": "cat", "count": 3}


def test_boxes_are_judged_one_by_one(dataset):
    def box(label, confidence, margin, rule=None):
        where = [0.1, 0.1, 0.1, 0.1]
        return fo.Detection(
            label=label,
            bounding_box=where,
            confidence=confidence,
            margin=margin,
            rejected_by=rule,
        )

    found = [box("cat", 0.9, 4.0), box("dog", 0.5, 0.3), box(None, 0.1, 0.1, "margin")]
    dataset.add_sample(fo.Sample(filepath="/a.png", said=fo.Detections(detections=found)), True)
    dataset.add_sample(fo.Sample(filepath="/b.png", said=fo.Detections()))
    dataset.add_dynamic_sample_fields()
    card = sanity_check(dataset, "said")
    assert (card.counts["labeled"], card.counts["nothing_found"]) == (1, 1)
    assert card.histogram == {"cat": 1, "dog": 1}
    assert card.findings.mean_confidence == pytest.approx(0.7)
    assert card.findings.close_share == 0.5
    assert card.findings.empty_share == 0.5
    assert card.findings.label_entropy == pytest.approx(1.0)


def test_of_several_labels_the_best_speaks_for_the_image(dataset):
    both = fo.Classifications(classifications=labels(("a", 0.8, 2.0, None), ("b", 0.2, 0.0, None)))
    dataset.add_sample(fo.Sample(filepath="/a.png", said=both))
    dataset.add_dynamic_sample_fields()
    card = sanity_check(dataset, "said")
    assert card.histogram == {"a": 1, "b": 1}
    assert card.findings.mean_confidence == pytest.approx(0.8)
    assert card.findings.close_share == 0.0


def test_nothing_at_all_is_no_error(dataset):
    dataset.add_sample(fo.Sample(filepath="/a.png"))
    dataset.add_sample_field("said", fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification)
    card = sanity_check(dataset, "said")
    assert card.histogram == {}
    assert card.findings.mean_confidence is None
    assert card.warnings == ()
    assert "0 labels" in str(card)
    with pytest.raises(FieldError, match="no field"):
        sanity_check(dataset, "sad")


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ({"histogram": {"cat": 95, "dog": 5}, "num_classes": 2}, "95% of the labels are 'cat'"),
        ({"histogram": {"a": 10, "b": 10}, "close_share": 0.6}, "60% of the labels barely lead"),
        ({"histogram": {"a": 10, "b": 10}, "class_entropy": 0.95}, "almost the same"),
        ({"histogram": {}, "rejected_share": 0.8}, "80% of the images were rejected"),
        ({"histogram": {}, "empty_share": 0.95}, "nothing was found"),
        (
            {"histogram": {"a": 10, "b": 10}, "templates": {"a {}.": 0.9, "no {}!": 0.3}},
            "'no {}!' to 30%",
        ),
    ],
)
def test_what_is_suspicious_is_said_once(numbers, says):
    (warning,) = Findings(images=100, **numbers).warnings()
    assert says in warning


@pytest.mark.parametrize(
    "numbers",
    [
        {"histogram": {"cat": 19}, "images": 19, "close_share": 1.0},  # too few to judge
        {"histogram": {"cat": 100}, "images": 100, "num_classes": 1},  # nothing else was asked
        {"histogram": {"cat": 100}, "images": 100},  # names of existing boxes
        {"histogram": {"cat": 60, "dog": 40}, "images": 100, "close_share": 0.2},
    ],
)
def test_what_is_not_suspicious_is_not(numbers):
    assert Findings(**numbers).warnings() == []


def test_evenness_is_between_0_and_1():
    assert spread_of_counts([5, 5], 2) == pytest.approx(1.0)
    assert spread_of_counts([5, 5], 4) == pytest.approx(0.5)
    assert spread_of_counts([10], 2) == 0.0
    assert spread_of_counts([10], 1) is None
    assert spread_of_counts([], 3) is None
    assert spread_of_probabilities(np.zeros((3, 4))) == pytest.approx(1.0)
    assert spread_of_probabilities(np.array([[1000.0, 0.0]])) == pytest.approx(0.0)
    p = np.array([0.25, 0.75])
    expected = -(p * np.log(p)).sum() / math.log(2)
    assert spread_of_probabilities(np.log(p)[None]) == pytest.approx(expected)
    assert spread_of_probabilities(np.array([[np.nan, 1.0]])) is None


def test_a_run_judges_itself_from_its_counters():
    tally = CertaintyTally()
    tally.add([fo.Classification(confidence=0.9, margin=3.0)])
    tally.add([fo.Classification(confidence=0.5, margin=1.0)])
    tally.add([fo.Classification(confidence=0.4, margin=None)])
    found = findings_of_run(tally, {"a": 2, "b": 1}, {"labeled": 3, "rejected": 1}, 2)
    assert found.mean_confidence == pytest.approx(0.6)
    assert found.close_share == 0.5
    assert found.short()["rejected_share"] == 0.25
    assert found.short()["top_label"] == "a"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return [path for path, _ in single_objects.draw(tmp_path_factory.mktemp("pictures"), 24)]


def test_card_and_report_of_a_run_agree(dataset, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("ZS_STORE_DIR", str(tmp_path / "stores"))
    dataset.add_samples([fo.Sample(filepath=path) for path in pictures])
    run = {"model": "shapes-tiny", "embeddings": "reuse", "progress": False}
    report = zs.classify(dataset, CLASSES, store_logits=True, **run)
    card = sanity_check(dataset, "zs_classification", templates=True)
    short = report.sanity
    assert card.run_key == report.run_key
    assert card.findings.mean_confidence == pytest.approx(short["mean_confidence"], abs=1e-4)
    assert card.findings.close_share == pytest.approx(short["close_share"], abs=1e-4)
    assert card.findings.label_entropy == pytest.approx(short["label_entropy"], abs=1e-4)
    assert card.unused == tuple(name for name in CLASSES if name not in report.labels)
    assert 0.0 < card.findings.class_entropy < 1.0
    assert len(card.findings.templates) == 7  # of the set "simple"
    assert 0.5 < card.findings.template_agreement <= 1.0

    # From stored embeddings the run counts the same
    again = zs.classify(dataset, CLASSES, label_field="again", **run)
    assert again.reused == len(pictures)
    assert again.sanity == short

    zs.classify(dataset, CLASSES, label_field="single", templates="none", **run)
    assert "single template" in sanity_check(dataset, "single").missing["template_agreement"]


def test_a_run_that_finds_one_class_says_so(dataset, pictures):
    dataset.add_samples([fo.Sample(filepath=pictures[0]) for _ in range(20)])
    names = ["red circle", "blue star"]
    report = zs.classify(dataset, names, model="shapes-tiny", progress=False)
    (label,) = report.labels
    assert f"100% of the labels are {label!r}" in "".join(report.warnings)
    assert report.sanity["label_entropy"] == 0.0
    alone = zs.classify(dataset, names[:1], model="shapes-tiny", label_field="a", progress=False)
    assert not any("of the labels are" in text for text in alone.warnings)


def test_boxes_and_masks_are_judged_by_their_runs(tmp_path):
    from zs_operators.shapes.dataset import load_shapes_dataset

    dataset = load_shapes_dataset("sanity", num_scenes=3, folder=tmp_path, fresh=True)
    scenes = dataset.match_tags("scene")
    try:
        tiny = {"model": "shapes-tiny", "progress": False}
        found = zs.detect(scenes, CLASSES, proposals="shapes-tiny", max_regions=20, **tiny)
        card = sanity_check(scenes, "zs_detections")
        assert card.histogram == dict(found.labels)
        assert card.findings.mean_confidence == pytest.approx(
            found.sanity["mean_confidence"], abs=1e-4
        )
        assert card.findings.close_share == pytest.approx(found.sanity["close_share"], abs=1e-4)
        masks = zs.segment(scenes, prompts="objects", **tiny)
        assert masks.sanity["top_label"] in masks.labels
        assert "label_entropy" not in masks.sanity  # names are those of the boxes
        assert sanity_check(scenes, "zs_masks").histogram == dict(masks.labels)
    finally:
        dataset.delete()
