"""Runs of ``@zs/operators/classify``: called, scripted, delegated, and streamed to the App."""

from __future__ import annotations

import asyncio
import sys

import pytest
from bson import ObjectId

from tests.plugin_runs import each_message, messages

CLASSES = ["cyan circle", "purple circle", "red heart", "orange star"]
PARAMS = {"classes": CLASSES, "model": "shapes-tiny", "label_field": "shape"}
URI = "@zs/operators/classify"


def dialogs(told):
    return [body["params"] for body in told if body["operator_uri"] == "show_output"]


def texts(dialog):
    """Labels and descriptions of everything in a dialog."""
    properties = dialog["outputs"]["type"]["properties"]
    views = [prop["view"] for prop in properties.values()]
    return [text for view in views for text in (view["label"], view["description"]) if text]


def test_called_on_a_view(operator, scenes):
    report = operator(scenes.limit(3), CLASSES, model="shapes-tiny", label_field="shape")
    assert report.counts == {"labeled": 3}
    assert scenes.exists("shape").values("id") == scenes.limit(3).values("id")
    assert scenes.limit(3).values("shape.label") == scenes.limit(3).values("ground_truth.label")


def test_called_where_an_event_loop_is_running(operator, scenes):
    async def cell():
        return operator(scenes, CLASSES, model="shapes-tiny", label_field="shape")

    assert asyncio.run(cell()).counts == {"labeled": 24}


def test_called_with_something_unusable(operator, scenes):
    from zs_operators.errors import FieldError

    with pytest.raises(FieldError, match="reserved"):
        operator(scenes, CLASSES, model="shapes-tiny", label_field="filepath")


def test_executed_from_a_script(scenes):
    import fiftyone.operators as foo

    result = foo.execute_operator(URI, {"dataset": scenes, "params": PARAMS})
    assert result.result["counts"] == {"labeled": 24}
    assert scenes.count("shape.label") == 24


def test_executed_on_the_selection(scenes):
    import fiftyone.operators as foo

    ids = scenes.skip(5).limit(2).values("id")
    params = {**PARAMS, "view_target": "SELECTED_SAMPLES"}
    foo.execute_operator(URI, {"dataset": scenes, "params": params, "selected": ids})
    assert scenes.exists("shape").values("id") == ids


def test_executed_on_the_samples_of_selected_labels(scenes):
    import fiftyone.operators as foo

    sample = scenes.skip(7).first()
    label = {"label_id": sample.ground_truth.id, "sample_id": sample.id, "field": "ground_truth"}
    params = {**PARAMS, "view_target": "SELECTED_LABELS"}
    foo.execute_operator(URI, {"dataset": scenes, "params": params, "selected_labels": [label]})
    assert scenes.exists("shape").values("id") == [sample.id]
    assert scenes.count("ground_truth") == 24


def test_form_values_mean_the_same_as_arguments(scenes):
    import fiftyone.operators as foo

    typed = {
        "class_names": "\n".join(CLASSES),
        "model": "shapes-tiny",
        "label_field": "typed",
        "templates": "custom",
        "custom_templates": "a {}\na drawing of a {}",
        "rejection": {"min_confidence": 0.5, "background": "a potato", "reject_label": "none"},
        "output": {"store_logits": True, "multi_label": False, "top_k": None},
        "performance": {"batch_size": 5, "device": "cpu", "precision": "fp32"},
    }
    scripted = {
        **PARAMS,
        "label_field": "scripted",
        "templates": ["a {}", "a drawing of a {}"],
        "background": ["a potato"],
        "min_confidence": 0.5,
        "reject_label": "none",
        "store_logits": True,
        "precision": "fp32",
        "batch_size": 5,
    }
    for params in (typed, scripted):
        foo.execute_operator(URI, {"dataset": scenes, "params": params})
    for attribute in ("label", "confidence", "rejected_by"):
        assert scenes.values(f"typed.{attribute}") == scenes.values(f"scripted.{attribute}")
    assert all(len(logits) == 4 for logits in scenes.values("typed.logits"))
    runs = [scenes.get_run_info(f"zs_classify_{name}").config for name in ("typed", "scripted")]
    assert runs[0].signature == runs[1].signature


def test_form_errors_are_raised_in_a_script(scenes):
    import fiftyone.operators as foo
    from fiftyone.operators.executor import ExecutionError

    with pytest.raises(ExecutionError, match="at least one class name"):
        foo.execute_operator(URI, {"dataset": scenes, "params": {"model": "shapes-tiny"}})


