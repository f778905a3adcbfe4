"""Words of a form that are kept with the dataset, offered again, and read from whole files."""

from __future__ import annotations

import base64
import json

import fiftyone.operators as foo

import zs_operators as zs
from zs_operators.vocabulary import Vocabulary

WORDS = Vocabulary.parse(
    ["red circle", "blue star"],
    templates=["my {}"],
    background=["nothing"],
    thresholds={"blue star": 0.9},
)
TYPED = {"class_names": "red circle\nblue star", "model": "shapes-tiny"}


def invalid(properties):
    return {name: prop.error_message for name, prop in properties.items() if prop.invalid}


def test_saved_words_are_offered_once_there_are_some(form, scenes):
    def tabs():
        return [choice.value for choice in form(scenes)["class_source"].view.choices]

    assert "saved" not in tabs()
    zs.save_vocabulary(scenes, "shapes", WORDS)
    assert tabs() == ["typed", "field", "file", "saved"]
    properties = form(scenes, {"class_source": "saved"})
    assert properties["class_saved"].type.values == ["shapes"]
    chosen = form(scenes, {"class_source": "saved", "class_saved": "shapes"})
    assert chosen["prompts"].view.label == "3 prompts for 2 classes"
    assert "- my red circle" in chosen["prompts"].view.description
    assert "save_as" not in chosen
    # another template set is the person's own choice
    bare = form(scenes, {"class_source": "saved", "class_saved": "shapes", "templates": "none"})
    assert "- red circle" in bare["prompts"].view.description


def test_a_name_for_words_is_checked(form, scenes):
    assert invalid(form(scenes, {**TYPED, "save_as": "shapes"})) == {}
    assert "field" in invalid(form(scenes, {**TYPED, "save_as": "ground_truth"}))["save_as"]
    zs.save_vocabulary(scenes, "shapes", WORDS)
    properties = form(scenes, {**TYPED, "save_as": "shapes"})
    assert "Saved already" in invalid(properties)["save_as"]
    assert "replace_saved" in properties
    assert invalid(form(scenes, {**TYPED, "save_as": "shapes", "replace_saved": True})) == {}
    zs.save_vocabulary(scenes, "shapes", TYPED["class_names"].splitlines(), overwrite=True)
    assert invalid(form(scenes, {**TYPED, "save_as": "shapes"})) == {}
    assert "save_as" not in form(scenes, {})


def execute(scenes, params):
    return foo.execute_operator("@zs/operators/classify", {"dataset": scenes}, params=params)


def test_a_run_keeps_its_words_and_another_takes_them(scenes):
    background = {"background": "nothing"}
    execute(scenes, {**TYPED, "save_as": "shapes", "rejection": background, "templates": "none"})
    saved = zs.load_vocabulary(scenes, "shapes")
    assert saved.classes == ("red circle", "blue star")
    assert (saved.templates, saved.background) == (("{}",), ("nothing",))

    again = {"class_source": "saved", "class_saved": "shapes", "model": "shapes-tiny"}
    execute(scenes, {**again, "label_field": "again"})
    assert scenes.values("again.confidence") == scenes.values("zs_classification.confidence")


def test_a_file_keeps_its_settings_when_uploaded(form, scenes, tmp_path):
    for suffix in (".csv", ".yaml", ".json"):
        content = WORDS.save(tmp_path / f"words{suffix}").read_bytes()
        uploaded = {"name": f"words{suffix}", "content": base64.b64encode(content).decode()}
        params = {"class_source": "file", "class_file": uploaded, "model": "shapes-tiny"}
        assert form(scenes, params)["prompts"].view.label == "3 prompts for 2 classes"
        field = f"words_{suffix[1:]}"
        execute(scenes, {**params, "label_field": field})
        record = scenes.get_run_info(f"zs_classify_{field}").config.serialize()
        assert Vocabulary.from_dict(json.loads(json.dumps(record["vocabulary"]))) == WORDS
