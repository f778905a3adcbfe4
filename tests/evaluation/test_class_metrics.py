"""Tables of classes equal scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, classification_report, top_k_accuracy_score

from zs_operators.evaluation import class_metrics
from zs_operators.evaluation.report_parts import NONE

PAIRS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from(["a", "b", "c", "d", "e", NONE])),
    min_size=1,
    max_size=60,
)


def arrays(pairs):
    truth, predicted = zip(*pairs, strict=True)
    return np.array(truth, dtype=object), np.array(predicted, dtype=object)


@settings(max_examples=60, deadline=None)
@given(PAIRS)
@pytest.mark.filterwarnings("ignore:y_pred contains classes", "ignore:A single label")
def test_rows_equal_scikit_learn(pairs):
    truth, predicted = arrays(pairs)
    names, matrix = class_metrics.count_pairs(truth, predicted)
    rows = class_metrics.class_rows(names, matrix)
    expected = classification_report(
        truth.tolist(), predicted.tolist(), output_dict=True, zero_division=0
    )
    for row in rows:
        assert row.support == expected[row.label]["support"]
        assert (row.precision or 0) == pytest.approx(expected[row.label]["precision"])
        assert (row.recall or 0) == pytest.approx(expected[row.label]["recall"])
        assert (row.f1 or 0) == pytest.approx(expected[row.label]["f1-score"])
        # What is not there has no recall, rather than one of 0
        assert (row.recall is None) == (row.support == 0)
    totals = class_metrics.overall(rows)
    per_class = class_metrics.accuracy_per_class(truth == predicted, truth)
    balanced = balanced_accuracy_score(truth.tolist(), predicted.tolist())
    assert class_metrics.mean(per_class.values()) == pytest.approx(balanced)
    assert totals["macro recall"] == pytest.approx(balanced)
    assert totals["micro recall"] == pytest.approx((truth == predicted).mean())


def test_absent_classes_are_in_no_mean():
    truth, predicted = arrays([("a", "a"), ("a", "z"), ("b", "b")])
    rows = class_metrics.class_rows(*class_metrics.count_pairs(truth, predicted))
    assert [(row.label, row.support, row.recall) for row in rows] == [
        ("a", 2, 0.5),
        ("b", 1, 1.0),
        ("z", 0, None),
    ]
    assert class_metrics.overall(rows)["macro recall"] == 0.75


def test_common_classes_do_not_hide_rare_ones():
    truth = np.array(["a"] * 990 + ["b"] * 10, dtype=object)
    predicted = np.full(1000, "a", dtype=object)
    rows = class_metrics.class_rows(*class_metrics.count_pairs(truth, predicted))
    totals = class_metrics.overall(rows)
    assert totals["micro recall"] == 0.99
    assert totals["macro recall"] == 0.5


def test_top_k_equals_scikit_learn():
    rng = np.random.default_rng(3)
    logits, numbers = rng.normal(size=(200, 6)), rng.integers(6, size=200)
    truth = np.array(list("abcdef"), dtype=object)[numbers]
    ranks = (logits > logits[np.arange(200), numbers][:, None]).sum(axis=1)
    for k in (1, 2, 5):
        found = class_metrics.top_k_of(ranks, truth, k)
        assert found.accuracy == top_k_accuracy_score(numbers, logits, k=k)
        per_class = [(ranks < k)[truth == name].mean() for name in "abcdef"]
        assert found.accuracy_per_class == pytest.approx(np.mean(per_class))


def test_weights_count_pairs_many_times():
    truth, predicted = arrays([("a", "b"), ("b", "b"), ("a", "b")])
    names, matrix = class_metrics.count_pairs(truth, predicted, np.array([5, 7, 1]))
    assert names == ["a", "b", NONE]
    assert matrix.tolist() == [[0, 6, 0], [0, 7, 0], [0, 0, 0]]


def test_only_the_commonest_cells_are_stored(monkeypatch):
    monkeypatch.setattr(class_metrics, "MAX_CELLS", 2)
    found = class_metrics.confusion(["a", "b"], np.array([[1, 9], [0, 4]]))
    assert found.cells == ((0, 1, 9), (1, 1, 4))