def test_run_errors_are_raised_in_a_script(scenes):
    import fiftyone.operators as foo
    from fiftyone.operators.executor import ExecutionError

    params = {**PARAMS, "on_error": "ignore"}
    with pytest.raises(ExecutionError, match="on_error='ignore' is unknown"):
        foo.execute_operator(URI, {"dataset": scenes, "params": params})


def test_delegated_run(operator, scenes):
    from fiftyone.operators.delegated import DelegatedOperationService

    queued = operator(
        scenes.limit(4), CLASSES, model="shapes-tiny", label_field="shape", delegate=True
    )
    assert not scenes.has_field("shape")
    service = DelegatedOperationService()
    service.execute_operation(service.get(ObjectId(queued)))
    done = service.get(ObjectId(queued))
    assert done.run_state == "completed"
    assert done.status.progress == 1.0
    assert "4 of 4 images" in done.status.label
    assert scenes.exists("shape").values("id") == scenes.limit(4).values("id")
    assert done.result.result["counts"] == {"labeled": 4}


def test_delegated_run_in_a_notebook(operator, scenes):
    async def cell():
        return operator(scenes, CLASSES, model="shapes-tiny", delegate=True)

    assert isinstance(asyncio.run(cell()), str)


def test_delegated_run_that_fails_says_why(operator, scenes):
    from fiftyone.operators.delegated import DelegatedOperationService

    for sample in scenes.iter_samples(autosave=True):
        sample.filepath = sample.filepath + ".gone.png"
    queued = operator(scenes, CLASSES, model="shapes-tiny", label_field="shape", delegate=True)
    service = DelegatedOperationService()
    service.execute_operation(service.get(ObjectId(queued)))
    done = service.get(ObjectId(queued))
    assert done.run_state == "failed"
    assert "missing_media" in done.result.error


def test_delegated_run_stops_when_it_is_marked_as_failed(operator, scenes, monkeypatch):
    from fiftyone.operators.delegated import DelegatedOperationService
    from fiftyone.operators.executor import ExecutionContext

    from zs_operators import runner

    running = sys.modules[type(operator).__module__.rpartition(".")[0] + ".running"]
    monkeypatch.setattr(running, "SECONDS_BETWEEN_CANCEL_CHECKS", 0)
    monkeypatch.setattr(runner, "CHUNK_SAMPLES", 1)
    service = DelegatedOperationService()
    queued = operator(
        scenes, CLASSES, model="shapes-tiny", label_field="shape", batch_size=1, delegate=True
    )
    set_progress = ExecutionContext.set_progress

    def and_fail_after_three(ctx, progress=None, label=None):
        set_progress(ctx, progress, label)
        if progress and progress >= 3 / 24:
            service.set_failed(ObjectId(queued))

    monkeypatch.setattr(ExecutionContext, "set_progress", and_fail_after_three)
    service.execute_operation(service.get(ObjectId(queued)))
    assert 3 <= scenes.count("shape") < 24
    assert scenes.get_run_info("zs_classify_shape").config.state == "cancelled"


def test_objects_cannot_be_delegated(operator, scenes):
    from zs_operators import Vocabulary
    from zs_operators.errors import InvalidInputError

    with pytest.raises(InvalidInputError, match="as JSON"):
        operator(scenes, Vocabulary.parse(CLASSES), delegate=True)


def test_app_sees_progress_then_a_summary(operator, scenes, context):
    told = messages(operator, context(scenes, app=True, params=PARAMS))
    shown = dialogs(told)
    assert "Preparing" in " ".join(texts(shown[0]))
    assert "24 of 24 images have a label in shape" in " ".join(texts(shown[-1])).replace("\\", "")
    assert sum(int(row["images"]) for row in shown[-1]["results"]["labels"]) == 24
    assert "reload_dataset" in [body["operator_uri"] for body in told]


def test_same_run_again_says_that_nothing_is_left(operator, scenes, context):
    for _ in range(2):
        told = messages(operator, context(scenes, app=True, params=PARAMS))
    shown = " ".join(texts(dialogs(told)[-1]))
    assert "Nothing left to do" in shown
    assert "24 were done by an earlier run" in shown


