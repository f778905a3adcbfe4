"""Two runs side by side; what changed is checked against the labels themselves."""

from __future__ import annotations

import json
from collections import Counter

import fiftyone as fo
import numpy as np
import pytest

import zs_operators as zs
from zs_operators import provenance
from zs_operators.errors import InvalidInputError
from zs_operators.run_history.matching import Objects, Pair, pair_boxes, pair_names

FAST = {"model": "shapes-tiny", "precision": "fp32", "progress": False}


@pytest.fixture
def two_runs(dataset):
    """Writes labels by hand as two runs have marked them: a function of their values."""

    def write(of_a, of_b, *, task="classify", task_b=None):
        for i, (a, b) in enumerate(zip(of_a, of_b, strict=True)):
            dataset.add_sample(fo.Sample(filepath=f"{i}.png", a=a, b=b))
        for name, one in (("a", task), ("b", task_b or task)):
            signature = provenance.signature({"field": name})
            values = dataset.values(name)
            for value in values:
                if value is not None:
                    value["run"] = signature
            dataset.set_values(name, values, dynamic=True)
            provenance.save(dataset, one, name, {"signature": signature})
        return zs.load_run(dataset, "a"), zs.load_run(dataset, "b")

    return write


def named(*names):
    return [None if name is None else fo.Classification(label=name) for name in names]


def boxed(*boxes, **attributes):
    """Boxes of 0.2 × 0.2 with a name at an x."""
    found = [
        fo.Detection(label=name, bounding_box=[x, 0.1, 0.2, 0.2], **attributes) for name, x in boxes
    ]
    return fo.Detections(detections=found)


def test_flips_and_agreement_of_classes(two_runs):
    a, b = two_runs(
        named("cat", "cat", "dog", "dog", None, "cat"),
        named("cat", "dog", "dog", "cat", "cat", "dog"),
    )
    found = zs.compare_runs(a, b)

    assert (found.compared, found.same, found.total) == (5, 2, 5)
    assert found.agreement == pytest.approx(0.4)
    assert [(flip.before, flip.after, flip.count) for flip in found.flips] == [
        ("cat", "dog", 2),
        ("dog", "cat", 1),
    ]
    paths = found.view(flip=("cat", "dog")).values("filepath")
    assert [path.rpartition("/")[2] for path in paths] == ["1.png", "5.png"]
    assert len(found.view()) == 3
    assert len(found.view("unchanged")) == 2
    assert found.view("only_b").values("b.label") == ["cat"]
    assert len(found.view("only_a")) == 0
    with pytest.raises(InvalidInputError, match="bird"):
        found.view(flip=("bird", "dog"))
    with pytest.raises(InvalidInputError, match="only_b"):
        found.view("some")


def test_rejected_images_are_a_class_of_their_own(two_runs):
    rejected = fo.Classification(label=None, rejected_by="margin")
    found = zs.compare_runs(*two_runs([rejected, *named("cat")], named("cat", "cat")))
    assert [(flip.before, flip.after) for flip in found.flips] == [("(rejected)", "cat")]


def test_several_labels_an_image(two_runs):
    def several(*names):
        return fo.Classifications(classifications=named(*names))

    a = [several("cat", "dog"), several("cat", "dog"), several()]
    b = [several("dog", "cat"), several("cat", "bird", "fox"), several("cat")]
    found = zs.compare_runs(*two_runs(a, b))

    assert {(flip.before, flip.after) for flip in found.flips} == {
        ("dog", "bird"),
        ("(none)", "fox"),
        ("(rejected)", "cat"),
    }
    assert len(found.changed_ids) == 2


def test_boxes_are_paired_by_overlap(two_runs):
    a = [boxed(("cat", 0.1), ("dog", 0.5)), boxed(("cat", 0.1)), boxed()]
    b = [boxed(("fox", 0.52), ("cat", 0.11)), boxed(("cat", 0.7)), boxed()]
    found = zs.compare_runs(*two_runs(a, b, task="detect"))

    assert found.kind == "boxes"
    assert {(flip.before, flip.after) for flip in found.flips} == {
        ("dog", "fox"),
        ("cat", "(none)"),
        ("(none)", "cat"),
    }
    assert (found.same, found.total) == (1, 4)
    assert 0.5 < found.mean_iou < 1
    assert len(found.unchanged_ids) == 1
    strict = zs.compare_runs(zs.load_run(found.run_a.dataset, "a"), found.run_b, iou=0.99)
    assert strict.same == 0


