"""What is known of predictions besides their labels: the run that made them, names, logits."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zs_operators import provenance
from zs_operators.errors import VocabularyError
from zs_operators.evaluation.targets import label_type
from zs_operators.vocabulary import Vocabulary

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

_TASKS = ("classify", "detect", "segment")
#: Tasks whose records name the field that their labels came from.
_DERIVED = ("thresholds", "temperature")


@dataclass(frozen=True)
class Logits:
    """Stored logits.

    Attributes:
        values: (N, K) float32; NaN rows where none are stored
        names: of the K columns, as predicted
        temperature: what they were divided by to become confidences
        is_softmax: whether confidences are a softmax over these very columns
    """

    values: np.ndarray
    names: tuple[str, ...]
    temperature: float
    is_softmax: bool


def find_run(samples: SampleCollection, field: str) -> Mapping[str, Any] | None:
    """The record of the run that made the labels of a field, or those they were derived from."""
    for _ in range(10):
        for task in _TASKS:
            if (record := provenance.find(samples, task, field)) is not None:
                return record
        sources = [provenance.find(samples, task, field) for task in _DERIVED]
        sources = [r["source_field"] for r in sources if r is not None and r.get("source_field")]
        if not sources or sources[0] == field:
            return None
        field = sources[0]
    return None


def vocabulary_of(record: Mapping[str, Any] | None) -> Vocabulary | None:
    """The vocabulary a run was made with; None without one."""
    if record is None or not record.get("vocabulary"):
        return None
    try:
        return Vocabulary.from_dict(record["vocabulary"])
    except VocabularyError:  # of a version that stored something else
        return None


def names_of(samples: SampleCollection, field: str) -> list[str]:
    """Names of the labels of a field, sorted."""
    _, path = samples._get_label_field_path(field, "label")
    return sorted(name for name in samples.distinct(path) if name is not None)


def rejection_names(samples: SampleCollection, field: str, truth: Collection[str]) -> set[str]:
    """Names that rejected labels were given instead of a class; none that ground truth has."""
    from fiftyone import ViewField as F

    kind = label_type(samples, field)
    inner = ".detections" if kind == "Detections" else ""
    if samples._root_dataset.get_field(f"{field}{inner}.rejected_by") is None:
        return set()
    is_rejected = F("rejected_by") != None  # noqa: E711
    if kind == "Detections":
        rejected = samples.filter_labels(field, is_rejected)
    else:
        rejected = samples.match(F(field).apply(is_rejected))
    return set(names_of(rejected, field)) - set(truth)


def read_logits(
    samples: SampleCollection,
    field: str,
    record: Mapping[str, Any] | None,
    vocabulary: Vocabulary | None,
) -> tuple[Logits | None, str | None]:
    """Stored logits and whose they are; or why there are none.

    Args:
        samples: of which N have a label
        field: of ``Classification`` or ``Classifications``
        record: of the run
        vocabulary: whose labels are the columns
    """
    rows = samples.values(f"{field}.logits")
    stored = [row is not None and len(row) > 0 for row in rows]
    if not any(stored):
        return None, "No logits are stored: classify with store_logits=True."
    if vocabulary is None:
        return None, "Whose logits are stored is not known: no run of this plugin made the field."
    names = vocabulary.labels
    lengths = {len(row) for row, there in zip(rows, stored, strict=True) if there}
    if lengths != {len(names)}:
        found = ", ".join(map(str, sorted(lengths)))
        return None, f"{found} logits are stored for {len(names)} classes: label again."
    values = np.full((len(rows), len(names)), np.nan, dtype=np.float32)
    values[stored] = np.array([row for row, there in zip(rows, stored, strict=True) if there])
    options = (record or {}).get("options") or {}
    model = (record or {}).get("model") or {}
    is_softmax = (
        not vocabulary.background
        and not options.get("multi_label")
        and (not isinstance(model, Mapping) or model.get("logit_bias") is None)
    )
    return Logits(values, names, float(options.get("temperature") or 1.0), is_softmax), None
