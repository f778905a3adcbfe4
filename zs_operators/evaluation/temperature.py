"""Confidences with a temperature: what an evaluation fitted, applied to labels that are there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np

from zs_operators import fields, provenance
from zs_operators.errors import FieldError, InvalidInputError
from zs_operators.evaluation.calibration import (
    CONFIDENCES,
    LOGITS,
    scaled_confidences,
    softmax_confidences,
)
from zs_operators.evaluation.records import load_evaluation
from zs_operators.evaluation.report import EvaluationReport
from zs_operators.evaluation.sources import find_run, vocabulary_of
from zs_operators.option_checks import check_choice
from zs_operators.samples import check_samples
from zs_operators.stored_scores import KINDS, kind_of

if TYPE_CHECKING:
    import fiftyone as fo
    from fiftyone.core.collections import SampleCollection

TASK = "temperature"

_CHUNK = 2_000


@dataclass(frozen=True)
class AppliedTemperature:
    """What :func:`apply_temperature` did.

    Attributes:
        label_field: where the labels are now
        temperature: what logits or log odds were divided by
        source: "logits" or "confidences"
        changed: labels whose confidence changed
    """

    label_field: str
    temperature: float
    source: str
    changed: int

    def __str__(self) -> str:
        return (
            f"{self.label_field}: confidences of {self.changed:,} labels with temperature "
            f"{self.temperature:.4g} of {self.source}"
        )


def apply_temperature(
    samples: SampleCollection,
    label_field: str,
    temperature: float | EvaluationReport | str,
    *,
    source: str | None = None,
    new_field: str | None = None,
    overwrite: bool = False,
) -> AppliedTemperature:
    """Gives labels the confidences that a temperature makes of what is stored; no model runs.

    No label and no ranking changes, only how sure each label is. Thresholds of confidences mean
    something else afterwards. The temperature is noted in the record of the run that made the
    labels, and to label more images like these pass it to ``zs.classify(temperature=…)``, if it
    is one of logits.

    Args:
        samples: a dataset or view
        label_field: of ``Classification``, ``Classifications`` or ``Detections``
        temperature: a number above 0, the report of an evaluation, or its eval_key
        source (None): "logits" divides the stored logits of all classes, whatever temperature
            they had before; "confidences" the log odds of the stored confidences. None takes that
            of the evaluation, or for a number logits where there are some
        new_field (None): where to write; None changes ``label_field`` itself
        overwrite (False): allow changing confidences in place, or replacing ``new_field``

    Returns:
        an :class:`AppliedTemperature`

    Raises:
        FieldError: if the field is missing or has none of the scores, or confidences would be lost
        InvalidInputError: if the temperature cannot be used
    """
    check_samples(samples)
    kind = kind_of(samples, label_field)
    value, source, eval_key = _resolve(samples, label_field, temperature, source)
    _check_target(samples, label_field, new_field, kind, overwrite)
    columns = None
    if source == LOGITS:
        columns = _columns(samples, label_field, kind)
    ids = samples.values("id")
    target = new_field or label_field
    # In place, labels that a view hides must not be lost
    whole = samples._root_dataset if new_field is None else samples
    fields.declare(
        samples, target, kind, f"Labels of {label_field!r}, confidences with a temperature"
    ) if new_field else None
    changed = 0
    for start in range(0, len(ids), _CHUNK):
        chunk = whole.select(ids[start : start + _CHUNK], ordered=True)
        written = {}
        for sample_id, label in zip(chunk.values("id"), chunk.values(label_field), strict=True):
            if label is not None:
                label = label.copy() if new_field else label
                changed += _scale(label, value, columns)
                written[sample_id] = label
        samples._root_dataset.set_values(target, written, key_field="id")
    _note(samples, label_field, target, value, source, eval_key)
    return AppliedTemperature(target, value, source, changed)


def _resolve(
    samples: SampleCollection, label_field: str, given: Any, source: str | None
) -> tuple[float, str, str | None]:
    """Temperature, its source and the evaluation it is of."""
    if source is not None:
        check_choice("source", source, (LOGITS, CONFIDENCES))
    eval_key = None
    if isinstance(given, str):
        given = load_evaluation(samples, given)
    if isinstance(given, EvaluationReport):
        eval_key, fitted = given.eval_key, given.calibration
        if given.predictions != label_field:
            raise InvalidInputError(
                f"Evaluation {eval_key!r} is of {given.predictions!r}, not of {label_field!r}."
            )
        if fitted is None or fitted.temperature is None:
            raise InvalidInputError(
                f"Evaluation {eval_key!r} has no temperature: too few labels have confidences, or "
                "all of them are right, or all wrong."
            )
        if source not in (None, fitted.source):
            raise InvalidInputError(
                f"source={source!r}, but evaluation {eval_key!r} fitted its temperature on "
                f"{fitted.source}."
            )
        given, source = fitted.temperature, fitted.source
    is_number = isinstance(given, (int, float, np.number)) and not isinstance(given, bool)
    if not is_number or not math.isfinite(given) or given <= 0:
        raise InvalidInputError(f"temperature={given!r} must be a number above 0.")
    if source is None:
        try:
            _columns(samples, label_field, kind_of(samples, label_field))
            source = LOGITS
        except FieldError:
            source = CONFIDENCES
    return float(given), source, eval_key


def _check_target(samples, label_field, new_field, kind, overwrite) -> None:
    if new_field is None:
        if not overwrite:
            raise FieldError(
                f"Confidences of {label_field!r} would be replaced: give new_field, or allow it "
                "(overwrite=True)."
            )
        return
    if new_field == label_field:
        raise FieldError(f"new_field={new_field!r} is the field itself: choose another name.")
    fields.check_label_field(samples, new_field, "detect", overwrite=overwrite, label_type=kind)
    if not overwrite and fields.has_values(samples, new_field):
        raise FieldError(
            f"Field {new_field!r} exists and holds labels: choose another name, or allow "
            "overwriting (overwrite=True)."
        )


def _columns(samples: SampleCollection, label_field: str, kind: str) -> dict[str, int]:
    """The column of each class in the stored logits.

    Raises:
        FieldError: if a softmax over the stored logits is not what the confidences are
    """
    record = find_run(samples, label_field)
    vocabulary = vocabulary_of(record)
    why = None
    if kind == "Detections":
        why = "boxes keep no logits"
    elif vocabulary is None:
        why = "no run of this plugin made the field, so whose logits they are is not known"
    elif vocabulary.background or (record.get("options") or {}).get("multi_label"):
        why = "its confidences are no softmax over the classes alone"
    elif (record.get("model") or {}).get("logit_bias") is not None:
        why = "its confidences are sigmoids"
    else:
        is_label = samples.exists(label_field).values(f"{label_field}.logits")
        if any(row is None or len(row) != len(vocabulary.labels) for row in is_label):
            why = "some labels have no logits; classify with store_logits=True"
    if why is not None:
        raise FieldError(
            f"Logits of {label_field!r} cannot be used: {why}. Use source='confidences'."
        )
    return {name: number for number, name in enumerate(vocabulary.labels)}


def _scale(label: fo.Label, temperature: float, columns: dict[str, int] | None) -> int:
    """New confidences of a label or the members of a list; how many changed."""
    inner = KINDS[type(label).__name__]
    members = [label] if inner is None else label[inner]
    members = [member for member in members if member.confidence is not None]
    if not members:
        return 0
    if columns is None:
        found = scaled_confidences([member.confidence for member in members], temperature)
    else:
        names = [_name(member) for member in members]
        known = [i for i, name in enumerate(names) if name in columns]
        members, names = [members[i] for i in known], [names[i] for i in known]
        logits = np.tile(np.asarray(label.logits, dtype=float), (len(members), 1))
        found = softmax_confidences(logits, _numbers(names, columns), temperature)
    changed = 0
    for member, value in zip(members, found.tolist(), strict=True):
        changed += member.confidence != value
        member.confidence = value
    return changed


def _name(label: Any) -> str | None:
    """The class whose confidence a label has, of a rejected one what it would be."""
    hidden = label["rejected_label"] if label.has_field("rejected_label") else None
    return label.label if hidden is None else hidden


def _numbers(names: Sequence[str], columns: dict[str, int]) -> np.ndarray:
    return np.array([columns[name] for name in names], dtype=int)


def _note(samples, label_field, target, temperature, source, eval_key) -> None:
    """Keeps the temperature in a record of its own, and in that of the run, if there is one."""
    applied = {
        "temperature": temperature,
        "source": source,
        "eval_key": eval_key,
        "applied_to": target,
        "finished": datetime.now(timezone.utc).isoformat(),
    }
    record = {"task": TASK, "label_field": target, "source_field": label_field, **applied}
    provenance.save(samples, TASK, target, record)
    for task in ("classify", "detect", "segment"):
        if (run := provenance.find(samples, task, label_field)) is not None:
            provenance.save(samples, task, label_field, {**run, "calibration": applied})
