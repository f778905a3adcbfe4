"""Two workers of a real Ray on this machine: the labels of one process, whatever happens.

``ZS_TEST_RAY_SAMPLES=20000`` labels as many instead of 240, and runs what starts most workers.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import fiftyone as fo
import pytest
from PIL import Image

import zs_operators as zs
from tests.executors import ray_workers
from tests.plugin_runs import each_message
from tests.reliability import jobs
from tests.reliability.test_kills import same
from tests.reliability.workers import wait_until
from tests.run_labels import rest
from zs_operators.errors import InvalidInputError, WeightsError
from zs_operators.executors import ray_pool, shards
from zs_operators.shapes.world import make_scene

ray = pytest.importorskip("ray")

NUM_SAMPLES = int(os.environ.get("ZS_TEST_RAY_SAMPLES", "240"))
NUM_IMAGES = 48
with_time = pytest.mark.skipif(
    "ZS_TEST_RAY_SAMPLES" not in os.environ, reason="starts many workers; set ZS_TEST_RAY_SAMPLES"
)
TINY = {"device": "cpu", "precision": "fp32", "batch_size": 4, "workers": 1}
TWO = zs.RayExecutor(num_workers=2, num_cpus=1, shard_size=16 if NUM_SAMPLES < 1000 else None)
ONE = zs.RayExecutor(num_workers=1, num_cpus=1, shard_size=8)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        log_to_driver=False,
        configure_logging=False,
        _node_ip_address="127.0.0.1",
    )
    ray.cloudpickle.register_pickle_by_value(ray_workers)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    for seed in range(NUM_IMAGES):
        scene = make_scene(seed, num_objects=2)
        Image.fromarray(scene.image).save(folder / f"{seed:03}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def scenes(folder):
    """Builds a dataset of so many samples; the last one is no image."""
    made = []

    def build(num_samples):
        boxes = [[0.1, 0.1, 0.4, 0.4], [0.4, 0.3, 0.5, 0.6]]
        samples = [
            fo.Sample(
                filepath=str(folder / f"{i % NUM_IMAGES:03}.png"),
                boxes=fo.Detections(
                    detections=[fo.Detection(label="box", bounding_box=box) for box in boxes]
                ),
            )
            for i in range(num_samples - 1)
        ]
        samples.append(fo.Sample(filepath=str(folder / "broken.png"), boxes=fo.Detections()))
        dataset = fo.Dataset(persistent=True)
        dataset.add_samples(samples)
        made.append(dataset)
        return dataset

    yield build
    for one in made:
        one.delete()


@pytest.fixture
def unruly(monkeypatch, tmp_path):
    """Folder of workers that stand still after a chunk while there is a file ``gate``."""
    monkeypatch.setattr(ray_pool, "Worker", ray_workers.unruly(str(tmp_path)))
    return tmp_path


def check_same(dataset, ours, theirs, task):
    """Both fields hold the same, and so do their records."""
    found, expected = (jobs.labels(dataset=dataset.name, field=one) for one in (ours, theirs))
    same(found["labels"], expected["labels"])
    same(found["errors"], expected["errors"])
    assert found["records"][f"zs_{task}_{ours}"] == "complete"
    assert found["leases"] == 0
    dataset.reload()
    records = [zs.load_run(dataset, f"zs_{task}_{one}").record for one in (ours, theirs)]
    assert records[0]["signature"] == records[1]["signature"]
    return records[0]


def until(steps, condition):
    """Steps of a run until something holds; the last progress."""
    for progress in steps:
        if condition(progress):
            return progress
    raise AssertionError("it ended before")


def test_classify_while_a_worker_is_killed(scenes, unruly):
    dataset = scenes(NUM_SAMPLES)
    options = {"model": "shapes-tiny", "embeddings": "off", **TINY}
    (unruly / "gate").touch()
    steps = zs.iter_classify(dataset, jobs.NAMES, label_field="ours", executor=TWO, **options)
    progress = until(steps, lambda one: one.done and len(list(unruly.glob("*.pid"))) == 2)
    assert progress.total == NUM_SAMPLES
    victim = next(unruly.glob("*.pid"))
    os.kill(int(victim.stem), signal.SIGKILL)
    (unruly / "gate").unlink()
    report = rest(steps)
    assert report.counts == {"labeled": NUM_SAMPLES - 1, "unreadable_media": 1}
    assert any("1 workers were lost" in one for one in report.warnings)
    print(report)
    local = zs.classify(dataset, jobs.NAMES, label_field="theirs", **options)
    print(local)
    assert dict(report.labels) == dict(local.labels)
    assert report.sanity == pytest.approx(local.sanity, abs=1e-4)
    record = check_same(dataset, "ours", "theirs", "classify")
    assert record["executor"] == {"name": "ray", "num_workers": 2, "num_gpus": 0, "num_cpus": 1}
    # Whoever continues, on whatever executor, finds nothing left but what failed
    assert (
        zs.classify(dataset, jobs.NAMES, label_field="ours", **options).resumed == NUM_SAMPLES - 1
    )


def test_detect_after_the_process_that_had_the_run_was_killed(scenes, cluster, root, tmp_path):
    dataset = scenes(40)
    log = tmp_path / "log"
    command = [sys.executable, "-m", "tests.executors.driver", dataset.name, cluster, str(log)]
    with subprocess.Popen(command, cwd=root) as driver:
        wait_until(log.exists, 120)
        driver.kill()
    dataset.reload()
    written = dataset.exists("ours").count()
    assert 0 < written < 40
    options = {"model": "shapes-tiny", "proposals": "shapes-tiny", **TINY}
    report = zs.detect(dataset, jobs.NAMES, label_field="ours", executor=ONE, **options)
    assert report.resumed >= written
    assert sum(report.counts.values()) == 40 - report.resumed
    zs.detect(dataset, jobs.NAMES, label_field="theirs", **options)
    check_same(dataset, "ours", "theirs", "detect")


def test_segment_stopped_from_elsewhere_and_continued_here(scenes, unruly):
    dataset = scenes(40)
    options = {"model": "shapes-tiny", "prompts": "boxes", **TINY}
    (unruly / "gate").touch()
    steps = zs.iter_segment(
        dataset, label_field="ours", semantic_field="ours_all", executor=ONE, **options
    )
    until(steps, lambda one: one.done)
    dataset.reload()
    assert zs.stop_run(zs.load_run(dataset, "ours"))
    (unruly / "gate").unlink()
    report = rest(steps)
    assert report.cancelled
    dataset.reload()
    assert len(dataset.exists("ours")) == sum(report.counts.values()) - report.num_failed < 40
    assert zs.load_run(dataset, "ours").state == "cancelled"
    again = zs.segment(dataset, label_field="ours", semantic_field="ours_all", **options)
    assert again.resumed == len(dataset) - sum(again.counts.values())
    zs.segment(dataset, label_field="theirs", semantic_field="theirs_all", **options)
    found, expected = (
        jobs.labels(dataset=dataset.name, field=one)["labels"] for one in ("ours_all", "theirs_all")
    )
    same(found, expected)
    assert len(list(filter(None, found.values()))) == 39


def test_an_operator_whose_page_is_closed(scenes, unruly):
    from fiftyone.operators import get_operator
    from fiftyone.operators.executor import ExecutionContext, Executor

    dataset = scenes(40)
    uri = "@zs/operators/classify"
    params = {"classes": jobs.NAMES, "model": "shapes-tiny", "label_field": "ours", **TINY}
    params["executor"] = "ray"
    request = {"params": params, "dataset_name": dataset.name, "operator_uri": uri}
    context = ExecutionContext(request, executor=Executor(), operator_uri=uri)
    (unruly / "gate").touch()
    told = each_message(get_operator(uri), context)
    shown = 0
    for _ in told:
        dataset.reload()
        shown += 1
        if dataset.has_field("ours") and len(dataset.exists("ours")):
            break
    assert shown > 1
    (unruly / "gate").unlink()
    told.close()

    def has_ended():  # in a thread of its own, so that the App does not wait
        dataset.reload()
        return zs.load_run(dataset, "ours").state == "cancelled"

    wait_until(has_ended, 60)
    run = zs.load_run(dataset, "ours")
    assert 0 < len(dataset.exists("ours")) < 40
    assert run.record["report"]["counts"] == {"labeled": len(dataset.exists("ours"))}


@with_time
def test_an_image_at_which_workers_die_is_recorded(scenes, unruly, folder, monkeypatch):
    monkeypatch.setattr(shards, "ATTEMPTS", 1)  # a worker takes seconds to start
    dataset = scenes(12)
    poisoned = dataset.skip(5).first()
    poisoned.filepath = str(folder / f"{ray_workers.POISON}.png")
    Path(poisoned.filepath).write_bytes(b"deadly")
    poisoned.save()
    report = zs.classify(dataset, jobs.NAMES, model="shapes-tiny", executor=ONE, **TINY)
    assert report.counts == {"labeled": 10, "unreadable_media": 1, "model_error": 1}
    dataset.reload()
    poisoned.reload()
    assert poisoned.zs_classification is None
    assert poisoned.zs_classification_error.startswith("model_error: its worker failed each time")


def test_what_cannot_go_to_other_processes_is_refused(scenes):
    dataset = scenes(2)
    names = ["a", "b"]
    with pytest.raises(InvalidInputError, match="model= is a ClipModel"):
        zs.classify(dataset, names, model=zs.load_clip("shapes-tiny"), executor=ONE)
    with pytest.raises(InvalidInputError, match="device='cuda:1'"):
        zs.classify(dataset, names, model="shapes-tiny", device="cuda:1", executor=ONE)
    assert not dataset.has_field("zs_classification")


@with_time
def test_what_a_worker_refuses_ends_the_run(scenes):
    dataset = scenes(2)
    with pytest.raises(WeightsError, match="no-such-file"):
        zs.classify(
            dataset, ["a", "b"], model="ViT-B-32", weights="./no-such-file.pt", executor=ONE
        )
    assert not dataset.has_field("zs_classification")
