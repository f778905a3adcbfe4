"""One mask of all classes a sample against ground truth, pixel by pixel."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from zs_operators.evaluation import class_metrics, stacking
from zs_operators.evaluation.mask_values import evaluated_targets, write_remapped
from zs_operators.evaluation.report_parts import NONE, Localisation
from zs_operators.evaluation.watching import watched

if TYPE_CHECKING:
    from zs_operators.evaluation.preparing import Comparison
    from zs_operators.report import Progress


def evaluate_masks(
    comparison: Comparison, eval_key: str
) -> Generator[Progress, None, dict[str, Any]]:
    """Attributes of an :class:`zs_operators.EvaluationReport`; counts are pixels."""
    view = comparison.view
    targets, moved = evaluated_targets(
        view, comparison.predictions, comparison.ground_truth, comparison.match
    )
    with _compared_field(comparison, eval_key, moved) as field:
        results = yield from watched(
            lambda look: _evaluate(comparison, field, eval_key, targets, look),
            "comparing pixels",
            comparison.counts["evaluated"],
        )
    if field != comparison.predictions:
        # The ids of labels are the same, so from here on it is an evaluation of the real field
        results.config.pred_field = comparison.predictions
        results.save_config()
    names, matrix = _as_pairs(list(results.classes), np.asarray(results.pixel_confusion_matrix))
    both = matrix[:-1, :-1]
    found, union = both.sum(axis=1), matrix.sum(axis=1) + matrix.sum(axis=0) - np.diag(matrix)
    ious = {name: class_metrics.ratio(matrix[i, i], union[i]) for i, name in enumerate(names[:-1])}
    accuracy = {
        name: class_metrics.ratio(both[i, i], found[i]) for i, name in enumerate(names[:-1])
    }
    rows = class_metrics.class_rows(
        names, matrix, supported=comparison.seen, more={"iou": ious, "accuracy": accuracy}
    )
    scores = {row.label: row.iou for row in rows if row.support}
    split = None
    if comparison.seen is not None:
        split = stacking.split_scores(scores, comparison.seen, "IoU")
    totals = class_metrics.overall(rows)
    return {
        "per_class": rows,
        "metrics": {
            "mean IoU": class_metrics.mean(scores.values()),
            "pixel accuracy": class_metrics.ratio(np.diag(matrix).sum(), matrix.sum()),
            "accuracy per class": totals["macro recall"],
            **totals,
        },
        "confusion": class_metrics.confusion(names, matrix),
        "localisation": _foreground(matrix, accuracy),
        "split": split,
        "fields": tuple(f"{eval_key}_{name}" for name in ("accuracy", "precision", "recall")),
    }


def _evaluate(comparison: Comparison, field: str, eval_key: str, targets, look):
    with warnings.catch_warnings():
        # FiftyOne resizes a prediction to its ground truth, and says so for every sample
        warnings.filterwarnings("ignore", message="Resizing predicted mask")
        return comparison.view.evaluate_segmentations(
            field,
            gt_field=comparison.ground_truth,
            eval_key=eval_key,
            mask_targets=targets,
            progress=look,
        )


@contextlib.contextmanager
def _compared_field(comparison: Comparison, eval_key: str, moved: dict[int, int]) -> Iterator[str]:
    """The predictions; for as long as they are compared a copy with the values of ground truth,
    if theirs are others."""
    if not moved:
        yield comparison.predictions
        return
    field = f"{eval_key}_values"
    dataset = comparison.view._root_dataset
    try:
        write_remapped(comparison.view, comparison.predictions, field, moved)
        yield field
    finally:
        dataset.delete_sample_field(field, error_level=1)


def _as_pairs(classes: list[str], pixels: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The matrix with the background, which is nothing, last."""
    first = classes[0] if classes else None
    if first not in ("background", "0", "#000000"):
        padded = np.zeros((len(classes) + 1,) * 2, dtype=np.int64)
        padded[:-1, :-1] = pixels
        return [*classes, NONE], padded
    order = [*range(1, len(classes)), 0]
    return [*classes[1:], NONE], pixels[np.ix_(order, order)].astype(np.int64)


def _foreground(matrix: np.ndarray, accuracy: dict[str, float | None]) -> Localisation:
    both, named = int(matrix[:-1, :-1].sum()), int(np.diag(matrix)[:-1].sum())
    truth, predicted = int(matrix[:-1].sum()), int(matrix[:, :-1].sum())
    return Localisation(
        num_truth=truth,
        num_predicted=predicted,
        num_located=both,
        recall=class_metrics.ratio(both, truth),
        precision=class_metrics.ratio(both, predicted),
        average_precision=None,
        average_precision_50=None,
        mean_iou=class_metrics.ratio(both, truth + predicted - both),
        name_accuracy=class_metrics.ratio(named, both),
        name_accuracy_per_class=class_metrics.mean(accuracy.values()),
    )
