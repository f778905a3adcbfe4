"""Several true classes an image: each class is a yes or no of its own."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from zs_operators.evaluation import class_metrics
from zs_operators.evaluation.image_labels import ImageLabels
from zs_operators.evaluation.report_parts import NONE


def multi_label_report(labels: ImageLabels, supported: Collection[str] | None) -> dict[str, Any]:
    """Rows, metrics, the score of each class that ground truth has, and what that score is.

    Average precision ranks the images by the confidence of a class; images that do not list it
    come last, so it is exact only if no threshold and no k cut the lists.
    """
    predicted = [dict(row) for row in labels.members]
    truth = [set(row) for row in labels.truth]
    names = sorted(set().union(*truth, *predicted))
    numbers = {name: number for number, name in enumerate(names)}
    is_true = np.zeros((len(truth), len(names)), dtype=bool)
    is_predicted = np.zeros_like(is_true)
    confidence = np.zeros(is_true.shape)
    for row, (mine, theirs) in enumerate(zip(predicted, truth, strict=True)):
        for name in theirs:
            is_true[row, numbers[name]] = True
        for name, value in mine.items():
            is_predicted[row, numbers[name]] = True
            confidence[row, numbers[name]] = value
    right = (is_true & is_predicted).sum(axis=0)
    matrix = np.diag(np.append(right, 0))
    matrix[:-1, -1] = is_true.sum(axis=0) - right
    matrix[-1, :-1] = is_predicted.sum(axis=0) - right

    precisions = {}
    if labels.has_confidences:
        precisions = _average_precisions(names, is_true, confidence)
    rows = class_metrics.class_rows(
        [*names, NONE],
        matrix,
        supported=None if supported is None else set(supported),
        more={"average_precision": precisions} if precisions else None,
    )
    present = {row.label: row.recall for row in rows if row.support}
    return {
        "per_class": rows,
        "metrics": {
            **({"mAP": class_metrics.mean(precisions.values())} if precisions else {}),
            **class_metrics.overall(rows),
            "all classes right": float((is_true == is_predicted).all(axis=1).mean()),
        },
        "scores": precisions or present,
        "measure": "average precision" if precisions else "recall",
    }


def _average_precisions(
    names: list[str], is_true: np.ndarray, confidence: np.ndarray
) -> dict[str, float]:
    from sklearn.metrics import average_precision_score

    return {
        name: float(average_precision_score(is_true[:, i], confidence[:, i]))
        for i, name in enumerate(names)
        if is_true[:, i].any()
    }
