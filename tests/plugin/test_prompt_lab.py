"""The Prompt Lab panel's methods, called as the App calls them."""

from __future__ import annotations

import copy
import os
import sys

import fiftyone.operators as foo
import pytest
from bson import json_util

import zs_operators as zs
from tests.plugin_panels import Panel as AppPanel
from zs_operators import provenance

pytestmark = pytest.mark.usefixtures("store_dir")

BAD = "circle\nheart"
GOOD = "cyan circle\npurple circle\nred heart\norange star\nwhite circle"


@pytest.fixture
def uri():
    return "@zs/operators/prompt_lab"


@pytest.fixture
def embedded(scenes):
    zs.classify(scenes, ["a"], model="shapes-tiny", embeddings="reuse", progress=False)
    scenes.delete_sample_field("zs_classification")
    return scenes


def memory(panel):
    """The module with what the server keeps of panels."""
    home = sys.modules[type(panel.operator).__module__]
    return home.lab_sessions


class Panel(AppPanel):
    def update(self, words):
        self.state["words"] = words
        return self("update")

    def drawn(self, name):
        return self.inputs[name]["view"]["data"]

    @property
    def history(self):
        """The words of all versions."""
        return [entry["words"] for entry in memory(self)._HISTORIES.find(self.id) or ()]

    @property
    def summary(self):
        return self.inputs["summary"]["default"]

    @property
    def _place(self):
        """Inputs that were put back are new ones to the App, for it leaves old ones as they are."""
        if "more" not in self.inputs:
            self("fold", part="more")
        (place,) = self.inputs["more"]["type"]["properties"]
        return place

    @property
    def more(self):
        return self.state.setdefault("more", {}).setdefault(self._place, {})

    @more.setter
    def more(self, settings):
        self.state.setdefault("more", {})[self._place] = settings


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
    assert "Version 1" in panel.summary
    assert "0.0% right" in panel.summary
    panel.update(GOOD)
    assert f"{len(embedded)} changed" in panel.summary
    assert panel.drawn("confusion")[0]["x"] == [*GOOD.splitlines(), "(rejected)"]
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
    for score in ("margin", "confidence", "cosine"):
        panel.state["score"] = score
        (bars,) = panel("redraw").drawn("scores")
        assert sum(bars["y"]) == len(embedded)
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
    if "stealing" in panel.inputs:
        assert panel("show_stealing", row=0).shown(embedded)


def run(panel, dataset):
    """What the App does when the panel asks for a run."""
    asked = panel.asked["classify"]
    return foo.execute_operator("@zs/operators/classify", {"dataset": dataset, "params": asked})


def test_written_labels_are_a_run_and_are_not_overwritten(panel, embedded):
    panel.more = {"min_margin": 2.5, "background": "empty background"}
    panel.update(GOOD)
    panel.state["label_field"] = "names"
    report = run(panel("write"), embedded).result
    assert report["reused"] == len(embedded)
    embedded.reload()
    assert embedded.count("names") == len(embedded)
    rejected = sum(rule is not None for rule in embedded.values("names.rejected_by"))
    assert rejected == panel("redraw").drawn("labels")[0]["y"][-1] > 0
    record = provenance.find(embedded, "classify", "names")
    assert record["state"] == provenance.COMPLETE
    assert record["options"]["min_margin"] == 2.5
    panel.more = {}
    panel.update(BAD)
    with pytest.raises(Exception, match="overwrite=True"):
        run(panel("write"), embedded)
    panel.state["label_field"] = "ground_truth"
    panel("write")
    assert "classify" not in panel.asked
    assert "overwrite" in panel.state["message"]
    panel.state["label_field"] = "names"
    panel.state["overwrite"] = True
    run(panel("write"), embedded)
    assert set(embedded.values("names.label")) <= set(BAD.splitlines())


def test_only_the_view_of_the_panel_is_written(operator, context, embedded):
    panel = Panel(operator, context, embedded)
    panel.state["stages"] = targeting_stages(embedded.limit(3))
    panel.update(GOOD)
    run(panel("write"), embedded)
    assert embedded.exists("zs_classification").values("id") == embedded.limit(3).values("id")


def targeting_stages(view):
    return json_util.dumps(view.view()._serialize())


def test_settings_are_part_of_a_version(panel):
    panel.update(GOOD)
    plain = panel.drawn("labels")
    panel.more = {
        "templates": "custom",
        "custom_templates": "{}",
        "background": "cyan circle on the wall",
        "min_confidence": 0.5,
        "class_thresholds": "red heart: 1.0",
        "merge": "max",
    }
    panel.update(GOOD)
    assert panel.drawn("labels")[0]["y"][-1] > plain[0]["y"][-1] == 0
    panel("undo")
    assert panel.drawn("labels") == plain
    assert panel.more == {}
    panel.more["min_confidence"] = 7
    panel.update(GOOD)
    assert "min_confidence" in panel.state["message"]
    assert panel.history == [GOOD]


RICH = {
    "classes": {
        "warm": {"red heart": {"names": ["red heart", "heart"], "min_confidence": 0.1}},
        "cold": {"cyan circle": {"names": [], "descriptions": ["a cyan disc"]}},
    },
    "templates": ["my {}"],
    "background": ["nothing"],
    "concept": "a toy",
    "merge": "max",
    "roll_up": "parent",
}


