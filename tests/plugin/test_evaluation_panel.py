"""The evaluation panel's methods, called as the App calls them."""

from __future__ import annotations

import fiftyone as fo
import pytest

import zs_operators as zs
from tests.plugin_panels import Panel


@pytest.fixture
def uri():
    return "@zs/operators/zs_evaluation"


@pytest.fixture
def evaluated(scenes):
    """24 images whose predictions are one step of the alphabet off for each third."""
    truth = scenes.values("ground_truth.label")
    names = sorted(set(truth))
    said = []
    for number, name in enumerate(truth):
        wrong = names[(names.index(name) + 1) % len(names)]
        said.append(
            fo.Classification(
                label=name if number % 3 else wrong, confidence=0.5 + number / 60, margin=number / 6
            )
        )
    scenes.set_values("said", said)
    scenes.add_dynamic_sample_fields()
    zs.evaluate(scenes, "said", "ground_truth", eval_key="first", progress=False)
    return scenes


@pytest.fixture
def panel(operator, context, evaluated):
    return Panel(operator, context, evaluated)


def test_without_an_evaluation_one_can_be_made(operator, context, scenes):
    panel = Panel(operator, context, scenes)
    assert "nothing" in panel.inputs
    panel("evaluate")
    prompt = panel.asked["prompt_user_for_operation"]
    assert prompt["operator_uri"] == "@zs/operators/evaluate"


def test_every_cell_and_bar_shows_what_it_counts(panel, evaluated):
    (cells,) = panel.drawn("confusion")
    filled = 0
    for row, truth in enumerate(cells["y"]):
        for column, label in enumerate(cells["x"]):
            panel("show_confusion", x=label, y=truth, z=cells["z"][row][column])
            if not cells["z"][row][column]:
                assert "set_view" not in panel.asked
                continue
            filled += 1
            found = evaluated.select(panel.shown(evaluated))
            assert len(found) == cells["z"][row][column]
            assert set(found.values("ground_truth.label")) == {truth}
            assert set(found.values("said.label")) == {label}
    assert filled > 5

    bars, line = panel.drawn("reliability")
    assert line["y"] == [0, 1]
    counts = [int(text.split()[0]) for text in bars["text"]]
    assert sum(counts) == len(evaluated)
    for index, count in enumerate(counts):
        panel("show_reliability", idx=index)
        assert len(panel.shown(evaluated)) == count if count else "set_view" not in panel.asked


def test_rows_show_what_a_class_lost_and_took(panel, evaluated):
    rows = panel.drawn("classes")
    report = zs.load_evaluation(evaluated, "first")
    assert [row["label"] for row in rows[:1]] == [
        min(
            (row for row in report.per_class if row.support or row.num_predicted),
            key=lambda row: (row.f1 or 0.0, -row.support, row.label),
        ).label
    ]
    for number, row in enumerate(rows):
        found = report.of(row["label"])
        for method, count in (
            ("show_missed", found.support - found.num_right),
            ("show_taken", found.num_predicted - found.num_right),
        ):
            panel(method, row=number)
            assert len(panel.shown(evaluated)) == count if count else "set_view" not in panel.asked


def test_buttons_show_and_save_kinds_of_errors(panel, evaluated):
    kinds = [kind for kind, _ in panel.state["kinds"]]
    assert kinds == ["confident_mistakes", "low_margin"]
    panel("show_kind", kind="confident_mistakes")
    assert len(panel.shown(evaluated)) == 8
    panel("save_views")
    evaluated.reload()
    assert evaluated.list_saved_views() == ["said: confident mistakes", "said: close calls"]
    assert "2 views" in panel.asked["notify"]["message"]
    panel("show_all")
    assert "clear_view" in panel.asked
    panel("open_model_evaluation")
    opened = panel.asked["open_panel"]
    assert opened["name"] == "model_evaluation_panel_builtin"
    assert opened["state"]["view"]["key"] == "first"


def test_another_evaluation_is_drawn_under_another_name(panel, evaluated):
    before = panel.state["parts"]["confusion"]
    zs.evaluate(evaluated.limit(3), "said", "ground_truth", eval_key="few", progress=False)
    panel("look_again")
    assert panel.state["keys"] == ["few", "first"]
    panel.state["eval_key"] = "few"
    panel("choose")
    assert panel.state["parts"]["confusion"] != before
    (cells,) = panel.drawn("confusion")
    assert sum(map(sum, cells["z"])) == 3
    panel("show_kind", kind="confident_mistakes")
    assert len(panel.shown(evaluated)) == 1
    assert set(panel.state["parts"].values()) <= panel.inputs.keys()


def test_an_opening_that_ends_after_a_choice_does_not_undo_it(operator, context, evaluated):
    zs.evaluate(evaluated.limit(3), "said", "ground_truth", eval_key="few", progress=False)
    panel = Panel(operator, context, evaluated)
    as_opened = {**panel.state, "eval_key": None}
    assert panel.state["eval_key"] == "first"
    panel.state["eval_key"] = "few"
    panel("choose")
    panel("on_load", panel_state=as_opened)
    assert panel.state["eval_key"] == "few"


def test_what_went_away_is_a_message(panel, evaluated):
    evaluated.delete_evaluation("first")
    evaluated.delete_run("zs_evaluate_first")
    panel("show_kind", kind="confident_mistakes")
    assert "no evaluation" in panel.state["message"]
