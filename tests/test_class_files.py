"""Vocabularies in files: what YAML, CSV and JSON may hold, and that what is written comes back."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zs_operators.class_files import Pairs, read_classes, write_classes
from zs_operators.errors import VocabularyError
from zs_operators.vocabulary import PromptRow, Vocabulary

SUFFIXES = [".yaml", ".yml", ".json", ".csv"]

FULL = Vocabulary.parse(
    {"car": ["car", "sedan"], "bus": None, "cat": ["cat", "kitten"], "plane": None},
    templates=["a photo of a {}.", "{}, seen from above"],
    background=["an empty street", "=1+1"],
    descriptions={
        "bus": ["a long vehicle, with many windows"],
        "plane": 'a "jet" in the sky; grey',
    },
    concept="a kind of thing",
    parents={"car": "vehicle", "bus": "vehicle", "vehicle": "thing", "cat": "animal"},
    thresholds={"car": 0.25, "cat": {"min_cosine": -0.125}, "vehicle": {"min_margin": 1.5}},
    merge="max",
    roll_up=["vehicle", "animal"],
)

FILES = {
    "document.yaml": """
        classes:
          vehicle:
            car: [car, sedan]
            bus:
              descriptions: a long vehicle
              min_confidence: 0.4
          no:
        templates: none
        background: [an empty street]
        concept: a type of thing
        merge: max
        """,
    "document.json": """{
        "classes": [
          {"label": "car", "names": ["car", "sedan"], "parent": "vehicle"},
          {"label": "bus", "descriptions": ["a long vehicle"], "parent": "vehicle",
           "min_confidence": 0.4},
          "no"
        ],
        "templates": ["{}"], "background": "an empty street",
        "concept": "a type of thing", "merge": "max"}""",
    "table.csv": """prompt,label,kind,parent,min_confidence
        car,car,,vehicle,
        bus,bus,name,vehicle,0.4
        no,no,,,
        sedan,car,,,
        a long vehicle,bus,description,,
        none,,template,,
        an empty street,,,,
        a type of thing,,concept,,
        max,,merge,,
        """,
    "semicolons.csv": """Label;Prompt;Kind;Parent;Min_confidence
        car;;;vehicle;
        car;sedan;;;
        bus;;;vehicle;0.4
        bus;a long vehicle;description;;
        no
        ;none;template
        ;an empty street
        ;a type of thing;concept
        ;max;merge
        """,
}


@pytest.mark.parametrize("name", FILES)
def test_the_same_vocabulary_in_every_file(tmp_path, name):
    path = tmp_path / name
    lines = FILES[name].splitlines()
    text = "\n".join(line[8:] if line.startswith(" " * 8) else line for line in lines)
    path.write_text(text, encoding="utf-8-sig")

    assert Vocabulary.parse(path) == Vocabulary.parse(
        {"car": ["car", "sedan"], "bus": None, "no": None},
        templates="none",
        background=["an empty street"],
        descriptions={"bus": "a long vehicle"},
        concept="a type of thing",
        parents={"car": "vehicle", "bus": "vehicle"},
        thresholds={"bus": 0.4},
        merge="max",
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_all_of_a_vocabulary_comes_back(tmp_path, suffix):
    path = FULL.save(tmp_path / f"full{suffix}")

    restored = Vocabulary.parse(path)

    assert restored == FULL
    assert restored.prompts() == FULL.prompts()
    assert restored.descriptions == FULL.descriptions
    assert restored.parents == FULL.parents
    assert restored.thresholds == FULL.thresholds
    assert restored.roll_up == ("vehicle", "animal")
    assert Vocabulary.from_dict(json.loads(json.dumps(FULL.to_dict()))) == FULL


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_class_of_descriptions_only_comes_back(tmp_path, suffix):
    rows = [PromptRow("four legs", "cat", "description"), PromptRow("dog", "dog")]
    vocabulary = Vocabulary.parse(rows, templates="openai_imagenet")
    assert vocabulary.synonyms["cat"] == ()

    path = vocabulary.save(tmp_path / f"described{suffix}")

    assert Vocabulary.parse(path) == vocabulary
    assert "openai_imagenet" in path.read_text(), "a set is named, not written out"


_NAME = st.text(st.characters(codec="utf-8"), min_size=1) | st.text(string.printable, min_size=1)


@settings(max_examples=150, deadline=None)
@given(
    classes=st.dictionaries(_NAME, st.none() | st.lists(_NAME, max_size=2), min_size=1),
    background=st.lists(_NAME, max_size=2),
    described=_NAME,
    limit=st.floats(0, 1),
    suffix=st.sampled_from(SUFFIXES),
)
def test_any_names_come_back(tmp_path_factory, classes, background, described, limit, suffix):
    first = next(iter(classes))
    try:
        vocabulary = Vocabulary.parse(
            list(classes.items()),
            background=background,
            descriptions={first.strip(): described},
            thresholds={first: limit},
            parents={first: "above it all"},
        )
    except VocabularyError:
        return
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    assert Vocabulary.parse(vocabulary.save(path, overwrite=True)) == vocabulary


def test_nothing_is_overwritten_unasked(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("- mine\n")
    with pytest.raises(VocabularyError, match=r"mine\.yaml' exists.*overwrite=True"):
        FULL.save(path)
    assert path.read_text() == "- mine\n"
    FULL.save(path, overwrite=True)
    assert Vocabulary.parse(path) == FULL


def test_files_that_cannot_be_written(tmp_path):
    with pytest.raises(VocabularyError, match=r"use one of \.yaml, \.yml, \.json, \.csv"):
        FULL.save(tmp_path / "classes.txt")
    with pytest.raises(VocabularyError, match="cannot be written"):
        write_classes(FULL.to_dict(), tmp_path / "nowhere" / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_csv_without_a_header_is_a_class_a_row(tmp_path):
    path = tmp_path / "plain.csv"
    path.write_text('car, car, sedan\nbus\n"ratio 4:3"\n\n')
    assert read_classes(path) == [("car", ["car", "sedan"]), ("bus", None), ("ratio 4:3", None)]


def test_a_mapping_of_a_file_keeps_what_is_there_twice(tmp_path):
    path = tmp_path / "twice.json"
    path.write_text('{"a": "x", "a": "y"}')
    content = read_classes(path)
    assert isinstance(content, Pairs)
    assert content == [("a", "x"), ("a", "y")]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", 'prompt,label\n"a', "not valid CSV"),
        ("a.csv", "prompt,label\na,b,c\n", "line 2 has 3 cells.*2 columns"),
        ("a.csv", "prompt,label,kinds\na,b,c\n", "Row 1 has the unknown key 'kinds'.*'kind'"),
        ("a.csv", "prompt,label,kind\na,b,nme\n", "Row 1 is of kind 'nme'"),
        ("a.csv", "prompt,label,kind\n,b,description\n", "Row 1, a description, has no prompt"),
        ("a.csv", "prompt,label,kind\nx,,description\n", "Row 1, a description, has no label"),
        ("a.csv", "prompt,label,parent\na,b,c\nd,b,e\n", "'b' has two parents, 'c' and 'e'"),
        ("a.csv", "label,min_cosine\nb,0.1\nb,0.2\n", "'b' has two values of min_cosine"),
        ("a.csv", "label,min_cosine\nb,high\n", "min_cosine='high' of 'b' must be a number"),
        ("a.csv", "prompt,label,kind\nb,b,\nmax,,merge\nmean,,merge\n", "Row 3 is a second merge"),
        ("a.csv", "prompt,label\n", "No classes"),
        ("a.yaml", "classes: cat", "classes is 'cat'"),
        ("a.yaml", "classes: [a, b]\nmerge: sum", "merge='sum' must be one of mean, max"),
        ("a.yaml", "classes: [a, b]\nroll_up: top", "needs a hierarchy"),
        ("a.yaml", "{a: {b: }, b: {c: }, c: {a: }}", "circle: "),
        ("a.yaml", "classes: [a, b]\ntemplates: /etc/passwd.txt", "has no {}"),
    ],
)
def test_files_that_say_something_impossible(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(VocabularyError, match=says):
        Vocabulary.parse(path)


def test_aliases_of_yaml_do_not_fill_memory(tmp_path):
    path = tmp_path / "bomb.yaml"
    lines = ["a0: &a0 [x]"] + [
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)
    ]
    path.write_text("\n".join(lines))
    with pytest.raises(VocabularyError, match="nested too deeply"):
        Vocabulary.parse(path)


def test_categories_of_coco_are_classes_below_their_supercategories(tmp_path):
    path = tmp_path / "instances.json"
    categories = [
        {"id": 1, "name": "person", "supercategory": "person"},
        {"id": 2, "name": "bicycle", "supercategory": "vehicle"},
        {"id": 3, "name": "car", "supercategory": "vehicle"},
    ]
    path.write_text(json.dumps({"info": {}, "images": [], "categories": categories}))
    vocabulary = Vocabulary.parse(path, roll_up="parent")
    assert vocabulary.classes == ("person", "bicycle", "car")
    assert vocabulary.labels == ("person", "vehicle")
