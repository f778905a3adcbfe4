"""Other thresholds for labels that are there: no image is read, no model runs.

A field keeps ``confidence``, ``cosine`` and ``margin`` of its labels, and of a rejected image the
class that would have won. :func:`sweep_thresholds` says what a threshold would keep,
:func:`apply_thresholds` applies it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np

from zs_operators import fields, provenance
from zs_operators.errors import FieldError, InvalidInputError
from zs_operators.samples import check_samples
from zs_operators.stored_scores import (
    KINDS,
    StoredScores,
    kind_of,
    read_scores,
    right_boxes,
    right_classes,
    right_names,
)
from zs_operators.sweeps import Candidates, Sweep, check_score, spread

if TYPE_CHECKING:
    import fiftyone as fo
    from fiftyone.core.collections import SampleCollection

Limit = float | Mapping[str | None, float] | None

#: Rules that thresholds stand for; what another rule rejected stays rejected.
_RULES = ("confidence", "margin", "cosine")
_CHUNK = 2_000


@dataclass(frozen=True)
class AppliedThresholds:
    """What :func:`apply_thresholds` did.

    Attributes:
        label_field: where the labels are now
        kept: labels that pass
        rejected: labels that are marked as rejected and can come back
        removed: labels of lists that are not in the field
        by_rule: how many labels each rule rejected or removed
    """

    label_field: str
    kept: int
    rejected: int
    removed: int
    by_rule: Mapping[str, int]

    def __str__(self) -> str:
        rules = ", ".join(f"{name} {count:,}" for name, count in self.by_rule.items())
        return (
            f"{self.label_field}: {self.kept:,} labels kept, {self.rejected:,} marked as rejected, "
            f"{self.removed:,} left out" + (f" ({rules})" if rules else "")
        )


def sweep_thresholds(
    samples: SampleCollection,
    label_field: str,
    by: str = "confidence",
    gt_field: str | None = None,
    *,
    thresholds: int | Sequence[float] = 21,
    eval_key: str | None = None,
) -> Sweep:
    """What thresholds would keep of the labels of a field, and how right that is.

    Labels rejected by an earlier threshold count as candidates again; those the background won do
    not. Right is: a class that ground truth has for the image; a detection that FiftyOne's
    evaluation matches; an existing box that was named, if its own label in ``gt_field`` agrees.
    Matching goes by confidence: for another score, a box that a removed one had kept from its
    match still counts as wrong.

    Args:
        samples: a dataset or view
        label_field: of ``Classification``, ``Classifications`` or ``Detections``
        by ("confidence"): "confidence", "cosine" or "margin"
        gt_field (None): labels of the same kind to measure precision, recall and F1 against
        thresholds (21): how many to try, or which
        eval_key (None): an evaluation of the two fields; None matches detections here, without
            writing anything

    Returns:
        a :class:`zs_operators.sweeps.Sweep`

    Raises:
        FieldError: if a field is missing, holds something else or has no such score, or the
            evaluation does not fit it
        InvalidInputError: if another argument cannot be used
    """
    check_score(by)
    check_samples(samples)
    stored = read_scores(samples, label_field, by)
    usable = np.array([rule is None or rule in _RULES for rule in stored.rejected_by], dtype=bool)
    right = num_true = None
    if gt_field is not None:
        right, num_true = _truth(samples, stored, label_field, gt_field, eval_key)
        right = right[usable]
    candidates = Candidates(stored.labels[usable], stored.values[usable], right, num_true)
    if len(candidates.values) and np.isnan(candidates.values).all():
        raise FieldError(
            f"The labels of {label_field!r} have no {by}: choose another score, or label again."
        )
    return Sweep(label_field, by, gt_field, spread(candidates, by, thresholds), candidates)


def apply_thresholds(
    samples: SampleCollection,
    label_field: str,
    *,
    min_confidence: Limit = None,
    min_margin: Limit = None,
    min_cosine: Limit = None,
    reject_label: str | None = None,
    new_field: str | None = None,
    overwrite: bool = False,
) -> AppliedThresholds:
    """Applies thresholds to labels that are there, in place of those they were made with.

    A ``Classification``, and a named box that was there before, is marked: it loses its label,
    which stays in ``rejected_label``, and gets it back from a lower threshold; called without
    thresholds, all come back but what the background won. Other boxes and the members of
    ``Classifications`` are left out: into ``new_field``, or in place with ``overwrite=True``.

    Args:
        samples: a dataset or view
        label_field: see :func:`sweep_thresholds`
        min_confidence (None), min_margin (None), min_cosine (None): one number, or one for each
            label and under None for all others, as of ``Sweep.best_per_class``
        reject_label (None): label of what is rejected
        new_field (None): where to write; None changes ``label_field`` itself
        overwrite (False): allow leaving labels out of ``label_field``, or replacing those of
            ``new_field``

    Raises:
        FieldError: if a field is missing or holds something else, has none of the scores, or
            labels would be lost
        InvalidInputError: if a threshold is no number
    """
    check_samples(samples)
    kind = kind_of(samples, label_field)
    limits = {"confidence": min_confidence, "margin": min_margin, "cosine": min_cosine}
    limits = {
        rule: _check_limit(rule, given) for rule, given in limits.items() if given is not None
    }
    if new_field is not None:
        fields.check_label_field(samples, new_field, "detect", overwrite=overwrite, label_type=kind)
        if new_field == label_field:
            raise FieldError(f"new_field={new_field!r} is the field itself: choose another name.")
        if not overwrite and fields.has_values(samples, new_field):
            raise FieldError(
                f"Field {new_field!r} exists and holds labels: choose another name, or allow "
                "overwriting (overwrite=True)."
            )
    # In place, labels that a view hides must not be lost
    source = samples if new_field is not None else _whole(samples)
    for rule in limits:
        values = read_scores(source, label_field, rule).values
        if len(values) and np.isnan(values).all():
            raise FieldError(f"The labels of {label_field!r} have no {rule}: leave min_{rule} out.")
    if new_field is None and not overwrite and KINDS[kind]:
        counts = Counter()
        for _, labels in _chunks(source, label_field):
            for value in filter(None, labels):
                _rethreshold(value, limits, reject_label, counts)
        if counts["removed"]:
            raise FieldError(
                f"{counts['removed']:,} labels of {label_field!r} would be lost: give new_field, "
                "or allow it (overwrite=True)."
            )
    target = new_field or label_field
    fields.declare(samples, target, kind, f"Labels of {label_field!r}, thresholds applied")
    counts = Counter()
    for ids, labels in _chunks(source, label_field):
        written = {}
        for sample_id, value in zip(ids, labels, strict=True):
            if value is None:
                continue
            value = value if new_field is None else value.copy()
            if _rethreshold(value, limits, reject_label, counts) or new_field is not None:
                written[sample_id] = value
        if written:
            samples._root_dataset.set_values(target, written, key_field="id")
    done = AppliedThresholds(
        target,
        counts["kept"],
        counts["rejected"],
        counts["removed"],
        {rule: counts[rule] for rule in _RULES if counts[rule]},
    )
    record = {
        "label_field": target,
        "source_field": label_field,
        "thresholds": [
            {"rule": rule, "label": label, "value": value}
            for rule, given in limits.items()
            for label, value in given.items()
        ],
        "kept": done.kept,
        "rejected": done.rejected,
        "removed": done.removed,
        "finished": datetime.now(timezone.utc).isoformat(),
    }
    provenance.save(samples, "thresholds", target, record)
    return done


def _truth(
    samples: SampleCollection,
    stored: StoredScores,
    label_field: str,
    gt_field: str,
    eval_key: str | None,
) -> tuple[np.ndarray, dict[str, int]]:
    if kind_of(samples, label_field) != "Detections":
        return right_classes(samples, gt_field, stored)
    if stored.source_ids and None not in stored.source_ids:
        return right_names(samples, gt_field, stored)
    return right_boxes(samples, label_field, gt_field, stored, eval_key)


def _rethreshold(
    value: fo.Label,
    limits: Mapping[str, Mapping[str | None, float]],
    reject_label: str | None,
    counts: Counter,
) -> bool:
    """Marks a label in place, or leaves members out of a list; whether it changed."""
    attribute = KINDS[type(value).__name__]
    if attribute is None:
        return _mark(value, limits, reject_label, counts)
    stay, is_changed = [], False
    for label in value[attribute]:
        if _get(label, "source_id") is not None:
            is_changed |= _mark(label, limits, reject_label, counts)
            stay.append(label)
            continue
        rule = _failed(label, label.label, limits)
        counts["kept" if rule is None else "removed"] += 1
        if rule is None:
            stay.append(label)
        else:
            counts[rule] += 1
            is_changed = True
    value[attribute] = stay
    return is_changed


def _mark(label: Any, limits: Mapping, reject_label: str | None, counts: Counter) -> bool:
    earlier = _get(label, "rejected_by")
    if earlier is not None and earlier not in _RULES:
        counts["rejected"] += 1
        return False
    name = label.label if earlier is None else _get(label, "rejected_label")
    rule = _failed(label, name, limits)
    counts["kept" if rule is None else "rejected"] += 1
    if rule is not None:
        counts[rule] += 1
    if rule is None and earlier is None:
        return False
    label.label = name if rule is None else reject_label
    label["rejected_by"] = rule
    label["rejected_label"] = None if rule is None else name
    return True


def _failed(label: Any, name: str | None, limits: Mapping) -> str | None:
    for rule, given in limits.items():
        limit = given.get(name, given.get(None))
        value = _get(label, rule)
        if limit is not None and value is not None and value < limit:
            return rule
    return None


def _get(label: Any, name: str) -> Any:
    return label[name] if label.has_field(name) else None


def _check_limit(rule: str, given: Limit) -> dict[str | None, float]:
    limits = dict(given) if isinstance(given, Mapping) else {None: given}
    for label, value in limits.items():
        is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value):
            of = "" if label is None else f" of {label!r}"
            raise InvalidInputError(f"min_{rule}={value!r}{of} must be a number.")
    return {label: float(value) for label, value in limits.items()}


def _whole(samples: SampleCollection) -> SampleCollection:
    """The same samples with all their labels."""
    dataset = samples._root_dataset
    return dataset if samples is dataset else dataset.select(samples.values("id"), ordered=True)


def _chunks(
    samples: SampleCollection, label_field: str
) -> Iterator[tuple[list[str], list[fo.Label | None]]]:
    """Sample ids and their labels, some at a time."""
    ids = samples.values("id")
    for start in range(0, len(ids), _CHUNK):
        chunk = samples.select(ids[start : start + _CHUNK], ordered=True)
        yield chunk.values("id"), chunk.values(label_field)
