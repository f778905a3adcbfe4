"""Statistics of sites: added up they are pooled, impossible or foreign ones are refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zs_operators as zs
from tests.head_worlds import MODEL, POOR_NAMES, World, accuracy
from zs_operators.errors import InvalidInputError
from zs_operators.heads import gda
from zs_operators.heads.gda import Moments
from zs_operators.heads.poisoning import geometric_median, suspicions
from zs_operators.heads.statistics import Statistics, statistics_of
from zs_operators.vocabulary import Vocabulary

NAMES = tuple(f"thing {number}" for number in range(12))
WORDS = Vocabulary.parse(NAMES)


def exported(clip, support, site="here", min_count=2, **options):
    given = {"embedding": "image", "vocabulary": WORDS, **options}
    words = given.pop("vocabulary")
    return statistics_of(clip, words, support, site=site, min_count=min_count, **given)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000), sites=st.integers(2, 4), order=st.randoms(use_true_random=False)
)
def test_merged_is_pooled_and_the_order_of_sites_does_not_matter(clip, seed, sites, order):
    support = World(seed).support(2 * sites)
    owner = np.tile(np.arange(sites), len(support) // sites)
    parts = [exported(clip, support.take(owner == site), str(site)) for site in range(sites)]
    pooled = exported(clip, support)
    merged = zs.merge_statistics(parts)
    order.shuffle(parts)
    again = zs.merge_statistics(parts)
    assert merged.counts == pooled.counts
    for name in ("sums", "second"):
        assert np.allclose(getattr(merged.moments, name), getattr(pooled.moments, name), atol=1e-12)
        assert np.array_equal(getattr(merged.moments, name), getattr(again.moments, name))


def test_heads_of_merged_and_pooled_are_the_same(clip):
    """Through files, from a site that has the labelled samples, and from a server without."""
    world = World()
    here, there = world.support(5), world.support(6, np.arange(8))
    both = np.concatenate
    pooled = gda.Moments.of(
        both([here.embeddings, there.embeddings]), both([here.columns, there.columns]), 12
    )
    merged = zs.merge_statistics([exported(clip, here, "a"), exported(clip, there, "b")])
    found, kept = merged.moments_for(clip, WORDS, "image", here)
    assert len(kept) == len(here)
    scale = gda.scale_of(pooled, world.texts)
    for one, other in zip(
        gda.fit(found, world.texts, scale), gda.fit(pooled, world.texts, scale), strict=True
    ):
        assert np.allclose(one, other, rtol=1e-7, atol=1e-7 * np.abs(other).max())


def test_files_are_read_back_and_hold_no_sample(clip, tmp_path):
    statistics = exported(clip, World().support(3), min_count=3)
    path = statistics.save(tmp_path / "site.safetensors")
    read = Statistics.read(path)
    assert read.counts == statistics.counts
    assert np.array_equal(read.moments.second, statistics.moments.second)
    assert zs.merge_statistics([path, path]).counts == dict.fromkeys(NAMES, 6)
    with pytest.raises(InvalidInputError, match="exists"):
        statistics.save(path)
    with pytest.raises(InvalidInputError, match="not a file of this kind"):
        zs.load_head(None, path)


def test_classes_with_few_samples_stay_at_home(clip):
    """Not in the counts, not in the sums, and not in the second moments either."""
    support = World().support([9, 8, 7, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    statistics = exported(clip, support, min_count=8)
    assert statistics.left_out == {"thing 2": 7, "thing 3": 1}
    assert statistics.counts == {"thing 0": 9, "thing 1": 8}
    assert np.trace(statistics.moments.second) == pytest.approx(17)
    assert "thing 2 (7), thing 3 (1)" in str(statistics)
    with pytest.raises(InvalidInputError, match="No class has the 10 samples"):
        exported(clip, support, min_count=10)
    # a site whose own samples are not in the statistics cannot leave them out of them
    merged = zs.merge_statistics([statistics, exported(clip, World(1).support(9), "b", 8)])
    _, kept = merged.moments_for(clip, WORDS, "image", support)
    assert set(kept.columns) == {0, 1}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"words": "other"}, "other classes, templates or background"),
        ({"columns": (*NAMES[:-1], "else")}, "other classes, templates or background"),
        ({"embedding": {"method": "crops"}}, "whole images and boxes do not add up"),
    ],
)
def test_statistics_of_other_things_are_refused(clip, change, says):
    one = exported(clip, World().support(3), "a")
    with pytest.raises(InvalidInputError, match=says):
        zs.merge_statistics([one, replace(one, **change, site="b")])
    with pytest.raises(InvalidInputError):
        replace(one, **change).moments_for(clip, WORDS, "image", World().support(3))


@pytest.mark.parametrize("key", ["architecture", "weights_sha256", "preprocessing"])
def test_statistics_of_another_model_are_refused(clip, key):
    one = exported(clip, World().support(3), "a")
    other = replace(one, model={**one.model, key: "other"}, site="b")
    with pytest.raises(InvalidInputError, match=r"Statistics of 'b', unlike those of 'a'"):
        zs.merge_statistics([one, other])
    with pytest.raises(InvalidInputError, match="was made with"):
        zs.head_from_statistics(other, model=clip)


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (lambda m: Moments(m.counts, m.sums * 5, m.second), "longer than that many unit vectors"),
        (lambda m: Moments(m.counts, m.sums * np.nan, m.second), "not finite"),
        (lambda m: Moments(m.counts, m.sums, m.second * 3), "another number of samples"),
        (lambda m: Moments(-m.counts, m.sums, m.second), "no numbers of samples"),
        (lambda m: Moments(m.counts[:3], m.sums, m.second), "other shapes"),
    ],
)
def test_impossible_numbers_are_refused(clip, part, says, tmp_path):
    one = exported(clip, World().support(3), "mallory")
    bad = replace(one, moments=part(one.moments))
    with pytest.raises(InvalidInputError, match=f"'mallory' cannot be used.*{says}"):
        zs.merge_statistics([one, bad])
    path = bad.save(tmp_path / "bad.safetensors")
    with pytest.raises(InvalidInputError, match=says):
        Statistics.read(path)
    with pytest.raises(InvalidInputError, match="no statistics to merge"):
        zs.merge_statistics([])


def swapped(support, one, other):
    columns = support.columns.copy()
    columns[support.columns == one], columns[support.columns == other] = other, one
    return replace(support, columns=columns)


@pytest.mark.parametrize("sites", ["apart", "shared"])
@pytest.mark.parametrize("seed", range(3))
def test_a_site_that_swaps_labels_is_named(clip, sites, seed):
    """Classes of one site only, which texts vouch for; or of three, which vouch for each other."""
    world = World(seed, hard=0 if sites == "apart" else 4)
    own = np.array_split(np.arange(12), 3) if sites == "apart" else [np.arange(12)] * 3
    parts = [world.support(12, columns) for columns in own]
    one, other = own[1][0], own[1][1]
    honest = [exported(clip, part, f"site {i}") for i, part in enumerate(parts)]
    honest = [replace(part, texts=world.texts) for part in honest]
    assert zs.merge_statistics(honest).suspicious == ()

    bad = exported(clip, swapped(parts[1], one, other), "site 1")
    merged = zs.merge_statistics([honest[0], bad, honest[2]])
    assert {(doubt.site, doubt.label) for doubt in merged.suspicious} == {
        ("site 1", NAMES[one]),
        ("site 1", NAMES[other]),
    }
    assert {doubt.looks_like for doubt in merged.suspicious} == {NAMES[one], NAMES[other]}
    assert {doubt.witness for doubt in merged.suspicious} == {
        "text" if sites == "apart" else "other sites"
    }
    assert "looks like" in str(merged)


@pytest.mark.parametrize("seed", range(3))
def test_two_sites_that_agree_are_believed_whatever_the_names_say(clip, seed):
    world = World(seed, hard=0)
    parts = [world.support(12), world.support(12)]
    honest = [exported(clip, part, f"site {i}") for i, part in enumerate(parts)]
    wrong = np.concatenate([np.roll(world.texts[:5], 1, axis=0), world.texts[5:]])
    honest = [replace(part, texts=wrong) for part in honest]
    assert zs.merge_statistics(honest).suspicious == ()
    alone = zs.merge_statistics(honest[:1]).suspicious
    assert {doubt.witness for doubt in alone} == {"text"}  # nobody else to ask

    bad = exported(clip, swapped(parts[1], 10, 11), "site 1")
    merged = zs.merge_statistics([honest[0], bad])
    assert {(doubt.part, doubt.label) for doubt in merged.suspicious} == {
        (1, "thing 10"),
        (1, "thing 11"),
    }


def test_what_is_suspicious_can_be_dropped(clip, tmp_path):
    world = World(hard=0)
    parts = [world.support(12, columns) for columns in np.array_split(np.arange(12), 3)]
    names = ["a", "b", "c"]
    honest = [exported(clip, part, name) for part, name in zip(parts, names, strict=True)]
    bad = exported(clip, swapped(parts[1], 4, 5), "b")
    columns = np.repeat(np.arange(12), 40)
    queries = world.images(columns)

    def right(merged):
        scale = gda.scale_of(merged.moments, world.texts)
        weight, bias = gda.fit(merged.moments, world.texts, scale)
        unit = world.prior(queries).std() / (queries @ weight.T + bias).std()
        logits = world.prior(queries) + unit * (queries @ weight.T + bias)
        return accuracy(logits, columns, [4, 5])

    poisoned = zs.merge_statistics([honest[0], bad, honest[2]])
    dropped = zs.merge_statistics([honest[0], bad, honest[2]], drop_suspicious=True)
    assert right(poisoned) < 0.5 < right(dropped)
    assert right(dropped) > right(zs.merge_statistics(honest)) - 0.15
    assert dropped.dropped == 24
    assert NAMES[4] not in dropped.counts
    # can be sent on
    assert zs.merge_statistics([dropped.save(tmp_path / "d.safetensors")]).dropped == 24


def test_one_class_alone_has_nobody_to_be_taken_for():
    world = World()
    support = world.support(8, [2])
    moments = Moments.of(support.embeddings, support.columns, 12)
    assert suspicions([("a", moments)], NAMES, world.texts) == []


def test_the_geometric_median_keeps_to_the_majority():
    points = np.array([[0.0, 0], [0.1, 0], [50, 50]])
    assert np.linalg.norm(geometric_median(points) - [0.1, 0]) < 0.05
    assert np.allclose(geometric_median(points[:1]), points[0])


def test_sites_of_a_dataset_learn_together(shapes, reviewed, rest, tmp_path):
    """Three sites with a third of the samples each."""
    sites = [reviewed[:20], reviewed[20:40], reviewed[40:60]]
    paths = []
    for number, site in enumerate(sites):
        path = tmp_path / f"{number}.safetensors"
        zs.export_statistics(
            site, POOR_NAMES, "shape", path, site=f"s{number}", min_count=2, progress=False, **MODEL
        )
        paths.append(path)
    stored = zs.export_statistics(reviewed[:20], POOR_NAMES, "shape", min_count=2, **MODEL)
    assert stored.counts == Statistics.read(paths[0]).counts
    merged = zs.merge_statistics(paths)
    # Fewer than three sites have a class here, and texts that say nothing vouch for nothing
    poor = {"cross", "ring", "heart", "arrow"}
    assert {doubt.label for doubt in merged.suspicious} <= poor
    served = zs.head_from_statistics(merged, **MODEL)
    local = zs.fit_head(sites[0], POOR_NAMES, "shape", statistics=merged, progress=False, **MODEL)
    assert served.report.shots == local.report.shots == merged.counts
    assert sum(local.report.shots.values()) > 2 * len(sites[0])
    run = {**MODEL, "embeddings": "reuse", "progress": False, "overwrite": True}

    def right(head):
        zs.classify(rest, POOR_NAMES, label_field="together", head=head, **run)
        pairs = zip(*rest.values(["together.label", "shape.label"]), strict=True)
        return np.mean([one == other for one, other in pairs])

    before = right(None)
    assert right(served) > before + 0.2
    assert right(local) > before + 0.2
    with pytest.raises(InvalidInputError, match=r"min_count=1 must be an integer >= 2"):
        zs.export_statistics(reviewed, POOR_NAMES, "shape", min_count=1, **MODEL)
    with pytest.raises(InvalidInputError, match="other prompts"):
        zs.fit_head(reviewed, POOR_NAMES, "shape", statistics=merged, templates="none", **MODEL)
