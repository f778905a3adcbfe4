"""The ``zs`` command: quick to start, plain about errors, and only a way to the functions."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import resource
import subprocess
import sys

import pytest
from PIL import Image

import zs_operators as zs
from zs_operators import cli
from zs_operators.cli import main
from zs_operators.detect_options import DetectOptions
from zs_operators.errors import InvalidInputError
from zs_operators.segment_options import SegmentOptions
from zs_operators.shapes.dataset import SCENE, load_shapes_dataset
from zs_operators.version import __version__


@pytest.fixture
def photos(dataset, tmp_path):
    """A dataset of three plain images with a label field."""
    import fiftyone as fo

    for name, colour in (("a", "red"), ("b", "green"), ("c", "blue")):
        path = tmp_path / f"{name}.png"
        Image.new("RGB", (32, 24), colour).save(path)
        dataset.add_sample(fo.Sample(filepath=path, truth=fo.Classification(label=colour)))
    dataset.save_view("warm", dataset.match_tags("none"))
    return dataset


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def test_version_starts_fast():
    def cpu_seconds() -> float:  # unlike the clock, blind to what else runs on the machine
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    seconds = []
    for _ in range(3):
        start = cpu_seconds()
        command = [sys.executable, "-m", "zs_operators.cli", "--version"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds.append(cpu_seconds() - start)
    assert done.stdout == f"zs-operators {__version__}\n"
    assert min(seconds) < 0.3  # 0.1 s measured


def test_without_a_command_prints_help(capsys):
    assert main([]) == 0
    assert "classify" in capsys.readouterr().out


def test_unknown_option_is_an_error(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["install", "--sideways"])
    assert stop.value.code == 2
    assert "--sideways" in capsys.readouterr().err


def test_classify_prints_the_report(photos, capsys):
    options = ["--model", "shapes-tiny", "--label-field", "tried", "--quiet", "--json"]
    assert main(["classify", photos.name, "--classes", "red", "blue", *options]) == 0
    output = capsys.readouterr().out
    report = json.loads(output[output.index("{") :])
    assert report["counts"] == {"labeled": 3}
    assert report["label_field"] == "tried"
    assert len(photos.values("tried.label")) == 3
    assert set(photos.values("tried.label")) <= {"red", "blue"}


def test_classify_passes_on_exactly_what_was_given(photos, monkeypatch, tmp_path, capsys):
    calls = []

    class Report:
        def __str__(self):
            return "the report"

    def classify(samples, classes, **options):
        calls.append((len(samples), classes, options))
        return Report()

    monkeypatch.setattr(zs, "classify", classify)
    assert main(["classify", photos.name, "--classes-field", "truth"]) == 0
    assert last_line(capsys.readouterr().out) == "the report"
    classes = tmp_path / "classes.txt"
    classes.write_text("cat\ndog\n")
    command = ["classify", photos.name, "--classes-file", str(classes), "--limit", "2"]
    command += ["--templates", "openai_imagenet", "--batch-size", "auto", "--min-margin", "0.5"]
    command += ["--multi-label", "--no-resume", "--background", "a wall", "a floor"]
    assert main(command) == 0
    command = ["classify", photos.name, "--classes", "cat", "--saved-view", "warm"]
    assert main([*command, "--templates", "a {}", "the {}", "--batch-size", "4"]) == 0
    assert calls == [
        (3, ["blue", "green", "red"], {}),
        (
            2,
            classes,
            {
                "templates": "openai_imagenet",
                "batch_size": "auto",
                "min_margin": 0.5,
                "multi_label": True,
                "resume": False,
                "background": ["a wall", "a floor"],
            },
        ),
        (0, ["cat"], {"templates": ["a {}", "the {}"], "batch_size": 4}),
    ]


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("classify", ()),
        ("detect", (DetectOptions,)),
        ("segment", (SegmentOptions, DetectOptions)),
    ],
)
def test_every_argument_of_the_function_is_an_option(task, options):
    given = {*inspect.signature(getattr(zs, task)).parameters}
    given |= {*inspect.signature(getattr(zs, f"iter_{task}")).parameters}
    given |= {field.name for kind in options for field in dataclasses.fields(kind)}
    given -= {"samples", "kwargs", "options"}
    commands = cli.build_parser()._subparsers._group_actions[0].choices
    others = {"help", "dataset", "saved_view", "limit", "json", "traceback"}
    named = {action.dest for action in commands[task]._actions} - others
    assert named - {"classes_file", "classes_field", "classes_saved"} == given
    args = vars(commands[task].parse_args(["name", "--classes", "a"]))
    unset = {"classes", "classes_file", "classes_field", "classes_saved", "run", "task"}
    assert not set(args) & named - unset, "the function's own defaults must stand"


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_tasks_run_from_the_command_line(task, tmp_path, capsys):
    scenes = load_shapes_dataset(f"cli-{task}", num_scenes=2, folder=tmp_path)
    scenes.save_view("scenes", scenes.match_tags(SCENE))
    where = ["--saved-view", "scenes", "--quiet", "--json", "--label-field", "found"]
    if task == "detect":
        what = ["--model", "shapes-tiny", "--regions", "objects", "--classes-field", "objects"]
    else:
        what = ["--model", "shapes-tiny", "--prompts", "objects", "--min-iou", "0.1"]
    assert main([task, scenes.name, *where, *what]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == {"labeled": 2}
    assert scenes.count("found.detections") == scenes.count("objects.detections")
    scenes.delete()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--classes", "a", "--saved-view", "wram"], ["saved view", "'wram'", "'warm'"]),
        (["--classes", "a", "--limit", "0"], ["--limit is 0"]),
        (["--classes-field", "nothing"], ["nothing"]),
        (["--classes-file", "/does/not/exist.txt"], ["/does/not/exist.txt"]),
        (["--classes", "a", "b", "--batch-size", "0", "--model", "shapes-tiny"], ["batch_size"]),
        (["--classes", "a", "b", "--model", "shapes-tyni"], ["shapes-tyni", "shapes-tiny"]),
        (["--classes", "a", "b", "--templates", "simpel"], ["simpel"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(options, words, photos, capsys):
    assert main(["classify", photos.name, *options]) == 2
    errors = capsys.readouterr().err.strip()
    assert errors.startswith("zs: ")
    assert "Traceback" not in errors
    for word in words:
        assert word in errors


def test_unknown_dataset_suggests_a_near_name(photos, capsys):
    assert main(["classify", photos.name[:-1] + "x", "--classes", "a"]) == 2
    assert repr(photos.name) in capsys.readouterr().err


@pytest.mark.parametrize("before", [True, False])
def test_traceback_on_request(before, photos):
    command = ["classify", photos.name, "--classes", "a", "--limit", "0"]
    command = ["--traceback", *command] if before else [*command, "--traceback"]
    with pytest.raises(InvalidInputError, match="--limit"):
        main(command)


def test_traceback_through_the_environment(photos, monkeypatch):
    monkeypatch.setenv("ZS_DEBUG", "1")
    with pytest.raises(InvalidInputError, match="--limit"):
        main(["classify", photos.name, "--classes", "a", "--limit", "0"])


def test_interrupt_is_no_traceback(monkeypatch, capsys):
    def stopped(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr("zs_operators.install.install", stopped)
    assert main(["install"]) == 130
    assert capsys.readouterr().err == "zs: stopped\n"


def test_database_that_does_not_start_points_to_the_doctor(tmp_path):
    """What FiftyOne raises then depends on what is wrong; the way out does not."""
    command = [sys.executable, "-m", "zs_operators.cli", "classify", "any", "--classes", "a"]
    variables = {
        **os.environ,
        "FIFTYONE_DATABASE_URI": "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=500",
    }
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "zs doctor" in last_line(done.stderr)
    assert "Traceback" not in done.stderr


def test_models_table_and_json(capsys):
    assert main(["models", "--kind", "clip"]) == 0
    table = capsys.readouterr().out.splitlines()
    heads = ["NAME", "TASK", "HERE", "MB", "LICENCE", "ACCURACY", "TO", "GET", "IT"]
    assert table[0].split() == heads
    assert any(row.startswith("shapes-tiny ") and "bundled" in row for row in table)
    assert any("69.2 % ImageNet" in row and "zs pull clip-vit-b-32" in row for row in table)
    assert main(["models", "--task", "clip", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["kind"] for row in rows} == {"clip"}
    assert len(rows) == len(table) - 1


def test_install_and_uninstall(tmp_path, monkeypatch, capsys, root):
    monkeypatch.setenv("FIFTYONE_PLUGINS_DIR", str(tmp_path))
    place = tmp_path / "@zs" / "operators"
    assert main(["install"]) == 0
    assert capsys.readouterr().out.startswith(f"Linked {place} -> {root}\n")
    assert main(["install"]) == 0
    assert capsys.readouterr().out.startswith(f"Already there: {place}")
    assert main(["uninstall"]) == 0
    assert capsys.readouterr().out == f"Removed {place}\n"
    assert main(["uninstall"]) == 0
    assert capsys.readouterr().out == f"Nothing to remove in {tmp_path}\n"


def test_demo_gets_its_own_options(monkeypatch):
    from zs_operators import demo

    seen = []
    monkeypatch.setattr(demo, "main", lambda arguments: seen.append(arguments) or 7)
    assert main(["demo", "--app", "--size", "5"]) == 7
    assert seen == [["--app", "--size", "5"]]
