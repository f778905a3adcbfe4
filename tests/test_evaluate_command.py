"""``zs evaluate`` and ``zs temperature``: ways to the functions of the same names."""

from __future__ import annotations

import argparse
import dataclasses
import json

import pytest

import zs_operators as zs
from tests.made_up_runs import CLASSES, guesses, record_run
from zs_operators.cli import main
from zs_operators.evaluate_command import add_evaluate_command
from zs_operators.evaluation.options import EvaluateOptions


@pytest.fixture
def photos(dataset):
    dataset.add_samples(guesses())
    record_run(dataset, "guess", CLASSES)
    return dataset


def printed(capsys):
    output = capsys.readouterr().out
    return json.loads(output[output.index("{") :])


def test_prints_the_report(photos, capsys):
    command = ["evaluate", photos.name, "guess", "truth", "--eval-key", "ev", "--quiet"]
    assert main(command) == 0
    assert str(zs.load_evaluation(photos, "ev")) in capsys.readouterr().out
    assert main(command) == 2
    assert "'ev' exists" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--json", "--limit", "30"]) == 0
    assert printed(capsys)["counts"]["evaluated"] == 30


def test_options_are_those_of_the_function(photos, capsys, tmp_path):
    words = tmp_path / "words.yaml"
    words.write_text("animal: {bird: , cat: , dog: }\nthing: {car: }\n")
    seen = tmp_path / "seen.txt"
    seen.write_text("animal\n")
    command = ["evaluate", photos.name, "guess", "truth", "--eval-key", "ev", "--quiet", "--json"]
    more = ["--roll-up", "top", "--vocabulary-file", str(words), "--seen-file", str(seen)]
    more += ["--gamma", "0.5", "--top-k", "1", "--missing", "wrong", "--num-bins", "5"]
    assert main([*command, *more]) == 0
    report = printed(capsys)
    assert [row["label"] for row in report["per_class"]] == ["animal", "thing"]
    assert report["split"]["stacking"]["given_gamma"] == 0.5
    assert len(report["calibration"]["reliability"]) == 5
    assert report["parameters"]["missing"] == "wrong"

    command[5] = "renamed"
    assert main([*command, "--rename", "bird=car", "dog=cat"]) == 0
    renamed = {row["name"]: row["evaluated_as"] for row in printed(capsys)["names"]["renamed"]}
    assert renamed == {"bird": "car", "dog": "cat"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rename", "bird"], "must be PREDICTED=TRUE"),
        (["--rename", "a=b", "--names", "exact"], "exclude each other"),
        (["--seen-file", "/nowhere.txt"], "cannot be read"),
    ],
)
def test_says_what_is_wrong(photos, capsys, options, message):
    command = ["evaluate", photos.name, "guess", "truth", "--eval-key", "ev", "--quiet"]
    assert main([*command, *options]) == 2
    assert message in capsys.readouterr().err


def test_every_argument_of_the_function_has_an_option():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    add_evaluate_command(commands)
    known = {action.dest for action in commands.choices["evaluate"]._actions}
    arguments = {option.name for option in dataclasses.fields(EvaluateOptions)}
    assert arguments - known == {"vocabulary"}  # which is a file here
    assert "vocabulary_file" in known


def test_temperature(photos, capsys):
    zs.evaluate(photos, "guess", "truth", eval_key="ev")
    command = ["temperature", photos.name, "guess"]
    assert main([*command, "ev"]) == 2
    assert "would be replaced" in capsys.readouterr().err
    assert main([*command, "ev", "--new-field", "calm"]) == 0
    assert "calm: confidences of 60 labels" in capsys.readouterr().out
    assert main([*command, "2.5", "--source", "confidences", "--overwrite", "--json"]) == 0
    assert printed(capsys) == {
        "label_field": "guess",
        "temperature": 2.5,
        "source": "confidences",
        "changed": 60,
    }
