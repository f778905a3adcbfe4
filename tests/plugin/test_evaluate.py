"""``@zs/operators/evaluate``: its form, its summary, and the ways to call it."""

from __future__ import annotations

import fiftyone as fo
import fiftyone.operators as foo
import pytest

import zs_operators as zs
from tests import plugin_runs
from tests.made_up_runs import CLASSES, guesses, record_run
from tests.plugin_runs import last_dialog, messages
from zs_operators.errors import FieldError

URI = "@zs/operators/evaluate"
PARAMS = {"predictions": "guess", "ground_truth": "truth", "eval_key": "ev"}


@pytest.fixture
def uri():
    return URI


@pytest.fixture
def photos(dataset):
    """Guesses, their truth, and two fields of boxes."""
    dataset.add_samples(guesses())
    record_run(dataset, "guess", CLASSES)
    for name in ("found", "objects"):
        dataset.add_sample_field(name, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    return dataset


def choices(properties, name):
    return [choice.value for choice in properties[name].view.choices]


def test_only_what_compares_is_offered(form, photos):
    properties = form(photos)
    assert choices(properties, "predictions")[0] == "guess"
    assert set(choices(properties, "predictions")) == {"guess", "truth", "found", "objects"}
    assert choices(properties, "ground_truth") == ["truth"]
    assert properties["eval_key"].default == "eval_guess"
    assert choices(form(photos, {"predictions": "found"}), "ground_truth") == ["objects"]
    # A choice from before, for other predictions, does not stand in the way
    both = form(photos, {"predictions": "found", "ground_truth": "truth"})
    assert choices(both, "ground_truth") == ["objects"]


def test_says_where_there_is_nothing_to_compare(form, dataset):
    dataset.add_sample(fo.Sample(filepath="/nowhere/a.png"))
    properties = form(dataset)
    assert "two fields" in properties["fields_error"].view.label
    assert properties["fields_error"].invalid
    assert form(None)["target_error"].invalid


def test_names_are_shown_before_the_run(form, photos):
    names = photos.values("truth.label")
    photos.set_values("truth.label", [{"bird": "Birds", "car": "boat"}.get(x, x) for x in names])
    properties = form(photos, PARAMS)
    assert properties["what"].view.label.startswith("60 of 60 samples, 4 classes")
    assert "bird (predictions) counts as Birds: plural" in properties["what"].view.description
    assert "'boat'" in properties["warning_0"].view.label
    mended = form(photos, {**PARAMS, "same_names": "car: boat"})
    assert "car (predictions) counts as boat: given" in mended["what"].view.description
    assert "warning_0" not in mended
    exact = form(photos, {**PARAMS, "matching": "exact"})
    assert "Birds" in exact["warning_0"].view.label


@pytest.mark.parametrize(
    ("params", "name", "message"),
    [
        ({"eval_key": "2nd"}, "eval_key", "not begin with a digit"),
        ({"eval_key": "guess"}, "eval_key", "is not of an evaluation"),
        ({"same_names": "car boat"}, "comparison_error", "a colon"),
        ({"comparison": {"top_k": 0}}, "comparison_error", "top_k=0"),
    ],
)
def test_what_is_wrong_is_said_while_typing(form, photos, params, name, message):
    found = form(photos, {**PARAMS, **params})[name]
    assert found.invalid
    assert message in found.error_message


def test_an_evaluation_that_exists(form, photos):
    zs.evaluate(photos, "guess", "truth", eval_key="ev")
    properties = form(photos, PARAMS)
    assert "'ev' exists" in properties["eval_key"].error_message
    assert "overwrite" in properties
    assert not form(photos, {**PARAMS, "overwrite": True})["eval_key"].invalid


def test_labels_without_ground_truth_cannot_be_evaluated(form, photos):
    photos.set_values("truth", [None] * 60)
    assert "0 have ground truth" in form(photos, PARAMS)["comparison_error"].error_message


def test_form_values_mean_the_same_as_arguments(photos):
    typed = {
        **PARAMS,
        "matching": "auto",
        "same_names": "bird: cat",
        "supported": "cat\ncar\n",
        "comparison": {"missing": "wrong", "top_k": 2},
    }
    scripted = {
        **PARAMS,
        "eval_key": "other",
        "names": {"bird": "cat"},
        "seen": ["cat", "car"],
        "missing": "wrong",
        "top_k": 2,
    }
    found = [plugin_runs.execute(URI, photos, params) for params in (typed, scripted)]
    same = ("metrics", "per_class", "split", "top_k", "names")
    for name in same:
        assert found[0][name] == found[1][name]
    assert zs.load_evaluation(photos, "ev").metrics == found[0]["metrics"]


def test_called_on_a_view(operator, photos):
    report = operator(photos.limit(40), "guess", "truth", eval_key="ev", seen=["car"])
    assert report.counts["evaluated"] == 40
    assert zs.load_evaluation(photos, "ev") == report
    with pytest.raises(FieldError, match="do not compare"):
        operator(photos, "guess", "objects", eval_key="other")


def test_summary_in_the_app(operator, context, photos):
    told = messages(operator, context(photos, app=True, params={**PARAMS, "supported": "bird"}))
    report = zs.load_evaluation(photos, "ev")
    properties, text = last_dialog(told)
    assert f"{report.metrics['accuracy']:.3f} accuracy on 60 samples" in text
    assert "guess against truth, kept as ev" in text
    assert "pre-training" in text
    dialog = [body["params"] for body in told if body["operator_uri"] == "show_output"][-1]
    numbers = {row["number"]: row["value"] for row in dialog["results"]["numbers"]}
    assert numbers["harmonic mean"] == f"{report.split.harmonic_mean:.3f}"
    assert numbers["AUSUC"] == f"{report.split.stacking.ausuc:.3f}"
    worst = min(report.per_class, key=lambda row: row.f1)
    assert dialog["results"]["classes"][0]["label"] == worst.label
    assert properties["open_ev"]["view"]["params"] == {"eval_key": "ev"}


def test_an_error_in_the_app_keeps_nothing(operator, context, photos):
    told = messages(operator, context(photos, app=True, params={**PARAMS, "top_k": 0}))
    _, text = last_dialog(told)
    assert "top_k=0" in text
    assert photos.list_evaluations() == []


def test_button_opens_the_panel_on_the_evaluation(context, photos):
    zs.evaluate(photos, "guess", "truth", eval_key="ev")
    opener = foo.get_operator("@zs/operators/open_evaluation")
    ctx = context(photos, params={"eval_key": "ev"})
    opener.execute(ctx)
    (request,) = ctx.executor.to_json()["requests"]
    assert request["params"]["name"] == "model_evaluation_panel_builtin"
    view = request["params"]["state"]["state"]["view"]
    photos.reload()
    assert (view["page"], view["key"]) == ("evaluation", "ev")
    assert view["id"] == str(photos._doc.evaluations["ev"].id)
    gone = context(photos, params={"eval_key": "gone"})
    opener.execute(gone)
    (request,) = gone.executor.to_json()["requests"]
    assert "no longer there" in request["params"]["message"]
