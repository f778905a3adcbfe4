"""GDA from additive statistics: its formula, leaving one out in closed form, federated = pooled."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.head_worlds import World, accuracy, without
from zs_operators.heads import gda
from zs_operators.heads.gda import Moments
from zs_operators.heads.text_means import mean_weights, text_scale


def moments_of(support):
    return Moments.of(support.embeddings, support.columns, len(support.texts))


def scores(support, embeddings, scale=None):
    scale = gda.scale_of(moments_of(support), support.texts) if scale is None else scale
    weight, bias = gda.fit(moments_of(support), support.texts, scale)
    return embeddings @ weight.T + bias


def centred(rows):
    return rows - rows.mean(axis=1, keepdims=True)


def test_it_is_the_formula_of_the_paper():
    """As the authors compute it: torch's cov of class-centred embeddings, and a pinv."""
    world = World()
    support = world.support(5)
    x, y, dim = support.embeddings, support.columns, support.embeddings.shape[1]
    means = np.stack([x[y == c].mean(axis=0) for c in range(world.classes)])
    away = x - means[y]
    cov = np.cov(away.T)
    precision = dim * np.linalg.pinv((len(x) - 1) * cov + np.trace(cov) * np.eye(dim))
    queries = world.images(np.arange(12))
    expected = queries @ (means @ precision).T - 0.5 * np.einsum(
        "cd,de,ce->c", means, precision, means
    )
    found = scores(support, queries)
    assert np.allclose(found, centred(expected), atol=1e-8 * np.abs(expected).max())


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shots=st.lists(st.integers(0, 4), min_size=8, max_size=8).filter(lambda n: max(n) > 1),
)
def test_leaving_one_out_is_refitting_without_it(seed, shots):
    """For any numbers of samples a class, those with one among them, and classes without any."""
    support = World(seed, classes=8, dim=12).support(shots)
    closed = gda.leave_one_out(support, 0.7)
    for row in range(len(support)):
        refitted = scores(without(support, row), support.embeddings[row][None], 0.7)[0]
        assert np.allclose(closed[row], refitted, atol=1e-7 * max(1, np.abs(refitted).max()))


def test_leaving_one_out_of_more_than_is_at_hand():
    world = World()
    here, there = world.support(3), world.support(4)
    both = moments_of(here) + moments_of(there)
    closed = gda.leave_one_out(here, 0.7, both)
    for row in (0, 7, 20):
        weight, bias = gda.fit(moments_of(without(here, row)) + moments_of(there), world.texts, 0.7)
        assert np.allclose(closed[row], here.embeddings[row] @ weight.T + bias, atol=1e-8)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000), sites=st.integers(1, 5), order=st.randoms(use_true_random=False)
)
def test_federated_is_pooled_for_any_partition_and_order(seed, sites, order):
    world = World(seed, classes=6, dim=10, hard=3)
    support = world.support(5)
    owner = np.random.default_rng(seed).integers(sites, size=len(support))
    if seed % 2:  # sites with classes of their own
        owner = support.columns % sites
    parts = [moments_of(support.take(owner == site)) for site in range(sites)]
    order.shuffle(parts)
    merged = parts[0]
    for part in parts[1:]:
        merged = merged + part
    pooled = moments_of(support)
    assert (merged.counts == pooled.counts).all()
    assert np.allclose(merged.sums, pooled.sums, atol=1e-13)
    assert np.allclose(merged.second, pooled.second, atol=1e-13)
    scale = gda.scale_of(pooled, world.texts)
    assert gda.scale_of(merged, world.texts) == pytest.approx(scale, abs=1e-12)
    heads = (gda.fit(one, world.texts, scale) for one in (merged, pooled))
    for one, other in zip(*heads, strict=True):
        assert np.allclose(one, other, atol=1e-9 * max(1, np.abs(other).max()))


def test_the_order_of_the_samples_does_not_matter():
    world = World()
    support = world.support(4)
    shuffled = support.take(np.random.default_rng(1).permutation(len(support)))
    queries = world.images(np.arange(12))
    assert np.allclose(scores(support, queries), scores(shuffled, queries), atol=1e-9)


def test_one_sample_a_class_has_no_spread_and_adds_nothing():
    world = World()
    assert not scores(world.support(1), world.images(np.arange(12))).any()


def test_means_of_classes_without_samples_follow_from_their_texts():
    world = World(hard=0)
    supported = np.arange(12) < 9
    weights, rest = mean_weights(world.texts, supported)
    assert (weights[supported] == np.eye(9)).all()
    assert np.allclose(weights.sum(axis=1), 1)
    assert not rest[supported].any()
    scale = text_scale(world.texts, supported, world.means[supported])
    guessed = weights @ world.means[supported] + scale * rest
    centre = world.means[supported].mean(axis=0)
    for column in range(9, 12):
        # better than the centre of the others, and nearer to its own class than to another
        own = np.linalg.norm(guessed[column] - world.means[column])
        assert own < np.linalg.norm(centre - world.means[column])
        assert np.argmin(np.linalg.norm(world.means - guessed[column], axis=1)) == column


def test_means_of_images_beside_texts_would_take_all_and_implied_means_do_not():
    """The modality gap: the reason why classes without samples get a mean at all."""
    world = World(3, hard=0, spread=0.7)
    with_samples = np.arange(6)
    support = world.support(8, with_samples)
    columns = np.repeat(np.arange(12), 40)
    queries = world.images(columns)
    others = np.arange(6, 12)
    prior = world.prior(queries)
    plain = accuracy(prior, columns, others)

    prototypes = world.texts.copy()
    for column in with_samples:
        mean = support.embeddings[support.columns == column].mean(axis=0)
        prototypes[column] = (prototypes[column] + mean) / 2
    naive = accuracy(30 * queries @ prototypes.T, columns, others)
    ours = accuracy(prior + 0.5 * scores(support, queries), columns, others)

    assert naive < 0.2 * plain
    assert ours > plain - 0.05
    assert accuracy(prior + 0.5 * scores(support, queries), columns, with_samples) > accuracy(
        prior, columns, with_samples
    )


@pytest.mark.parametrize("column", [0, 3])
def test_forgetting_where_a_class_lies_keeps_the_spread(column):
    moments = moments_of(World().support(6))
    left = moments.without_mean(column)
    assert left.counts[column] == 0
    assert np.allclose(left.scatter, moments.scatter, atol=1e-10)
