"""``zs.evaluate`` on one mask of all classes a sample."""

from __future__ import annotations

import fiftyone as fo
import numpy as np
import pytest
from sklearn.metrics import jaccard_score

import zs_operators as zs
from zs_operators.errors import FieldError
from zs_operators.evaluation.mask_values import remap

NAMES = {1: "sky", 2: "tree", 3: "road"}


@pytest.fixture
def scenes(dataset):
    """4 samples with masks of 0–3 in ``truth``, and with a tenth of other values in ``found``."""
    rng = np.random.default_rng(5)
    for number in range(4):
        truth = np.repeat(np.repeat(rng.integers(0, 4, (4, 4)), 8, 0), 8, 1).astype(np.uint8)
        found = truth.copy()
        noise = rng.random(truth.shape) < 0.1
        found[noise] = rng.integers(0, 4, noise.sum())
        dataset.add_sample(
            fo.Sample(
                filepath=f"/nowhere/{number}.png",
                truth=fo.Segmentation(mask=truth),
                found=fo.Segmentation(mask=found),
            )
        )
    dataset.mask_targets = {"truth": NAMES, "found": NAMES}
    return dataset


def pixels(dataset, field):
    return np.concatenate([sample[field].mask.ravel() for sample in dataset])


def test_equals_fiftyone_and_scikit_learn(scenes):
    report = zs.evaluate(scenes, "found", "truth", eval_key="ev", seen=["sky"])
    truth, found = pixels(scenes, "truth"), pixels(scenes, "found")
    expected = jaccard_score(truth, found, average=None, labels=[1, 2, 3])
    by_name = {row.label: row for row in report.per_class}
    assert sorted(by_name) == ["road", "sky", "tree"]
    assert [by_name[NAMES[i]].iou for i in (1, 2, 3)] == pytest.approx(expected.tolist())
    assert report.metrics["mean IoU"] == pytest.approx(expected.mean())
    assert report.metrics["pixel accuracy"] == pytest.approx((truth == found).mean())
    theirs = scenes.load_evaluation_results("ev").report()
    for name, row in by_name.items():
        assert row.precision == pytest.approx(theirs[name]["precision"])
        assert row.recall == pytest.approx(theirs[name]["recall"])
        assert row.support == theirs[name]["support"]
    both = (truth > 0) & (found > 0)
    where = report.localisation
    assert where.recall == pytest.approx(both.sum() / (truth > 0).sum())
    assert where.mean_iou == pytest.approx(both.sum() / ((truth > 0) | (found > 0)).sum())
    assert where.name_accuracy == pytest.approx((truth == found)[both].mean())
    assert report.split.measure == "IoU"
    assert report.split.supported_score == pytest.approx(expected[0])
    assert zs.load_evaluation(scenes, "ev") == report
    assert str(report)


def test_other_values_for_the_same_names(scenes):
    expected = zs.evaluate(scenes, "found", "truth", eval_key="same")
    moved = {1: 7, 2: 1, 3: 2}
    for sample in scenes.iter_samples(autosave=True):
        sample.found = fo.Segmentation(mask=remap(sample.found.mask, moved))
    scenes.mask_targets["found"] = {7: "Sky", 1: "trees", 2: "road"}
    scenes.save()
    before = pixels(scenes, "found")
    report = zs.evaluate(scenes, "found", "truth", eval_key="ev")
    assert report.metrics == expected.metrics
    assert report.per_class == expected.per_class
    assert {(item.name, item.evaluated_as) for item in report.names.renamed} == {
        ("Sky", "sky"),
        ("trees", "tree"),
    }
    assert (pixels(scenes, "found") == before).all()
    # The copy that was compared is gone, and the evaluation is one of the real field
    assert "ev_values" not in scenes.get_field_schema()
    scenes.reload()
    assert scenes.get_evaluation_info("ev").config.pred_field == "found"
    ids = set(scenes.load_evaluation_results("ev").ypred_ids)
    assert ids == set(scenes.values("found.id"))
    # Compared value by value they would have looked bad
    naive = scenes.evaluate_segmentations("found", gt_field="truth", mask_targets=NAMES)
    assert naive.metrics()["accuracy"] < report.metrics["pixel accuracy"]


def test_a_class_that_ground_truth_lacks(scenes):
    scenes.mask_targets["found"] = {1: "sky", 2: "tree", 3: "river"}
    scenes.save()
    report = zs.evaluate(scenes, "found", "truth", eval_key="ev")
    rows = {row.label: row for row in report.per_class}
    assert rows["river"].support == 0
    assert rows["road"].recall == 0.0
    assert report.names.unmatched_predictions == ("river",)
    assert report.names.unmatched_ground_truth == ("road",)


def test_masks_without_names(scenes):
    scenes.mask_targets = {}
    scenes.save()
    report = zs.evaluate(scenes, "found", "truth", eval_key="ev")
    assert [row.label for row in report.per_class] == ["1", "2", "3"]


def test_colours_need_the_same_targets(scenes):
    scenes.mask_targets = {
        "truth": {"#ff0000": "sky", "#00ff00": "tree"},
        "found": {"#00ff00": "sky", "#ff0000": "tree"},
    }
    with pytest.raises(FieldError, match="give both the same mask targets"):
        zs.evaluate(scenes, "found", "truth", eval_key="ev")
    assert scenes.list_evaluations() == []


def test_a_mask_keeps_values_that_have_no_name():
    mask = np.array([[0, 1], [2, 255]], dtype=np.uint8)
    assert remap(mask, {1: 2, 2: 300}).tolist() == [[0, 2], [300, 255]]
