from __future__ import annotations

import json
import pickle
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zs_operators.class_files import read_classes
from zs_operators.errors import InvalidInputError, VocabularyError
from zs_operators.templates import TEMPLATE_SETS
from zs_operators.vocabulary import Prompt, Vocabulary, parse_lines


def _texts(vocabulary: Vocabulary) -> list[str]:
    return [prompt.text for prompt in vocabulary.prompts()]


# --- prompts ------------------------------------------------------------------------------------


def test_prompts_are_every_name_in_every_template_then_the_background():
    vocabulary = Vocabulary.parse(
        {"car": ["car", "sedan"], "fire_truck": None},
        templates=["a {}.", "the {}"],
        background=["a photo of nothing"],
    )
    assert vocabulary.prompts() == (
        Prompt("a car.", "car", "car"),
        Prompt("the car", "car", "car"),
        Prompt("a sedan.", "car", "sedan"),
        Prompt("the sedan", "car", "sedan"),
        Prompt("a fire truck.", "fire_truck", "fire truck"),
        Prompt("the fire truck", "fire_truck", "fire truck"),
        Prompt("a photo of nothing", None, "a photo of nothing"),
    )
    assert vocabulary.prompt_columns() == (0, 0, 0, 0, 1, 1, 2)
    assert vocabulary.columns == ("car", "fire_truck", "a photo of nothing")
    assert vocabulary.classes == ("car", "fire_truck")
    assert vocabulary.num_prompts == 7
    assert vocabulary.warnings == ()


def test_names_given_for_a_class_replace_its_label():
    vocabulary = Vocabulary.parse({"class_7": ["sedan"], "dog": "puppy"}, templates="none")
    assert _texts(vocabulary) == ["sedan", "puppy"]
    assert vocabulary.classes == ("class_7", "dog")


def test_label_stays_as_typed_and_only_prompts_are_tidied():
    vocabulary = Vocabulary.parse([" traffic_light ", "STOP  sign", "c#"], templates="none")
    assert vocabulary.classes == ("traffic_light", "STOP  sign", "c#")
    assert vocabulary.synonyms["traffic_light"] == ("traffic_light",)
    assert _texts(vocabulary) == ["traffic light", "STOP sign", "c#"]


@pytest.mark.parametrize("name", ["{", "}", "{}", "{0}", "{name}", "a {} b", "%s", "$x", "\\1"])
def test_names_and_templates_with_braces_are_literal(name):
    vocabulary = Vocabulary.parse([name, "other"], templates=["{{}} {0} {} %s \\1", "{} or {}"])
    assert _texts(vocabulary)[:2] == ["{{}} {0} {} %s \\1".replace("{}", name), f"{name} or {name}"]


def test_template_sets_equal_those_of_open_clip():
    import open_clip

    names = ["cat", "fire truck"]
    for ours, theirs in {
        "simple": open_clip.SIMPLE_IMAGENET_TEMPLATES,
        "openai_imagenet": open_clip.OPENAI_IMAGENET_TEMPLATES,
    }.items():
        expected = [template(name) for name in names for template in theirs]
        assert _texts(Vocabulary.parse(names, templates=ours)) == expected
        # their functions may also be passed as they are
        assert _texts(Vocabulary.parse(names, templates=theirs)) == expected
    assert [len(templates) for templates in TEMPLATE_SETS.values()] == [1, 7, 80]
    assert _texts(Vocabulary.parse(names, templates="none")) == names
    assert Vocabulary.parse(names).templates == TEMPLATE_SETS["simple"]


def test_summary_for_people():
    vocabulary = Vocabulary.parse({"car": ["car", "sedan"], "dog": None}, background="a photo.")
    assert vocabulary.summary().splitlines() == [
        "2 classes, 7 templates, 22 prompts (1 background)",
        "car: itap of a car. | a bad photo of the car. | +12 more",
        "dog: itap of a dog. | a bad photo of the dog. | +5 more",
        "(background): a photo.",
    ]
    many = Vocabulary.parse([f"c{i}" for i in range(2000)], templates="none", background=["x", "y"])
    lines = many.summary(limit=3).splitlines()
    assert lines[0] == "2,000 classes, 1 template, 2,002 prompts (2 background)"
    assert lines[1:] == ["c0: c0", "c1: c1", "c2: c2", "... and 1999 more"]
    assert Vocabulary.parse(["a"], background="b").summary(1).splitlines()[-1] == "... and 1 more"


