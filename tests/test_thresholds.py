"""Sweeping and applying thresholds: what the stored scores say, against labelling again."""

from __future__ import annotations

import json

import fiftyone as fo
import numpy as np
import pytest

import zs_operators as zs
from zs_operators import provenance
from zs_operators.cli import main
from zs_operators.errors import FieldError, InvalidInputError
from zs_operators.shapes.dataset import OBJECT, SCENE
from zs_operators.sweeps import Candidates, Sweep, spread
from zs_operators.thresholds import apply_thresholds, sweep_thresholds

NUM_SCENES = 12

SCORES = ("confidence", "cosine", "margin")


@pytest.fixture(scope="module")
def labelled(shapes, clip):
    """Objects with labels, some right, some wrong, some the background's; and scenes with boxes."""
    names = shapes.match_tags(OBJECT).distinct("ground_truth.label")
    zs.classify(
        shapes.match_tags(OBJECT),
        names[::2],
        model=clip,
        templates="none",
        background=names[1:8:2],
        temperature=3.0,
        progress=False,
    )
    scenes = shapes.match_tags(SCENE)
    options = {"model": clip, "templates": "none", "progress": False}
    zs.detect(scenes, "objects", proposals="shapes-tiny", label_field="found", **options)
    zs.detect(scenes, "objects", regions="objects", label_field="named", **options)
    return shapes


@pytest.fixture
def objects(labelled):
    dataset = labelled.match_tags(OBJECT).clone()
    yield dataset
    dataset.delete()


@pytest.fixture
def scenes(labelled):
    dataset = labelled.match_tags(SCENE).clone()
    yield dataset
    dataset.delete()


def snapshot(dataset, field):
    return [None if label is None else label.to_dict() for label in dataset.values(field)]


# --- sweeping ------------------------------------------------------------------------------------


def naive(samples, threshold, by="confidence"):
    """Kept, right and all true labels, one sample after the other."""
    kept = right = true = 0
    for sample in samples:
        label = sample.zs_classification
        true += sample.ground_truth is not None
        if label.rejected_by == "background" or label[by] < threshold:
            continue
        kept += 1
        right += (label.rejected_label or label.label) == sample.ground_truth.label
    return kept, right, true


@pytest.mark.parametrize("by", SCORES)
def test_a_sweep_counts_what_a_loop_over_samples_counts(objects, by):
    sweep = sweep_thresholds(objects, "zs_classification", by, "ground_truth", thresholds=7)

    assert len(sweep.rows) == 7
    assert (
        sweep.rows[0].kept
        == objects.match(
            fo.ViewField("zs_classification.rejected_by") == None  # noqa: E711
        ).count()
    )
    for row in sweep.rows:
        kept, right, true = naive(objects, row.threshold, by)
        assert row.kept == kept
        assert row.recall == right / true
        assert row.precision == (right / kept if kept else None)
        if kept:
            assert row.f1 == pytest.approx(2 * right / (kept + true))
    assert len({row.kept for row in sweep.rows}) > 2, "the thresholds must make a difference"


def test_the_best_threshold_is_best_of_all(objects):
    sweep = sweep_thresholds(objects, "zs_classification", gt_field="ground_truth")
    best = sweep.best()
    values = sorted(set(objects.values("zs_classification.confidence")))
    every = sweep_thresholds(
        objects, "zs_classification", gt_field="ground_truth", thresholds=values
    )
    assert best.f1 == max(row.f1 or 0 for row in every.rows)
    for label, threshold in sweep.best_per_class().items():
        mine = every.of(label)
        reached = sweep_thresholds(
            objects, "zs_classification", gt_field="ground_truth", thresholds=[threshold]
        )
        assert reached.of(label)[0].f1 == max(row.f1 or 0 for row in mine)


def test_detections_are_matched_as_fiftyone_matches_them(scenes):
    results = scenes.evaluate_detections("found", gt_field="objects", eval_key="check")
    sweep = sweep_thresholds(scenes, "found", gt_field="objects")
    assert sweep_thresholds(scenes, "found", gt_field="objects", eval_key="check").rows == (
        sweep.rows
    )
    assert sweep.rows[0].kept == scenes.count("found.detections")
    metrics = results.metrics()
    assert sweep.rows[0].precision == pytest.approx(metrics["precision"])
    assert sweep.rows[0].recall == pytest.approx(metrics["recall"])
    # and matches at a higher threshold are those of an evaluation of what it keeps
    row = sweep.rows[10]
    confident = scenes.filter_labels(
        "found", fo.ViewField("confidence") >= row.threshold, only_matches=False
    )
    again = confident.evaluate_detections("found", gt_field="objects").metrics()
    assert 0 < row.kept < sweep.rows[0].kept
    assert row.precision == pytest.approx(again["precision"])
    assert row.recall == pytest.approx(again["recall"])


