"""Vocabularies kept with a dataset, and classes found in its fields and mask targets."""

from __future__ import annotations

import fiftyone as fo
import pytest
from PIL import Image

import zs_operators as zs
from zs_operators import provenance
from zs_operators.cli import main
from zs_operators.errors import VocabularyError
from zs_operators.samples import class_fields, class_names
from zs_operators.vocabulary import Vocabulary

WORDS = Vocabulary.parse(
    {"warm.colours": {"red": ["red", "pink"], "$yellow": None}, "blue": None},
    templates=["a {} square."],
    background=["a grey square"],
    thresholds={"warm.colours": 0.1},
    merge="max",
)


@pytest.fixture
def squares(dataset, tmp_path):
    for name in ("red", "yellow", "blue"):
        path = tmp_path / f"{name}.png"
        Image.new("RGB", (32, 32), name).save(path)
        dataset.add_sample(fo.Sample(filepath=path, truth=fo.Classification(label=name)))
    return dataset


def test_saved_vocabularies_come_back_in_another_session(squares):
    assert zs.list_vocabularies(squares) == []
    assert zs.save_vocabulary(squares.limit(1), "my.words", WORDS) is WORDS
    zs.save_vocabulary(squares, "b", ["x", "y"])

    stored = fo.core.odm.get_db_conn().datasets.find_one({"name": squares.name})["info"]
    assert [entry["name"] for entry in stored["zs_vocabularies"]] == ["my.words", "b"]
    squares.reload()
    assert zs.list_vocabularies(squares.limit(1)) == ["my.words", "b"]
    assert zs.load_vocabulary(squares, "my.words") == WORDS
    assert zs.load_vocabulary(squares, "my.words").warnings == WORDS.warnings
    assert zs.load_vocabulary(squares.clone(), "b").classes == ("x", "y")


def test_other_info_stays(squares):
    squares.info["mine"] = 1
    zs.save_vocabulary(squares, "a", WORDS)
    zs.delete_vocabulary(squares, "a")
    squares.reload()
    assert squares.info["mine"] == 1
    assert zs.list_vocabularies(squares) == []


def test_nothing_is_replaced_unasked(squares):
    zs.save_vocabulary(squares, "a", WORDS)
    zs.save_vocabulary(squares, "a", WORDS)
    with pytest.raises(VocabularyError, match=r"'a' is already saved.*overwrite=True"):
        zs.save_vocabulary(squares, "a", ["x", "y"])
    assert zs.load_vocabulary(squares, "a") == WORDS
    zs.save_vocabulary(squares, "b", WORDS)
    zs.save_vocabulary(squares, "a", ["x", "y"], overwrite=True)
    assert zs.load_vocabulary(squares, "a").classes == ("x", "y")
    assert zs.list_vocabularies(squares) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (" ", "is blank"),
        ("a\nb", "line break"),
        (None, "not text"),
        ("words.csv", "name of a file"),
        ("truth", "name of a field"),
        ("default_classes", "name of a field"),
    ],
)
def test_names_that_mean_something_else(squares, name, says):
    with pytest.raises(VocabularyError, match=says):
        zs.save_vocabulary(squares, name, WORDS)
    assert zs.list_vocabularies(squares) == []


def test_unknown_names_say_what_there_is(squares):
    with pytest.raises(VocabularyError, match=r"No vocabulary 'coluors'.*None is saved yet"):
        zs.load_vocabulary(squares, "coluors")
    zs.save_vocabulary(squares, "colours", WORDS)
    for act in (zs.load_vocabulary, zs.delete_vocabulary):
        with pytest.raises(VocabularyError, match="There is: 'colours'"):
            act(squares, "coluors")
    with pytest.raises(VocabularyError, match="nor a saved vocabulary"):
        zs.classify(squares, "coluors", model="shapes-tiny")


def test_a_run_takes_a_saved_vocabulary_by_name(squares, capsys):
    zs.save_vocabulary(squares, "colours", WORDS)
    zs.classify(squares, "colours", model="shapes-tiny", progress=False)
    record = provenance.find(squares, "classify", "zs_classification")
    assert record["columns"] == ["red", "$yellow", "blue", "a grey square"]
    assert Vocabulary.from_dict(record["vocabulary"]) == WORDS

    command = ["classify", squares.name, "--classes-saved", "colours", "--model", "shapes-tiny"]
    assert main([*command, "--label-field", "again", "--quiet"]) == 0
    assert squares.values("again.confidence") == squares.values("zs_classification.confidence")
    assert main([*command[:3], "colour", *command[4:]]) == 2
    assert "There is: 'colours'" in capsys.readouterr().err


def test_classes_come_from_mask_targets(squares):
    squares.add_sample_field("mask", fo.EmbeddedDocumentField, embedded_doc_type=fo.Segmentation)
    squares.add_sample_field("rgb", fo.EmbeddedDocumentField, embedded_doc_type=fo.Segmentation)
    assert class_fields(squares) == ["truth"]
    squares.default_mask_targets = {0: "nothing", 2: "road", 1: "sky", 3: "road"}
    squares.mask_targets["rgb"] = {"#000000": "void", "#ff0000": "car"}
    assert class_names(squares, "mask") == ["road", "sky"]
    assert class_names(squares, "rgb") == ["car"]
    assert class_names(squares, "truth") == ["blue", "red", "yellow"]
    assert class_fields(squares) == ["truth", "mask", "rgb"]
    squares.classes["mask"] = ["sky", "road"]
    assert class_names(squares, "mask") == ["sky", "road"]
