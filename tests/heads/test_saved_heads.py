"""Heads kept with a dataset and in files: found again, or refused with a reason."""

from dataclasses import replace

import numpy as np
import pytest

import zs_operators as zs
from tests.head_worlds import MODEL, POOR_NAMES
from zs_operators.cli import main
from zs_operators.errors import InvalidInputError
from zs_operators.heads import saved
from zs_operators.heads.identity import words_of
from zs_operators.store_keys import store_folder
from zs_operators.vocabulary import Vocabulary


@pytest.fixture
def place(shapes):
    yield shapes
    for name in zs.list_heads(shapes):
        zs.delete_head(shapes, name)


def same(one, other):
    arrays = [(one.weight, other.weight), (one.bias, other.bias), (one.keys, other.keys)]
    assert all(np.array_equal(a, b) for a, b in arrays if a is not None)
    assert one.digest == other.digest
    assert one.report.to_dict() == other.report.to_dict()
    assert (one.columns, one.embedding, one.words) == (other.columns, other.embedding, other.words)


def test_saved_loaded_listed_and_deleted(place, head):
    assert zs.list_heads(place) == []
    zs.save_head(place, "a.b", head)
    zs.save_head(place.limit(3), "second", head)
    assert zs.list_heads(place) == ["a.b", "second"]
    same(zs.load_head(place, "a.b"), head)
    path = store_folder("heads") / f"{head.digest}.safetensors"
    zs.delete_head(place, "a.b")
    assert path.exists()  # the other name still means it
    zs.delete_head(place, "second")
    assert not path.exists()
    with pytest.raises(InvalidInputError, match=r"No head 'second'.*None is saved yet"):
        zs.load_head(place, "second")


def test_a_clone_of_the_dataset_shares_the_file(place, head):
    zs.save_head(place, "mine", head)
    clone = place.clone()
    zs.delete_head(place, "mine")
    same(zs.load_head(clone, "mine"), head)
    zs.delete_head(clone, "mine")
    clone.delete()


def test_nothing_is_overwritten_unasked(place, head):
    other = replace(head, alpha=1.0)
    zs.save_head(place, "mine", head)
    zs.save_head(place, "mine", head)
    with pytest.raises(InvalidInputError, match=r"'mine' is already saved.*overwrite=True"):
        zs.save_head(place, "mine", other)
    zs.save_head(place, "mine", other, overwrite=True)
    same(zs.load_head(place, "mine"), other)
    assert not (store_folder("heads") / f"{head.digest}.safetensors").exists()
    with pytest.raises(InvalidInputError, match="already saved"):
        zs.fit_head(place, POOR_NAMES, "shape", name="mine", progress=False, **MODEL)


@pytest.mark.parametrize("name", ["", "a\nb", "mine.safetensors"])
def test_names_that_cannot_be(place, head, name):
    with pytest.raises(InvalidInputError):
        zs.save_head(place, name, head)
    assert zs.list_heads(place) == []


def test_files_go_elsewhere_and_come_back(place, head, tmp_path, rest):
    path = head.save(tmp_path / "folder" / "head.safetensors")
    same(zs.load_head(None, path), head)
    with pytest.raises(InvalidInputError, match="exists"):
        head.save(path)
    head.save(path, overwrite=True)
    zs.classify(
        rest, None, label_field="filed", head=str(path), progress=False, overwrite=True, **MODEL
    )
    assert len(rest.exists("filed")) == len(rest)
    with pytest.raises(InvalidInputError, match=r"must end in \.safetensors"):
        head.save(tmp_path / "head.npz")
    with pytest.raises(InvalidInputError, match="There is no file"):
        zs.load_head(None, tmp_path / "none.safetensors")
    with pytest.raises(InvalidInputError, match="must be a name"):
        zs.classify(rest, None, head=3, **MODEL)


def test_damaged_and_foreign_files_are_refused(place, head, tmp_path):
    path = head.save(tmp_path / "head.safetensors")
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match="is damaged"):
        zs.load_head(None, path)
    path.write_bytes(b"\x80\x04\x95 not arrays")
    with pytest.raises(InvalidInputError, match="is not a file of this kind"):
        zs.load_head(None, path)
    zs.save_head(place, "mine", head)
    (store_folder("heads") / f"{head.digest}.safetensors").unlink()
    with pytest.raises(InvalidInputError, match="not on this machine"):
        zs.load_head(place, "mine")


def test_heads_that_fit_are_found_without_reading_files(place, head):
    zs.save_head(place, "mine", head)
    (store_folder("heads") / f"{head.digest}.safetensors").unlink()
    words = Vocabulary.parse(POOR_NAMES)
    sha, architecture = head.model["weights_sha256"], head.model["architecture"]

    def fitting(words, sha=sha, architecture=architecture):
        return saved.heads_for(place, words.columns, words_of(words), sha, architecture)

    turned = Vocabulary.parse(dict(reversed(POOR_NAMES.items())))
    assert fitting(words) == fitting(turned) == fitting(words, None) == ["mine"]
    assert fitting(Vocabulary.parse(POOR_NAMES, templates="none")) == []
    assert fitting(Vocabulary.parse(["circle"])) == []
    assert fitting(words, "0" * 64) == fitting(words, sha, "RN50") == []


def test_the_commands(place, tmp_path, capsys):
    zs.save_vocabulary(place, "poor", POOR_NAMES, overwrite=True)
    fit = ["fit-head", place.name, "shape", "--classes-saved", "poor", "--model", "shapes-tiny"]
    path = tmp_path / "head.safetensors"
    more = ["--name", "mine", "--tag", "reviewed", "--quiet", "--output", str(path)]
    assert main([*fit, *more]) == 0
    assert "60 of 8 classes" in capsys.readouterr().out
    same(zs.load_head(place, "mine"), zs.load_head(None, path))
    assert main([*fit, *more]) == 2
    assert "already saved" in capsys.readouterr().err
    run = ["classify", place.name, "--limit", "8", "--model", "shapes-tiny", "--quiet"]
    assert main([*run, "--head", "mine", "--label-field", "by_head"]) == 0
    assert len(place.exists("by_head")) == 8
    assert main(run) == 2
    assert "There are no classes: give --classes" in capsys.readouterr().err
    assert main(["heads", place.name]) == 0
    assert capsys.readouterr().out == "mine\n"
    assert main(["heads", place.name, "--delete", "mine"]) == 0
    assert zs.list_heads(place) == []