def test_twenty_thousand_classes_take_a_moment():
    labels = [f"class {i}" for i in range(20_000)]
    vocabulary = Vocabulary.parse(labels, templates="none")
    assert vocabulary.classes == tuple(labels)
    assert len(vocabulary.prompts()) == vocabulary.num_prompts == 20_000


# --- what classes may be ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        ["b", "a"],
        ("b", "a"),
        {"b": None, "a": None},
        {"b": "b", "a": []},
        {"b": ["b"], "a": ("a",)},
        [("b", ["b"]), ["a", ["a"]]],
        iter(["b", "a"]),
        dict.fromkeys(["b", "a"]).keys(),
        np.array(["b", "a"]),
        "b\na".splitlines(),
    ],
)
def test_the_same_classes_in_every_form(spec):
    vocabulary = Vocabulary.parse(spec)
    assert vocabulary == Vocabulary.parse(["b", "a"])
    assert all(type(label) is str for label in vocabulary.classes)


def test_a_set_has_an_order():
    assert Vocabulary.parse({"b", "c", "a"}).classes == ("a", "b", "c")


def test_integers_become_text():
    assert Vocabulary.parse([1, np.int64(2), "3"]).classes == ("1", "2", "3")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (None, "No classes"),
        ([], "No classes"),
        ({}, "No classes"),
        ("", "given as the text ''"),
        ("cat, dog", r"'cat, dog'; pass a list such as \['cat', 'dog'\]"),
        (b"cat", "given as bytes"),
        (5, "given as int"),
        ([""], "Class 1 is blank"),
        (["cat", "  "], "Class 2 is blank"),
        ({"cat": [" "]}, "A name of 'cat' is blank"),
        (["cat", None], "Class 2 is None"),
        (["cat", True], r"Class 2 is True \(bool\).*quotes"),
        (["cat", 1.5], "1.5.*quotes"),
        ({"cat": [None]}, "A name of 'cat' is None"),
        ({"cat": 5}, "The names of 'cat' are 5"),
        ({"cat": {"kitten": 1}}, "The names of 'kitten' are 1"),
        ([("a", "b", "c")], r"Class 1 is \('a', 'b', 'c'\)"),
        (["cat\ndog"], "line break"),
        (["a\x00b"], "control character"),
        (["a\u2028b"], "line break"),
        (["a\ud800"], "control character"),
        ({"cat": ["kit\tten"]}, "A name of 'cat', 'kit\\\\tten'"),
        (["cat", "___"], "'___' leaves nothing.*in words"),
        ({"car": ["vehicle"], "bus": ["vehicle"]}, "'car' and 'bus'.*'vehicle'.*merge"),
        (["traffic_light", "traffic light"], "both be encoded as 'traffic light'"),
        ({"car": ["sedan"], "sedan": None}, "both be encoded as 'sedan'"),
    ],
)
def test_unusable_classes_are_refused_with_their_name(spec, says):
    with pytest.raises(VocabularyError, match=says) as caught:
        Vocabulary.parse(spec)
    assert isinstance(caught.value, InvalidInputError)


def test_doubles_are_merged_with_a_warning():
    vocabulary = Vocabulary.parse(["cat", "dog", " cat"])
    assert vocabulary.classes == ("cat", "dog")
    assert vocabulary.warnings == ("Given more than once and merged: 'cat'.",)

    merged = Vocabulary.parse([("car", ["car", "a_b"]), ("car", ["sedan", "a b"]), "dog"])
    assert merged.synonyms["car"] == ("car", "a_b", "sedan")

    within = Vocabulary.parse({"car": ["auto mobile", "auto_mobile"], "dog": None})
    assert within.synonyms["car"] == ("auto mobile",)
    assert "once" in within.warnings[0]


@pytest.mark.parametrize(
    "pair", [("Cat", "cat"), ("traffic_light", "Traffic light"), ("\u00e9", "e\u0301")]
)
def test_lookalikes_stay_apart_with_a_warning(pair):
    vocabulary = Vocabulary.parse([*pair, "dog"])
    assert vocabulary.classes == (*pair, "dog")
    assert len(vocabulary.warnings) == 1
    assert "cannot tell apart" in vocabulary.warnings[0]


