"""Forms offer the settings of their last run on the same dataset."""

from __future__ import annotations

import fiftyone as fo
import pytest

from tests.plugin_runs import execute, messages

SETTINGS = {
    "class_names": "red circle\nblue star",
    "model": "shapes-tiny",
    "templates": "custom",
    "custom_templates": "{}",
    "label_field": "shapes",
    "rejection": {"min_margin": 0.25},
    "overwrite": True,
    "save_as": "words of this run",
}


@pytest.fixture
def ran(operator, context, scenes):
    """Scenes that the form has classified."""
    messages(operator, context(scenes, app=True, params=SETTINGS))
    return scenes


def test_what_was_chosen_is_the_default_next_time(form, ran):
    inputs = form(ran)
    for name in ("class_names", "model", "label_field"):
        assert inputs[name].default == SETTINGS[name]
    # an input that only some settings bring up is filled when it comes up
    assert form(ran, {"templates": "custom"})["custom_templates"].default == "{}"
    assert inputs["rejection"].type.properties["min_margin"].default == 0.25
    assert next(iter(inputs)) == "remembered"
    assert "Least margin 0.25" in inputs["remembered"].view.description


def test_what_may_replace_or_name_something_is_asked_again(form, ran):
    inputs = form(ran, {"class_names": "heart", "label_field": "shapes"})
    assert not inputs["overwrite"].default
    assert inputs["save_as"].default is None


def test_another_dataset_starts_anew(form, ran):
    other = fo.Dataset()
    other.add_samples([fo.Sample(filepath=path) for path in ran.values("filepath")])
    try:
        inputs = form(other)
        assert "remembered" not in inputs
        assert inputs["class_names"].default is None
    finally:
        other.delete()


def test_a_choice_that_is_gone_is_not_offered(operator, context, form, scenes):
    params = {**SETTINGS, "class_source": "field", "class_field": "ground_truth"}
    messages(operator, context(scenes, app=True, params=params))
    assert form(scenes, {"class_source": "field"})["class_field"].default == "ground_truth"
    scenes.rename_sample_field("ground_truth", "truth")
    assert form(scenes, {"class_source": "field"})["class_field"].default is None


def test_scripts_leave_no_settings(form, scenes):
    execute("@zs/operators/classify", scenes, SETTINGS)
    assert "remembered" not in form(scenes)
