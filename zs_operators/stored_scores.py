"""Scores that labels keep, read from a dataset, and whether ground truth agrees with them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zs_operators.errors import FieldError

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

#: Label types whose scores can be used, and the attribute that holds a list of labels.
KINDS = {
    "Classification": None,
    "Classifications": "classifications",
    "Detections": "detections",
}


@dataclass(frozen=True)
class StoredScores:
    """The N labels of a field.

    Attributes:
        labels: (N,) object, class names
        values: (N,) float64 scores; NaN where none is stored
        rejected_by: the rule that rejected each, or None
        sample_numbers: position of each one's sample in the collection
        ids: of the labels
        source_ids: of the existing boxes they name, or None
    """

    labels: np.ndarray
    values: np.ndarray
    rejected_by: list[str | None]
    sample_numbers: list[int]
    ids: list[str]
    source_ids: list[str | None]


def read_scores(samples: SampleCollection, label_field: str, by: str) -> StoredScores:
    """The labels of a field, those that were rejected under the class they would have.

    Raises:
        FieldError: if there is no such field, or it holds something else
    """
    attribute = KINDS[kind_of(samples, label_field)]
    path = f"{label_field}.{attribute}" if attribute else label_field
    schema = _attributes(samples, label_field)
    wanted = ["label", by, "rejected_by", "rejected_label", "id", "source_id"]
    known = [name for name in wanted if name in ("label", "id") or name in schema]
    columns = dict(zip(known, samples.values([f"{path}.{name}" for name in known]), strict=True))
    rows: list[tuple] = []
    numbers: list[int] = []
    for number, row in enumerate(zip(*(columns[name] for name in known), strict=True)):
        members = zip(*row, strict=True) if attribute else [row]
        if attribute and row[0] is None:
            continue
        for member in members:
            found = dict(zip(known, member, strict=True))
            if found["id"] is None:
                continue
            rejected = found.get("rejected_by")
            name = found["label"] if rejected is None else found.get("rejected_label")
            rows.append((name, found.get(by), rejected, found["id"], found.get("source_id")))
            numbers.append(number)
    labels = np.array([row[0] for row in rows] or [], dtype=object)
    values = np.array([math.nan if row[1] is None else row[1] for row in rows], dtype=float)
    rules, ids, sources = ([row[i] for row in rows] for i in (2, 3, 4))
    return StoredScores(labels, values, rules, numbers, ids, sources)


def right_classes(
    samples: SampleCollection, gt_field: str, stored: StoredScores
) -> tuple[np.ndarray, dict[str, int]]:
    """Whether the image of each label has its class in ``gt_field``, and how many of each it has.

    Raises:
        FieldError: if ``gt_field`` is missing or holds no classes of images
    """
    kind = kind_of(samples, gt_field)
    if kind == "Detections":
        raise FieldError(f"gt_field={gt_field!r} holds Detections: classes of images are needed.")
    path = f"{gt_field}.classifications.label" if KINDS[kind] else f"{gt_field}.label"
    truth = [
        set(found) if isinstance(found, list) else {found} - {None}
        for found in samples.values(path)
    ]
    pairs = zip(stored.labels, stored.sample_numbers, strict=True)
    right = [name in truth[number] for name, number in pairs]
    return np.array(right, dtype=bool), dict(Counter(name for names in truth for name in names))


def right_names(
    samples: SampleCollection, gt_field: str, stored: StoredScores
) -> tuple[np.ndarray, dict[str, int]]:
    """Whether the box each label names has that label in ``gt_field``, and how many of each.

    Raises:
        FieldError: if ``gt_field`` is missing or holds no ``Detections``
    """
    _check_boxes(samples, gt_field)
    path = f"{gt_field}.detections"
    ids, names = samples.values([f"{path}.id", f"{path}.label"])
    pairs = zip(ids, names, strict=True)
    truth = {
        label_id: name
        for found, their_names in pairs
        for label_id, name in zip(found or (), their_names or (), strict=True)
    }
    pairs = zip(stored.labels, stored.source_ids, strict=True)
    right = [truth.get(source) == name for name, source in pairs]
    return np.array(right, dtype=bool), dict(Counter(truth.values()))


def right_boxes(
    samples: SampleCollection,
    label_field: str,
    gt_field: str,
    stored: StoredScores,
    eval_key: str | None = None,
) -> tuple[np.ndarray, dict[str, int]]:
    """Whether FiftyOne's evaluation matches each box, and how many of each class there are.

    Args:
        eval_key (None): a stored evaluation; None evaluates now and stores nothing

    Raises:
        FieldError: if ``gt_field`` holds no ``Detections``, or the evaluation is none of these
            fields or older than their labels
    """
    _check_boxes(samples, gt_field)
    if eval_key is None:
        results = samples.evaluate_detections(label_field, gt_field=gt_field, progress=False)
    else:
        if not samples.has_evaluation(eval_key):
            known = ", ".join(samples.list_evaluations()) or "none"
            raise FieldError(f"There is no evaluation {eval_key!r}; there is: {known}.")
        config = samples.get_evaluation_info(eval_key).config
        if (config.pred_field, config.gt_field) != (label_field, gt_field):
            raise FieldError(
                f"Evaluation {eval_key!r} is of {config.pred_field!r} and {config.gt_field!r}, not "
                f"of {label_field!r} and {gt_field!r}."
            )
        results = samples.load_evaluation_results(eval_key)
    seen = {label_id for label_id in results.ypred_ids if label_id is not None}
    if not set(stored.ids) <= seen:
        raise FieldError(
            f"Evaluation {eval_key!r} does not know all labels of {label_field!r}: evaluate again."
        )
    here = set(_flat(samples.values(f"{gt_field}.detections.id")))
    matched = {
        pred_id
        for true, pred, true_id, pred_id in zip(
            results.ytrue, results.ypred, results.ytrue_ids, results.ypred_ids, strict=True
        )
        if true_id is not None and pred_id is not None and true == pred
    }
    counted = {
        true_id: true
        for true, true_id in zip(results.ytrue, results.ytrue_ids, strict=True)
        if true_id in here
    }
    right = np.array([label_id in matched for label_id in stored.ids], dtype=bool)
    return right, dict(Counter(counted.values()))


def _check_boxes(samples: SampleCollection, gt_field: str) -> None:
    if kind_of(samples, gt_field) != "Detections":
        raise FieldError(f"gt_field={gt_field!r} must hold Detections, to be matched with boxes.")


def kind_of(samples: SampleCollection, label_field: str) -> str:
    """Name of the label class of a field.

    Raises:
        FieldError: if there is no such field, or it is none of :data:`KINDS`
    """
    field = samples.get_field(label_field)
    if field is None:
        from zs_operators.samples import label_fields

        known = ", ".join(label_fields(samples)) or "none"
        raise FieldError(f"There is no field {label_field!r}; label fields: {known}.")
    document = getattr(field, "document_type", None)
    kind = document.__name__ if document is not None else type(field).__name__
    if kind not in KINDS:
        raise FieldError(f"Field {label_field!r} holds {kind}, not {', '.join(KINDS)}.")
    return kind


def _attributes(samples: SampleCollection, label_field: str) -> set[str]:
    attribute = KINDS[kind_of(samples, label_field)]
    prefix = f"{label_field}.{attribute}." if attribute else f"{label_field}."
    schema = samples._root_dataset.get_field_schema(flat=True)
    return {path.removeprefix(prefix) for path in schema if path.startswith(prefix)}


def _flat(lists: Sequence) -> list:
    return [item for items in lists for item in items or ()]