def test_vocabularies_are_loaded_and_saved(panel, embedded):
    saved = zs.save_vocabulary(embedded, "rich", RICH)
    panel.state["saved"] = {"name": "rich"}
    panel("load")
    assert panel.state["words"] == "red heart: red heart, heart\ncyan circle"
    assert panel.more["custom_templates"] == "my {}"
    assert panel.drawn("labels")[0]["x"] == ["warm", "cold", "(rejected)"]
    assert "kept_row" in panel.inputs
    panel.state["saved"]["save_as"] = "copy"
    panel("save")
    assert zs.load_vocabulary(embedded, "copy") == saved
    panel("save")
    assert panel.state["message"] == ""  # the same words again

    panel.state["words"] = "red heart"
    panel("save")
    assert "already saved" in panel.state["message"]
    panel.state["saved"]["replace"] = True
    panel("save")
    assert zs.load_vocabulary(embedded, "copy").classes == ("red heart",)
    panel("forget")
    assert "kept_row" not in panel.inputs
    panel.state["saved"]["save_as"] = "ground_truth"
    panel("save")
    assert "field" in panel.state["message"]


def test_weights_of_ones_own_are_used(panel, embedded, tmp_path, operator, context):
    from zs_operators.weights import plan_weights

    folder = plan_weights("clip", "shapes-tiny").path
    panel.state.update(model="custom", weights=str(folder))
    panel("change_source").update(GOOD)
    assert "is stored" in panel.state["message"]
    zs.classify(embedded, ["a"], model=str(folder), embeddings="reuse", progress=False)
    embedded.delete_sample_field("zs_classification")
    panel.update(GOOD)
    assert sum(panel.drawn("labels")[0]["y"]) == len(embedded)
    run(panel("write"), embedded)
    assert embedded.count("zs_classification") == len(embedded)
    panel.state.update(weights="")
    panel("change_source")
    assert "architecture" in panel.inputs["message"]["view"]["label"]
    # without embeddings of a known model the panel still offers them
    embedded.set_values("filepath", [str(tmp_path / "moved.png")] * len(embedded))
    other = Panel(operator, context, embedded)
    assert "words" not in other.inputs
    other.state["model"] = "custom"
    assert "words" in other("change_source").inputs


def test_unusable_words_are_a_message_and_no_version(panel):
    panel.update(BAD)
    panel.update("")
    assert "class name" in panel.state["message"]
    assert panel.history == [BAD]
    assert panel.inputs["message"]


def test_a_lab_that_was_let_go_is_scored_again(panel):
    panel.update(BAD).update(GOOD)
    memory(panel)._SESSIONS.clear()
    panel("undo")
    assert panel.state["words"] == BAD
    assert panel.history == [BAD]


def test_after_a_restart_of_the_server_the_shown_words_are_scored(panel):
    panel.update(BAD).update(GOOD)
    memory(panel)._SESSIONS.clear()
    memory(panel)._HISTORIES.clear()
    assert "Version 1" in panel("redraw").summary
    assert panel.drawn("labels")[0]["x"] == [*GOOD.splitlines(), "(rejected)"]
    assert "Version 2" in panel.update(BAD).summary


def test_an_update_after_a_restart_of_the_server_is_the_first_version(panel):
    panel.update(BAD)
    memory(panel)._SESSIONS.clear()
    memory(panel)._HISTORIES.clear()
    assert "message" in panel.update("").inputs
    assert "Version 1" in panel.update(GOOD).summary


def test_an_opening_that_ends_late_changes_nothing(panel):
    opened = copy.deepcopy(panel.state)
    panel.state["gt_field"] = "ground_truth"
    panel.update(BAD).update(GOOD)
    shown, kept = panel.summary, copy.deepcopy(panel.state)
    panel.state = {}  # as it was sent
    panel("on_load")
    assert panel.summary == shown
    # what the App puts into the state it has
    assert panel.state == {name: kept[name] for name in panel.state}
    panel.state = opened
    assert panel("on_load").summary == shown
    assert panel.history == [BAD, GOOD]


def test_a_panel_on_another_dataset_starts_anew(panel, dataset, pictures):
    import fiftyone as fo

    panel.update(BAD)
    other = fo.Dataset()
    try:
        other.add_samples([fo.Sample(filepath=path) for path, _ in pictures])
        panel.dataset = other
        assert "summary" not in panel("on_change_dataset").inputs
        panel.update(GOOD)
        panel.dataset = dataset
        assert "summary" not in panel("on_change_dataset").inputs
        assert panel.state["words"] == ""
    finally:
        other.delete()


def test_an_update_changes_nothing_that_the_app_keeps_of_the_page(panel):
    panel.update(BAD)
    panel.update(GOOD)
    assert list(panel.asked) == ["show_panel_output"]  # a change draws the panel once more


def test_settings_that_are_folded_away_still_count(panel):
    panel.more = {"min_confidence": 1.0}
    assert "more" not in panel("fold", part="more").inputs
    panel.update(GOOD)
    assert panel.drawn("labels")[0]["y"][-1] > 0
    button = panel.inputs["folds"]["type"]["properties"]["fold_more"]["view"]
    assert button["label"] == "More settings · 1 set"
    panel("fold", part="more")
    assert panel.inputs["more"]["type"]["properties"]["v0"]["type"]["properties"]["min_confidence"][
        "default"
    ]


def test_changed_files_are_left_out_and_counted(panel, embedded, tmp_path, pictures):
    import shutil

    copied = str(shutil.copy(pictures[0][0], tmp_path / "new.png"))
    sample = embedded.first()
    sample["filepath"] = copied
    sample.save()
    panel("use_view")
    panel.update(GOOD)
    assert "1 images without embedding left out" in panel.summary
    assert os.path.exists(copied)
