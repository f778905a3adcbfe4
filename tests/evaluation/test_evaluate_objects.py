"""``zs.evaluate`` on boxes and masks of objects: FiftyOne's numbers, and where apart from what."""

from __future__ import annotations

import fiftyone as fo
import numpy as np
import pytest
from fiftyone import ViewField as F

import zs_operators as zs
from zs_operators import provenance

CLASSES = ["bird", "car", "dog"]
#: Shift of a box that still matches, and of one that does not.
NEAR, FAR = 0.01, 0.3


def box(label, x, y, **more):
    return fo.Detection(label=label, bounding_box=[x, y, 0.2, 0.2], **more)


@pytest.fixture
def street(dataset):
    """12 samples of 3 objects in ``truth``; ``found`` has right, misnamed or astray."""
    rng = np.random.default_rng(3)
    samples = []
    for number in range(12):
        truth, found = [], []
        for column, x in enumerate((0.0, 0.25, 0.5)):
            name = CLASSES[(number + column) % 3]
            truth.append(box(name, x, 0.1))
            kind = (number * 3 + column) % 4
            guess = name if kind != 1 else CLASSES[(CLASSES.index(name) + 1) % 3]
            shift = FAR if kind == 2 else NEAR
            found.append(box(guess, x, 0.1 + shift, confidence=float(rng.random())))
        samples.append(
            fo.Sample(
                filepath=f"/nowhere/{number}.png",
                truth=fo.Detections(detections=truth),
                found=fo.Detections(detections=found),
            )
        )
    dataset.add_samples(samples)
    return dataset


def test_equals_fiftyone(street):
    report = zs.evaluate(street, "found", "truth", eval_key="ev")
    theirs = street.evaluate_detections("found", gt_field="truth", compute_mAP=True)
    assert report.metrics["mAP"] == pytest.approx(theirs.mAP())
    assert report.metrics["mAR"] == pytest.approx(theirs.mAR())
    for name, found in (("precision", "micro precision"), ("recall", "micro recall")):
        assert report.metrics[found] == pytest.approx(theirs.metrics()[name])
    expected = theirs.report()
    for row in report.per_class:
        assert row.recall == pytest.approx(expected[row.label]["recall"])
        assert row.precision == pytest.approx(expected[row.label]["precision"])
        assert row.average_precision == pytest.approx(theirs.mAP(classes=[row.label]))
    coarse = street.evaluate_detections(
        "found", gt_field="truth", compute_mAP=True, iou_threshs=[0.5]
    )
    assert report.metrics["AP50"] == pytest.approx(coarse.mAP())
    stored = street.load_evaluation_results("ev")
    assert stored.mAP() == pytest.approx(theirs.mAP())
    assert zs.load_evaluation(street, "ev") == report


def test_where_apart_from_what(street):
    report = zs.evaluate(street, "found", "truth", eval_key="ev")
    # Of every four boxes one is misnamed and one astray
    found = report.localisation
    assert (found.num_truth, found.num_predicted, found.num_located) == (36, 36, 27)
    assert found.recall == found.precision == 0.75
    assert found.name_accuracy == pytest.approx(18 / 27)
    assert report.metrics["micro recall"] == 0.5
    assert 0.8 < found.mean_iou < 1
    assert found.average_precision > report.metrics["mAP"]
    assert found.average_precision_50 > found.average_precision
    one_name = dict.fromkeys(CLASSES, "object")
    same = street.map_labels("found", one_name).map_labels("truth", one_name)
    theirs = same.evaluate_detections("found", gt_field="truth", compute_mAP=True)
    assert found.average_precision == pytest.approx(theirs.mAP())
    # The confusions are between boxes that match
    assert sum(n for _, _, n in report.confusion.worst()) == 9
    assert report.confusion.matrix[:-1, -1].sum() == report.confusion.matrix[-1, :-1].sum() == 9
    for row in report.per_class:
        assert row.accuracy == pytest.approx(2 / 3)


def test_every_label_says_what_became_of_it(street):
    report = zs.evaluate(street, "found", "truth", eval_key="ev")
    assert report.any_class_key == "ev_any_class"
    assert street.list_evaluations() == ["ev", "ev_any_class"]
    misnamed = street.filter_labels(
        "found", (F("ev_any_class") == "fp") & (F("ev_any_class_id") != "")
    )
    assert misnamed.count("found.detections") == 9
    assert street.filter_labels("found", F("ev") == "tp").count("found.detections") == 18
    assert set(report.fields) <= set(street.get_field_schema())
    zs.evaluate(street, "found", "truth", eval_key="ev", overwrite=True)
    assert street.list_evaluations() == ["ev", "ev_any_class"]


def test_only_evaluation_attributes_are_added(street):
    def contents():
        keep = ("id", "label", "confidence", "bounding_box")
        return [
            [[label[name] for name in keep] for label in sample[field].detections]
            for sample in street
            for field in ("found", "truth")
        ]

    street.set_values(
        "truth.detections.label",
        [[name.upper() for name in row] for row in street.values("truth.detections.label")],
    )
    before = contents()
    report = zs.evaluate(street, "found", "truth", eval_key="ev")
    assert contents() == before
    assert report.metrics["micro recall"] == 0.5
    assert [row.label for row in report.per_class] == ["BIRD", "CAR", "DOG"]
    # Thresholds are of the names in the field
    assert set(report.thresholds) <= set(CLASSES)
    assert street.load_evaluation_view("ev").distinct("found.detections.label") == [
        "BIRD",
        "CAR",
        "DOG",
    ]


