"""Proximal kernel ridge: its limits, duplicates, and leaving out in closed form."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.head_worlds import World, without
from zs_operators.heads import kernel_ridge
from zs_operators.heads.kernel_ridge import LeftOut, kernel
from zs_operators.heads.support import Support, softmax


def added(support, queries, beta, ridge):
    return kernel(queries, support.embeddings, beta) @ kernel_ridge.fit(support, beta, ridge)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    beta=st.floats(0.5, 20),
    ridge=st.floats(0.01, 10),
)
def test_leaving_out_is_refitting_without(seed, beta, ridge):
    support = World(seed, classes=5, dim=8, hard=2).support(3)
    left = LeftOut(support, beta)
    one = left.one(ridge)
    for row in range(len(support)):
        refitted = added(without(support, row), support.embeddings[[row]], beta, ridge)
        assert np.allclose(one[row], refitted, atol=1e-9)
    for rows in support.class_folds():
        refitted = added(support.take(~rows), support.embeddings[rows], beta, ridge)
        assert np.allclose(left.group(ridge, rows), refitted, atol=1e-9)


def test_much_ridge_leaves_zero_shot_and_none_interpolates():
    world = World()
    support = world.support(2)
    queries = world.images(np.arange(12))
    assert np.abs(added(support, queries, 4.0, 1e12)).max() < 1e-9
    fitted = softmax(support.prior) + added(support, support.embeddings, 4.0, 1e-10)
    assert np.allclose(fitted, np.eye(12)[support.columns], atol=1e-5)


def test_samples_given_twice_weigh_twice():
    """Exactly half the ridge; and where the ridge rules, twice the alpha."""
    world = World()
    support = world.support(2)
    twice = support.take(np.tile(np.arange(len(support)), 2))
    queries = world.images(np.arange(12))
    assert np.allclose(added(twice, queries, 4.0, 0.3), added(support, queries, 4.0, 0.15))
    double, single = added(twice, queries, 4.0, 1e6), added(support, queries, 4.0, 1e6)
    assert np.allclose(double, 2 * single, rtol=1e-4, atol=1e-12)


def test_the_order_of_the_samples_does_not_matter():
    world = World()
    support = world.support(3)
    shuffled = support.take(np.random.default_rng(1).permutation(len(support)))
    queries = world.images(np.arange(12))
    same = added(support, queries, 4.0, 0.1), added(shuffled, queries, 4.0, 0.1)
    assert np.allclose(*same, atol=1e-10)


def test_what_zero_shot_knows_is_not_corrected():
    """No bonus for having samples: residuals of sure and right answers are nothing."""
    world = World(hard=0)
    support = world.support(3)
    sure = Support(
        support.embeddings, support.columns, 1e3 * np.eye(12)[support.columns], world.texts
    )
    assert np.abs(added(sure, world.images(np.arange(12)), 4.0, 0.1)).max() < 1e-12


@pytest.mark.parametrize("rows", [1, 2, 30])
def test_the_unit_of_widths(rows):
    embeddings = World().images(np.arange(12).repeat(3))[:rows]
    scale = kernel_ridge.distance_scale(embeddings)
    off = (1 - embeddings @ embeddings.T)[~np.eye(rows, dtype=bool)]
    assert scale == pytest.approx(np.median(off) if rows > 1 else 1.0)
