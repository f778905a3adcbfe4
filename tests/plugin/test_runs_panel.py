"""The panel of runs, its methods called as the App calls them."""

from __future__ import annotations

import base64
import copy
import json
import uuid

import pytest

import zs_operators as zs

FAST = {"model": "shapes-tiny", "precision": "fp32", "progress": False}


@pytest.fixture
def uri():
    return "@zs/operators/zs_runs"


@pytest.fixture
def two_runs(scenes):
    zs.classify(scenes, ["circle", "heart", "star"], label_field="a", embeddings="reuse", **FAST)
    zs.classify(scenes, ["circle", "square"], label_field="b", embeddings="reuse", **FAST)
    return scenes


class Panel:
    """The App's side of a panel: keeps its state and data, and what it was asked to do."""

    def __init__(self, operator, context, dataset) -> None:
        self.operator, self.context, self.dataset = operator, context, dataset
        self.id = uuid.uuid4().hex  # an address may be another panel's later
        self.state, self.data, self.asked = {}, {}, {}
        self("on_load")

    def __call__(self, method, **event):
        state = copy.deepcopy(self.state)
        params = {"panel_id": self.id, "panel_state": state, "__method__": method}
        ctx = self.context(self.dataset, params={**params, **event})
        self.operator.execute(ctx)
        self.asked = {}
        for call in ctx.executor._requests:
            name, given = call.operator_uri.rpartition("/")[2], call.params
            self.asked[name] = given
            if name == "patch_panel_state":
                self.state.update(given["state"])
            if name == "patch_panel_data":
                self.data.update(given["data"])
        return self

    @property
    def inputs(self):
        return self.asked["show_panel_output"]["output"]["type"]["properties"]

    def shown(self):
        import fiftyone.core.view as fov

        stages = self.asked["set_view"]["view"]
        return fov.DatasetView._build(self.dataset, stages).values("id")


@pytest.fixture
def panel(operator, context, two_runs):
    return Panel(operator, context, two_runs)


def test_without_runs_or_dataset_it_says_so(operator, context, scenes):
    for dataset in (None, scenes):
        panel = Panel(operator, context, dataset)
        assert "nothing" in panel.inputs
        assert "run" not in panel.inputs


def test_runs_are_rows_and_the_newest_is_chosen(panel, two_runs):
    rows = panel.data[panel.state["table"]]
    assert [row["run"] for row in rows] == ["classify → b", "classify → a"]
    assert rows[0]["state"] == "complete"
    assert rows[0]["model"] == "shapes-tiny"
    assert rows[0]["counts"] == f"{len(two_runs)} labeled"
    assert panel.state["run"] == "zs_classify_b"
    assert "circle, square" in panel.state["details"]
    assert "details_text" not in panel.inputs
    assert "details_text" in panel("toggle_details").inputs
    assert panel("show_samples").shown() == two_runs.values("id")
    assert panel("choose_row", row=1).state["run"] == "zs_classify_a"
    assert "clear_view" in panel("show_all").asked


def test_failed_samples_are_shown(operator, context, two_runs):
    import fiftyone as fo

    two_runs.add_sample(fo.Sample(filepath="/nowhere/gone.png"))
    zs.classify(two_runs, ["star"], label_field="c", **FAST)
    panel = Panel(operator, context, two_runs)
    assert panel.state["num_failed"] == 1
    assert "failed" in panel.inputs["actions"]["type"]["properties"]
    assert panel("show_failed").shown() == [two_runs.last().id]


def test_two_runs_are_compared_and_flips_set_the_view(panel, two_runs):
    panel("compare_row", row=1)
    found = zs.compare_runs(zs.load_run(two_runs, "b"), zs.load_run(two_runs, "a"))
    assert found.flips
    assert f"{found.agreement:.1%} agreement" in panel.state["summary"]
    rows = panel.data[panel.state["flips"]]
    assert [row["change"] for row in rows] == [
        f"{flip.before} → {flip.after}" for flip in found.flips
    ]
    for row, flip in enumerate(found.flips):
        assert sorted(panel("show_flip", row=row).shown()) == sorted(flip.ids)
    assert len(panel("show_part", part="changed").shown()) == len(found.changed_ids)
    assert "set_view" not in panel("show_part", part="only_a").asked
    assert "classes" in panel.state["differing"]
    assert panel("compare_none").state["summary"] == ""


def test_what_the_server_lost_is_made_again(panel, operator):
    import sys

    panel("choose_row", row=1)
    panel("compare_row", row=0)
    module = sys.modules[type(operator).__module__]
    module._COMPARISONS.clear()
    module._CHOSEN.clear()
    assert panel("show_flip", row=0).shown()
    assert panel("toggle_details").state["run"] == "zs_classify_a"


def test_an_opening_that_ends_after_a_click_does_not_undo_it(panel):
    as_opened = copy.deepcopy(panel.state) | {"run": None, "other": None}
    panel("choose_row", row=1)
    panel("compare_row", row=0)
    compared = panel.state["summary"]
    panel("on_load", panel_state=as_opened)
    assert panel.state["run"] == "zs_classify_a"
    assert panel.state["other"] == "zs_classify_b"
    assert panel.state["summary"] == compared != ""


def test_what_cannot_be_compared_is_a_message(operator, context, two_runs):
    two_runs.clear_sample_field("a")
    panel = Panel(operator, context, two_runs)
    panel("compare_row", row=1)
    assert "nothing is left" in panel.state["message"]
    assert panel.state["summary"] == ""
    assert panel("compare_none").state["message"] == ""


def test_deleting_and_repeating_ask_first(panel, two_runs):
    for method, operator in (("delete", "delete_run"), ("rerun", "rerun")):
        prompt = panel(method).asked["prompt_user_for_operation"]
        assert prompt["operator_uri"] == f"@zs/operators/{operator}"
        assert prompt["params"] == {"run": "zs_classify_b"}
    assert len(zs.runs(two_runs)) == 2
    zs.delete_run(zs.load_run(two_runs, "b"))
    assert list(panel("refresh").state["titles"]) == ["zs_classify_a"]
    assert panel.state["run"] == "zs_classify_a"


def test_the_record_is_downloaded(panel, two_runs):
    asked = panel("export").asked["browser_download"]
    assert asked["filename"] == "zs_classify_b.json"
    content = json.loads(base64.b64decode(asked["url"].partition(",")[2]))
    zs.delete_run(zs.load_run(two_runs, "b"))
    assert zs.import_run(two_runs, content).key == "zs_classify_b"
