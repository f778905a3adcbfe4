"""``zs.evaluate`` on classes of images: FiftyOne's and scikit-learn's numbers, and more."""

from __future__ import annotations

import fiftyone as fo
import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, log_loss

import zs_operators as zs
from tests.made_up_runs import CLASSES, lists, record_run
from zs_operators import provenance
from zs_operators.errors import FieldError, InvalidInputError, SamplesError


def columns(dataset, field="guess"):
    truth, guess = dataset.values(["truth.label", f"{field}.label"])
    return np.array(truth), np.array(guess)


def test_equals_fiftyone_and_scikit_learn(photos):
    report = zs.evaluate(photos, "guess", "truth", eval_key="ev")
    truth, guess = columns(photos)
    theirs = photos.load_evaluation_results("ev")
    assert photos.list_evaluations() == ["ev"]
    assert report.metrics["accuracy"] == theirs.metrics()["accuracy"] == (truth == guess).mean()
    balanced = balanced_accuracy_score(truth, guess)
    assert report.metrics["accuracy per class"] == pytest.approx(balanced)
    expected = theirs.report()
    for row in report.per_class:
        for name, value in (("precision", row.precision), ("recall", row.recall)):
            assert value == pytest.approx(expected[row.label][name])
        assert row.f1 == pytest.approx(expected[row.label]["f1-score"])
        assert row.support == expected[row.label]["support"]
    matrix, labels, _ = theirs._confusion_matrix(include_missing=True)
    assert report.confusion.labels == tuple(labels)
    assert report.confusion.matrix.tolist() == matrix.tolist()
    assert photos.values("ev") == (truth == guess).tolist()


def test_report_is_stored_with_the_dataset(photos):
    report = zs.evaluate(photos, "guess", "truth", eval_key="ev", seen=["bird"])
    assert report.run_key == "zs_evaluate_ev"
    assert zs.load_evaluation(photos, "ev") == report
    assert zs.load_evaluation(photos.limit(3), "ev") == report
    record = provenance.find(photos, "evaluate", "ev")
    assert record["method"] == "zs/evaluate"
    assert record["source"]["run_key"] == "zs_classify_guess"
    assert record["samples"]["num_samples"] == 60
    with pytest.raises(InvalidInputError, match=r"There is no evaluation 'nope' of zs; .*'ev'"):
        zs.load_evaluation(photos, "nope")


def test_can_be_asked_again_with_what_was_recorded(photos):
    first = zs.evaluate(
        photos, "guess", "truth", eval_key="ev", names={"bird": "car"}, top_k=3, seen=["car"]
    )
    again = zs.evaluate(photos, **first.parameters, overwrite=True)
    assert again.metrics == first.metrics
    assert again.parameters == first.parameters