def test_thresholds_and_calibration(street):
    report = zs.evaluate(street, "found", "truth", eval_key="ev")
    sweep = zs.sweep_thresholds(street, "found", gt_field="truth")
    assert report.thresholds == sweep.best_per_class()
    assert report.calibration.source == "confidences"
    assert report.calibration.num == 36
    assert sum(row.count * (row.accuracy or 0) for row in report.reliability) == pytest.approx(18)


def test_supported_and_unsupported_classes(street):
    report = zs.evaluate(street, "found", "truth", eval_key="ev", seen=["car"])
    theirs = street.evaluate_detections("found", gt_field="truth", compute_mAP=True)
    assert report.split.measure == "average precision"
    assert report.split.supported_score == pytest.approx(theirs.mAP(classes=["car"]))
    assert report.split.unsupported_score == pytest.approx(theirs.mAP(classes=["bird", "dog"]))
    assert report.split.stacking is None
    faster = zs.evaluate(street, "found", "truth", eval_key="fast", seen=["car"], compute_mAP=False)
    assert faster.split.measure == "recall"
    assert "mAP" not in faster.metrics
    assert faster.localisation.recall == 0.75
    assert faster.per_class[0].average_precision is None


def test_boxes_without_confidence_or_name(street):
    street.set_values("found.detections.confidence", [[None] * 3] * 12)
    report = zs.evaluate(street, "found", "truth", eval_key="ev")
    assert "mAP" not in report.metrics
    assert report.calibration is None
    assert report.thresholds == {}
    assert any("no average precision" in warning for warning in report.warnings)
    # A box without a name predicts nothing
    names = street.values("found.detections.label")
    street.set_values("found.detections.label", [[None, *row[1:]] for row in names])
    again = zs.evaluate(street, "found", "truth", eval_key="again")
    assert again.counts["rejected_labels"] == 12
    assert again.localisation.num_predicted == 24


def test_existing_boxes_that_a_run_named(street):
    truth = street.values("truth")
    named = [
        fo.Detections(
            detections=[
                fo.Detection(
                    label=label.label if place else None,
                    bounding_box=label.bounding_box,
                    confidence=0.5,
                    source_id=label.id,
                    rejected_by=None if place else "cosine",
                )
                for place, label in enumerate(row.detections)
            ]
        )
        for row in truth
    ]
    street.set_values("named", named)
    street.add_dynamic_sample_fields()
    report = zs.evaluate(street, "named", "truth", eval_key="ev")
    assert report.counts["rejected_labels"] == 12
    assert [row.num_rejected for row in report.per_class] == [4, 4, 4]
    assert report.localisation.name_accuracy == 1.0


def test_no_object_found_and_none_there(street):
    ids = street.values("id")
    street.set_values("found", {ids[0]: fo.Detections()}, key_field="id")
    street.set_values("truth", {ids[1]: fo.Detections(), ids[2]: None}, key_field="id")
    report = zs.evaluate(street, "found", "truth", eval_key="ev")
    assert report.counts["evaluated"] == 11  # without ground truth is not the same as without boxes
    assert report.counts["no_ground_truth"] == 1
    assert report.counts["objects"] == 30
    assert report.counts["predicted_objects"] == 30
    assert street.values("ev_fn")[0] == 3
    assert street.values("ev_fp")[1] == 3
    assert street.values("ev_tp")[2] is None


def test_masks_instead_of_boxes(dataset):
    half = np.zeros((8, 8), dtype=bool)
    half[:, :4] = True
    for number, mask in enumerate((half, ~half)):
        truth = fo.Detection(label="dog", bounding_box=[0.1, 0.1, 0.5, 0.5], mask=half)
        found = fo.Detection(
            label="dog", bounding_box=[0.1, 0.1, 0.5, 0.5], mask=mask, confidence=0.9
        )
        dataset.add_sample(
            fo.Sample(
                filepath=f"/nowhere/{number}.png",
                truth=fo.Detections(detections=[truth]),
                found=fo.Detections(detections=[found]),
                metadata=fo.ImageMetadata(width=32, height=32),
            )
        )
    boxes = zs.evaluate(dataset, "found", "truth", eval_key="boxes")
    masks = zs.evaluate(dataset, "found", "truth", eval_key="masks", use_masks=True)
    assert boxes.localisation.recall == 1.0
    assert masks.localisation.recall == 0.5
    assert masks.localisation.mean_iou == pytest.approx(1.0)


def test_runs_of_the_plugin(tmp_path):
    """The models of the package on its drawings, from words to numbers."""
    from zs_operators.shapes.dataset import load_shapes_dataset
    from zs_operators.shapes.world import CLASSES, SEEN

    dataset = load_shapes_dataset("zs-evaluate-test", num_scenes=6, folder=tmp_path, fresh=True)
    try:
        objects, scenes = dataset.match_tags("object"), dataset.match_tags("scene")
        zs.classify(objects, list(CLASSES), model="shapes-tiny", store_logits=True, progress=False)
        report = zs.evaluate(
            dataset, "zs_classification", "ground_truth", eval_key="names", seen=SEEN
        )
        assert report.counts["evaluated"] == len(objects)
        assert report.counts["no_ground_truth"] == len(scenes)
        assert report.calibration.source == "logits"
        assert report.split.stacking.ausuc > 0
        assert {row.k for row in report.top_k} == {1, 5}
        zs.detect(
            scenes,
            list(CLASSES),
            model="shapes-tiny",
            proposals="shapes-tiny",
            max_regions=30,
            progress=False,
        )
        report = zs.evaluate(dataset, "zs_detections", "objects", eval_key="boxes", seen=SEEN)
        assert report.counts["evaluated"] == 6
        assert report.localisation.recall >= report.metrics["micro recall"]
        assert provenance.find(dataset, "evaluate", "boxes")["source"]["field"] == "zs_detections"
    finally:
        dataset.delete()
