"""An evaluation as a small table of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zs_operators.evaluation.report_parts import worst_first

if TYPE_CHECKING:
    from zs_operators.evaluation.report import EvaluationReport
    from zs_operators.evaluation.report_parts import ClassRow, Split

_MAX_CLASSES = 10
_MAX_NAMES = 5

#: Counts that are shown only where they are not zero, in words.
_COUNTS = {
    "rejected": "rejected",
    "rejected_labels": "rejected labels",
    "failed": "failed, left out",
    "not_predicted": "not predicted, left out",
    "no_ground_truth": "without ground truth",
}
_COUNTS_AS_WRONG = {"failed": "failed, wrong", "not_predicted": "not predicted, wrong"}


def report_table(report: EvaluationReport) -> str:
    """A title, counts, numbers, classes from the worst, names and warnings, a line each."""
    title = f"{report.predictions} against {report.ground_truth} ({report.eval_key})"
    counts = report.counts
    words = _COUNTS | (_COUNTS_AS_WRONG if report.parameters.get("missing") == "wrong" else {})
    rows = [("samples evaluated", f"{counts.get('evaluated', 0):,}")]
    rows += [(words[name], f"{counts[name]:,}") for name in words if counts.get(name)]
    rows += [(name, number(value)) for name, value in report.metrics.items() if value is not None]
    rows += [(f"top-{row.k} accuracy", number(row.accuracy)) for row in report.top_k]
    rows += _where(report)
    if report.split is not None:
        rows += _split_rows(report.split)
    calibration = report.calibration
    if calibration is not None and calibration.ece is not None:
        rows.append(("calibration error (ECE)", number(calibration.ece)))
        if calibration.temperature is not None:
            fitted = f"ECE with temperature {calibration.temperature:.3g}"
            rows.append((fitted, number(calibration.ece_fitted)))
    width = max(len(name) for name, _ in rows)
    lines = [title, "-" * len(title)]
    lines += [f"{name:<{width}}  {value:>9}" for name, value in rows]
    lines += ["", *_class_lines(report)]
    lines += _name_lines(report)
    return "\n".join(lines + [f"warning: {warning}" for warning in report.warnings])


def number(value: float | None) -> str:
    """Three decimals, or a dash for None."""
    return "-" if value is None else f"{value:.3f}"


def _where(report: EvaluationReport) -> list[tuple[str, str]]:
    found = report.localisation
    if found is None:
        return []
    rows = [("located, any name: recall", found.recall), ("  precision", found.precision)]
    if found.average_precision is not None:
        rows.append(("  average precision", found.average_precision))
    rows += [("  mean IoU", found.mean_iou), ("  named right of those", found.name_accuracy)]
    return [(name, number(value)) for name, value in rows]


def _split_rows(split: Split) -> list[tuple[str, str]]:
    rows = [
        (f"supported {split.measure} (S)", split.supported_score),
        (f"unsupported {split.measure} (U)", split.unsupported_score),
        ("harmonic mean (H)", split.harmonic_mean),
    ]
    if split.stacking is not None:
        rows.append(("area under U over S (AUSUC)", split.stacking.ausuc))
        rows.append((f"best H, at gamma {split.stacking.gamma:.3g}", split.stacking.harmonic_mean))
    return [(name, number(value)) for name, value in rows]


def _class_lines(report: EvaluationReport) -> list[str]:
    present = [row for row in report.per_class if row.support]
    if not present:
        return []
    worst = worst_first(present)[:_MAX_CLASSES]
    width = max(len("class"), *(len(row.label) for row in worst))
    head = f"{'class':<{width}}  {'support':>9}  precision  recall      F1"
    lines = [head, *(_class_line(row, width) for row in worst)]
    if len(present) > len(worst):
        lines.append(f"… {len(present) - len(worst)} more classes, none with a lower F1")
    if report.absent:
        lines.append(f"not in ground truth: {_some(report.absent)}")
    return lines


def _class_line(row: ClassRow, width: int) -> str:
    cells = (f"{number(row.precision):>9}", f"{number(row.recall):>6}", f"{number(row.f1):>6}")
    return f"{row.label:<{width}}  {row.support:>9,}  " + "  ".join(cells)


def _name_lines(report: EvaluationReport) -> list[str]:
    names = report.names
    lines = []
    if names.renamed:
        changed = [f"{item.name!r} as {item.evaluated_as!r}" for item in names.renamed]
        lines.append(f"names evaluated as others: {_some(changed)}")
    if names.unmatched_predictions:
        lines.append(f"predicted, not in ground truth: {_some(names.unmatched_predictions)}")
    if names.unmatched_ground_truth:
        lines.append(f"in ground truth, not predicted: {_some(names.unmatched_ground_truth)}")
    return lines


def _some(names: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more
