"""``zs runs``: only a way to the functions."""

from __future__ import annotations

import io
import json

import fiftyone as fo
import pytest
from PIL import Image

import zs_operators as zs
from zs_operators.cli import main

FAST = {"model": "shapes-tiny", "precision": "fp32", "progress": False}


@pytest.fixture
def photos(dataset, tmp_path):
    """Three plain images with two runs."""
    for name in ("red", "green", "blue"):
        path = tmp_path / f"{name}.png"
        Image.new("RGB", (32, 24), name).save(path)
        dataset.add_sample(fo.Sample(filepath=path))
    zs.classify(dataset, ["red", "blue"], label_field="a", embeddings="reuse", **FAST)
    zs.classify(dataset, ["gold"], label_field="b", embeddings="reuse", **FAST)
    return dataset


def test_every_action(photos, tmp_path, capsys):
    def said(*words):
        assert main(["runs", words[0], photos.name, *words[1:]]) == 0
        return capsys.readouterr().out

    lines = said("list").splitlines()
    assert lines[0].startswith("KEY")
    assert [line.split()[0] for line in lines[1:]] == ["zs_classify_b", "zs_classify_a"]
    assert [run["key"] for run in json.loads(said("list", "--json"))] == [
        run.key for run in zs.runs(photos)
    ]
    assert "shapes-tiny" in said("show", "a")
    assert json.loads(said("show", "a", "--json"))["parameters"]["model"] == "shapes-tiny"
    assert "0.0%" in said("compare", "a", "b", "--save-view", "changed")
    assert json.loads(said("compare", "a", "b", "--json"))["compared"] == 3
    assert len(photos.load_saved_view("changed")) == 3
    words = ("--label-field", "c", "--set", "min_margin=0.5", "--limit", "2", "--quiet", "--json")
    output = said("rerun", "a", *words)
    report = json.loads(output[output.index("{") :])
    assert sum(report["counts"].values()) == 2
    assert zs.load_run(photos, "c").parameters["min_margin"] == 0.5
    file = tmp_path / "run.json"
    assert said("export", "c", str(file)).strip() == str(file)
    assert "field c" in said("delete", "c", "--fields", "--yes")
    assert not photos.has_field("c")
    assert "zs_classify_c" in said("import", str(file))
    assert zs.load_run(photos, "c")


def test_what_is_wrong_is_said(photos, capsys, monkeypatch):
    photos.save_view("taken", photos.limit(1))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    for words, message in (
        (["show", photos.name, "z"], "zs_classify_a"),
        (["delete", photos.name, "a"], "--yes"),
        (["rerun", photos.name, "a", "--set", "min_margin"], "NAME=VALUE"),
        (["compare", photos.name, "a", "b", "--save-view", "taken"], "'taken'"),
        (["list", "no-such-dataset"], "no-such-dataset"),
    ):
        assert main(["runs", *words]) == 2
        assert message in capsys.readouterr().err
    assert len(zs.runs(photos)) == 2


def test_deleting_asks(photos, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer, left in (("n", 2), ("", 2), ("y", 1)):
        monkeypatch.setattr("builtins.input", lambda prompt, answer=answer: answer)
        assert main(["runs", "delete", photos.name, "a"]) == 0
        assert len(zs.runs(photos)) == left
    assert photos.count("a") == 3
