"""Two runs, or a run and a person, on one dataset at the same time."""

from __future__ import annotations

import os
import signal
import time

import fiftyone as fo
import pytest

from tests.reliability import jobs
from tests.reliability.test_kills import same
from tests.reliability.workers import wait_until
from zs_operators import run_lease
from zs_operators.errors import BusyFieldError
from zs_operators.run_lease import RunLease, check_free

NUM_SCENES = 12


@pytest.fixture
def name(workers, tmp_path):
    name = f"several-{tmp_path.name}"
    workers.do("make_dataset", name=name, folder=str(tmp_path), num_scenes=NUM_SCENES, broken=False)
    yield name
    if fo.dataset_exists(name):
        fo.delete_dataset(name)


@pytest.fixture
def begin(workers, name, tmp_path):
    """Starts a run of classify and has it stand still after its second chunk."""

    def begin(**options):
        return workers.at_gate(tmp_path, task="classify", dataset=name, **options)

    return begin


def test_two_runs_on_fields_of_their_own(workers, name):
    """Each adds fields to the same schema and records to the same dataset."""
    both = [
        workers.start("run", task=task, dataset=name, field=task)
        for task in ("classify", "detect", "segment")
    ]
    for one in both:
        assert sum(one.result()["report"]["counts"].values()) == NUM_SCENES
    for task in ("classify", "detect", "segment"):
        found = jobs.labels(dataset=name, field=task)
        assert found["declared"]
        assert found["records"][f"zs_{task}_{task}"] == "complete"
        workers.do("run", task=task, dataset=name, field=f"{task}_alone")
        alone = jobs.labels(dataset=name, field=f"{task}_alone")
        same(found["labels"], alone["labels"])


def test_a_second_run_on_the_same_field_is_refused(workers, name, begin):
    first = begin()
    refused = workers.do("run", task="classify", dataset=name)

    assert refused["error"] == "BusyFieldError"
    for part in ("'found'", "zs_classify_found", f"process {first.pid}", time.strftime("%Y-%m-%d")):
        assert part in refused["message"]
    first.open_gate()
    report = first.result()["report"]
    assert report["counts"] == {"labeled": NUM_SCENES}
    assert workers.do("run", task="classify", dataset=name)["report"]["resumed"] == NUM_SCENES


def test_the_lease_of_a_killed_process_does_not_wait(workers, name, begin):
    first = begin()
    first.kill()
    report = workers.do("run", task="classify", dataset=name)["report"]

    assert 0 < report["resumed"] < NUM_SCENES


def test_a_suspended_run_that_lost_its_field_writes_no_more(workers, name, begin):
    first = begin(stale_s=0.5)
    first.send(signal.SIGSTOP)
    wait_until(lambda: run_lease._read(lease_of(name))["silent_s"] > 0.6)
    second = workers.do("run", task="classify", dataset=name, stale_s=0.5)["report"]
    before = jobs.labels(dataset=name)
    first.open_gate()
    first.send(signal.SIGCONT)
    lost = first.result()

    assert 0 < second["resumed"] < NUM_SCENES
    assert lost["error"] == "BusyFieldError"
    assert "suspended" in lost["message"]
    assert jobs.labels(dataset=name) == before


def test_runs_that_begin_together_lose_no_field(workers, name):
    """FiftyOne saves the list of all fields at once: two processes could undo each other's."""
    start_at = time.time() + 1
    names = [[f"field_{worker}_{number}" for number in range(4)] for worker in range(3)]
    working = [
        workers.start("add_fields", dataset=name, names=one, start_at=start_at) for one in names
    ]
    for one in working:
        one.result()
    dataset = fo.load_dataset(name)
    dataset.reload()
    assert {one for some in names for one in some} <= set(dataset.get_field_schema())


def lease_of(name):
    return run_lease._lease_id(fo.load_dataset(name), "found")


def test_what_a_person_does_meanwhile_is_kept_and_reported(workers, name, begin):
    dataset = fo.load_dataset(name)
    ids = dataset.values("id")
    first = begin()
    dataset.reload()
    mine = fo.Classification(label="mine")
    dataset.set_values("found", {ids[-1]: mine}, key_field="id")
    dataset.set_values("tags", {ids[-2]: ["seen"]}, key_field="id")
    dataset.delete_samples([ids[-3]])
    first.open_gate()
    report = first.result()["report"]

    assert report["counts"] == {"labeled": NUM_SCENES - 2, "edited": 1, "deleted": 1}
    assert sum(report["labels"].values()) == NUM_SCENES - 2
    assert any("theirs is kept" in one for one in report["warnings"])
    dataset.reload()
    assert len(dataset) == NUM_SCENES - 1
    assert dataset[ids[-1]].found == mine
    assert dataset[ids[-2]].tags == ["seen"]
    assert dataset[ids[-2]].found.label is not None
    # The same call goes on beside the label of that person
    again = workers.do("run", task="classify", dataset=name)["report"]
    assert again["resumed"] == NUM_SCENES - 1
    assert any("that this run did not write" in one for one in again["warnings"])


