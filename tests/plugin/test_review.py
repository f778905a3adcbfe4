"""The review operator: its form, and what its actions do."""

from __future__ import annotations

import csv

import fiftyone as fo
import fiftyone.operators as foo
import pytest

from tests import plugin_runs
from zs_operators.errors import InvalidInputError

URI = "@zs/operators/review"


@pytest.fixture
def uri():
    return URI


@pytest.fixture
def labelled(scenes):
    names = scenes.values("ground_truth.label")
    scenes.set_values(
        "said",
        [
            fo.Classification(label=name, confidence=0.9, margin=number / 4)
            for number, name in enumerate(names)
        ],
    )
    scenes.add_dynamic_sample_fields()
    return scenes


def run(samples, **params):
    return plugin_runs.execute(URI, samples, {"label_field": "said", **params})


def test_the_form_asks_for_what_an_action_needs(form, labelled, dataset):
    inputs = form(labelled, {"label_field": "said"})
    assert {"label_field", "action", "kinds", "limit", "tag"} <= inputs.keys()
    assert not inputs["kinds"].invalid
    assert inputs["kinds"].default == ["low_margin"]  # nothing was ever rejected
    asked = {"label_field": "said", "kinds": ["confident_mistakes"]}
    inputs = form(labelled, asked)
    assert inputs["ground_truth"].invalid
    assert not form(labelled, {**asked, "ground_truth": "ground_truth"})["ground_truth"].invalid
    assert form(labelled, {"kinds": []})["kinds"].invalid

    mark = {"label_field": "said", "action": "mark"}
    assert "name" not in form(labelled, mark)
    inputs = form(labelled, {**mark, "verdict": "name"})
    assert inputs["name"].invalid
    assert not form(labelled, {**mark, "verdict": "name", "name": "cat"})["name"].invalid
    assert form(labelled, {"action": "export"})["path"].default.endswith("-reviewed.csv")


def test_without_labels_there_is_nothing_to_review(form, scenes):
    scenes.delete_sample_field("ground_truth")
    assert form(scenes)["field_error"].invalid


def test_from_suspicious_to_exported(labelled, tmp_path):
    said = run(labelled, action="tag", kinds=["low_margin"], limit=3)
    assert said["label"] == "3 close calls"
    doubtful = labelled.match_tags("zs_review")
    assert len(doubtful) == 3
    ids = doubtful.values("id")
    right = plugin_runs.execute(
        URI,
        labelled,
        {
            "label_field": "said",
            "action": "mark",
            "verdict": "right",
            "view_target": "SELECTED_SAMPLES",
        },
        selected=ids[:2],
    )
    assert right["label"] == "2 labels reviewed, 0 of them corrected"
    named = run(doubtful, action="mark", verdict="name", name="cow", overwrite=False)
    assert named["label"].startswith("1 labels reviewed, 1")
    assert labelled.select(ids).values("zs_reviewed.label")[2] == "cow"
    assert not labelled.match_tags("zs_review")
    path = tmp_path / "reviewed.csv"
    said = run(labelled, action="export", path=str(path))
    assert said["label"] == "3 reviewed labels written"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["wins"] for row in rows] == ["prediction", "prediction", "correction"]


def test_it_is_a_function_too(labelled, tmp_path):
    review = foo.get_operator(URI)
    assert review(labelled, "tag", label_field="said").counts == {"low_margin": 5}
    assert review(labelled.limit(1), "mark", label_field="said", discard=True).corrected == 1
    assert review(labelled, "export", label_field="said", path=tmp_path / "a.json") == 1
    with pytest.raises(InvalidInputError, match="none of"):
        review(labelled, "guess", label_field="said")


def test_in_the_app_an_error_is_shown(operator, context, labelled):
    params = {"label_field": "said", "action": "mark", "name": "cat", "discard": True}
    result = operator.execute(context(labelled, app=True, params=params))
    assert "not both" in result["error"]
    ctx = context(labelled, app=True, params=params, results=result)
    views = operator.resolve_output(ctx).type.properties
    assert "not both" in views["result"].view.description


def test_the_app_shows_what_was_tagged(operator, context, labelled):
    params = {"label_field": "said", "action": "tag", "kinds": ["low_margin"]}
    ctx = context(labelled, app=True, params=params)
    operator.execute(ctx)
    (stages,) = [
        call.params["view"]
        for call in ctx.executor._requests
        if call.operator_uri.endswith("set_view")
    ]
    shown = fo.DatasetView._build(labelled, stages)
    assert set(shown.values("id")) == set(labelled.match_tags("zs_review").values("id"))
