"""A run is stopped from elsewhere: by its record, from any process, after its current chunk."""

from __future__ import annotations

import subprocess
import sys

import fiftyone as fo
import pytest
from fiftyone.core.odm import get_db_conn

import zs_operators as zs
from zs_operators import provenance, run_lease, stopping
from zs_operators.classification import ClassifyTask
from zs_operators.cli import main
from zs_operators.errors import InvalidInputError
from zs_operators.shapes.dataset import SCENE

NUM_SCENES = 12

NAMES = ["circle", "heart", "star"]


@pytest.fixture
def scenes(shapes, monkeypatch):
    """Chunks of two, after each of which the run looks."""
    monkeypatch.setattr(ClassifyTask, "chunk_samples", 2)
    monkeypatch.setattr(stopping, "SECONDS_BETWEEN_LOOKS", 0)
    dataset = shapes.match_tags(SCENE).clone()
    yield dataset
    dataset.delete()


def start(dataset, clip, **options):
    arguments = {"model": clip, "label_field": "shape", "batch_size": 2, **options}
    steps = zs.iter_classify(dataset, NAMES, **arguments)
    next(steps)
    return steps


def finish(steps):
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, count
        count += 1


def test_it_ends_after_the_chunk_and_goes_on_later(scenes, clip):
    steps = start(scenes, clip)
    assert next(steps).done == 2
    run = zs.load_run(scenes, "shape")
    assert zs.stop_run(run) is True
    report, chunks = finish(steps)

    assert chunks == 0
    assert report.cancelled
    assert report.counts == {"labeled": 2}
    assert "cancelled" in str(report)
    run = zs.load_run(scenes, "shape")
    assert run.state == "cancelled"
    assert run.counts == {"labeled": 2}
    assert scenes.count("shape") == 2

    report, _ = finish(start(scenes, clip))
    assert report.resumed == 2
    assert scenes.count("shape") == len(scenes)
    assert zs.load_run(scenes, "shape").state == "complete"


def test_an_old_wish_stops_no_later_run(scenes, clip):
    steps = start(scenes, clip)
    assert zs.stop_run(zs.load_run(scenes, "shape"))
    steps.close()
    report, _ = finish(start(scenes, clip))
    assert not report.cancelled
    assert scenes.count("shape") == len(scenes)
    assert zs.stop_run(zs.load_run(scenes, "shape")) is False


def test_other_runs_of_the_dataset_go_on(scenes, clip):
    steps, other = start(scenes, clip), start(scenes, clip, label_field="other")
    zs.stop_run(zs.load_run(scenes, "shape"))
    assert finish(steps)[0].cancelled
    assert not finish(other)[0].cancelled
    assert scenes.count("other") == len(scenes)


def test_a_run_that_only_scores_what_is_stored(scenes, clip, tmp_path, monkeypatch):
    monkeypatch.setenv("ZS_STORE_DIR", str(tmp_path))
    monkeypatch.setattr("zs_operators.rescoring.CHUNK_SAMPLES", 3)
    finish(start(scenes, clip, label_field="first", embeddings="reuse"))
    steps = start(scenes, clip, embeddings="reuse")
    next(steps)
    zs.stop_run(zs.load_run(scenes, "shape"))
    report, _ = finish(steps)
    assert report.cancelled
    assert report.counts == {"labeled": 3}


def test_from_the_shell_in_another_process(scenes, clip, monkeypatch):
    steps = start(scenes, clip)
    command = [sys.executable, "-m", "zs_operators.cli", "runs", "stop", scenes.name, "shape"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "stops after its current chunk" in done.stdout
    assert finish(steps)[0].cancelled


def test_the_shell_says_when_there_is_nothing_to_stop(scenes, clip, capsys):
    finish(start(scenes, clip))
    assert main(["runs", "stop", scenes.name, "shape"]) == 1
    assert "is complete: there is nothing to stop" in capsys.readouterr().out


def test_one_that_was_killed_cannot_be_stopped(scenes, clip, capsys):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    steps = start(scenes, clip)
    leases = get_db_conn()[run_lease.COLLECTION]
    held = {"_id": f"{scenes._doc.id}/shape"}
    ours = leases.find_one_and_update(held, {"$set": {"pid": gone.pid}})["pid"]

    run = zs.load_run(scenes, "shape")
    assert run.state == "running"  # as it has left it
    assert zs.stop_run(run) is False
    assert main(["runs", "stop", scenes.name, "shape"]) == 1
    assert "was killed: there is nothing to stop" in capsys.readouterr().out

    leases.update_one(held, {"$set": {"pid": ours}})
    assert zs.stop_run(run) is True
    steps.close()


def test_the_wish_stays_out_of_the_record(scenes, clip):
    steps = start(scenes, clip)
    zs.stop_run(zs.load_run(scenes, "shape"))
    finish(steps)
    record = provenance.find(scenes, "classify", "shape")
    assert not any("stop" in name for name in record)
    scenes.reload()
    assert scenes.list_runs() == ["zs_classify_shape"]
    copy = scenes.clone()
    assert fo.load_dataset(copy.name).get_run_info("zs_classify_shape").config.state == "cancelled"
    copy.delete()


def test_a_run_is_needed():
    with pytest.raises(InvalidInputError, match="StoredRun"):
        zs.stop_run("shape")
