"""A database that is killed, or silent for a while, or gone: a run waits, then says so clearly.

``ZS_TEST_OUTAGE_S=30`` is the real thing, with the driver's own time-outs; the suite is quicker.
"""

from __future__ import annotations

import os
import time

import pytest
from pymongo.errors import AutoReconnect, NotPrimaryError, OperationFailure

from tests.reliability.test_kills import same
from tests.reliability.unruly_mongod import UnrulyMongod
from zs_operators import database_retries
from zs_operators.database_retries import patiently
from zs_operators.errors import DatabaseError, RunError

OUTAGE_S = float(os.environ.get("ZS_TEST_OUTAGE_S", "1"))
TIMEOUT_MS = None if OUTAGE_S >= 30 else 400
NUM_SCENES = 16


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = UnrulyMongod(tmp_path_factory.mktemp("mongod"))
    yield server
    server.go_on()
    server.kill()


@pytest.fixture(scope="module")
def uri(server):
    return server.uri(TIMEOUT_MS)


@pytest.fixture(scope="module")
def expected(workers, uri, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("scenes"))
    workers.do("make_dataset", uri=uri, name="x", folder=folder, num_scenes=NUM_SCENES)
    workers.do("run", uri=uri, task="classify", dataset="x", field="reference")
    return workers.do("labels", uri=uri, dataset="x", field="reference")["labels"]


@pytest.fixture
def begin(workers, uri, expected, tmp_path):
    """Starts a slow run of classify and has it stand still after its second chunk."""

    def begin(field, **options):
        how = {"uri": uri, "task": "classify", "dataset": "x", "seconds_a_batch": 0.1}
        return workers.at_gate(tmp_path, field=field, **how, **options)

    return begin


def check(workers, uri, field, expected):
    found = workers.do("labels", uri=uri, dataset="x", field=field)
    same(found["labels"], expected)
    assert found["records"][f"zs_classify_{field}"] == "complete"
    assert found["leases"] == 0


def test_a_server_that_is_killed_and_comes_back(workers, server, uri, expected, begin):
    worker = begin("killed")
    worker.open_gate()
    server.kill()
    time.sleep(OUTAGE_S)
    server.start()
    report = worker.result()["report"]

    assert sum(report["counts"].values()) == NUM_SCENES
    check(workers, uri, "killed", expected)


def test_a_server_that_is_silent_for_a_while(workers, server, uri, expected, begin):
    worker = begin("silent")
    worker.open_gate()
    server.fall_silent()
    time.sleep(OUTAGE_S)
    server.go_on()
    report = worker.result()["report"]

    assert sum(report["counts"].values()) == NUM_SCENES
    check(workers, uri, "silent", expected)


def test_a_server_that_stays_away_ends_the_run_and_not_its_labels(
    workers, server, uri, expected, begin
):
    worker = begin("gone", patience_s=0.5)
    server.kill()
    worker.open_gate()
    found = worker.result()
    server.start()

    assert found["error"] == "DatabaseError"
    assert f"127.0.0.1:{server.port}" in found["message"]
    assert "make the same call again" in found["message"]
    done = int(found["message"].partition(f" of {NUM_SCENES} samples are done")[0].split()[-1])
    assert 0 < done < NUM_SCENES
    labels = workers.do("labels", uri=uri, dataset="x", field="gone")["labels"]
    # Of the write that was under way, some may have come through
    assert done <= sum(bool(one) for one in labels.values()) + 1

    report = workers.do("run", uri=uri, task="classify", dataset="x", field="gone")["report"]
    assert report["resumed"] >= done - 1
    check(workers, uri, "gone", expected)


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(database_retries, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(database_retries, "PATIENCE_S", 0.05)


class Flaky:
    def __init__(self, *errors):
        self.errors = list(errors)
        self.calls = 0

    def __call__(self):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def test_outages_are_waited_out(soon):
    step = Flaky(AutoReconnect("reset"), NotPrimaryError("shutting down"))
    assert patiently(step) == "done"
    assert step.calls == 3


@pytest.mark.parametrize("error", [OperationFailure("no"), ValueError("no"), RunError("no")])
def test_other_errors_come_through_at_once_as_they_are(soon, error):
    step = Flaky(error)
    with pytest.raises(type(error)) as raised:
        patiently(step)
    assert raised.value is error
    assert step.calls == 1


def test_patience_ends(soon, monkeypatch):
    import fiftyone as fo

    monkeypatch.setattr(fo.config, "database_uri", "mongodb://me:secret@db.example:27017")
    step = Flaky(*[AutoReconnect("connection refused")] * 1000)
    with pytest.raises(
        DatabaseError, match=r"db\.example.*refused.*All is kept.*same call"
    ) as raised:
        patiently(step, kept=lambda: "All is kept.")
    assert 2 < step.calls < 1000
    assert "secret" not in str(raised.value)
    assert isinstance(raised.value.__cause__, AutoReconnect)
