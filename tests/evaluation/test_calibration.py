"""Calibration: errors against their definition, likelihoods against scikit-learn, temperatures."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import log_loss

from zs_operators.evaluation import calibration


def overconfident(n=4000, factor=3.0, seed=0):
    """Logits that are ``factor`` times too large for how often their classes are true."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=(n, 5)) * 1.5
    p = np.exp(true) / np.exp(true).sum(axis=1, keepdims=True)
    targets = (p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return true * factor, targets


def test_bins_count_every_prediction_once():
    confidences = np.array([0.0, 0.2, 0.2000001, 0.6, 1.0])
    bins = calibration.reliability(confidences, np.array([0, 1, 0, 1, 1]), num_bins=5)
    assert [row.count for row in bins] == [2, 1, 1, 0, 1]
    assert bins[0].accuracy == 0.5
    assert bins[0].mean_confidence == pytest.approx(0.1)
    assert bins[3].accuracy is bins[3].mean_confidence is None


def test_error_equals_its_definition():
    rng = np.random.default_rng(1)
    confidences, right = rng.random(500), rng.random(500) < 0.5
    edges = np.linspace(0, 1, 16)
    expected = 0.0
    for low, high in itertools.pairwise(edges):
        mine = (confidences > low) & (confidences <= high)
        if mine.any():
            expected += mine.mean() * abs(right[mine].mean() - confidences[mine].mean())
    bins = calibration.reliability(confidences, right)
    assert calibration.expected_calibration_error(bins) == pytest.approx(expected)
    assert calibration.expected_calibration_error([]) is None


def test_likelihoods_equal_scikit_learn():
    logits, targets = overconfident(300)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = log_loss(targets, p)
    assert calibration.class_nll(logits, targets, np.arange(5)) == pytest.approx(expected)
    confidences, right = p.max(axis=1), p.argmax(axis=1) == targets
    assert calibration.binary_nll(confidences, right) == pytest.approx(log_loss(right, confidences))


def test_columns_of_one_class_add_up():
    logits, targets = overconfident(200)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    merged = np.stack([p[:, 0] + p[:, 3], p[:, 1], p[:, 2] + p[:, 4]], axis=1)
    classes = np.array([0, 1, 2, 0, 2])
    found = calibration.class_nll(logits, classes[targets], classes)
    assert found == pytest.approx(log_loss(classes[targets], merged))


def calibrate(logits, targets, stored=1.0):
    p = np.exp(logits / stored) / np.exp(logits / stored).sum(axis=1, keepdims=True)
    columns = p.argmax(axis=1)
    return calibration.calibrate_logits(
        p.max(axis=1), columns == targets, logits, columns, targets, np.arange(5), stored
    )


def test_the_temperature_that_was_planted_is_found():
    found = calibrate(*overconfident(factor=3.0))
    assert found.source == "logits"
    assert found.temperature == pytest.approx(3.0, rel=0.08)
    assert found.ece > 0.1
    assert found.ece_fitted < 0.03
    assert found.nll_fitted < found.nll
    # It is the best one
    logits, targets = overconfident(factor=3.0)
    for nearby in (found.temperature * 0.97, found.temperature * 1.03):
        assert calibration.class_nll(logits, targets, np.arange(5), nearby) > found.nll_fitted


def test_a_temperature_is_of_the_logits_whatever_the_confidences_had():
    first, second = (calibrate(*overconfident(), stored=stored) for stored in (1.0, 3.0))
    assert first.temperature == second.temperature
    assert second.ece < first.ece


def test_from_confidences_alone():
    rng = np.random.default_rng(4)
    log_odds = rng.normal(size=5000) * 1.5
    right = rng.random(5000) < 1 / (1 + np.exp(-log_odds))
    confidences = 1 / (1 + np.exp(-2.5 * log_odds))
    found = calibration.calibrate_confidences(confidences, right)
    assert found.source == "confidences"
    assert found.temperature == pytest.approx(2.5, rel=0.08)
    assert found.ece_fitted < 0.03 < found.ece


def test_of_two_classes_both_sources_agree():
    logits, targets = overconfident()
    logits, targets = logits[:, :2], targets % 2
    p = 1 / (1 + np.exp(-np.abs(logits[:, 0] - logits[:, 1])))
    columns = logits.argmax(axis=1)
    both = [
        calibration.calibrate_confidences(p, columns == targets),
        calibration.calibrate_logits(p, columns == targets, logits, columns, targets, np.arange(2)),
    ]
    # Confidences are clipped just below 1
    assert both[0].temperature == pytest.approx(both[1].temperature, rel=5e-3)


def test_a_temperature_changes_no_ranking():
    confidences = np.linspace(0.01, 0.99, 50)
    for temperature in (0.3, 1.0, 7.0):
        scaled = calibration.scaled_confidences(confidences, temperature)
        assert (np.diff(scaled) > 0).all()
    assert calibration.scaled_confidences(confidences, 1.0) == pytest.approx(confidences)


def test_where_all_is_right_there_is_no_temperature():
    found = calibration.calibrate_confidences(np.full(20, 0.7), np.ones(20, dtype=bool))
    assert found.temperature is None
    assert found.ece == pytest.approx(0.3)
    assert found.ece_fitted is None


def test_truth_without_a_column_counts_as_wrong():
    logits, targets = overconfident(100)
    targets[:10] = -1
    found = calibrate(logits, targets)
    assert found.num == 100
    assert found.nll == pytest.approx(
        calibration.class_nll(logits[10:], targets[10:], np.arange(5))
    )
