"""A fitted temperature, applied to labels that are there."""

from __future__ import annotations

import fiftyone as fo
import numpy as np
import pytest

import zs_operators as zs
from tests.made_up_runs import CLASSES, lists, record_run
from zs_operators import provenance
from zs_operators.errors import FieldError, InvalidInputError


def softmax(logits, temperature=1.0):
    p = np.exp(logits / temperature)
    return p / p.sum(axis=1, keepdims=True)


def test_of_an_evaluation_to_a_new_field(photos):
    report = zs.evaluate(photos, "guess", "truth", eval_key="ev")
    before = photos.values("guess")
    done = zs.apply_temperature(photos, "guess", "ev", new_field="calm")
    assert photos.values("guess") == before
    assert done.source == "logits"
    assert done.changed == 60
    logits = np.array(photos.values("guess.logits"))
    expected = softmax(logits, report.calibration.temperature).max(axis=1)
    assert photos.values("calm.confidence") == pytest.approx(expected.tolist())
    assert photos.values("calm.label") == photos.values("guess.label")
    # Of the new field the evaluation finds what it had foretold, and nothing more to mend
    again = zs.evaluate(photos, "calm", "truth", eval_key="again")
    assert again.calibration.ece == pytest.approx(report.calibration.ece_fitted)
    assert "60 labels" in str(done)


def test_is_kept_with_the_run(photos):
    report = zs.evaluate(photos, "guess", "truth", eval_key="ev")
    zs.apply_temperature(photos, "guess", report, overwrite=True)
    record = provenance.find(photos, "classify", "guess")["calibration"]
    assert record["temperature"] == report.calibration.temperature
    assert (record["source"], record["eval_key"]) == ("logits", "ev")
    assert provenance.find(photos, "temperature", "guess")["source_field"] == "guess"
    # Applied twice it is the same, since logits stay
    once = photos.values("guess.confidence")
    zs.apply_temperature(photos, "guess", report, overwrite=True)
    assert photos.values("guess.confidence") == pytest.approx(once)


def test_of_confidences(photos):
    photos.set_values("guess.logits", [None] * 60)
    before = np.array(photos.values("guess.confidence"))
    done = zs.apply_temperature(photos, "guess", 2.0, overwrite=True)
    assert done.source == "confidences"
    odds = np.sqrt(before / (1 - before))
    assert photos.values("guess.confidence") == pytest.approx(
        (odds / (1 + odds)).tolist(), rel=1e-4
    )


def test_of_lists_with_the_logits_of_the_image(photos):
    logits = np.array(photos.values("guess.logits"))
    p = softmax(logits)
    lists(photos, "best", [[(CLASSES[i], row[i]) for i in np.argsort(-row)[:2]] for row in p])
    photos.set_values("best.logits", logits.tolist())
    record_run(photos, "best", CLASSES)
    zs.apply_temperature(photos, "best", 3.0, overwrite=True)
    expected = -np.sort(-softmax(logits, 3.0), axis=1)[:, :2]
    found = np.array(photos.values("best.classifications.confidence"))
    assert found == pytest.approx(expected)


def test_rejected_labels_stay_rejected(photos):
    zs.apply_thresholds(photos, "guess", min_confidence=0.9)
    before = photos.values(["guess.rejected_by", "guess.label"])
    zs.apply_temperature(photos, "guess", 2.0, overwrite=True)
    assert photos.values(["guess.rejected_by", "guess.label"]) == before


def test_boxes_have_confidences_only(dataset):
    labels = [fo.Detection(label="a", bounding_box=[0, 0, 1, 1], confidence=c) for c in (0.2, None)]
    dataset.add_sample(fo.Sample(filepath="/nowhere/1.png", boxes=fo.Detections(detections=labels)))
    done = zs.apply_temperature(dataset, "boxes", 0.5, new_field="sharp")
    assert done.changed == 1
    assert dataset.first().sharp.detections[0].confidence == pytest.approx(1 / 17)
    assert dataset.first().sharp.detections[1].confidence is None
    with pytest.raises(FieldError, match="boxes keep no logits"):
        zs.apply_temperature(dataset, "boxes", 0.5, source="logits", new_field="other")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, FieldError, "would be replaced: give new_field, or allow it"),
        ({"temperature": 0}, InvalidInputError, "above 0"),
        ({"temperature": "nope"}, InvalidInputError, "no evaluation 'nope'"),
        ({"source": "guess"}, InvalidInputError, "logits, confidences"),
        ({"new_field": "guess"}, FieldError, "the field itself"),
        ({"new_field": "truth"}, FieldError, "exists"),
        ({"label_field": "nope"}, FieldError, "no field 'nope'"),
    ],
)
def test_never_silently(photos, arguments, error, message):
    arguments = {"label_field": "guess", "temperature": 2.0, **arguments}
    before = photos.values("guess.confidence")
    with pytest.raises(error, match=message):
        zs.apply_temperature(photos, **arguments)
    assert photos.values("guess.confidence") == before


def test_an_evaluation_of_another_field_or_without_a_temperature(photos):
    zs.evaluate(photos, "guess", "truth", eval_key="ev")
    with pytest.raises(InvalidInputError, match="is of 'guess', not of 'truth'"):
        zs.apply_temperature(photos, "truth", "ev", overwrite=True)
    with pytest.raises(InvalidInputError, match="fitted its temperature on logits"):
        zs.apply_temperature(photos, "guess", "ev", source="confidences", overwrite=True)
    photos.set_values("guess.confidence", [None] * 60)
    zs.evaluate(photos, "guess", "truth", eval_key="none")
    with pytest.raises(InvalidInputError, match="has no temperature"):
        zs.apply_temperature(photos, "guess", "none", overwrite=True)


def test_logits_of_a_run_with_background_are_not_used(photos):
    from zs_operators.vocabulary import Vocabulary

    vocabulary = Vocabulary.parse(CLASSES, background=["a photo."])
    record_run(photos, "guess", CLASSES, vocabulary=vocabulary.to_dict())
    with pytest.raises(FieldError, match="no softmax over the classes alone"):
        zs.apply_temperature(photos, "guess", 2.0, source="logits", new_field="calm")
    assert zs.apply_temperature(photos, "guess", 2.0, new_field="calm").source == "confidences"