def test_embeddings_of_an_earlier_run_are_reused(operator, scenes, context, tmp_path, monkeypatch):
    import fiftyone.operators as foo

    monkeypatch.setenv("ZS_STORE_DIR", str(tmp_path))
    reused = []
    for kept in ("off", "reuse", "reuse", "refresh"):
        params = {**PARAMS, "label_field": f"shape_{len(reused)}"}
        params["performance"] = {"embeddings": kept}
        request = {"dataset": scenes, "view": scenes.limit(5), "params": params}
        reused.append(foo.execute_operator(URI, request).result["reused"])
    assert reused == [0, 0, 5, 0]
    assert scenes.values("shape_1.label") == scenes.values("shape_2.label")
    params = {**PARAMS, "performance": {"embeddings": "reuse"}}
    told = messages(operator, context(scenes, app=True, params=params))
    assert "embeddings of 5 images were reused" in " ".join(texts(dialogs(told)[-1]))


def test_app_is_told_of_an_error_that_ends_the_run(operator, scenes, context):
    ctx = context(scenes, app=True, params={**PARAMS, "label_field": "filepath"})
    told = messages(operator, ctx)
    assert "reserved" in " ".join(texts(dialogs(told)[-1]))
    (toast,) = [body["params"] for body in told if body["operator_uri"] == "notify"]
    assert toast["variant"] == "error"
    assert "reserved" in toast["message"]


def test_app_gets_the_traceback_of_a_surprise(operator, scenes, context, monkeypatch):
    import zs_operators

    def surprise(*args, **kwargs):
        raise RuntimeError("the floor is lava")
        yield

    monkeypatch.setattr(zs_operators, "iter_classify", surprise, raising=False)
    told = messages(operator, context(scenes, app=True, params=PARAMS))
    dialog = dialogs(told)[-1]
    assert "the floor is lava" in " ".join(texts(dialog))
    assert "in surprise" in dialog["outputs"]["type"]["properties"]["traceback"]["default"]


def test_app_without_a_dataset_is_told_so(operator, context):
    told = messages(operator, context(app=True, params=PARAMS))
    assert "no dataset" in " ".join(texts(dialogs(told)[-1]))


def test_stopped_from_the_app(operator, scenes, context, monkeypatch):
    from zs_operators import runner

    monkeypatch.setattr(runner, "CHUNK_SAMPLES", 4)
    params = {**PARAMS, "batch_size": 4}
    stream = each_message(operator, context(scenes, app=True, params=params))
    first = next(stream)["params"]
    button = first["outputs"]["type"]["properties"]["stop"]["view"]
    next(stream)

    import fiftyone.operators as foo

    stop = context(scenes, params=button["params"])
    foo.get_operator(button["operator"]).execute(stop)
    assert "Stopped after" in " ".join(texts(dialogs(list(stream))[-1]))
    assert 0 < scenes.count("shape") < 24
    record = scenes.get_run_info("zs_classify_shape").config
    assert record.state == "cancelled"
    assert sum(record.report["counts"].values()) == scenes.count("shape")


def test_buttons_of_the_summary_show_the_samples(operator, scenes, context, tmp_path):
    import fiftyone as fo
    import fiftyone.operators as foo

    sample = scenes.first()
    sample.filepath = str(tmp_path / "gone.png")
    sample.save()
    params = {**PARAMS, "min_confidence": 0.999}
    told = messages(operator, context(scenes, app=True, params=params))
    properties = dialogs(told)[-1]["outputs"]["type"]["properties"]
    found = {}
    for kind in ("failed", "rejected", "uncertain"):
        button = properties[f"show_{kind}"]["view"]
        ctx = context(scenes, params=button["params"])
        foo.get_operator(button["operator"]).execute(ctx)
        triggered = {r.operator_uri: r.params for r in ctx.executor._requests}
        stages = triggered["set_view"]["view"]
        found[kind] = fo.DatasetView._build(scenes, stages)
    assert found["failed"].values("id") == [sample.id]
    assert set(found["rejected"].distinct("shape.rejected_by")) == {"confidence"}
    margins = found["uncertain"].values("shape.margin")
    assert margins == sorted(margins)
    counts = [len(view) for view in found.values()]
    assert sum(counts) == 24
    assert f"Show {counts[1]:,} rejected" == properties["show_rejected"]["view"]["label"]


def test_placement_costs_nothing(operator, context):
    placement = operator.resolve_placement(context())
    assert placement.to_json()["place"] == "samples-grid-secondary-actions"
