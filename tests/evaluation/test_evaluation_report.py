"""Reports of evaluations: printed, as JSON, and read back."""

import json

import pytest

from zs_operators.errors import InvalidInputError
from zs_operators.evaluation import report_parts as parts
from zs_operators.evaluation.report import EvaluationReport


@pytest.fixture
def report():
    rows = [
        parts.ClassRow("a.b", 8, 7, 6, 6 / 7, 0.75, 0.8, 0.75, 1, True),
        parts.ClassRow("$cat", 2, 3, 1, 1 / 3, 0.5, 0.4, 0.5, 0, False),
        parts.ClassRow("dog", 0, 1, 0, 0.0),
    ]
    bins = (parts.ReliabilityBin(0.0, 0.5, 0, None, None), parts.ReliabilityBin(0.5, 1, 9, 0.9, 1))
    stacking = parts.Stacking(
        0.3, 1.2, 0.5, 0.6, 0.545, 0.9, 0.0, (0.7, 0.2, 0.31), ((-1.0, 1.0, 0.0), (1.0, 0.0, 1.0))
    )
    return EvaluationReport(
        "ev",
        "zs_evaluate_ev",
        "classification",
        "guess",
        "truth",
        counts={"samples": 12, "evaluated": 10, "rejected": 1, "failed": 2},
        metrics={"accuracy": 0.7, "accuracy per class": 0.625, "macro F1": None},
        per_class=tuple(rows),
        confusion=parts.Confusion(
            ("$cat", "a.b", "dog", "(none)"),
            ((0, 0, 1), (0, 1, 1), (1, 1, 6), (1, 2, 1), (1, 3, 1)),
        ),
        split=parts.Split("accuracy", ("a.b",), ("$cat",), 0.75, 0.5, 0.6, stacking),
        top_k=(parts.TopK(2, 0.9, 0.8),),
        localisation=parts.Localisation(4, 5, 3, 0.75, 0.6, 0.5, 0.6, 0.8, 1 / 3, 0.25),
        calibration=parts.Calibration("logits", 9, 2.0, 0.2, 0.9, 0.05, 0.6, bins, bins),
        thresholds={"a.b": 0.3},
        names=parts.Names(
            (parts.Renamed("predictions", "A.b", "a.b", "case"),), ("dog",), ("eel",)
        ),
        parameters={"missing": "skip"},
        fields=("ev",),
        warnings=("Mind the gap.",),
    )


def test_comes_back_from_json_as_it_was(report):
    assert EvaluationReport.from_dict(json.loads(report.to_json())) == report


def test_no_class_name_is_a_key(report):
    def keys(content):
        if isinstance(content, dict):
            yield from content
            content = content.values()
        if not isinstance(content, str) and hasattr(content, "__iter__"):
            for item in content:
                yield from keys(item)

    assert not {"a.b", "$cat", "dog"} & set(keys(report.to_dict()))


def test_an_older_and_a_newer_record_open(report):
    content = report.to_dict()
    for name in ("calibration", "top_k", "names", "thresholds", "parameters", "fields"):
        del content[name]
    content["from_the_future"] = 1
    content["per_class"][0]["also_new"] = 2
    read = EvaluationReport.from_dict(content)
    assert read.per_class == report.per_class
    assert read.calibration is None
    assert read.thresholds == {}


@pytest.mark.parametrize("content", [{}, {"eval_key": "a"}, {"per_class": 3}])
def test_what_is_no_report_is_refused(content):
    with pytest.raises(InvalidInputError, match="Not a stored evaluation"):
        EvaluationReport.from_dict(content)


def test_matrix_and_worst_mistakes(report):
    assert report.confusion.matrix.tolist() == [
        [1, 1, 0, 0],
        [0, 6, 1, 1],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]
    assert report.confusion.worst() == [("$cat", "a.b", 1), ("a.b", "dog", 1)]
    assert report.confusion.worst(1) == [("$cat", "a.b", 1)]


def test_prints_what_matters(report):
    text = str(report)
    assert text.splitlines()[0] == "guess against truth (ev)"
    lines = {" ".join(line.split()) for line in text.splitlines()}
    assert {
        "failed, left out 2",
        "accuracy per class 0.625",
        "harmonic mean (H) 0.600",
        "best H, at gamma 1.2 0.545",
        "ECE with temperature 2 0.050",
        "not in ground truth: dog",
        "names evaluated as others: 'A.b' as 'a.b'",
        "in ground truth, not predicted: eel",
        "warning: Mind the gap.",
    } <= lines
    assert "macro F1" not in text  # there is none
    # The worst class comes first
    assert text.index("$cat") < text.index("a.b  ")


def test_a_class_is_found_by_its_name(report):
    assert report.of("$cat").support == 2
    assert report.absent == ["dog"]
    with pytest.raises(KeyError):
        report.of("nobody")
