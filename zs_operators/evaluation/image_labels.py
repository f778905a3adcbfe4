"""Classes of images as columns, and the one class an image that FiftyOne's evaluation wants."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zs_operators.evaluation.targets import label_type

if TYPE_CHECKING:
    from zs_operators.evaluation.preparing import Comparison

Member = tuple[str, float]

#: Rules that a threshold stands for; what these rejected is a candidate for another threshold.
_THRESHOLDS = ("confidence", "margin", "cosine")


@dataclass(frozen=True)
class ImageLabels:
    """Labels of N images, under the names they count as.

    Attributes:
        members: predicted (name, confidence), best first, each name once; NaN for no confidence
        raw: the same labels as they are called in the field
        hidden: what a threshold rejected, called as in the field, and what it would count as
        is_rejected: (N,) bool
        truth: names of ground truth, in their order, each once
        is_list, has_many: whether predictions and ground truth are lists
    """

    members: list[list[Member]]
    raw: list[list[Member]]
    hidden: list[tuple[str, str, float] | None]
    is_rejected: np.ndarray
    truth: list[list[str]]
    is_list: bool
    has_many: bool

    @property
    def has_confidences(self) -> bool:
        """Whether every predicted label has one."""
        return not any(math.isnan(value) for row in self.members for _, value in row)


def read_labels(comparison: Comparison) -> ImageLabels:
    """The labels of both fields."""
    view, match = comparison.view, comparison.match
    is_list = label_type(view, comparison.predictions) == "Classifications"
    has_many = label_type(view, comparison.ground_truth) == "Classifications"
    inner = ".classifications" if is_list else ""
    names, confidences = view.values(
        [f"{comparison.predictions}{inner}.{name}" for name in ("label", "confidence")]
    )
    rules, others = (
        _column(comparison, f"{comparison.predictions}.{name}")
        for name in ("rejected_by", "rejected_label")
    )
    truth = view.values(
        f"{comparison.ground_truth}.classifications.label"
        if has_many
        else f"{comparison.ground_truth}.label"
    )
    members, raw, hidden = [], [], []
    for label, confidence, rule, other in zip(names, confidences, rules, others, strict=True):
        pairs = _pairs(label, confidence, is_list)
        pairs = [(name, value) for name, value in pairs if match.of_prediction(name) is not None]
        raw.append(pairs)
        members.append(_unique([(match.of_prediction(name), value) for name, value in pairs]))
        is_hidden = not is_list and rule in _THRESHOLDS and other is not None
        value = math.nan if is_list or confidence is None else confidence
        hidden.append((other, match.of_prediction(other), value) if is_hidden else None)
    return ImageLabels(
        members,
        raw,
        hidden,
        np.array([rule is not None for rule in rules], dtype=bool),
        [list(dict.fromkeys(map(match.of_truth, _truth(row, has_many)))) for row in truth],
        is_list,
        has_many,
    )


def best_fields(
    comparison: Comparison, labels: ImageLabels, eval_key: str
) -> tuple[str, str, tuple[str, ...]]:
    """The fields of one class an image that FiftyOne evaluates, and which of them are new.

    Of a list of predictions that is the best one; of several true classes the one that was hit,
    else the first. The new fields belong to the evaluation.
    """
    predictions, ground_truth, written = comparison.predictions, comparison.ground_truth, []
    if labels.is_list:
        predictions = f"{eval_key}_top1"
        best = [row[0] if row else (None, math.nan) for row in labels.raw]
        _write(comparison, predictions, f"Best label of {comparison.predictions!r}", best)
        written.append(predictions)
    if labels.has_many:
        ground_truth = f"{eval_key}_truth"
        rows = zip(labels.members, labels.truth, strict=True)
        best = [(_hit_or_first(members, truth), math.nan) for members, truth in rows]
        what = f"Label of {comparison.ground_truth!r} that was hit, else the first"
        _write(comparison, ground_truth, what, best)
        written.append(ground_truth)
    return predictions, ground_truth, tuple(written)


def _hit_or_first(members: list[Member], truth: list[str]) -> str | None:
    if members and members[0][0] in truth:
        return members[0][0]
    return truth[0] if truth else None


def _write(comparison: Comparison, field: str, description: str, best: list) -> None:
    import fiftyone as fo

    dataset = comparison.view._root_dataset
    dataset.add_sample_field(
        field,
        fo.EmbeddedDocumentField,
        embedded_doc_type=fo.Classification,
        description=f"{description}, for an evaluation",
    )
    ids = comparison.view.values("id")
    made = {
        sample_id: fo.Classification(label=name, confidence=None if math.isnan(value) else value)
        for sample_id, (name, value) in zip(ids, best, strict=True)
    }
    dataset.set_values(field, made, key_field="id")


def _pairs(label: Any, confidence: Any, is_list: bool) -> list[Member]:
    rows = zip(label or (), confidence or (), strict=True) if is_list else [(label, confidence)]
    pairs = [
        (name, math.nan if value is None else float(value))
        for name, value in rows
        if name is not None
    ]
    if all(not math.isnan(value) for _, value in pairs):
        pairs.sort(key=lambda pair: -pair[1])  # stable: equal ones stay in their order
    return pairs


def _unique(pairs: list[Member]) -> list[Member]:
    """The first, which is the best, of each name."""
    found: dict[str, float] = {}
    for name, value in pairs:
        found.setdefault(name, value)
    return list(found.items())


def _truth(row: Any, has_many: bool) -> list[str]:
    return [name for name in (row or () if has_many else (row,)) if name is not None]


def _column(comparison: Comparison, path: str) -> list:
    if not comparison.has_attribute(path):
        return [None] * comparison.counts["evaluated"]
    return comparison.view.values(path)