def test_one_class_is_allowed_but_warned_about():
    (warning,) = Vocabulary.parse(["cat"]).warnings
    assert "always 1" in warning
    assert "background" in warning
    assert Vocabulary.parse(["cat"], background=["a photo."]).warnings == ()
    (warning,) = Vocabulary.parse(["cat, dog"]).warnings
    assert "one class on each line" in warning
    assert "'cat, dog' has the one name" not in warning
    assert "write a list" in Vocabulary.parse({"car": "sedan, bus", "dog": None}).warnings[0]


# --- templates and background -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("templates", "says"),
    [
        (
            "simpel",
            r"neither a template set \(none, simple, openai_imagenet\).*did you mean 'simple'",
        ),
        ("a photo", "neither a template set"),
        (["a {}", "a photo"], r"'a photo' has no \{\}"),
        (["a {c}"], r"'a \{c\}' has no \{\}"),
        ([], "No templates"),
        (None, "No templates"),
        ([""], "Template 1 is blank"),
        ([5], "'5' has no"),
        ([None], "Template 1 is None"),
        (["a\n{}"], "line break"),
        (5, "given as int"),
        ({"a": "{}"}, "given as dict"),
        (b"{}", "given as bytes"),
        ("missing.txt", "'missing.txt' does not exist"),
    ],
)
def test_unusable_templates_are_refused(templates, says):
    with pytest.raises(VocabularyError, match=says):
        Vocabulary.parse(["cat", "dog"], templates=templates)


def test_templates_from_text_list_and_file(tmp_path):
    expected = ("a {}: small", "{} # 1")
    assert Vocabulary.parse(["x", "y"], templates="a {}").templates == ("a {}",)
    repeated = Vocabulary.parse(["x", "y"], templates=[*expected, expected[0]])
    assert repeated.templates == expected
    assert "template more than once" in repeated.warnings[0]
    path = tmp_path / "templates.txt"
    path.write_text("# mine\na {}: small\n\n{} # 1\n", encoding="utf-8-sig")
    assert Vocabulary.parse(["x", "y"], templates=path).templates == expected
    assert Vocabulary.parse(["x", "y"], templates=str(path)).templates == expected
    path = tmp_path / "templates.json"
    path.write_text(json.dumps(expected))
    assert Vocabulary.parse(["x", "y"], templates=path).templates == expected


def test_background_is_encoded_as_typed(tmp_path):
    path = tmp_path / "background.txt"
    path.write_text("a photo: of, nothing\nplain_wall\n")
    for background in (["a photo: of, nothing", "plain_wall"], path, str(path)):
        vocabulary = Vocabulary.parse(["cat"], background=background)
        assert _texts(vocabulary)[-2:] == ["a photo: of, nothing", "plain_wall"]
    assert Vocabulary.parse(["cat"], background="one prompt, with comma").background == (
        "one prompt, with comma",
    )
    repeated = Vocabulary.parse(["cat"], background=["a", "b", "a"])
    assert repeated.background == ("a", "b")
    assert "'a'" in repeated.warnings[0]


@pytest.mark.parametrize("background", ["cat", "kitten", "KITTEN", "fire truck"])
def test_a_class_may_not_be_background(background):
    with pytest.raises(VocabularyError, match="both a class and a background prompt"):
        Vocabulary.parse({"cat": ["kitten"], "fire_truck": None}, background=[background, "other"])


@pytest.mark.parametrize(
    ("background", "says"),
    [
        ([" "], "Background prompt 1 is blank"),
        (["a", None], "Background prompt 2 is None"),
        (5, "background prompt was given as int"),
    ],
)
def test_unusable_background_is_refused(background, says):
    with pytest.raises(VocabularyError, match=says):
        Vocabulary.parse(["cat", "dog"], background=background)