def test_a_sweep_writes_nothing(scenes, objects):
    before = [list(scenes.get_field_schema(flat=True)), snapshot(scenes, "found")]
    sweep_thresholds(scenes, "found", gt_field="objects")
    assert [list(scenes.get_field_schema(flat=True)), snapshot(scenes, "found")] == before
    assert scenes.list_evaluations() == []
    before = snapshot(objects, "zs_classification")
    sweep_thresholds(objects, "zs_classification", "margin", "ground_truth").best_per_class()
    assert snapshot(objects, "zs_classification") == before


def test_named_boxes_are_compared_with_the_boxes_they_name(scenes):
    sweep = sweep_thresholds(scenes, "named", gt_field="objects", thresholds=[0])
    right = sum(
        one.label == one.source_label
        for found in scenes.values("named.detections")
        for one in found
    )
    assert sweep.rows[0].precision == right / scenes.count("objects.detections")
    assert sweep.rows[0].kept == scenes.count("objects.detections")


def test_views_restrict_a_sweep(objects):
    half = objects.limit(len(objects) // 2)
    rows = sweep_thresholds(half, "zs_classification", gt_field="ground_truth").rows
    assert rows[5].kept == naive(half, rows[5].threshold)[0]


def test_several_labels_an_image(objects, clip):
    names = objects.distinct("ground_truth.label")
    zs.classify(objects, names, top_k=3, label_field="three", model=clip, progress=False)
    sweep = sweep_thresholds(objects, "three", gt_field="ground_truth")
    assert sweep.rows[0].kept == 3 * len(objects)
    threes = [[one.label for one in found] for found in objects.values("three.classifications")]
    truth = objects.values("ground_truth.label")
    right = sum(true in found for true, found in zip(truth, threes, strict=True))
    assert sweep.rows[0].recall == right / len(objects)


def test_sweeps_for_people_and_programs(objects):
    sweep = sweep_thresholds(objects, "zs_classification", gt_field="ground_truth", thresholds=3)
    lines = str(sweep).splitlines()
    assert lines[0].split() == ["confidence", "kept", "share", "precision", "recall", "F1"]
    assert lines[1].split()[0] == "0.0000"
    assert "best F1:" in lines
    content = json.loads(json.dumps(sweep.to_dict()))
    assert content["best"]["f1"] == sweep.best().f1
    plain = sweep_thresholds(objects, "zs_classification", thresholds=3)
    assert str(plain).splitlines()[0].split() == ["confidence", "kept", "share"]
    with pytest.raises(InvalidInputError, match="needs ground truth: give gt_field"):
        plain.best()


def test_labels_without_a_score_pass_every_threshold():
    candidates = Candidates(
        np.array(["a", "b", "b"], dtype=object),
        np.array([0.5, np.nan, 0.25]),
        np.array([True, False, True]),
        {"a": 1, "b": 2},
    )
    sweep = Sweep("x", "margin", "y", spread(candidates, "margin", 2), candidates)
    assert [(row.threshold, row.kept, row.recall) for row in sweep.rows] == [
        (0.25, 3, 2 / 3),
        (0.5, 2, 1 / 3),
    ]
    assert sweep.best("b").threshold == 0.25


# --- applying ------------------------------------------------------------------------------------


def test_applied_thresholds_give_what_labelling_with_them_gives(objects, clip):
    names = objects.distinct("ground_truth.label")
    options = {"model": clip, "templates": "none", "temperature": 3.0, "progress": False}
    zs.classify(objects, names, label_field="plain", **options)
    limits = {
        f"min_{name}": float(np.quantile(objects.values(f"plain.{name}"), 0.2)) for name in SCORES
    }
    zs.classify(objects, names, label_field="strict", **limits, **options)

    done = apply_thresholds(objects, "plain", **limits)

    for attribute in ("label", "rejected_by", "rejected_label", *SCORES):
        assert objects.values(f"plain.{attribute}") == objects.values(f"strict.{attribute}")
    assert done.rejected == sum(rule is not None for rule in objects.values("strict.rejected_by"))
    assert 0 < done.rejected < len(objects)
    assert sum(done.by_rule.values()) == done.rejected
    assert done.kept + done.rejected == len(objects)
    assert done.removed == 0


def test_applying_is_reversible(objects):
    before = snapshot(objects, "zs_classification")
    apply_thresholds(objects, "zs_classification", min_confidence=0.99, reject_label="unsure")
    assert "unsure" in objects.distinct("zs_classification.label")
    middle = apply_thresholds(objects, "zs_classification", min_confidence=0.9)
    assert 0 < middle.by_rule["confidence"] < middle.rejected, "the background's stay rejected"
    apply_thresholds(objects, "zs_classification")
    assert snapshot(objects, "zs_classification") == before


def test_each_class_has_its_own_threshold(objects):
    apply_thresholds(objects, "zs_classification")
    first, *_ = labels = sorted(filter(None, objects.distinct("zs_classification.label")))
    apply_thresholds(objects, "zs_classification", min_confidence={first: 1.1})
    assert first not in objects.distinct("zs_classification.label")
    assert first in objects.distinct("zs_classification.rejected_label")
    apply_thresholds(objects, "zs_classification", min_confidence={first: 0, None: 1.1})
    assert list(filter(None, objects.distinct("zs_classification.label"))) == [first]
    assert len(labels) > 1
    record = provenance.find(objects, "thresholds", "zs_classification")
    assert record["thresholds"] == [
        {"rule": "confidence", "label": first, "value": 0.0},
        {"rule": "confidence", "label": None, "value": 1.1},
    ]


def test_the_best_thresholds_of_a_sweep_are_applied(objects):
    sweep = sweep_thresholds(objects, "zs_classification", gt_field="ground_truth")
    apply_thresholds(
        objects, "zs_classification", min_confidence={**sweep.best_per_class(), None: 1.1}
    )
    kept = [label for label in objects.values("zs_classification.label") if label is not None]
    assert (
        0
        < len(kept)
        == sum(
            sweep_thresholds(
                objects, "zs_classification", gt_field="ground_truth", thresholds=[threshold]
            )
            .of(label)[0]
            .kept
            for label, threshold in sweep.best_per_class().items()
        )
    )


def test_samples_outside_the_view_and_without_a_label_stay(objects):
    first, *_ = objects.values("id")
    objects[first].clear_field("zs_classification")
    sample = objects[first]
    sample["zs_classification"] = None
    sample.save()
    before = snapshot(objects, "zs_classification")
    apply_thresholds(objects.limit(3), "zs_classification", min_confidence=1.1)
    after = snapshot(objects, "zs_classification")
    assert after[0] is None
    assert after[3:] == before[3:]
    assert objects.limit(3).values("zs_classification.label") == [None] * 3


def test_detections_lose_nothing_unasked(scenes):
    before = snapshot(scenes, "found")
    threshold = float(
        np.median([c for cs in scenes.values("found.detections.confidence") for c in cs])
    )
    with pytest.raises(FieldError, match=r"labels of 'found' would be lost: give new_field.*True"):
        apply_thresholds(scenes, "found", min_confidence=threshold)
    assert snapshot(scenes, "found") == before

    done = apply_thresholds(scenes, "found", min_confidence=threshold, new_field="sure")

    assert snapshot(scenes, "found") == before
    kept = scenes.filter_labels(
        "found", fo.ViewField("confidence") >= threshold, only_matches=False
    )
    assert scenes.values("sure.detections.bounding_box") == kept.values(
        "found.detections.bounding_box"
    )
    assert done.kept == scenes.count("sure.detections") > 0
    assert done.removed == scenes.count("found.detections") - done.kept > 0
    with pytest.raises(FieldError, match="'sure' exists and holds labels"):
        apply_thresholds(scenes, "found", min_confidence=0.1, new_field="sure")
    apply_thresholds(scenes, "found", min_confidence=threshold, overwrite=True)
    assert scenes.values("found.detections.id") == kept.values("found.detections.id")
    # nothing is removed now, so nothing has to be allowed
    assert apply_thresholds(scenes, "found", min_confidence=threshold).removed == 0


def test_boxes_that_were_there_before_are_marked_and_come_back(scenes):
    before = snapshot(scenes, "named")
    scores = scenes.values("named.detections.confidence", unwind=True)
    done = apply_thresholds(scenes, "named", min_confidence=float(np.median(scores)))
    assert done.removed == 0
    assert done.rejected > 0
    assert scenes.count("named.detections") == scenes.count("objects.detections")
    marked = scenes.filter_labels("named", fo.ViewField("rejected_by") == "confidence")
    assert marked.count("named.detections") == done.rejected
    assert set(marked.values("named.detections.label", unwind=True)) == {None}
    apply_thresholds(scenes, "named")
    for old, new in zip(before, snapshot(scenes, "named"), strict=True):
        for one, other in zip(old["detections"], new["detections"], strict=True):
            assert {k: v for k, v in one.items() if v} == {k: v for k, v in other.items() if v}


def test_a_view_with_hidden_labels_loses_none_in_place(scenes):
    total = scenes.count("found.detections")
    few = scenes.filter_labels("found", fo.ViewField("confidence") > 0.9)
    apply_thresholds(few, "found", min_confidence=0.0)
    assert scenes.count("found.detections") == total


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (
            {"label_field": "nothing"},
            FieldError,
            "There is no field 'nothing'; label fields: .*named",
        ),
        ({"label_field": "filepath"}, FieldError, "holds StringField"),
        ({"by": "score"}, InvalidInputError, "by='score' must be one of confidence"),
        ({"gt_field": "none"}, FieldError, "There is no field 'none'"),
        ({"gt_field": "ground_truth"}, FieldError, "must hold Detections"),
        ({"gt_field": "objects", "eval_key": "e"}, FieldError, "There is no evaluation 'e'"),
        ({"thresholds": 1}, InvalidInputError, "at least 2"),
        ({"thresholds": ["a"]}, InvalidInputError, "numbers"),
        ({"label_field": "objects", "by": "cosine"}, FieldError, "have no cosine"),
    ],
)
def test_what_cannot_be_swept(scenes, change, error, says):
    with pytest.raises(error, match=says):
        sweep_thresholds(scenes, **{"label_field": "found", **change})


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"min_confidence": "high"}, InvalidInputError, "min_confidence='high' must be a number"),
        ({"min_margin": {"x": float("nan")}}, InvalidInputError, "of 'x' must be a number"),
        ({"new_field": "objects"}, FieldError, "exists and holds labels"),
        ({"new_field": "ground_truth"}, FieldError, "holds Classification"),
        ({"new_field": "found"}, FieldError, "'found'"),
        ({"label_field": "objects", "min_cosine": 0.1}, FieldError, "leave min_cosine out"),
    ],
)
def test_what_cannot_be_applied(scenes, change, error, says):
    before = snapshot(scenes, "found")
    with pytest.raises(error, match=says):
        apply_thresholds(scenes, **{"label_field": "found", **change})
    assert snapshot(scenes, "found") == before


