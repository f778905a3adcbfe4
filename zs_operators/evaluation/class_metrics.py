"""A table of classes and a confusion matrix from names of both sides. No FiftyOne, no models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from zs_operators.evaluation.report_parts import NONE, ClassRow, Confusion, TopK

#: A document of MongoDB has its limits; rarer mistakes are left out of what is stored.
MAX_CELLS = 50_000


def count_pairs(
    truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None
) -> tuple[list[str], np.ndarray]:
    """Counts of (truth, prediction).

    Args:
        truth, predicted: (N,) names; "(none)" for nothing
        weights (None): (N,) counts of each pair; None for one each

    Returns:
        L names, sorted, "(none)" last, and their (L, L) int64 matrix; rows are ground truth
    """
    names = [*sorted({*truth.tolist(), *predicted.tolist()} - {NONE}), NONE]
    numbers = {name: number for number, name in enumerate(names)}
    rows = np.array([numbers[name] for name in truth.tolist()], dtype=np.int64)
    columns = np.array([numbers[name] for name in predicted.tolist()], dtype=np.int64)
    flat = np.bincount(rows * len(names) + columns, weights, minlength=len(names) ** 2)
    return names, flat.reshape(len(names), len(names)).round().astype(np.int64)


def confusion(names: Sequence[str], matrix: np.ndarray) -> Confusion:
    """The matrix as a list of its counts, the largest :data:`MAX_CELLS` of them."""
    rows, columns = np.nonzero(matrix)
    if len(rows) > MAX_CELLS:
        largest = np.sort(np.argsort(-matrix[rows, columns], kind="stable")[:MAX_CELLS])
        rows, columns = rows[largest], columns[largest]
    cells = [(int(i), int(j), int(matrix[i, j])) for i, j in zip(rows, columns, strict=True)]
    return Confusion(tuple(names), tuple(cells))


def class_rows(
    names: Sequence[str],
    matrix: np.ndarray,
    *,
    supported: set[str] | None = None,
    rejected: Mapping[str, int] | None = None,
    more: Mapping[str, Mapping[str, float]] | None = None,
) -> tuple[ClassRow, ...]:
    """One row a name but "(none)".

    Args:
        names, matrix: of :func:`count_pairs`
        supported (None): names of classes with labelled examples, where a split was asked for
        rejected (None): how many labels of ground truth of each class were rejected
        more (None): further attributes of the rows, by their name and then by class
    """
    right, support, num_predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    rows = []
    for i, name in enumerate(names):
        if name == NONE:
            continue
        precision, recall = ratio(right[i], num_predicted[i]), ratio(right[i], support[i])
        given = {"accuracy": recall} | {
            attribute: values.get(name) for attribute, values in (more or {}).items()
        }
        row = ClassRow(
            label=name,
            support=int(support[i]),
            num_predicted=int(num_predicted[i]),
            num_right=int(right[i]),
            precision=precision,
            recall=recall,
            f1=ratio(2 * right[i], support[i] + num_predicted[i]),
            num_rejected=int((rejected or {}).get(name, 0)),
            supported=None if supported is None else name in supported,
            **given,
        )
        rows.append(row)
    return tuple(rows)


def overall(rows: Sequence[ClassRow]) -> dict[str, float | None]:
    """Precision, recall and F1: of all labels together ("micro"), and the mean over the classes
    that ground truth has ("macro")."""
    right = sum(row.num_right for row in rows)
    support = sum(row.support for row in rows)
    predicted = sum(row.num_predicted for row in rows)
    present = [row for row in rows if row.support]
    return {
        "micro precision": ratio(right, predicted),
        "micro recall": ratio(right, support),
        "micro F1": ratio(2 * right, support + predicted),
        # As scikit-learn with zero_division=0: a class that is never predicted has precision 0
        "macro precision": mean([row.precision or 0.0 for row in present]),
        "macro recall": mean([row.recall for row in present]),
        "macro F1": mean([row.f1 for row in present]),
    }


def accuracy_per_class(right: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """For each name of ground truth the share that is right.

    Args:
        right: (N,) bool
        truth: (N,) names
    """
    found, numbers = np.unique(truth.astype(str), return_inverse=True)
    counts = np.bincount(numbers, minlength=len(found))
    hits = np.bincount(numbers, right.astype(float), minlength=len(found))
    return dict(zip(found.tolist(), (hits / np.maximum(counts, 1)).tolist(), strict=True))


def top_k_of(ranks: np.ndarray, truth: np.ndarray, k: int) -> TopK:
    """Accuracy within the k best.

    Args:
        ranks: (N,) position of the truth among the predictions, 0 for the best; infinite where
            it is not among them
        truth: (N,) names
        k: how many count
    """
    right = ranks < k
    return TopK(k, float(right.mean()), mean(accuracy_per_class(right, truth).values()))


def ratio(part: float, whole: float) -> float | None:
    """None for a part of nothing."""
    return float(part / whole) if whole else None


def mean(values) -> float | None:
    """None for no values; None among them is left out."""
    values = [value for value in values if value is not None]
    return float(np.mean(values)) if values else None
