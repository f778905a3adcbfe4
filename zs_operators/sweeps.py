"""What a threshold keeps, and how right that is, from stored scores. No FiftyOne, no models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from zs_operators.errors import InvalidInputError

SCORES = ("confidence", "cosine", "margin")
_STEPS = 21


@dataclass(frozen=True)
class Candidates:
    """Labels that a threshold keeps or not.

    Attributes:
        labels: (N,) object, the class each would be written as
        values: (N,) float64, what is compared with the threshold; NaN where nothing is stored,
            which every threshold keeps
        right: (N,) bool, whether ground truth agrees; None without ground truth
        num_true: how many labels ground truth has, by class; None without ground truth
    """

    labels: np.ndarray
    values: np.ndarray
    right: np.ndarray | None = None
    num_true: Mapping[str, int] | None = None

    def of(self, label: str | None) -> Candidates:
        """Those of one class; all for None."""
        if label is None:
            return self
        mine = self.labels == label
        return Candidates(
            self.labels[mine],
            self.values[mine],
            None if self.right is None else self.right[mine],
            None if self.num_true is None else {label: self.num_true.get(label, 0)},
        )


@dataclass(frozen=True)
class SweepRow:
    """One threshold.

    Attributes:
        threshold: a value equal to it is kept
        kept: labels that stay
        share: of all candidates, in [0, 1]; 0 where there is none
        precision: right of those kept; None without ground truth or with nothing kept
        recall: right of all that ground truth has; None without any
        f1: harmonic mean of the two; None where one of them is None
    """

    threshold: float
    kept: int
    share: float
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None


@dataclass(frozen=True)
class Sweep:
    """What thresholds of one score keep of the labels of a field.

    Attributes:
        label_field: the field
        by: "confidence", "cosine" or "margin"
        gt_field: the field of ground truth, or None
        thresholds: those of :attr:`rows`
        candidates: the stored scores
    """

    label_field: str
    by: str
    gt_field: str | None
    thresholds: tuple[float, ...]
    candidates: Candidates

    @property
    def labels(self) -> list[str]:
        """Classes of the candidates and of ground truth, sorted."""
        found = set(self.candidates.labels.tolist()) | set(self.candidates.num_true or ())
        return sorted(found)

    @property
    def rows(self) -> list[SweepRow]:
        """One a threshold, of all classes together."""
        return self.of()

    def of(self, label: str | None = None) -> list[SweepRow]:
        """One row a threshold, of one class or of all together."""
        return _rows(self.candidates.of(label), np.asarray(self.thresholds, dtype=float))

    def best(self, label: str | None = None) -> SweepRow | None:
        """The threshold of the highest F1 among all that differ, halfway to the next lower score;
        the lowest of equals. None where nothing is right at any.

        Raises:
            InvalidInputError: without ground truth
        """
        if self.gt_field is None:
            raise InvalidInputError(
                f"The best threshold of {self.label_field!r} needs ground truth: give gt_field."
            )
        candidates = self.candidates.of(label)
        values = np.unique(candidates.values[~np.isnan(candidates.values)])
        if not len(values):
            return None
        halfway = np.concatenate([values[:1], (values[:-1] + values[1:]) / 2])
        rows = [row for row in _rows(candidates, halfway) if row.f1]
        return max(rows, key=lambda row: row.f1, default=None)

    def best_per_class(self) -> dict[str, float]:
        """The best threshold of each class that has one: what ``apply_thresholds`` takes."""
        best = {label: self.best(label) for label in self.labels}
        return {label: row.threshold for label, row in best.items() if row is not None}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: the rows, and of ground truth the best of all and of each class."""
        content = {
            "label_field": self.label_field,
            "by": self.by,
            "gt_field": self.gt_field,
            "candidates": len(self.candidates.labels),
            "rows": [asdict(row) for row in self.rows],
        }
        if self.gt_field is not None:
            best = self.best()
            content["best"] = None if best is None else asdict(best)
            content["best_per_class"] = [
                {"label": label, "threshold": value}
                for label, value in self.best_per_class().items()
            ]
        return content

    def __str__(self) -> str:
        has_truth = self.gt_field is not None
        head = f"{self.by:>10}  {'kept':>9}  {'share':>6}"
        lines = [head + (f"  {'precision':>9}  {'recall':>6}  {'F1':>6}" if has_truth else "")]
        best = self.best() if has_truth else None
        lines += [_line(row, has_truth) for row in self.rows]
        if best is not None:
            lines += ["best F1:", _line(best, has_truth)]
        return "\n".join(lines)


def check_score(by: str) -> None:
    """Raises ``InvalidInputError`` unless ``by`` is a score that labels keep."""
    if by not in SCORES:
        raise InvalidInputError(f"by={by!r} must be one of {', '.join(SCORES)}.")


def spread(
    candidates: Candidates, by: str, wanted: int | Sequence[float] = _STEPS
) -> tuple[float, ...]:
    """Thresholds to try, rising.

    Args:
        candidates: whose values are covered
        by: a confidence is covered from 0 to 1, the others from their lowest to their highest
        wanted (21): how many, or which

    Raises:
        InvalidInputError: fewer than two, or values that are no numbers
    """
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        if wanted < 2:
            raise InvalidInputError(f"thresholds={wanted!r} must be at least 2, or a list.")
        values = candidates.values[~np.isnan(candidates.values)]
        ends = (0.0, 1.0) if by == "confidence" or not len(values) else (values.min(), values.max())
        return tuple(np.linspace(*ends, wanted).tolist())
    try:
        found = np.unique(np.asarray(list(wanted), dtype=float))
    except (TypeError, ValueError):
        found = np.array([np.nan])
    if not len(found) or not np.isfinite(found).all():
        raise InvalidInputError(f"thresholds={wanted!r} must be a number of steps or numbers.")
    return tuple(found.tolist())


def _rows(candidates: Candidates, thresholds: np.ndarray) -> list[SweepRow]:
    # What has no value passes every threshold
    values = np.where(np.isnan(candidates.values), np.inf, candidates.values)
    order = np.argsort(values, kind="stable")
    start = np.searchsorted(values[order], thresholds, side="left")
    kept = len(values) - start
    right = num_true = None
    if candidates.right is not None:
        below = np.concatenate([[0], np.cumsum(candidates.right[order])])
        right = below[-1] - below[start]
        num_true = sum(candidates.num_true.values())
    return [
        _row(
            float(threshold),
            int(kept[i]),
            len(values),
            None if right is None else int(right[i]),
            num_true,
        )
        for i, threshold in enumerate(thresholds)
    ]


def _row(
    threshold: float, kept: int, total: int, right: int | None, num_true: int | None
) -> SweepRow:
    share = kept / total if total else 0.0
    if right is None:
        return SweepRow(threshold, kept, share)
    precision = right / kept if kept else None
    recall = right / num_true if num_true else None
    f1 = None
    if precision is not None and recall is not None:
        f1 = 2 * right / (kept + num_true)
    return SweepRow(threshold, kept, share, precision, recall, f1)


def _line(row: SweepRow, has_truth: bool) -> str:
    line = f"{row.threshold:10.4f}  {row.kept:9,}  {row.share:6.1%}"
    if not has_truth:
        return line
    cells = zip((row.precision, row.recall, row.f1), (9, 6, 6), strict=True)
    return line + "".join(
        f"  {'-':>{width}}" if value is None else f"  {value:{width}.3f}" for value, width in cells
    )
