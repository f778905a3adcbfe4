"""Runs that take longer than every time limit, pages that go away, and stopping from elsewhere.

The App's requests go through FiftyOne's own route and HTTP server, whose limits of 600 s and 5 s
are cut to a fraction of what the runs here take.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import sys
import threading
import time

import fiftyone.operators as foo
import pytest
from bson import ObjectId
from fiftyone.operators import executor, server
from fiftyone.operators.decorators import coroutine_timeout
from fiftyone.operators.delegated import DelegatedOperationService
from fiftyone.operators.executor import ExecutionContext

import zs_operators as zs
from tests.plugin_panels import Panel
from tests.plugin_runs import execute
from zs_operators import stopping
from zs_operators.classification import ClassifyTask
from zs_operators.clip import ClipModel

CLASSES = ["cyan circle", "purple circle", "red heart", "orange star"]
URI = "@zs/operators/classify"
STOP = "@zs/operators/stop_run"
PARAMS = {
    "classes": CLASSES,
    "model": "shapes-tiny",
    "label_field": "shape",
    "batch_size": 1,
    "workers": 0,
}
LIMIT_S = 0.6
SECONDS_AN_IMAGE = 0.06


@pytest.fixture
def slow(monkeypatch):
    """One image at a time, each of which takes a while and is written at once."""
    real = ClipModel.preprocess

    def preprocess(self, image):
        time.sleep(SECONDS_AN_IMAGE)
        return real(self, image)

    monkeypatch.setattr(ClipModel, "preprocess", preprocess)
    monkeypatch.setattr(ClassifyTask, "chunk_samples", 1)
    monkeypatch.setattr(stopping, "SECONDS_BETWEEN_LOOKS", 0)
    limited = coroutine_timeout(LIMIT_S)(executor.execute_or_delegate_operator.__wrapped__)
    for module in (executor, server):
        monkeypatch.setattr(module, "execute_or_delegate_operator", limited)


@pytest.fixture
def site(slow):
    """FiftyOne's operators on its HTTP server in a thread: address, and how to shut it down."""
    from hypercorn.asyncio import serve
    from hypercorn.config import Config
    from starlette.applications import Starlette
    from starlette.routing import Route

    app = Starlette(routes=[Route("/generator", server.ExecuteOperatorAsGenerator)])
    config = Config()
    config.keep_alive_timeout = config.graceful_timeout = LIMIT_S / 3
    config.bind = ["127.0.0.1:0"]
    # Hypercorn does not tell which port it got
    sockets = config.create_sockets()
    port = sockets.insecure_sockets[0].getsockname()[1]
    config.create_sockets = lambda: sockets
    loop, over = asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(
        target=lambda: loop.run_until_complete(serve(app, config, shutdown_trigger=over.wait))
    )
    thread.start()

    def shut_down():
        loop.call_soon_threadsafe(over.set)
        thread.join()

    yield port, shut_down
    with contextlib.suppress(RuntimeError):
        shut_down()
    loop.close()


