"""The dialog after an evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import fiftyone.operators.types as types

from . import forms, running

if TYPE_CHECKING:
    from zs_operators.evaluation.report import EvaluationReport
    from zs_operators.evaluation.report_parts import ClassRow

OPEN_OPERATOR = "@zs/operators/open_evaluation"

_MAX_CLASSES = 6

#: The number that the headline has, the first of these there is.
_HEADLINES = (
    ("accuracy", "accuracy"),
    ("mAP", "mean average precision"),
    ("mean IoU", "mean IoU"),
    ("micro F1", "F1"),
)
#: Numbers of all classes together that are shown; the report has more.
_SHOWN = (
    "accuracy",
    "accuracy per class",
    "share with a label",
    "accuracy of those",
    "best label right",
    "mAP",
    "AP50",
    "mean IoU",
    "pixel accuracy",
    "micro precision",
    "micro recall",
)
#: Counts besides the evaluated samples, in words.
_COUNTS = {
    "no_ground_truth": "without ground truth",
    "failed": "failed",
    "not_predicted": "without a label",
    "rejected": "rejected",
    "rejected_labels": "rejected boxes",
}


def summary(report: EvaluationReport) -> tuple[types.Property, dict]:
    """Schema and data of the dialog."""
    outputs = types.Object()
    outputs.view("title", types.Header(label="Labels evaluated", divider=True))
    outputs.view("headline", types.Success(label=_headline(report), description=_detail(report)))
    buttons = [(report.eval_key, "Open in Model Evaluation")]
    if report.any_class_key:
        buttons.append((report.any_class_key, "Open matches of any class"))
    for key, label in buttons:
        outputs.view(
            f"open_{key}",
            types.Button(
                label=label,
                operator=OPEN_OPERATOR,
                params={"eval_key": key},
                variant="outlined",
                space=6,
            ),
        )
    results = {"numbers": _numbers(report), "classes": _classes(report)}
    _table(outputs, "numbers", "Numbers", number="Number", value="Value")
    _table(
        outputs,
        "classes",
        "Classes, the worst first",
        label="Class",
        support="In ground truth",
        precision="Precision",
        recall="Recall",
        f1="F1",
    )
    for index, warning in enumerate(report.warnings):
        outputs.view(f"warning_{index}", types.Warning(label=forms.escaped(warning)))
    return types.Property(outputs), results


def _headline(report: EvaluationReport) -> str:
    name, words = next(item for item in _HEADLINES if report.metrics.get(item[0]) is not None)
    samples = report.counts["evaluated"]
    return f"{_shown(report.metrics[name])} {words} on {samples:,} samples"


def _detail(report: EvaluationReport) -> str:
    counts = [
        f"{report.counts[name]:,} {words}"
        for name, words in _COUNTS.items()
        if report.counts.get(name)
    ]
    names = (report.predictions, report.ground_truth, report.eval_key)
    predictions, ground_truth, eval_key = map(forms.escaped, names)
    fields = f"{predictions} against {ground_truth}, kept as {eval_key}"
    return " · ".join([fields, *counts, running.duration(report.seconds)])


def _numbers(report: EvaluationReport) -> list[dict]:
    rows = [(name, report.metrics[name]) for name in _SHOWN if report.metrics.get(name) is not None]
    rows += [(f"top-{row.k} accuracy", row.accuracy) for row in report.top_k if row.k > 1]
    if report.localisation is not None:
        rows.append(("located, whatever the name", report.localisation.recall))
        rows.append(("named right of those", report.localisation.name_accuracy))
    split = report.split
    if split is not None:
        rows.append((f"supported {split.measure}", split.supported_score))
        rows.append((f"unsupported {split.measure}", split.unsupported_score))
        rows.append(("harmonic mean", split.harmonic_mean))
        if split.stacking is not None:
            rows.append(("AUSUC", split.stacking.ausuc))
    if report.calibration is not None:
        rows.append(("calibration error", report.calibration.ece))
    return [{"number": name, "value": _shown(value)} for name, value in rows]


def _classes(report: EvaluationReport) -> list[dict]:
    from zs_operators.evaluation.report_parts import worst_first

    present = worst_first(row for row in report.per_class if row.support)
    rows = [_class(row) for row in present[:_MAX_CLASSES]]
    if len(present) > _MAX_CLASSES:
        rest = {"label": f"{len(present) - _MAX_CLASSES} better ones"}
        rows.append({**dict.fromkeys(("support", "precision", "recall", "f1"), ""), **rest})
    return rows


def _class(row: ClassRow) -> dict:
    return {
        "label": row.label,
        "support": f"{row.support:,}",
        "precision": _shown(row.precision),
        "recall": _shown(row.recall),
        "f1": _shown(row.f1),
    }


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _table(outputs: types.Object, name: str, title: str, **columns: str) -> None:
    table = types.TableView(label=title)
    for key, label in columns.items():
        table.add_column(key, label=label)
    outputs.list(name, types.Object(), view=table)