def test_an_evaluation_is_not_replaced_unasked(photos):
    zs.evaluate(photos, "guess", "truth", eval_key="ev")
    with pytest.raises(InvalidInputError, match="'ev' exists: choose another eval_key, or allow"):
        zs.evaluate(photos, "guess", "truth", eval_key="ev")
    photos.limit(30).evaluate_classifications("guess", gt_field="truth", eval_key="theirs")
    with pytest.raises(InvalidInputError, match="'theirs' exists"):
        zs.evaluate(photos, "guess", "truth", eval_key="theirs")
    report = zs.evaluate(photos.limit(30), "guess", "truth", eval_key="ev", overwrite=True)
    assert report.counts["evaluated"] == 30
    assert photos.count_values("ev")[None] == 30  # nothing is left of the first one


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"eval_key": "2nd"}, InvalidInputError, "not begin with a digit"),
        ({"eval_key": "_x"}, InvalidInputError, "underscore"),
        ({"eval_key": "guess"}, InvalidInputError, "Field 'guess', which evaluation"),
        ({"ground_truth": "nope"}, FieldError, "'nope' is missing. Fields that can be: truth"),
        ({"ground_truth": "filepath"}, FieldError, "holds no labels"),
        ({"ground_truth": "guess"}, FieldError, "against itself"),
        ({"ground_truth": "boxes"}, FieldError, "do not compare. Fields .* 'guess': truth"),
        ({"seen": "bird"}, InvalidInputError, "seen="),
        ({"gamma": 1.0}, InvalidInputError, "seen="),
        ({"missing": "maybe"}, InvalidInputError, "skip, wrong"),
        ({"top_k": 0}, InvalidInputError, "top_k=0"),
        ({"iou": 0}, InvalidInputError, "iou=0"),
        ({"names": 3}, InvalidInputError, "names=3"),
    ],
)
def test_refuses_before_anything_is_written(photos, arguments, error, message):
    photos.add_sample_field("boxes", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    arguments = {"predictions": "guess", "ground_truth": "truth", "eval_key": "ev", **arguments}
    schema = set(photos.get_field_schema())
    with pytest.raises(error, match=message):
        zs.evaluate(photos, **arguments)
    assert set(photos.get_field_schema()) == schema
    assert photos.list_evaluations() == []


def test_names_that_differ_are_brought_together_and_stay_as_they_are(photos):
    truth, _ = columns(photos)
    photos.set_values(
        "truth.label", [{"bird": "Birds", "car": "automobile"}.get(x, x) for x in truth]
    )
    record_run(
        photos, "guess", {"bird": None, "car": ["car", "automobile"], "cat": None, "dog": None}
    )
    before = photos.values(["truth", "guess"])
    report = zs.evaluate(photos, "guess", "truth", eval_key="ev")
    assert photos.values(["truth", "guess"]) == before
    assert {(item.name, item.evaluated_as, item.reason) for item in report.names.renamed} == {
        ("bird", "Birds", "plural"),
        ("car", "automobile", "synonym"),
    }
    exact = zs.evaluate(photos, "guess", "truth", eval_key="exact", names="exact")
    assert exact.metrics["accuracy"] < report.metrics["accuracy"]
    assert exact.names.unmatched_predictions == ("bird", "car")
    assert exact.names.unmatched_ground_truth == ("Birds", "automobile")
    assert any("'Birds', 'automobile'" in warning for warning in exact.warnings)
    # The view that the App opens shows the names that were compared
    view = photos.load_evaluation_view("ev")
    assert set(view.distinct("guess.label")) == {"Birds", "automobile", "cat", "dog"}
    assert photos.get_evaluation_info("ev").config.pred_field == "guess"
    right = [a == b for a, b in zip(*view.values(["guess.label", "truth.label"]), strict=True)]
    assert photos.values("ev") == right
    assert report.metrics["accuracy"] == pytest.approx(np.mean(right))


def test_what_was_not_predicted_is_counted_apart(photos):
    ids = photos.values("id")
    photos.add_sample_field("guess_error", fo.StringField)
    photos.set_values("guess", dict.fromkeys(ids[:7]), key_field="id")
    photos.set_values("guess_error", dict.fromkeys(ids[:4], "unreadable"), key_field="id")
    photos.set_values("truth", dict.fromkeys(ids[50:]), key_field="id")
    report = zs.evaluate(photos, "guess", "truth", eval_key="ev")
    expected = {
        "samples": 60,
        "evaluated": 43,
        "no_ground_truth": 10,
        "failed": 4,
        "not_predicted": 3,
    }
    assert {name: report.counts[name] for name in expected} == expected
    truth, guess = columns(photos.select(ids[7:50]))
    assert report.metrics["accuracy"] == (truth == guess).mean()
    assert any("could not be processed" in warning for warning in report.warnings)

    wrong = zs.evaluate(photos, "guess", "truth", eval_key="wrong", missing="wrong")
    assert wrong.counts["evaluated"] == 50
    assert wrong.metrics["accuracy"] == pytest.approx((truth == guess).sum() / 50)
    assert wrong.metrics["accuracy of those"] == pytest.approx(report.metrics["accuracy"])

    with pytest.raises(SamplesError, match="of 10 samples 0 have ground truth"):
        zs.evaluate(photos.skip(50), "guess", "truth", eval_key="none")


@pytest.mark.parametrize("reject_label", [None, "nothing"])
def test_rejected_labels_are_no_class(photos, reject_label):
    zs.apply_thresholds(photos, "guess", min_confidence=0.9, reject_label=reject_label)
    report = zs.evaluate(photos, "guess", "truth", eval_key="ev")
    rejected = np.array([rule is not None for rule in photos.values("guess.rejected_by")])
    assert 0 < rejected.sum() < 60
    assert report.counts["rejected"] == rejected.sum()
    assert [row.label for row in report.per_class] == CLASSES
    truth, guess = columns(photos)
    for row in report.per_class:
        assert row.num_rejected == (rejected & (truth == row.label)).sum()
    assert report.metrics["share with a label"] == pytest.approx(1 - rejected.mean())
    right = (truth == guess)[~rejected]
    assert report.metrics["accuracy of those"] == pytest.approx(right.mean())
    assert report.metrics["accuracy"] == pytest.approx(right.sum() / 60)
    # Where ground truth has that class, it is one
    if reject_label:
        photos.set_values("truth.label", {photos.first().id: reject_label}, key_field="id")
        other = zs.evaluate(photos, "guess", "truth", eval_key="other")
        assert "nothing" in [row.label for row in other.per_class]


def test_supported_and_unsupported_classes(photos):
    report = zs.evaluate(photos, "guess", "truth", eval_key="ev", seen=["Birds", "car"], gamma=0.0)
    split = report.split
    truth, guess = columns(photos)
    scores = {name: (guess == name)[truth == name].mean() for name in CLASSES}
    assert split.supported == ("bird", "car")
    assert split.supported_score == pytest.approx((scores["bird"] + scores["car"]) / 2)
    assert split.unsupported_score == pytest.approx((scores["cat"] + scores["dog"]) / 2)
    s, u = split.supported_score, split.unsupported_score
    assert split.harmonic_mean == pytest.approx(2 * s * u / (s + u))
    # Nothing was rejected: gamma 0 is what was predicted
    assert split.stacking.given == pytest.approx((s, u, split.harmonic_mean))
    assert split.stacking.harmonic_mean >= split.harmonic_mean
    assert 0 < split.stacking.ausuc < 1
    assert report.of("car").supported
    assert not report.of("cat").supported
    assert any("pre-training" in warning for warning in report.warnings)


def test_without_logits_the_report_says_why(photos):
    photos.set_values("guess.logits", [None] * 60)
    report = zs.evaluate(photos, "guess", "truth", eval_key="ev", seen=["bird"])
    assert report.split.stacking is None
    assert "store_logits=True" in report.split.note
    assert report.top_k == ()
    assert report.calibration.source == "confidences"


def test_top_k_equals_fiftyone(photos):
    report = zs.evaluate(photos, "guess", "truth", eval_key="ev", top_k=(1, 2, 3))
    for row in report.top_k:
        theirs = photos.evaluate_classifications(
            "guess", gt_field="truth", method="top-k", k=row.k, classes=CLASSES
        )
        assert row.accuracy == pytest.approx(theirs.metrics()["accuracy"])
    assert [row.k for row in report.top_k] == [1, 2, 3]
    assert report.top_k[0].accuracy == report.metrics["accuracy"]


def test_calibration_from_logits(photos):
    report = zs.evaluate(photos, "guess", "truth", eval_key="ev")
    found = report.calibration
    assert found.source == "logits"
    logits = np.array(photos.values("guess.logits"))
    truth = [CLASSES.index(name) for name in photos.values("truth.label")]
    for temperature, nll in ((1.0, found.nll), (found.temperature, found.nll_fitted)):
        p = np.exp(logits / temperature)
        assert nll == pytest.approx(log_loss(truth, p / p.sum(axis=1, keepdims=True)), rel=1e-5)
    assert found.nll_fitted < found.nll
    assert sum(row.count for row in report.reliability) == 60
    # Confidences that these logits do not give are calibrated as they are
    photos.set_values("guess.confidence", [0.5] * 60)
    other = zs.evaluate(photos, "guess", "truth", eval_key="other")
    assert other.calibration.source == "confidences"


def test_thresholds_are_those_of_a_sweep(photos):
    report = zs.evaluate(photos, "guess", "truth", eval_key="ev")
    sweep = zs.sweep_thresholds(photos, "guess", gt_field="truth")
    assert report.thresholds == sweep.best_per_class()
    zs.apply_thresholds(photos, "guess", min_confidence=report.thresholds)
    # What the thresholds rejected comes back as a candidate
    again = zs.evaluate(photos, "guess", "truth", eval_key="again")
    assert again.thresholds == report.thresholds


def test_stopping_leaves_nothing_behind(photos):
    schema = set(photos.get_field_schema())
    steps = zs.iter_evaluate(photos, "guess", "truth", eval_key="ev")
    assert next(steps).total == 60
    next(steps)
    steps.close()
    assert photos.list_evaluations() == []
    assert set(photos.get_field_schema()) == schema
    with pytest.raises(InvalidInputError):
        zs.load_evaluation(photos, "ev")


def test_an_error_of_fiftyone_leaves_nothing_behind(photos, monkeypatch):
    def explode(*args, **kwargs):
        raise RuntimeError("disk on fire")

    monkeypatch.setattr("fiftyone.utils.eval.classification.ClassificationResults", explode)
    with pytest.raises(RuntimeError, match="disk on fire"):
        zs.evaluate(photos, "guess", "truth", eval_key="ev")
    assert photos.list_evaluations() == []
    assert not photos.has_field("ev")


def test_lists_of_the_k_best(photos):
    logits = np.array(photos.values("guess.logits"))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rows = [[(CLASSES[i], row[i]) for i in np.argsort(-row)[:2]] for row in p]
    lists(photos, "best", rows)
    single = zs.evaluate(photos, "guess", "truth", eval_key="single", top_k=(1, 2))
    report = zs.evaluate(photos, "best", "truth", eval_key="ev", top_k=(1, 2, 3))
    assert report.metrics == single.metrics
    # Lists of two know no third
    assert report.top_k == single.top_k
    assert photos.get_evaluation_info("ev").config.pred_field == "ev_top1"
    assert photos.values("ev_top1.label") == photos.values("guess.label")
    assert report.fields == ("ev", "ev_top1")
    # Overwriting removes the field with the evaluation that owns it
    zs.evaluate(photos, "guess", "truth", eval_key="ev", overwrite=True)
    assert not photos.has_field("ev_top1")


def test_several_true_classes(photos):
    rng = np.random.default_rng(0)
    is_true = rng.random((60, 4)) < 0.4
    scores = np.clip(rng.random((60, 4)) * 0.6 + 0.4 * is_true, 0, 1)
    lists(photos, "many", [[(CLASSES[i], None) for i in np.flatnonzero(row)] for row in is_true])
    lists(photos, "found", [list(zip(CLASSES, row, strict=True)) for row in scores])
    report = zs.evaluate(photos, "found", "many", eval_key="ev", seen=["bird"])
    from sklearn.metrics import average_precision_score

    expected = average_precision_score(is_true, scores, average=None)
    found = [row.average_precision for row in report.per_class]
    assert found == pytest.approx(expected.tolist())
    assert report.metrics["mAP"] == pytest.approx(expected.mean())
    assert report.split.measure == "average precision"
    assert report.split.supported_score == pytest.approx(expected[0])
    best = scores.argmax(axis=1)
    hit = is_true[np.arange(60), best].mean()
    assert report.metrics["best label right"] == pytest.approx(hit)
    assert photos.load_evaluation_results("ev").metrics()["accuracy"] == pytest.approx(hit)
    assert report.calibration.num == 240
    # One guess an image against several true classes
    one = zs.evaluate(photos, "guess", "many", eval_key="one")
    guess = photos.values("guess.label")
    hits = [is_true[i, CLASSES.index(name)] for i, name in enumerate(guess)]
    assert one.metrics["micro precision"] == pytest.approx(np.mean(hits))
