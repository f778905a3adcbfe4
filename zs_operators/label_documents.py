"""Predictions -> labels as the database holds them: what :mod:`zs_operators.labels` makes, at once.

FiftyOne's label objects take most of a millisecond each to make and to take apart again; of a
detector that finds a hundred boxes that is longer than a GPU works on the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zs_operators.fields import RUN_ATTRIBUTE

if TYPE_CHECKING:
    from zs_operators.classifier import ClassPrediction
    from zs_operators.detections import Detection, DetectPrediction
    from zs_operators.region_fields import ExistingBoxes

#: A label as MongoDB holds it.
Document = dict[str, Any]


def classification(
    prediction: ClassPrediction, *, run: str | None = None, reject_label: str | None = None
) -> Document:
    """See :func:`zs_operators.labels.classification`."""
    rejected = prediction.rejected_by is not None
    best = prediction.best
    return {
        **_class_label(reject_label if rejected else best.label, best, prediction.logits),
        "rejected_by": prediction.rejected_by,
        "rejected_label": best.label if rejected else None,
        RUN_ATTRIBUTE: run,
    }


def classifications(
    prediction: ClassPrediction, *, run: str | None = None, reject_label: str | None = None
) -> Document:
    """See :func:`zs_operators.labels.classifications`."""
    found = [_class_label(score.label, score) for score in prediction.kept]
    if prediction.rejected_by is not None and reject_label is not None:
        found = [_class_label(reject_label, prediction.best)]
    return {
        "_cls": "Classifications",
        "classifications": found,
        **_packed_logits(prediction.logits),
        "rejected_by": prediction.rejected_by,
        RUN_ATTRIBUTE: run,
    }


def detections(
    prediction: DetectPrediction,
    *,
    run: str | None = None,
    source: ExistingBoxes | None = None,
    reject_label: str | None = None,
) -> Document:
    """See :func:`zs_operators.labels.detections`."""
    found = [detection(item, source, reject_label) for item in prediction.detections]
    return {"_cls": "Detections", "detections": found, RUN_ATTRIBUTE: run}


def detection(
    item: Detection, source: ExistingBoxes | None = None, reject_label: str | None = None
) -> Document:
    """See :func:`zs_operators.labels.detection`."""
    document = new_detection(
        label=reject_label if item.rejected_by else item.label,
        bounding_box=list(item.box_rel),
        confidence=item.confidence,
    )
    document["margin"] = item.margin
    document["region_index"] = item.region_index
    document["runners_up"] = [score.label for score in item.runners_up]
    if item.cosine is not None:
        document["cosine"] = item.cosine
    if item.objectness is not None:
        document["objectness"] = item.objectness
    if item.rejected_by:
        document["rejected_by"] = item.rejected_by
        document["rejected_label"] = item.label
    if source is not None:
        document["source_id"] = source.label_ids[item.region_index]
        document["source_label"] = source.labels[item.region_index]
    return document


def new_detection(**values: Any) -> Document:
    """A ``Detection`` with those of its own fields that have a value."""
    from bson import ObjectId

    known = {name: value for name, value in values.items() if value is not None}
    return {"_id": ObjectId(), "_cls": "Detection", "attributes": {}, "tags": [], **known}


def _class_label(label: str | None, score: Any, logits: list[float] | None = None) -> Document:
    from bson import ObjectId

    return {
        "_id": ObjectId(),
        "_cls": "Classification",
        "tags": [],
        **({} if label is None else {"label": label}),
        "confidence": score.confidence,
        **_packed_logits(logits),
        "cosine": score.cosine,
        "margin": score.margin,
    }


def _packed_logits(logits: list[float] | None) -> Document:
    if logits is None:
        return {}
    import fiftyone.core.utils as fou
    import numpy as np

    return {"logits": fou.serialize_numpy_array(np.asarray(logits))}