def post(port, dataset, params):
    """The App's request, and its response as it begins."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = {"operator_uri": URI, "dataset_name": dataset.name, "params": params}
    connection.request("POST", "/generator", json.dumps(body), {"Content-Type": "application/json"})
    return connection, connection.getresponse()


def wait_for_progress(response):
    for line in iter(response.readline, b""):
        if b"images/s" in line:
            return
    pytest.fail("the run was over before it said how far it is")


def until(done, seconds=30):
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def record_of(dataset):
    dataset.reload()
    return dataset.get_run_info("zs_classify_shape").config


def test_the_app_is_told_all_of_a_run_that_is_longer_than_every_limit(
    site, operator, scenes, monkeypatch
):
    live = sys.modules[type(operator).__module__.rpartition(".")[0] + ".live"]
    monkeypatch.setattr(live, "SECONDS_OF_SILENCE", SECONDS_AN_IMAGE / 3)
    begun = time.monotonic()
    connection, response = post(site[0], scenes, PARAMS)
    text = response.read().decode()
    connection.close()

    assert time.monotonic() - begun > 2 * LIMIT_S
    lines = text.splitlines()
    assert any(line.startswith("  ") for line in lines), "nothing was sent in silence"
    told = [json.loads(line)["body"] for line in lines]
    shown = json.dumps(told[-1])
    assert told[-1]["operator_uri"] == "show_output"
    assert "24 of 24 images have a label" in shown
    assert scenes.count("shape.label") == 24
    assert record_of(scenes).state == "complete"


def test_a_page_that_is_closed_ends_the_run_and_loses_no_chunk(site, scenes):
    connection, response = post(site[0], scenes, PARAMS)
    wait_for_progress(response)
    written = scenes.count("shape")
    response.close()
    connection.close()

    until(lambda: record_of(scenes).state != "running")
    record = record_of(scenes)
    assert record.state == "cancelled"
    done = scenes.count("shape.label")
    assert 0 < written <= done < 24
    assert record.report["counts"] == {"labeled": done}
    # at most the image that was being read then, and the one whose chunk was being written
    assert done <= written + 5

    report = execute(URI, scenes, {**PARAMS, "batch_size": 16})
    assert report["resumed"] == done
    assert scenes.count("shape.label") == 24


def test_a_server_that_is_shut_down_ends_the_run(site, scenes):
    connection, response = post(site[0], scenes, PARAMS)
    wait_for_progress(response)
    site[1]()
    connection.close()
    until(lambda: record_of(scenes).state != "running")
    assert record_of(scenes).state == "cancelled"
    assert record_of(scenes).report["counts"] == {"labeled": scenes.count("shape.label")}


def test_a_script_waits_as_long_as_it_takes(slow, scenes):
    begun = time.monotonic()
    assert execute(URI, scenes, PARAMS)["counts"] == {"labeled": 24}
    assert time.monotonic() - begun > 2 * LIMIT_S


def test_the_limit_is_one(slow, scenes, monkeypatch):
    """An operator as FiftyOne knows them is cut off, which the tests here rely on."""

    def sleep(self, ctx):
        time.sleep(2 * LIMIT_S)

    monkeypatch.setattr(type(foo.get_operator(STOP)), "execute", sleep)
    monkeypatch.setattr(type(foo.get_operator(STOP)), "resolve_input", lambda self, ctx: None)
    with pytest.raises(TimeoutError):
        foo.execute_operator(STOP, {"dataset": scenes})


def stop_when(monkeypatch, scenes, done):
    """Stops the run from its progress, as another process would meanwhile."""
    said, set_progress = [], ExecutionContext.set_progress

    def and_stop(ctx, progress=None, label=None):
        set_progress(ctx, progress, label)
        if progress and progress >= done and not said:
            said.append(foo.get_operator(STOP)(scenes, run="shape"))

    monkeypatch.setattr(ExecutionContext, "set_progress", and_stop)
    return said


def test_a_queued_run_is_stopped_by_its_record(slow, operator, scenes, monkeypatch):
    arguments = {name: value for name, value in PARAMS.items() if name != "classes"}
    queued = ObjectId(operator(scenes, CLASSES, delegate=True, **arguments))
    said = stop_when(monkeypatch, scenes, 3 / 24)
    service = DelegatedOperationService()
    service.execute_operation(service.get(queued))

    assert said == [True]
    assert record_of(scenes).state == "cancelled"
    assert scenes.count("shape") == 3
    done = service.get(queued)
    assert done.run_state == "failed"
    assert "Stopped after 3 of 24 images" in done.result.error
    with pytest.raises(executor.ExecutionError, match="No zero-shot run is going on"):
        execute(STOP, scenes, {"run": "shape"})


def test_the_app_shows_a_run_that_was_stopped_elsewhere(site, scenes):
    connection, response = post(site[0], scenes, PARAMS)
    wait_for_progress(response)
    assert foo.get_operator(STOP)(scenes, run="shape")
    told = [json.loads(line)["body"] for line in response.read().decode().splitlines()]
    connection.close()
    dialogs = [one for one in told if one["operator_uri"] == "show_output"]
    assert "Stopped after" in json.dumps(dialogs[-1])
    assert record_of(scenes).state == "cancelled"


def form_of(context, dataset, **params):
    resolved = foo.get_operator(STOP).resolve_type(context(dataset, params=params), "inputs")
    resolved.to_json()
    return resolved.type.properties


def test_forms_offer_what_is_going_on(scenes, context):
    assert form_of(context, scenes)["run_error"].invalid
    steps = zs.iter_classify(scenes, CLASSES, model="shapes-tiny", label_field="b")
    next(steps)
    zs.classify(scenes, CLASSES, model="shapes-tiny", label_field="a", progress=False)
    inputs = form_of(context, scenes, run="zs_classify_b")
    assert [choice.value for choice in inputs["run"].view.choices] == ["zs_classify_b"]
    assert form_of(context, scenes, run="a")["run_error"].invalid

    panel = Panel(foo.get_operator("@zs/operators/zs_runs"), context, scenes)
    panel("choose_row", row=1)
    assert panel.state["is_going_on"]
    panel("stop")
    assert panel.asked["prompt_user_for_operation"]["params"] == {"run": "zs_classify_b"}
    panel("choose_row", row=0)
    assert not panel.state["is_going_on"]
    steps.close()
    assert form_of(context, scenes)["run_error"].invalid
