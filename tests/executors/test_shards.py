"""How samples are shared out, without anybody who does them."""

from __future__ import annotations

import importlib.util
import random

import pytest

import zs_operators as zs
from zs_operators.analysis.suspicions import CertaintyTally
from zs_operators.errors import DeviceError, InvalidInputError, MissingDependencyError
from zs_operators.executors import options
from zs_operators.executors.options import available_executors, plan_workers, resolve_executor
from zs_operators.executors.shards import ATTEMPTS, LARGEST, SMALLEST, ShardQueue
from zs_operators.executors.views import content_stages
from zs_operators.executors.worker_warnings import WorkerWarnings

IDS = [f"{i:024x}" for i in range(1000)]


@pytest.mark.parametrize("size", [1, 7, 64, None])
@pytest.mark.parametrize("poisoned", [0, 1, 3])
def test_every_sample_is_done_or_given_up_once(size, poisoned):
    """Workers die at some samples, and at others by chance; what was reported is not done again."""
    chance = random.Random(size or 0)
    bad = set(chance.sample(IDS, poisoned))
    queue = ShardQueue(IDS, size, num_workers=3)
    done, given_up, deaths = [], [], 0
    while (shard := queue.take(chance.choice([0.0, 5.0, 500.0]))) is not None:
        for one in list(shard.left):
            if one in bad or (deaths < 20 and chance.random() < 0.01):
                deaths += 1
                given_up += queue.failed(shard)
                break
            done.append(one)
            shard.done([one])
    assert sorted(done + given_up) == IDS
    assert bad <= set(given_up)
    assert len(queue) == 0
    # A sample that is sound may go with a worker that dies by chance, but not many
    assert len(given_up) <= poisoned + (20 if size == 1 else 2)


def test_a_sample_alone_is_tried_again_before_it_is_given_up():
    queue = ShardQueue(IDS[:1], 1, num_workers=1)
    for _ in range(ATTEMPTS - 1):
        assert queue.failed(queue.take()) == []
    assert queue.failed(queue.take()) == IDS[:1]


def test_shards_grow_with_the_speed_and_shrink_towards_the_end():
    queue = ShardQueue(range(100_000), None, num_workers=2)
    sizes = []
    while (shard := queue.take(1000.0 if sizes else 0.0)) is not None:
        sizes.append(len(shard.left))
    assert sum(sizes) == 100_000
    assert sizes[0] < sizes[1] == LARGEST
    assert sizes[-2] == SMALLEST
    assert sizes[1:-1] == sorted(sizes[1:-1], reverse=True)


def test_what_a_stopped_worker_leaves_is_there_again():
    queue = ShardQueue(IDS[:10], 10, num_workers=1)
    shard = queue.take()
    shard.done(IDS[:4])
    queue.put_back(shard)
    assert len(queue) == 6
    assert list(queue.take().left) == IDS[4:10]


GPU_NODE, HEAD = {"CPU": 32.0, "GPU": 8.0}, {"CPU": 8.0}


@pytest.mark.parametrize(
    ("asked", "nodes", "plan"),
    [
        ({}, [GPU_NODE, GPU_NODE, HEAD], (16, 1, 4)),  # one a GPU
        ({}, [HEAD, HEAD], (2, 0, 8)),  # one a machine
        ({"num_workers": 2}, [{"CPU": 2.0}], (2, 0, 1)),
        ({"num_gpus": 0.5}, [{"CPU": 8.0, "GPU": 1.0}], (2, 0.5, 4)),
        ({"num_gpus": 0}, [GPU_NODE], (1, 0, 32)),
        ({"num_workers": 3, "num_cpus": 2}, [GPU_NODE], (3, 1, 2)),
        ({}, [{"CPU": 1.0}], (1, 0, 1)),
    ],
)
def test_workers_fit_the_machines(asked, nodes, plan):
    assert tuple(plan_workers(zs.RayExecutor(**asked), nodes)) == plan


@pytest.mark.parametrize("asked", [{"num_gpus": 1}, {"num_cpus": 16}, {"num_gpus": 2}])
def test_a_worker_that_fits_nowhere_is_refused(asked):
    with pytest.raises(DeviceError, match="8 CPUs"):
        plan_workers(zs.RayExecutor(**asked), [HEAD])


@pytest.mark.parametrize(
    "asked",
    [{"num_workers": 0}, {"num_workers": 1.5}, {"num_gpus": -1}, {"shard_size": 0}, {"address": 5}],
)
def test_options_without_a_meaning(asked):
    with pytest.raises(InvalidInputError, match=next(iter(asked))):
        zs.RayExecutor(**asked)


def test_names_of_executors():
    assert resolve_executor("local") is None
    with pytest.raises(InvalidInputError, match="executor='dask'"):
        resolve_executor("dask")


def test_without_ray_it_is_said_what_to_install(dataset, monkeypatch, tmp_path):
    import fiftyone as fo

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        options.importlib.util, "find_spec", lambda name: None if name == "ray" else find_spec(name)
    )
    dataset.add_sample(fo.Sample(filepath=str(tmp_path / "a.png")))
    for executor in ("ray", zs.RayExecutor(num_workers=2)):
        with pytest.raises(MissingDependencyError, match=r"pip install 'zs-operators\[ray\]'"):
            zs.classify(dataset, ["a", "b"], model="shapes-tiny", executor=executor)
    assert not dataset.has_field("zs_classification")
    assert available_executors() == ("local",)


def test_sentences_of_workers_add_up():
    said = WorkerWarnings()
    said.add(1, ["1,200 boxes are empty.", "The store is full."], ["Memory ran out once."])
    said.add(2, ["3 boxes are empty.", "The store is full."], [])
    said.add(1, [], ["Memory ran out 2 times."])
    assert said.sentences() == [
        "1,203 boxes are empty.",
        "The store is full.",
        "Memory ran out 2 times.",
    ]


def test_tallies_add_up():
    one, two = CertaintyTally(1, 0.5, 1, 1), CertaintyTally(2, 1.0, 1, 0)
    one.include(two)
    assert one == CertaintyTally(3, 1.5, 2, 1)


def test_of_a_view_only_what_changes_the_content_goes_to_workers(dataset):
    import fiftyone as fo
    from fiftyone import ViewField as F

    boxes = [fo.Detection(label=name, bounding_box=[0, 0, 1, 1]) for name in ("a", "b")]
    for name in ("x", "y", "z"):
        dataset.add_sample(
            fo.Sample(filepath=f"/{name}.png", boxes=fo.Detections(detections=boxes))
        )
    view = dataset.shuffle().take(2).filter_labels("boxes", F("label") == "a").limit(1)
    ids = view.values("id")
    built = fo.core.view.DatasetView._build(dataset, content_stages(view)).select(ids)
    assert built.values("id") == ids
    assert built.values("boxes.detections.label") == [["a"]]
    assert len(built._stages) == 2