def test_edits_survive_a_run_that_may_overwrite(workers, name, begin):
    workers.do("run", task="classify", dataset=name)
    dataset = fo.load_dataset(name)
    ids = dataset.values("id")
    dataset.reload()
    options = {"overwrite": True, "resume": False}
    first = begin(options=options)
    dataset.set_values("found.label", {ids[-1]: "edited"}, key_field="id")
    dataset.set_values("tags", {ids[-2]: ["seen"]}, key_field="id")
    before = {one: dataset[one].found.id for one in ids[-2:]}
    first.open_gate()
    report = first.result()["report"]

    assert report["counts"] == {"labeled": NUM_SCENES - 1, "edited": 1}
    dataset.reload()
    assert dataset[ids[-1]].found.label == "edited"
    assert dataset[ids[-1]].found.id == before[ids[-1]]
    assert dataset[ids[-2]].found.id != before[ids[-2]]
    assert dataset[ids[-2]].tags == ["seen"]


def test_a_dataset_that_is_deleted_meanwhile(workers, name, begin):
    first = begin()
    fo.delete_dataset(name)
    first.open_gate()
    found = first.result()

    assert found["error"] == "DeletedError"
    assert name in found["message"]


def test_a_field_that_is_deleted_meanwhile(workers, name, begin):
    dataset = fo.load_dataset(name)
    first = begin()
    dataset.reload()
    dataset.delete_sample_field("found")
    first.open_gate()
    found = first.result()

    assert found["error"] == "DeletedError"
    assert "'found'" in found["message"]
    stored = dataset._sample_collection.find({}, {"found": True})
    assert not any(one.get("found") for one in stored)
    assert jobs.labels(dataset=name)["records"] == {"zs_classify_found": "failed"}
    report = workers.do("run", task="classify", dataset=name)["report"]
    assert report["counts"] == {"labeled": NUM_SCENES}


def test_a_run_is_not_forgotten_while_it_goes_on(workers, name, begin):
    import zs_operators as zs

    first = begin()
    dataset = fo.load_dataset(name)
    dataset.reload()
    run = zs.load_run(dataset, "zs_classify_found")
    with pytest.raises(BusyFieldError, match="stop it"):
        zs.delete_run(run, fields=True)
    first.open_gate()
    first.result()
    dataset.reload()
    zs.delete_run(zs.load_run(dataset, "zs_classify_found"), fields=True)
    assert not dataset.has_field("found")


def test_a_record_that_somebody_deletes_meanwhile_comes_back(workers, name, begin):
    first = begin()
    dataset = fo.load_dataset(name)
    dataset.reload()
    dataset.delete_run("zs_classify_found")
    first.open_gate()
    first.result()
    assert jobs.labels(dataset=name)["records"] == {"zs_classify_found": "complete"}


@pytest.fixture
def lease(dataset):
    lease = RunLease(dataset, ["a", "b"], "zs_classify_a")
    lease.take()
    yield lease
    lease.release()


def test_a_lease_is_for_its_fields_only(dataset, lease):
    with pytest.raises(BusyFieldError, match=f"process {os.getpid()}"):
        RunLease(dataset, ["b", "c"], "zs_segment_c").take()
    other = RunLease(dataset, ["c"], "zs_segment_c")
    other.take()  # the refused one has left nothing
    other.release()
    check_free(dataset, ["c"])
    lease.take()  # as after an answer that was lost
    lease.release()
    check_free(dataset, ["a", "b"])


def test_processes_elsewhere_are_judged_by_their_heartbeat(dataset, lease):
    held = run_lease._read(run_lease._lease_id(dataset, "a"))
    assert run_lease.is_alive(held)
    assert not run_lease.is_alive({**held, "pid": 2**22 + 1})
    assert not run_lease.is_alive({**held, "process_started": held["process_started"] - 60})
    elsewhere = {**held, "host": "elsewhere", "pid": 2**22 + 1}
    assert run_lease.is_alive(elsewhere)
    assert not run_lease.is_alive({**elsewhere, "silent_s": run_lease.STALE_S + 1})


def test_the_heartbeat_goes_on_while_nothing_is_written(dataset, monkeypatch):
    monkeypatch.setattr(run_lease, "HEARTBEAT_S", 0.02)
    lease = RunLease(dataset, ["a"], "zs_classify_a")
    lease.take()
    lease_id = run_lease._lease_id(dataset, "a")
    first = run_lease._read(lease_id)["heartbeat"]
    wait_until(lambda: run_lease._read(lease_id)["heartbeat"] > first)
    lease.release()
    assert run_lease._read(lease_id) is None