# --- lines and files ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        ("car", "car"),
        ("  fire truck\t", "fire truck"),
        ("crane, bird", "crane, bird"),
        ("car: car, sedan", ("car", ["car", "sedan"])),
        ("car:sedan,hatchback", ("car", ["sedan", "hatchback"])),
        ("car:", "car"),
        ("car: ,", "car"),
        ("time: 10:30", ("time", ["10:30"])),
        ('"ratio 4:3"', "ratio 4:3"),
        ('"a: b": "c, d", e', ("a: b", ["c, d", "e"])),
        ('"say ""hi""": x', ('say "hi"', ["x"])),
        ('5" pipe: a 5" pipe', ('5" pipe', ['a 5" pipe'])),
        ('"# 1"', "# 1"),
        ("c# code", "c# code"),
        ("車: 車, 自動車", ("車", ["車", "自動車"])),
        ("\ufeffcat", "cat"),
    ],
)
def test_lines(line, entry):
    assert parse_lines(line) == [entry]
    assert Vocabulary.parse_lines(f"\n# comment\n{line.lstrip(chr(0xFEFF))}\r\n\n") == [entry]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cat\n: sedan", r"Line 2 \(': sedan'\) has no class"),
        ('cat\n\n"dog', "Line 3.*unbalanced quotes"),
        ('"dog" house', "Line 1.*unbalanced quotes"),
        ('car: "a", "b', "Line 1.*names"),
        ('car: "a" b', "Line 1.*names"),
    ],
)
def test_lines_that_cannot_be_read(text, says):
    with pytest.raises(VocabularyError, match=says):
        parse_lines(text)


def test_empty_text_has_no_classes():
    assert parse_lines("") == parse_lines(" \n# only a comment\n") == []


@given(st.text(max_size=200))
def test_any_text_gives_a_vocabulary_or_a_vocabulary_error(text):
    try:
        vocabulary = Vocabulary.parse(parse_lines(text), templates="none")
    except VocabularyError:
        return
    assert len(vocabulary.prompts()) == len(vocabulary.prompt_columns()) == vocabulary.num_prompts
    assert Vocabulary.from_dict(json.loads(json.dumps(vocabulary.to_dict()))) == vocabulary
    assert vocabulary.summary()


_NAME = st.text(string.printable, min_size=1).map(str.strip).filter(lambda s: s and s.isprintable())


@given(label=_NAME, names=st.lists(_NAME, min_size=1))
def test_quoting_keeps_any_name(label, names):
    def quoted(name):
        return '"' + name.replace('"', '""') + '"'

    line = f"{quoted(label)}: {', '.join(map(quoted, names))}"
    assert parse_lines(line) == [(label, names)]


FILES = {
    "classes.txt": "# mine\ncar: car, sedan\nno\n\n12\n",
    "classes.yaml": "car: [car, sedan]\nno:\n12: ~\n",
    "list.yml": "- car: [car, sedan]\n- no\n- 12\n",
    "classes.json": '{"car": ["car", "sedan"], "no": null, "12": []}',
    "list.json": '[{"car": ["car", "sedan"]}, "no", 12]',
}


@pytest.mark.parametrize("name", FILES)
def test_files_hold_the_same_classes(tmp_path, name):
    path = tmp_path / name
    path.write_text(FILES[name], encoding="utf-8-sig")
    expected = Vocabulary.parse({"car": ["car", "sedan"], "no": None, "12": None})
    assert Vocabulary.parse(path) == Vocabulary.parse(str(path)) == expected


