"""Constants chosen on the support alone: what they promise holds on samples never seen."""

import numpy as np
import pytest

from tests.head_worlds import World, accuracy
from zs_operators.errors import InvalidInputError
from zs_operators.heads import gda, kernel_ridge, logistic
from zs_operators.heads.gda import Moments
from zs_operators.heads.selection import METHODS, choose, methods_for
from zs_operators.heads.support import Support


def added(support, choice, queries):
    if choice.method == "gda":
        moments = Moments.of(support.embeddings, support.columns, len(support.texts))
        weight, bias = gda.fit(moments, support.texts, choice.constants["text_scale"])
        return choice.alpha * (queries @ weight.T + bias)
    if choice.method == "kernel_ridge":
        keys = kernel_ridge.kernel(queries, support.embeddings, choice.constants["beta"])
        return choice.alpha * keys @ kernel_ridge.fit(support, **choice.constants)
    weight, bias = logistic.fit(support, choice.constants["C"])
    return choice.alpha * (queries @ weight.T + bias)


@pytest.mark.parametrize(
    ("method", "shots"),
    [("kernel_ridge", 1), ("kernel_ridge", 4), ("gda", 4), ("logistic_regression", 16)],
)
def test_heads_gain_where_names_are_poor_and_estimates_hold(method, shots):
    """8 of 12 classes have samples; measured on samples of all 12 that no head has seen."""
    gains, errors, unsupported = [], [], []
    for seed in range(4):
        world = World(seed)
        have = np.array([0, 1, 2, 3, 4, 5, 8, 9])
        lack = np.array([6, 7, 10, 11])
        support = world.support(shots, have)
        choice = choose(support, method)
        columns = np.repeat(np.arange(12), 60)
        queries = world.images(columns)
        prior = world.prior(queries)
        logits = prior + added(support, choice, queries)
        before, after = (accuracy(one, columns, have) for one in (prior, logits))
        gains.append(after - before)
        errors.append(abs(after - choice.after.supported) if shots > 1 else 0)
        unsupported.append(accuracy(logits, columns, lack) - accuracy(prior, columns, lack))
        assert choice.after.target >= choice.before.target
    assert np.mean(gains) > (0.03 if shots == 1 else 0.1)
    assert np.mean(errors) < 0.1
    assert np.mean(unsupported) > -0.06


def test_alpha_stays_zero_where_nothing_is_to_be_learned():
    """Samples whose labels are drawn by lot."""
    world = World(hard=0, spread=0.3)
    support = world.support(2)
    lot = np.random.default_rng(0).permutation(support.columns)
    sure = 5 * np.eye(12)[lot]
    choice = choose(Support(support.embeddings, lot, sure, world.texts), "kernel_ridge")
    assert choice.after.supported == choice.before.supported == 1
    noise = Support(support.embeddings, lot, support.prior, world.texts)
    assert choose(noise, "gda").after.supported < 0.3


def test_columns_that_all_have_samples_have_no_estimate_for_those_without():
    world = World()
    choice = choose(world.support(3))
    assert choice.after.unsupported is None
    assert choice.after.harmonic is None
    assert choice.after.target == choice.after.supported


def test_one_class_with_samples_is_no_error():
    world = World()
    choice = choose(world.support(5, [2]))
    assert choice.after.unsupported == choice.before.unsupported
    assert np.isfinite(choice.alpha)


@pytest.mark.parametrize(
    ("shots", "names"),
    [
        (1, ("kernel_ridge",)),
        (2, ("gda", "kernel_ridge")),
        (15, ("gda", "kernel_ridge")),
        (16, ("gda", "logistic_regression")),
    ],
)
def test_methods_by_number_of_samples(shots, names):
    assert methods_for(World().support(shots)) == names


@pytest.mark.parametrize(
    ("method", "support", "says"),
    [
        ("ridge", World().support(2), "must be one of auto, kernel_ridge, gda"),
        ("gda", World().support(1), "needs two samples of a class"),
        ("logistic_regression", World().support(9, [0]), "samples of two classes"),
        ("kernel_ridge", World(classes=8).support(600), "takes 4,096 samples, not 4,800"),
    ],
)
def test_methods_that_cannot_be(method, support, says):
    with pytest.raises(InvalidInputError, match=says):
        methods_for(support, method)
    assert "auto" not in METHODS


def test_very_many_samples_go_without_the_kernel():
    support = World(classes=400).support(13)
    assert methods_for(support) == ("gda",)


def test_logistic_regression_of_two_classes_is_symmetric():
    world = World()
    weight, bias = logistic.fit(world.support(20, [4, 5]), 0.1)
    assert np.allclose(weight[4] - weight.mean(0), -(weight[5] - weight.mean(0)), atol=0.5)
    queries = world.images(np.repeat([4, 5], 50))
    right = (queries @ weight.T + bias)[:, [4, 5]].argmax(axis=1) == np.repeat([0, 1], 50)
    assert right.mean() > 0.9
