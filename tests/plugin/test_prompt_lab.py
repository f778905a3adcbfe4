"""The Prompt Lab panel's methods, called as the App calls them."""

from __future__ import annotations

import copy
import os

import fiftyone.operators as foo
import pytest

import zs_operators as zs
from zs_operators import provenance

BAD = "circle\nheart"
GOOD = "cyan circle\npurple circle\nred heart\norange star\nwhite circle"


@pytest.fixture
def uri():
    return "@zs/operators/prompt_lab"


@pytest.fixture(autouse=True)
def store_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("ZS_STORE_DIR", str(tmp_path / "stores"))


@pytest.fixture
def embedded(scenes):
    zs.classify(scenes, ["a"], model="shapes-tiny", embeddings="reuse", progress=False)
    scenes.delete_sample_field("zs_classification")
    return scenes


class Panel:
    """The App's side of a panel: keeps its state and data, and what it was asked to do."""

    def __init__(self, operator, context, dataset) -> None:
        self.operator, self.context, self.dataset = operator, context, dataset
        self.state, self.data, self.asked = {}, {}, {}
        self("on_load")

    def __call__(self, method, **event):
        params = {
            "panel_id": f"panel-{id(self)}",
            "panel_state": copy.deepcopy(self.state),
            "__method__": method,
            **event,
        }
        ctx = self.context(self.dataset, params=params)
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

    def drawn(self, name):
        return self.data[self.state["parts"][name]]

    @property
    def inputs(self):
        return self.asked["show_panel_output"]["output"]["type"]["properties"]

    def update(self, words):
        self.state["words"] = words
        return self("update")

    def shown(self, dataset):
        import fiftyone.core.view as fov

        return fov.DatasetView._build(dataset, self.asked["set_view"]["view"]).values("id")


@pytest.fixture
def panel(operator, context, embedded):
    return Panel(operator, context, embedded)


def test_without_embeddings_the_view_can_be_embedded(operator, context, scenes):
    panel = Panel(operator, context, scenes)
    assert "words" not in panel.inputs
    panel("embed")
    prompt = panel.asked["prompt_user_for_operation"]
    assert prompt["operator_uri"] == "@zs/operators/classify"
    params = {**prompt["params"], "class_names": BAD, "model": "shapes-tiny"}
    foo.execute_operator(prompt["operator_uri"], {"dataset": scenes, "params": params})
    panel("use_view")
    assert panel.state["models"] == {"shapes-tiny": len(scenes)}
    assert "words" in panel.inputs


def test_without_a_dataset_it_says_so(operator, context):
    assert "words" not in Panel(operator, context, None).inputs


def test_versions_are_drawn_and_undone(panel, embedded):
    assert panel.state["models"] == {"shapes-tiny": len(embedded)}
    panel.state["gt_field"] = "ground_truth"
    panel.update(BAD)
    (bars,) = panel.drawn("labels")
    assert bars["x"] == ["circle", "heart", "(rejected)"]
    assert sum(bars["y"]) == len(embedded)
    assert "Version 1" in panel.state["summary"]
    assert "0.0% right" in panel.state["summary"]
    panel.update(GOOD)
    assert panel.state["changed"] == len(embedded)
    assert panel.drawn("confusion")[0]["x"] == [*GOOD.splitlines(), "(rejected)"]
    assert set(panel.state["parts"].values()) <= panel.inputs.keys()
    panel("undo")
    assert panel.state["words"] == BAD
    assert panel.drawn("labels") == [bars]
    panel("undo")
    assert "no earlier version" in panel.state["message"]


def test_what_is_clicked_is_shown(panel, embedded):
    panel.state["gt_field"] = "ground_truth"
    panel.update(GOOD)
    (bars,) = panel.drawn("labels")
    for idx, count in enumerate(bars["y"][:-1]):
        if count:
            assert len(panel("show_label", idx=idx).shown(embedded)) == count
    (bars,) = panel.drawn("margins")
    idx = bars["y"].index(max(bars["y"]))
    assert len(panel("show_scores", idx=idx).shown(embedded)) >= bars["y"][idx]
    (cells,) = panel.drawn("confusion")
    row, column = next((i, j) for i, z in enumerate(cells["z"]) for j, n in enumerate(z) if n)
    panel("show_confusion", x=cells["x"][column], y=cells["y"][row])
    found = embedded.select(panel.shown(embedded))
    assert len(found) == cells["z"][row][column]
    assert set(found.values("ground_truth.label")) == {cells["y"][row]}
    assert len(panel("show_list", list="least").shown(embedded)) == len(embedded)
    assert "set_view" not in panel("show_list", list="changed").asked
    if "stealing" in panel.state["parts"]:
        assert panel("show_stealing", row=0).shown(embedded)


def test_written_labels_are_a_run_and_are_not_overwritten(panel, embedded):
    panel.update(GOOD)
    panel.state["label_field"] = "names"
    panel("write")
    embedded.reload()
    assert embedded.count("names") == len(embedded)
    assert provenance.find(embedded, "classify", "names")["state"] == provenance.COMPLETE
    panel.update(BAD)
    panel("write")
    assert "overwrite" in panel.state["message"]
    panel.state["overwrite"] = True
    panel("write")
    assert set(embedded.values("names.label")) <= set(BAD.splitlines())


def test_unusable_words_are_a_message_and_no_version(panel):
    panel.update(BAD)
    panel.update("")
    assert "class name" in panel.state["message"]
    assert panel.state["history"] == [BAD]
    assert panel.inputs["message"]


def test_a_session_that_was_lost_starts_from_the_history(panel, operator):
    import sys

    panel.update(BAD).update(GOOD)
    sys.modules[type(operator).__module__]._LABS.clear()
    panel("undo")
    assert panel.state["words"] == BAD
    assert panel.state["history"] == [BAD]


def test_changed_files_are_left_out_and_counted(panel, embedded, tmp_path, pictures):
    import shutil

    copied = str(shutil.copy(pictures[0][0], tmp_path / "new.png"))
    sample = embedded.first()
    sample["filepath"] = copied
    sample.save()
    panel("use_view")
    panel.update(GOOD)
    assert "1 images without embedding left out" in panel.state["summary"]
    assert os.path.exists(copied)
