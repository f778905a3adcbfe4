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


DETAILS = {"concept": "a kind of drawing", "merge": "max", "class_thresholds": "blue star: 1.0"}


def test_more_is_said_of_the_words_in_a_folded_section(form, scenes):
    view = form(scenes)["words"].view.to_json()
    assert (view["collapsible"], view["default_expanded"]) == (True, False)
    typed = {**TYPED, "templates": "none", "words": DETAILS, "save_as": "detailed"}
    properties = form(scenes, typed)
    assert "- red circle, a kind of drawing" in properties["prompts"].view.description
    assert invalid(properties) == {}
    wrong = form(scenes, {**TYPED, "words": {"class_thresholds": "blue star"}})
    assert "blue star: 0.4" in invalid(wrong)["prompts_error"]
    wrong = form(scenes, {**TYPED, "words": {"class_thresholds": "blue moon: 0.4"}})
    assert "blue moon" in invalid(wrong)["prompts_error"]
    wrong = form(scenes, {**TYPED, "words": {"roll_up": "parent"}})
    assert "hierarchy" in invalid(wrong)["prompts_error"]

    execute(scenes, typed)
    saved = zs.load_vocabulary(scenes, "detailed")
    assert (saved.concept, saved.merge) == ("a kind of drawing", "max")
    assert saved.thresholds == {"blue star": {"min_confidence": 1.0}}
    record = scenes.get_run_info("zs_classify_zs_classification").config.serialize()
    assert Vocabulary.from_dict(json.loads(json.dumps(record["vocabulary"]))) == saved


def test_saved_parents_are_written_where_the_form_says_so(form, scenes):
    families = {"round": {"red circle": None}, "pointed": {"blue star": None}}
    zs.save_vocabulary(scenes, "families", families)
    params = {"class_source": "saved", "class_saved": "families", "model": "shapes-tiny"}
    for name, roll_up in (("a", "parent"), ("b", "round, pointed"), ("c", None)):
        given = {**params, "label_field": name, "words": {"roll_up": roll_up, "merge": "own"}}
        assert invalid(form(scenes, given)) == {}
        execute(scenes, given)
    assert scenes.values("a.label") == scenes.values("b.label")
    assert set(scenes.distinct("a.label")) <= {"round", "pointed"}
    assert set(scenes.distinct("c.label")) <= {"red circle", "blue star"}


def test_detect_and_segment_ask_the_same(scenes, context):
    for task in ("detect", "segment"):
        operator = foo.get_operator(f"@zs/operators/{task}")
        params = {**TYPED, "prompts": "proposals", "words": {"concept": "a drawing"}}
        del params["prompts" if task == "detect" else "model"]
        form = operator.resolve_type(context(scenes, params=params), "inputs").type.properties
        assert "a drawing" in form["prompts"].view.description
        assert "words" in form


def test_segmenting_everything_without_names_hides_what_is_said_of_them(scenes, context):
    operator = foo.get_operator("@zs/operators/segment")
    form = operator.resolve_type(context(scenes, params={}), "inputs").type.properties
    assert "words" not in form
