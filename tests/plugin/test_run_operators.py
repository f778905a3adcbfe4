"""The operators on runs: called, from a script by their names, and their forms."""

from __future__ import annotations

import base64
import json

import fiftyone.operators as foo
import pytest
from bson import ObjectId
from fiftyone.operators.executor import ExecutionError

import zs_operators as zs
from tests.plugin_runs import execute, last_dialog, messages, view_set
from zs_operators.run_history import exported

FAST = {"model": "shapes-tiny", "precision": "fp32", "progress": False}
COMPARE, DELETE, RERUN, EXPORT, IMPORT = (
    f"@zs/operators/{name}"
    for name in ("compare_runs", "delete_run", "rerun", "export_run", "import_run")
)


@pytest.fixture
def two_runs(scenes):
    zs.classify(scenes, ["circle", "heart", "star"], label_field="a", embeddings="reuse", **FAST)
    zs.classify(scenes, ["circle", "square"], label_field="b", embeddings="reuse", **FAST)
    return scenes


def form_of(uri, context, dataset, **params):
    operator = foo.get_operator(uri)
    resolved = operator.resolve_type(context(dataset, params=params), "inputs")
    resolved.to_json()
    return resolved.type.properties


def offered(prop):
    return [choice.value for choice in prop.view.choices]


def test_they_are_functions(two_runs, tmp_path):
    found = foo.get_operator(COMPARE)(two_runs, run_a="a", run_b="zs_classify_b")
    assert found.to_dict()["flips"]
    again = foo.get_operator(RERUN)(two_runs, run="a", label_field="c", progress=False)
    assert again.counts == {"labeled": len(two_runs)}
    assert foo.get_operator(RERUN)(two_runs.limit(2), "a", label_field="d", progress=False)
    assert two_runs.count("d") == 2
    file = foo.get_operator(EXPORT)(two_runs, run="c", path=tmp_path)
    done = foo.get_operator(DELETE)(two_runs, run=zs.load_run(two_runs, "c"), fields=True)
    assert done.fields == ("c",)
    assert foo.get_operator(IMPORT)(two_runs, path=file).key == "zs_classify_c"


def test_scripts_call_them_by_name(two_runs, tmp_path):
    found = execute(COMPARE, two_runs, {"run_a": "a", "run_b": "b"})
    assert found["agreement"] < 1
    report = execute(RERUN, two_runs, {"run": "a", "label_field": "c", "min_margin": 0.5})
    assert sum(report["counts"].values()) == len(two_runs)
    assert zs.load_run(two_runs, "c").parameters["min_margin"] == 0.5
    file = execute(EXPORT, two_runs, {"run": "c", "path": str(tmp_path)})["path"]
    assert execute(DELETE, two_runs, {"run": "c", "fields": True})["fields"] == ["c"]
    assert not two_runs.has_field("c")
    assert execute(IMPORT, two_runs, {"path": file}) == {"run": "zs_classify_c"}
    content = base64.b64encode(json.dumps(exported(zs.load_run(two_runs, "b"))).encode()).decode()
    uploaded = {"file": {"name": "b.json", "content": content}, "overwrite": True}
    assert execute(IMPORT, two_runs, uploaded) == {"run": "zs_classify_b"}


def test_what_is_wrong_is_said(two_runs):
    for uri, params, message in (
        (COMPARE, {"run_a": "a", "run_b": "nothing"}, "no run 'nothing'"),
        (DELETE, {"run": "nothing"}, "no run 'nothing'"),
        (EXPORT, {"run": "a"}, "path is missing"),
        (IMPORT, {}, "Choose the .json"),
        (IMPORT, {"file": {"name": "x", "content": "e30"}}, "x is not JSON"),
    ):
        with pytest.raises(ExecutionError, match=message):
            execute(uri, two_runs, params)


def test_forms_offer_the_runs_there_are(two_runs, context):
    inputs = form_of(COMPARE, context, two_runs)
    assert offered(inputs["run_b"]) == ["zs_classify_b", "zs_classify_a"]
    for uri in (DELETE, RERUN, EXPORT):
        assert offered(form_of(uri, context, two_runs)["run"]) == offered(inputs["run_a"])
    inputs = form_of(DELETE, context, two_runs, run="zs_classify_a")
    assert "24 images in a" in inputs["fields"].view.description
    inputs = form_of(RERUN, context, two_runs, run="zs_classify_a")
    assert inputs["label_field"].default == "a"
    assert "run_error" not in inputs
    assert not form_of(IMPORT, context, two_runs)["path"].invalid


def test_forms_without_runs_say_so(scenes, context):
    for uri in (COMPARE, DELETE, RERUN, EXPORT):
        inputs = form_of(uri, context, scenes)
        assert any(prop.invalid for prop in inputs.values())
        assert any(prop.invalid for prop in form_of(uri, context, None).values())
    assert any(prop.invalid for prop in form_of(IMPORT, context, None).values())


def test_a_run_that_cannot_be_repeated_is_refused_in_the_form(two_runs, context):
    content = exported(zs.load_run(two_runs, "b"))
    content["record"]["model_details"]["weights"]["state"] = "random"
    zs.import_run(two_runs, content, overwrite=True)
    inputs = form_of(RERUN, context, two_runs, run="zs_classify_b")
    assert inputs["run_error"].invalid


def test_the_app_shows_what_changed(two_runs, context):
    operator = foo.get_operator(COMPARE)
    request = context(two_runs, app=True, params={"run_a": "a", "run_b": "b"})
    results = operator.execute(request)
    (call,) = request.executor._requests
    assert len(view_set(two_runs, [{"operator_uri": "set_view", "params": call.params}])) == len(
        results["changed_ids"]
    )
    assert "agreement" in results["summary"]


def test_an_evaluation_is_repeated(two_runs, context):
    zs.evaluate(two_runs, "a", "ground_truth", eval_key="e")
    inputs = form_of(RERUN, context, two_runs, run="zs_evaluate_e")
    assert inputs["eval_key"].default == "e"
    params = {"run": "zs_evaluate_e", "eval_key": "e", "overwrite": True}
    told = messages(foo.get_operator(RERUN), context(two_runs, app=True, params=params))
    (dialog,) = [body["params"] for body in told if body["operator_uri"] == "show_output"][-1:]
    assert "report" in dialog["outputs"]["type"]["properties"]
    assert len(zs.runs(two_runs)) == 3


def test_a_queued_repetition_is_of_its_samples(two_runs):
    from fiftyone.operators.delegated import DelegatedOperationService

    service = DelegatedOperationService()
    rerun = foo.get_operator(RERUN)
    for samples, name, count in ((two_runs, "whole", 24), (two_runs.limit(3), "part", 3)):
        queued = rerun(samples, "a", delegate=True, label_field=name)
        service.execute_operation(service.get(ObjectId(queued)))
        two_runs.reload()
        assert two_runs.count(name) == count


def test_the_app_watches_a_repetition(two_runs, context):
    params = {"run": "zs_classify_a", "label_field": "a", "overwrite": True}
    told = messages(foo.get_operator(RERUN), context(two_runs, app=True, params=params))
    _, text = last_dialog(told)
    assert "24 of 24 images have a label in a" in text
    params = {"run": "zs_classify_a", "label_field": "a"}
    told = messages(foo.get_operator(RERUN), context(two_runs, app=True, params=params))
    assert "Nothing left to do" in last_dialog(told)[1]
