"""Classes of images against ground truth: FiftyOne's evaluation and what zero-shot adds to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from zs_operators.evaluation import class_metrics, stacking
from zs_operators.evaluation.calibration import (
    calibrate_confidences,
    calibrate_logits,
    softmax_confidences,
)
from zs_operators.evaluation.image_labels import ImageLabels, best_fields, read_labels
from zs_operators.evaluation.multi_label import multi_label_report
from zs_operators.evaluation.proposals import Candidate, propose_thresholds
from zs_operators.evaluation.report_parts import NONE, Calibration, Split, TopK
from zs_operators.evaluation.sources import Logits, read_logits
from zs_operators.evaluation.watching import watched

if TYPE_CHECKING:
    from zs_operators.evaluation.preparing import Comparison
    from zs_operators.report import Progress

#: Stored confidences are float32 of float32 logits.
_SAME = 1e-3


def evaluate_classes(
    comparison: Comparison, eval_key: str
) -> Generator[Progress, None, dict[str, Any]]:
    """Attributes of an :class:`zs_operators.EvaluationReport`."""
    labels = read_labels(comparison)
    predictions, ground_truth, written = best_fields(comparison, labels, eval_key)
    view = comparison.mapped(predictions, ground_truth)
    results = yield from watched(
        lambda look: view.evaluate_classifications(
            predictions, gt_field=ground_truth, eval_key=eval_key, progress=look
        ),
        "comparing classes",
        comparison.counts["evaluated"],
    )
    truth, predicted = results.ytrue.astype(object), results.ypred.astype(object)
    names, matrix = class_metrics.count_pairs(truth, predicted)
    logits, why_none = read_logits(
        comparison.view, comparison.predictions, comparison.record, comparison.vocabulary
    )
    if labels.has_many:
        found = multi_label_report(labels, comparison.seen)
        found["metrics"]["best label right"] = float((truth == predicted).mean())
        why_none = "Calibrated stacking needs one true class an image."
        logits = None
    else:
        found = _single_label(comparison, labels, truth, predicted, names, matrix)
        found["top_k"] = _top_k(comparison, labels, truth, logits)
    scores, measure = found.pop("scores"), found.pop("measure")
    split = None
    if comparison.seen is not None:
        split = stacking.split_scores(scores, comparison.seen, measure)
        split = _with_stacking(split, comparison, truth, logits, why_none)
    return {
        **found,
        "confusion": class_metrics.confusion(names, matrix),
        "split": split,
        "calibration": _calibration(comparison, labels, logits),
        "thresholds": _thresholds(comparison, labels),
        "counts": {"rejected": int(labels.is_rejected.sum())},
        "fields": (eval_key, *written),
    }


def _single_label(comparison, labels: ImageLabels, truth, predicted, names, matrix) -> dict:
    right, answered = truth == predicted, predicted != NONE
    rows = class_metrics.class_rows(
        names, matrix, supported=comparison.seen, rejected=Counter(truth[labels.is_rejected])
    )
    per_class = {row.label: row.recall for row in rows if row.support}
    totals = class_metrics.overall(rows)
    metrics = {
        "accuracy": float(right.mean()),
        "accuracy per class": class_metrics.mean(per_class.values()),
        "macro precision": totals["macro precision"],
        "macro F1": totals["macro F1"],
    }
    if not answered.all():
        metrics["share with a label"] = float(answered.mean())
        metrics["accuracy of those"] = class_metrics.ratio(right.sum(), answered.sum())
    return {"per_class": rows, "metrics": metrics, "scores": per_class, "measure": "accuracy"}


def _top_k(
    comparison: Comparison, labels: ImageLabels, truth: np.ndarray, logits: Logits | None
) -> tuple[TopK, ...]:
    """From logits, which know no rejection, else from lists; k of all classes says nothing."""
    if logits is not None:
        values, names = _columns(comparison, logits)
        columns = {name: number for number, name in enumerate(names)}
        target = np.array([columns.get(name, -1) for name in truth.tolist()])
        mine = np.take_along_axis(values, np.maximum(target, 0)[:, None], axis=1)
        ranks = np.where(target < 0, np.inf, (values > mine).sum(axis=1))
        ranks[np.isnan(values).any(axis=1)] = np.inf
        most = len(names) - 1
    elif labels.is_list:
        ranks = np.full(len(truth), np.inf)
        for row, (name, members) in enumerate(zip(truth, labels.members, strict=True)):
            order = [member for member, _ in members]
            if name in order:
                ranks[row] = order.index(name)
        most = max(map(len, labels.members), default=0)
    else:
        return ()
    ks = [k for k in comparison.options.ks if k <= max(1, most)]
    return tuple(class_metrics.top_k_of(ranks, truth, k) for k in ks)


def _columns(comparison: Comparison, logits: Logits) -> tuple[np.ndarray, list[str]]:
    names = [comparison.match.of_prediction(name) or NONE for name in logits.names]
    return stacking.merge_columns(logits.values, names)


def _with_stacking(
    split: Split,
    comparison: Comparison,
    truth: np.ndarray,
    logits: Logits | None,
    why_none: str | None,
) -> Split:
    if logits is None:
        return replace(split, note=why_none)
    values, names = _columns(comparison, logits)
    there = ~np.isnan(values).any(axis=1)
    found = stacking.stack(
        values[there], names, truth[there], comparison.seen, comparison.options.gamma
    )
    note = None if found else "The classes and ground truth must have both groups of classes."
    return replace(split, stacking=found, note=note)


def _calibration(
    comparison: Comparison, labels: ImageLabels, logits: Logits | None
) -> Calibration | None:
    """Of the best label of each image; of several true classes, of each label."""
    rows = [
        (number, value, name in truth)
        for number, (members, truth) in enumerate(zip(labels.members, labels.truth, strict=True))
        for name, value in (members if labels.has_many else members[:1])
        if not np.isnan(value)
    ]
    if not rows:
        return None
    numbers, confidences, right = (np.array(x) for x in zip(*rows, strict=True))
    bins = comparison.options.num_bins
    if logits is None or not logits.is_softmax:
        return calibrate_confidences(confidences, right, bins)
    raw = [labels.raw[number][0][0] for number in numbers]
    columns = {name: number for number, name in enumerate(logits.names)}
    values = logits.values[numbers]
    if np.isnan(values).any() or not set(raw) <= set(columns):
        return calibrate_confidences(confidences, right, bins)
    predicted = np.array([columns[name] for name in raw])
    expected = softmax_confidences(values, predicted, logits.temperature)
    if np.abs(expected - confidences).max() > _SAME:
        # Labels that were changed since, or of a run that scored otherwise
        return calibrate_confidences(confidences, right, bins)
    classes = {
        name: number for number, name in enumerate(dict.fromkeys(_names(comparison, logits)))
    }
    truth = [labels.truth[number] for number in numbers]
    return calibrate_logits(
        confidences,
        right,
        values,
        predicted,
        np.array([classes.get(row[0], -1) if row else -1 for row in truth]),
        np.array([classes[name] for name in _names(comparison, logits)]),
        logits.temperature,
        bins,
    )


def _names(comparison: Comparison, logits: Logits) -> list[str]:
    return [comparison.match.of_prediction(name) or NONE for name in logits.names]


def _thresholds(comparison: Comparison, labels: ImageLabels) -> dict[str, float]:
    num_true = Counter(name for row in labels.truth for name in row)
    candidates = list(_candidates(comparison, labels))
    of = comparison.match.of_prediction
    return propose_thresholds(candidates, {name: num_true[of(name)] for name, _, _ in candidates})


def _candidates(comparison: Comparison, labels: ImageLabels) -> Iterator[Candidate]:
    of = comparison.match.of_prediction
    for raw, hidden, truth in zip(labels.raw, labels.hidden, labels.truth, strict=True):
        for name, value in raw:
            yield name, value, of(name) in truth
        if hidden is not None:
            name, counts_as, value = hidden
            yield name, value, counts_as in truth