def test_pairs_of_boxes_overlap_most_in_all():
    def objects(*xs, sources=None):
        boxes = [[x, 0.0, 0.4, 0.4] for x in xs]
        return Objects(["thing"] * len(xs), sources or [None] * len(xs), boxes)

    # The nearest of the first would leave nothing to the second
    pairs = pair_boxes(objects(0.10, 0.20), objects(0.12, 0.02), 0.3)
    assert {(pair.first, pair.second) for pair in pairs} == {(0, 1), (1, 0)}
    # A common source counts more than overlap
    pairs = pair_boxes(objects(0.0, sources=["x"]), objects(0.0, 0.5, sources=[None, "x"]), 0.5)
    assert pairs == [Pair(0, 1, 0.0), Pair(None, 0)]
    assert pair_boxes(objects(), objects(0.1), 0.5) == [Pair(None, 0)]
    assert pair_boxes(objects(), objects(), 0.5) == []


def test_pairs_of_names_are_of_the_same_name_first():
    a, b = Objects(["x", "y", "y"]), Objects(["y", "z"])
    assert pair_names(a, b) == [Pair(1, 0), Pair(0, 1), Pair(2, None)]


def test_masks_are_compared_pixel_by_pixel(two_runs):
    half, whole = np.zeros((20, 20), bool), np.ones((20, 20), bool)
    half[:, :8] = True
    a = [boxed(("cat", 0.1), mask=whole), boxed(("cat", 0.1), mask=whole)]
    b = [boxed(("cat", 0.1), mask=half), boxed(("cat", 0.1), mask=whole)]
    found = zs.compare_runs(*two_runs(a, b, task="segment"))

    assert found.kind == "masks"
    assert found.mean_iou == pytest.approx((0.4 + 1) / 2)
    assert (found.same, found.total, found.flips) == (1, 2, ())
    assert found.changed_ids == found.redrawn_ids
    assert len(found.view("redrawn")) == 1
    assert zs.compare_runs(found.run_a, found.run_b, iou=0.3).same == 2


def test_real_runs_agree_with_their_labels(classified):
    found = zs.compare_runs(zs.load_run(classified, "a"), zs.load_run(classified, "b"))

    before, after = classified.values(["a.label", "b.label"])
    expected = Counter(pair for pair in zip(before, after, strict=True) if pair[0] != pair[1])
    assert expected
    assert {(flip.before, flip.after): flip.count for flip in found.flips} == expected
    assert found.differences["classes"] == (["heart"], ["square"])
    assert found.differences.keys() == {"classes", "prompts"}
    assert json.loads(json.dumps(found.to_dict()))["changed_ids"] == list(found.changed_ids)
    assert "agreement" in str(found)


def test_differences_of_options(scenes):
    zs.detect(scenes, ["star"], regions="things", label_field="a", **FAST)
    zs.rerun(zs.load_run(scenes, "a"), label_field="b", temperature=2.0, progress=False)

    found = zs.compare_runs(zs.load_run(scenes, "a"), zs.load_run(scenes, "b"))
    assert found.differences == {"temperature": (None, 2.0)}
    assert found.agreement == 1
    # The boxes are those of "things", one by one
    assert found.total == scenes.count("things.detections")
    zs.detect(scenes, ["circle"], regions="things", update_source=True, **FAST)
    against = zs.compare_runs(zs.load_run(scenes, "a"), zs.load_run(scenes, "things"))
    assert [(flip.before, flip.after) for flip in against.flips] == [("star", "circle")]
    assert against.flips[0].count == found.total


def test_what_cannot_be_compared(classified, two_runs):
    a = zs.load_run(classified, "a")
    zs.detect(classified, ["star"], regions="things", label_field="c", **FAST)
    with pytest.raises(InvalidInputError, match="one kind"):
        zs.compare_runs(a, zs.load_run(classified, "c"))
    provenance.save(classified, "evaluate", "eval", {})
    with pytest.raises(InvalidInputError, match="'evaluate'"):
        zs.compare_runs(a, zs.load_run(classified, "zs_evaluate_eval"))
    with pytest.raises(InvalidInputError, match="load_run"):
        zs.compare_runs(a, "b")
    classified.clear_sample_field("b")
    with pytest.raises(InvalidInputError, match="nothing is left"):
        zs.compare_runs(a, zs.load_run(classified, "b"))
    other = fo.Dataset()
    provenance.save(other, "classify", "a", {})
    with pytest.raises(InvalidInputError, match="one dataset"):
        zs.compare_runs(a, zs.load_run(other, "a"))
    other.delete()
