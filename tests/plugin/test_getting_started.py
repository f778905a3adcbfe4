"""The panel that says where to begin."""

from __future__ import annotations

import fiftyone.operators as foo
import pytest

from tests.plugin_panels import Panel
from zs_operators.checks import Check


@pytest.fixture
def uri():
    return "@zs/operators/getting_started"


@pytest.fixture
def panel(operator, context, scenes):
    return Panel(operator, context, scenes)


def test_without_a_dataset_it_says_how_to_get_one(operator, context):
    empty = Panel(operator, context, None)
    assert "zs demo" in empty.inputs["about"]["default"]
    assert "step_classify" not in empty.inputs


def test_every_form_and_panel_it_names_exists(panel):
    buttons = [
        button["view"]
        for name, row in panel.inputs.items()
        if name.startswith(("step_", "panels"))
        for button in row["type"]["properties"].values()
        if button["view"]["name"] == "Button"
    ]
    assert len(buttons) == 9
    for view in buttons:
        given = view["params"]
        assert foo.get_operator(f"@zs/operators/{given.get('operator') or given['panel']}")
    panel("open_form", operator="classify")
    asked = panel.asked["prompt_user_for_operation"]
    assert asked["operator_uri"] == "@zs/operators/classify"
    panel("open_panel", panel="prompt_lab")
    assert panel.asked["open_panel"]["name"] == "prompt_lab"


def test_models_that_can_run_are_listed(panel, monkeypatch):
    # tests are offline: what would have to be downloaded cannot run
    text = panel.inputs["models"]["default"]
    assert "- Text and images: shapes-tiny; " in text
    assert "need something first" in text
    assert "downloaded when" not in text
    monkeypatch.setattr("zs_operators.model_state.is_offline", lambda: False)
    assert "downloaded when chosen" in panel("on_load").inputs["models"]["default"]


def test_it_tells_labels_from_none(panel, scenes):
    assert r"labels in ground\_truth" in panel.inputs["about"]["default"]
    scenes.delete_sample_field("ground_truth")
    assert "no labels yet" in panel("on_change_dataset").inputs["about"]["default"]


def test_checks_show_what_is_wrong_and_what_mends_it(panel, monkeypatch):
    rows = (
        Check("python", "ok", "3.11"),
        Check("disk", "warning", "1 GB free", advice="free some space"),
    )
    monkeypatch.setattr("zs_operators.checks.check_all", lambda: rows)
    shown = panel("check").inputs["checks_text"]["default"]
    assert "1 of 2 checks passed" in shown
    assert "free some space" in shown
    assert "python" not in shown
    monkeypatch.setattr("zs_operators.checks.check_all", lambda: rows[:1])
    assert "All 1 checks passed" in panel("check").inputs["checks_text"]["default"]
