"""Supported against unsupported classes: exact curves against grids, limits, invariances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zs_operators.evaluation.stacking import harmonic_mean, merge_columns, split_scores, stack

NAMES = list("abcdef")
SEEN = {"a", "b", "c"}


def draw(seed, n=150, spread=1.0):
    rng = np.random.default_rng(seed)
    numbers = rng.integers(len(NAMES), size=n)
    logits = rng.normal(size=(n, len(NAMES)))
    logits[np.arange(n), numbers] += spread
    logits[:, :3] += 0.8  # supported classes are favoured, as they are in practice
    return logits, np.array(NAMES, dtype=object)[numbers]


def accuracies(logits, truth, gamma):
    """S and U by their definition, one sample after the other."""
    penalty = np.array([gamma if name in SEEN else 0.0 for name in NAMES])
    guess = np.array(NAMES, dtype=object)[(logits - penalty).argmax(axis=1)]
    per_class = {name: (guess == name)[truth == name].mean() for name in set(truth)}
    groups = [[v for k, v in per_class.items() if (k in SEEN) == seen] for seen in (True, False)]
    return tuple(np.mean(group) for group in groups)


@pytest.mark.parametrize("seed", range(4))
def test_exact_area_equals_a_fine_grid(seed):
    logits, truth = draw(seed)
    found = stack(logits, NAMES, truth, SEEN)
    grid = np.linspace(-8, 8, 4001)
    s, u = np.array([accuracies(logits, truth, gamma) for gamma in grid]).T
    area = np.sum((s[:-1] - s[1:]) * (u[:-1] + u[1:])) / 2
    assert found.ausuc == pytest.approx(area, abs=5e-4)
    h = 2 * s * u / np.maximum(s + u, 1e-12)
    assert found.harmonic_mean >= h.max() - 1e-12
    best = accuracies(logits, truth, found.gamma)
    assert best == pytest.approx((found.supported_accuracy, found.unsupported_accuracy))
    assert harmonic_mean(*best) == pytest.approx(found.harmonic_mean)


@pytest.mark.parametrize("gamma", [-2.0, 0.0, 0.7, 5.0])
def test_a_given_gamma_equals_its_definition(gamma):
    logits, truth = draw(1)
    found = stack(logits, NAMES, truth, SEEN, gamma)
    s, u = accuracies(logits, truth, gamma)
    assert found.given == pytest.approx((s, u, harmonic_mean(s, u)))
    assert found.given_gamma == gamma


def test_limits_of_the_curve():
    logits, truth = draw(2)
    found = stack(logits, NAMES, truth, SEEN)
    assert found.curve[0][2] == 0.0  # gamma -> -inf: nothing is unsupported
    assert found.curve[-1][1] == 0.0  # gamma -> inf: nothing is supported
    assert found.unsupported_only == pytest.approx(accuracies(logits, truth, 1e6)[1])
    assert found.curve[0][1] == pytest.approx(accuracies(logits, truth, -1e6)[0])


def test_perfect_scores_have_area_one():
    truth = np.array(NAMES * 3, dtype=object)
    logits = np.array([[10.0 * (name == other) for other in NAMES] for name in truth])
    found = stack(logits, NAMES, truth, SEEN)
    assert found.ausuc == pytest.approx(1.0)
    assert found.harmonic_mean == pytest.approx(1.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.25, 4), st.floats(-3, 3))
def test_invariances(seed, scale, shift):
    logits, truth = draw(seed, n=60)
    expected = stack(logits, NAMES, truth, SEEN).ausuc
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(len(logits), 1)).round(3)
    moved = logits * scale + rows  # a shift of each row and a scale of all
    moved[:, :3] += shift  # a constant for all supported classes
    assert stack(moved, NAMES, truth, SEEN).ausuc == pytest.approx(expected, abs=1e-9)
    order, columns = rng.permutation(len(logits)), rng.permutation(len(NAMES))
    shuffled = stack(logits[order][:, columns], [NAMES[i] for i in columns], truth[order], SEEN)
    assert shuffled.ausuc == pytest.approx(expected, abs=1e-9)


def test_ties_are_one_step():
    # Both samples change sides at the same gamma: no point lies between
    logits = np.array([[1.0, 0.0], [1.0, 0.0]])
    found = stack(logits, ["a", "d"], np.array(["a", "d"], dtype=object), SEEN)
    assert [point[1:] for point in found.curve] == [(1.0, 0.0), (0.0, 1.0)]
    assert found.ausuc == 0.5


def test_truth_without_a_column_is_never_right():
    logits, truth = draw(5)
    truth = truth.copy()
    truth[truth == "f"] = "missing"
    found = stack(logits, NAMES, truth, SEEN)
    assert found.unsupported_only < stack(logits, NAMES, draw(5)[1], SEEN).unsupported_only


@pytest.mark.parametrize("seen", [set(), set(NAMES)])
def test_one_group_alone_has_no_curve(seen):
    assert stack(*draw(0)[:1], NAMES, draw(0)[1], seen) is None


def test_a_long_curve_is_thinned_out():
    found = stack(*draw(0, n=3000)[:1], NAMES, draw(0, n=3000)[1], SEEN)
    assert len(found.curve) <= 201
    assert found.curve[0][2] == found.curve[-1][1] == 0.0


def test_columns_of_one_name_become_their_highest():
    logits, names = merge_columns(np.array([[1.0, 5.0, 3.0], [4.0, 0.0, 2.0]]), ["x", "y", "x"])
    assert names == ["x", "y"]
    assert logits.tolist() == [[3.0, 5.0], [4.0, 0.0]]


def test_harmonic_mean_of_groups():
    split = split_scores({"a": 1.0, "b": 0.5, "d": 0.25, "e": None}, SEEN, "accuracy")
    assert (split.supported, split.unsupported) == (("a", "b"), ("d", "e"))
    assert split.supported_score == 0.75
    assert split.unsupported_score == 0.25
    assert split.harmonic_mean == pytest.approx(0.375)
    assert split_scores({"a": 0.0, "d": 0.0}, SEEN, "accuracy").harmonic_mean == 0.0
    assert split_scores({"a": 1.0}, SEEN, "accuracy").harmonic_mean is None
