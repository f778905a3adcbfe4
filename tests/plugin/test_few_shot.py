"""The operator that learns from labelled samples, its form, and heads in the other forms."""

from __future__ import annotations

import fiftyone as fo
import fiftyone.operators as foo
import pytest

import zs_operators as zs
from tests.plugin_runs import execute, last_dialog, messages
from zs_operators.errors import InvalidInputError

POOR = {"circle": ["circle"], "star": ["a thing"], "cross": ["a sign"], "heart": ["a symbol"]}
LINES = "circle: circle\nstar: a thing\ncross: a sign\nheart: a symbol"
TYPED = {"class_names": LINES, "model": "shapes-tiny"}


@pytest.fixture
def uri():
    return "@zs/operators/few_shot"


@pytest.fixture
def shapes(scenes):
    """24 pictures with the shape of each; the names of three of four shapes say nothing."""
    names = [name.split()[1] for name in scenes.values("ground_truth.label")]
    scenes.set_values("shape", [fo.Classification(label=name) for name in names])
    return scenes


def invalid(properties):
    return {name: prop.error_message for name, prop in properties.items() if prop.invalid}


def test_the_form_says_what_there_is_to_learn_from(form, shapes, dataset):
    properties = form(shapes, {**TYPED, "ground_truth": "shape"})
    assert invalid(properties) == {}
    assert properties["ground_truth"].type.values == ["ground_truth", "shape"]
    counts = shapes.count_values("shape.label")
    known = sum(counts.get(name, 0) for name in POOR)
    has = [name for name in POOR if name in counts]
    label = properties["shots"].view.label
    assert label.startswith(f"{known} labelled samples of {len(has)} of 4 classes")
    assert f"{24 - known} labels of other classes" in properties["shots"].view.description
    assert properties["method"].type.values[0] == "auto"

    # labels of the default field are "red circle" and the like
    assert "shots_error" in invalid(form(shapes, TYPED))
    assert "overwrite" not in properties


def test_the_form_checks_the_name(form, shapes):
    params = {**TYPED, "ground_truth": "shape", "name": "mine"}
    zs.fit_head(shapes, POOR, "shape", name="mine", model="shapes-tiny", progress=False)
    properties = form(shapes, params)
    assert "already saved" in invalid(properties)["name"]
    assert "overwrite" in properties
    assert invalid(form(shapes, {**params, "overwrite": True})) == {}
    assert "name" in invalid(form(shapes, {**params, "name": "a.safetensors"}))


def test_without_labels_there_is_nothing_to_learn_from(form, dataset, pictures):
    dataset.add_sample(fo.Sample(filepath=pictures[0][0]))
    properties = form(dataset, TYPED)
    assert "Label some images" in invalid(properties)["ground_truth_error"]
    assert "class_names" not in properties


def test_a_run_in_the_app_ends_with_what_was_gained(operator, context, shapes):
    params = {**TYPED, "ground_truth": "shape", "name": "mine", "method": "kernel_ridge"}
    told = messages(operator, context(shapes, app=True, params=params))
    properties, text = last_dialog(told)
    assert "Learned from labelled samples" in text
    assert "on samples left out one by one" in text
    assert "saved as mine" in text
    assert {"accuracy", "classes"} <= set(properties)
    head = zs.load_head(shapes, "mine")
    assert (head.method, head.report.name) == ("kernel_ridge", "mine")
    assert head.columns == tuple(POOR)

    told = messages(operator, context(shapes, app=True, params=params))
    assert "already saved" in last_dialog(told)[1]


def test_from_a_script(shapes, uri):
    few_shot = foo.get_operator(uri)
    head = few_shot(shapes, POOR, "shape", name="one", model="shapes-tiny", progress=False)
    assert isinstance(head, zs.Head)
    params = {"classes": POOR, "ground_truth": "shape", "name": "two", "model": "shapes-tiny"}
    report = execute(uri, shapes, params)
    assert report["shots"] == dict(head.report.shots)
    assert zs.load_head(shapes, "two").digest == head.digest
    with pytest.raises(InvalidInputError, match="already saved"):
        few_shot(shapes, POOR, "shape", name="one", model="shapes-tiny")


def test_heads_that_fit_are_offered_where_labels_are_made(context, shapes):
    def offered(task, params):
        name = f"@zs/operators/{task}"
        resolved = foo.get_operator(name).resolve_type(context(shapes, params=params), "inputs")
        resolved.to_json()
        return resolved.type.properties

    assert "head" not in offered("classify", TYPED)
    zs.fit_head(shapes, POOR, "shape", name="mine", model="shapes-tiny", progress=False)
    for task in ("classify", "detect"):
        assert offered(task, TYPED)["head"].type.values == ["(none)", "mine"]
        other = offered(task, {**TYPED, "class_names": "circle\nsquare"})
        assert "head" not in other
        assert "mine" in other["head_notice"].view.label
        assert "head" not in offered(task, {**TYPED, "model": "clip-vit-b-32"})

    run = {**TYPED, "label_field": "by_head"}
    execute("@zs/operators/classify", shapes, {**run, "head": "mine"})
    record = shapes.get_run_info("zs_classify_by_head").config.serialize()
    assert record["head"] == zs.load_head(shapes, "mine").digest
    execute("@zs/operators/classify", shapes, {**run, "head": "(none)", "label_field": "plain"})
    assert "head" not in shapes.get_run_info("zs_classify_plain").config.serialize()
    assert shapes.values("plain.margin") != shapes.values("by_head.margin")
