"""An evaluation as the App's plots and tables draw it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import forms, lab_plots

if TYPE_CHECKING:
    from zs_operators.evaluation.report import EvaluationReport
    from zs_operators.evaluation.report_parts import ClassRow

#: A confusion of more classes shows those with the most mistakes; more cells cannot be clicked.
MAX_CLASSES = 40
MAX_ROWS = 100


def summary(report: EvaluationReport) -> str:
    """A line of Markdown: what was compared, and the numbers of all classes together."""
    parts = [
        f"**{forms.escaped(report.predictions)}** against **{forms.escaped(report.ground_truth)}**",
        f"{report.counts.get('evaluated', 0):,} images",
    ]
    parts += [
        f"{forms.escaped(name)} **{value:.3f}**"
        for name, value in report.metrics.items()
        if value is not None
    ][:4]
    if report.calibration is not None and report.calibration.ece is not None:
        parts.append(f"calibration error {report.calibration.ece:.3f}")
    for name in ("rejected", "failed"):
        if report.counts.get(name):
            parts.append(f"{report.counts[name]:,} {name}")
    return " · ".join(parts)


def confusion(report: EvaluationReport) -> list[dict[str, Any]]:
    """Cells: ground truth down from the top, predictions across."""
    names, matrix = report.confusion.labels, report.confusion.matrix
    shown = _shown(matrix)
    z = matrix[shown][:, shown]
    labels = [names[index] for index in shown]
    # Plots count rows from below
    return lab_plots.heatmap(z[::-1].tolist(), labels, labels[::-1])


def reliability(report: EvaluationReport) -> list[dict[str, Any]]:
    """Bars: share of right labels by confidence; a line: what it would be if calibrated."""
    bins = report.reliability
    middles = [round((one.low + one.high) / 2, 4) for one in bins]
    accuracies = [0.0 if one.accuracy is None else round(one.accuracy, 4) for one in bins]
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": [0, 1],
        "y": [0, 1],
        "line": {"color": "#999999", "dash": "dot"},
        "hoverinfo": "skip",
    }
    labels = [f"{one.count:,} labels" for one in bins]
    return [{**lab_plots.bars(middles, accuracies), "text": labels, "textposition": "none"}, line]


def rows(report: EvaluationReport) -> list[dict[str, Any]]:
    """Rows of the table of classes, the worst first."""
    return [_row(row) for row in ranked(report)]


def ranked(report: EvaluationReport) -> list[ClassRow]:
    """Classes that ground truth has or that were predicted, the worst first."""
    from zs_operators.evaluation.report_parts import worst_first

    used = worst_first(row for row in report.per_class if row.support or row.num_predicted)
    return used[:MAX_ROWS]


def size(part: list[dict[str, Any]]) -> str:
    """What tells plots or tables of different sizes apart."""
    if not part or "type" not in part[0]:
        return str(len(part))
    return f"{len(part[0]['x'])}x{len(part[0]['y'])}"


def layout(title: str, height: int, *, x: str = "", y: str = "") -> dict[str, Any]:
    """Arguments of a plot with a heading and names of its axes."""
    found = lab_plots.layout(title, height)
    found["layout"]["showlegend"] = False
    found["layout"]["xaxis"] = {
        "title": {"text": x, "font": {"size": 12}, "standoff": 8},
        "automargin": True,
    }
    found["layout"]["yaxis"] = {
        "title": {"text": y, "font": {"size": 12}, "standoff": 8},
        "automargin": True,
    }
    return found


def _shown(matrix) -> list[int]:
    """Indices of the classes a confusion shows, in their order; "(none)" stays last."""
    import numpy as np

    size = len(matrix)
    if size <= MAX_CLASSES:
        used = np.flatnonzero(matrix.sum(axis=0) + matrix.sum(axis=1))
        return used.tolist() or list(range(size))
    wrong = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * np.diag(matrix)
    return sorted(np.argsort(-wrong, kind="stable")[:MAX_CLASSES].tolist())


def _row(row: ClassRow) -> dict[str, Any]:
    numbers = {"precision": row.precision, "recall": row.recall, "f1": row.f1}
    return {
        "label": row.label,
        "support": f"{row.support:,}",
        "predicted": f"{row.num_predicted:,}",
        **{name: "–" if value is None else f"{value:.3f}" for name, value in numbers.items()},
    }