def test_an_old_evaluation_is_refused(scenes):
    scenes.limit(2).evaluate_detections("found", gt_field="objects", eval_key="part")
    with pytest.raises(FieldError, match="does not know all labels of 'found': evaluate again"):
        sweep_thresholds(scenes, "found", gt_field="objects", eval_key="part")
    scenes.evaluate_detections("named", gt_field="objects", eval_key="other")
    with pytest.raises(FieldError, match="'other' is of 'named' and 'objects', not of 'found'"):
        sweep_thresholds(scenes, "found", gt_field="objects", eval_key="other")


# --- the command ---------------------------------------------------------------------------------


def test_the_command_prints_and_applies(objects, capsys):
    field = "zs_classification"
    command = ["sweep", objects.name, field, "--gt-field", "ground_truth"]
    assert main([*command, "--thresholds", "5"]) == 0
    assert "precision" in capsys.readouterr().out
    before = snapshot(objects, field)
    assert main([*command, "--json", "--apply", "best"]) == 0
    content = json.loads(capsys.readouterr().out)
    threshold = content["best"]["threshold"]
    assert content["applied"]["kept"] == naive(objects, threshold)[0]
    assert main([*command, "--apply", "per-class"]) == 0
    assert main([*command, "--apply", "0"]) == 0
    assert snapshot(objects, field) == before
    assert main([*command, "--apply", "most"]) == 2
    assert "'best' or 'per-class'" in capsys.readouterr().err