def test_yaml_words_stay_as_written(tmp_path):
    path = tmp_path / "words.yaml"
    path.write_text("[no, yes, on, off, true, 1.50, 0x10, 2024-01-01, 1_000, 'null', 08]")
    assert Vocabulary.parse(path).classes == (
        "no", "yes", "on", "off", "true", "1.50", "0x10", "2024-01-01", "1_000", "null", "08",
    )  # fmt: skip
    path = tmp_path / "words.json"
    path.write_text("[1.50, 1e3, 7]")
    assert Vocabulary.parse(path).classes == ("1.50", "1e3", "7")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.yaml", "car: sedan\nbus:\ncar: hatchback\n"),
        ("a.json", '{"car": "sedan", "bus": null, "car": "hatchback"}'),
        ("a.txt", "car: sedan\nbus\ncar: hatchback\n"),
    ],
)
def test_a_class_twice_in_a_file_is_merged_not_lost(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content)
    vocabulary = Vocabulary.parse(path)
    assert vocabulary.synonyms == {"car": ("sedan", "hatchback"), "bus": ("bus",)}
    assert "'car'" in vocabulary.warnings[0]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.yaml", b"car: [a", "not valid YAML"),
        ("a.yaml", b"car: {names: {a: b}}", r"A name of 'car' is \('a', 'b'\)"),
        ("a.yaml", b"{a: " * 18 + b"}" * 18, "nested too deeply"),
        ("a.yaml", b"{a: " * 60 + b"}" * 60, "line 1 is nested too deeply"),
        ("a.yaml", b"- [a, b, c]", "Class 1"),
        ("a.yaml", b"cat", "'cat' alone"),
        ("a.yaml", b"&x [*x]", "nested too deeply|not valid YAML"),
        ("a.yaml", b"a: !!python/object:os.system x\nb: !unknown [c]", None),
        ("a.yaml", b"a: b\n---\nc: d", "not valid YAML"),
        ("a.yaml", b"", "No classes"),
        ("a.json", b"[1, ", "not valid JSON"),
        ("a.json", b"[" * 100_000, "not valid JSON"),
        ("a.json", b"null", "No classes"),
        ("a.json", b'"cat"', "'cat' alone"),
        ("a.json", b'["cat", true]', "Class 2 is True"),
        ("a.json", b'{"cat": {"names": [["kitten"]]}}', "A name of 'cat' is"),
        ("a.txt", b"caf\xe9", "not UTF-8"),
        ("a.txt", b"\x00\x01", "control character"),
        ("a.txt", b"", "No classes"),
        ("a.txt", b"cat\n: dog", r"a\.txt.*Line 2"),
        ("a.txt", b"x" * (16 * 2**20 + 1), "larger than 16 MB"),
        ("a.xlsx", b"cat", "as the text"),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    if says is None:  # tags are ignored, nothing is constructed
        assert Vocabulary.parse(str(path)).synonyms == {"a": ("x",), "b": ("c",)}
        return
    with pytest.raises(VocabularyError, match=says):
        Vocabulary.parse(str(path))


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(VocabularyError, match=r"none\.txt' does not exist"):
        Vocabulary.parse(tmp_path / "none.txt")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(VocabularyError, match="not a file"):
        Vocabulary.parse(tmp_path / "folder.yaml")
    with pytest.raises(VocabularyError, match=r"not a kind of file.*\.yaml, \.yml, \.json, \.csv"):
        Vocabulary.parse(tmp_path / "classes.xlsx")
    with pytest.raises(VocabularyError):
        read_classes("nul\0l.txt")


# --- as an object -------------------------------------------------------------------------------


def test_round_trip_through_json_and_pickle():
    vocabulary = Vocabulary.parse(
        {"a.b": ["$x", "y"], "Cat": None, "cat": None, "{}": None},
        templates=["a {}", "{}"],
        background=["nothing"],
    )
    stored = json.loads(json.dumps(vocabulary.to_dict()))
    restored = Vocabulary.from_dict(stored)
    assert restored == vocabulary
    assert restored.warnings == vocabulary.warnings != ()
    assert restored.prompts() == vocabulary.prompts()
    assert pickle.loads(pickle.dumps(vocabulary)) == vocabulary
    assert hash(restored) == hash(vocabulary)
    keys = {key for entry in stored["classes"] for key in entry} | stored.keys()
    assert all(key.isidentifier() for key in keys), "class names must not become MongoDB keys"


@pytest.mark.parametrize(
    "content", [{}, [], None, {"classes": [{"label": "a"}]}, {"classes": ["a"], "templates": []}]
)
def test_other_dicts_are_not_vocabularies(content):
    with pytest.raises(VocabularyError, match="Not a stored vocabulary"):
        Vocabulary.from_dict(content)


def test_a_vocabulary_passes_through_unless_overridden():
    vocabulary = Vocabulary.parse({"car": ["sedan"], "dog": None}, templates="none", background="x")
    assert Vocabulary.parse(vocabulary) is vocabulary
    other = Vocabulary.parse(vocabulary, templates=["a {}"])
    assert other.templates == ("a {}",)
    assert (other.synonyms, other.background) == (vocabulary.synonyms, ("x",))
    other = Vocabulary.parse(vocabulary, background=["y"])
    assert (other.templates, other.background) == (("{}",), ("y",))
