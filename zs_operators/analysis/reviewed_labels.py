"""Reviewed labels in the database: how they are read, built and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from zs_operators.analysis.error_inputs import ErrorInputs
from zs_operators.errors import FieldError

if TYPE_CHECKING:
    import fiftyone as fo
    from fiftyone.core.collections import SampleCollection

#: Attribute of a reviewed label that no other label has.
PREDICTED = "predicted"
#: Attribute of all boxes of a sample: those for which no name is right.
DISCARDED = "discarded"
ATTRIBUTES = {
    PREDICTED: "StringField",
    "predicted_confidence": "FloatField",
    "source_field": "StringField",
    "source_id": "StringField",
    "reviewed_at": "DateTimeField",
}


@dataclass(frozen=True)
class NewReviews:
    """What a person says of some labels; see :func:`zs_operators.mark_reviewed`."""

    label_field: str
    name: str | Mapping[str, str] | None
    discard: bool
    at: datetime

    def name_of(self, key: str, predicted: str | None) -> str | None:
        """The right name of a label; None if there is none."""
        if self.discard:
            return None
        if self.name is None:
            return predicted
        return self.name[key] if isinstance(self.name, Mapping) else self.name

    def concerns(self, key: str) -> bool:
        return not isinstance(self.name, Mapping) or key in self.name


@dataclass(frozen=True)
class Review:
    """One label that was reviewed.

    Attributes:
        label_id: of the prediction
        name: that is right; None if none is
        attributes: what is noted with the name
        box: the prediction itself where it has a place, else None
    """

    label_id: str
    name: str | None
    attributes: Mapping[str, Any]
    box: fo.Detection | None = None

    @property
    def is_correction(self) -> bool:
        return self.name != self.attributes[PREDICTED]


def check_reviewed_field(samples: SampleCollection, field: str, kind: str) -> None:
    """Refuses a field that holds anything but reviews of this kind.

    Raises:
        FieldError: if it does, or cannot be the name of a field
    """
    from zs_operators.fields import check_label_field

    there = samples._dataset.get_field(field)
    wanted = "Detections" if kind == "Detections" else "Classification"
    if there is None:
        check_label_field(samples, field)
        return
    document = getattr(there, "document_type", None)
    marker = f"{field}.detections.{PREDICTED}" if wanted == "Detections" else f"{field}.{PREDICTED}"
    if (
        document is None
        or document.__name__ != wanted
        or samples._dataset.get_field(marker) is None
    ):
        raise FieldError(
            f"Field {field!r} exists and holds something other than reviews of {wanted}: choose "
            "another reviewed_field."
        )


def read_reviews(samples: SampleCollection, new: NewReviews) -> dict[str, list[Review]]:
    """The reviews of what a view shows, by sample id."""
    inputs = ErrorInputs(samples, new.label_field)
    found: dict[str, list[Review]] = {}
    if inputs.has_boxes:
        for sample_id, labels in zip(*samples.values(["id", new.label_field]), strict=True):
            boxes = [box for box in (labels.detections if labels else ()) if new.concerns(box.id)]
            if boxes:
                found[sample_id] = [_review(new, box.id, box.label, box, box) for box in boxes]
        return found
    ids, labels = samples.values(["id", new.label_field])
    for sample_id, label in zip(ids, labels, strict=True):
        if label is None or not new.concerns(sample_id):
            continue
        if inputs.is_list:
            if not label.classifications:
                continue
            label = label.classifications[0]
        found[sample_id] = [_review(new, sample_id, label.label, label)]
    return found


def reviewed_boxes(samples: SampleCollection, field: str) -> list[str]:
    """Ids of the predicted boxes that were reviewed."""
    columns = samples.exists(field).values(
        [f"{field}.detections.source_id", f"{field}.{DISCARDED}"]
    )
    found: list[str] = []
    for named, dropped in zip(*columns, strict=True):
        found += named or ()
        found += [one["source_id"] for one in dropped or ()]
    return found


def write_reviews(
    samples: SampleCollection,
    found: Mapping[str, list[Review]],
    field: str,
    kind: str,
    *,
    overwrite: bool,
) -> tuple[int, int, int]:
    """Adds reviews to the field; how many were written, corrected, and kept as they were."""
    dataset = samples._root_dataset
    is_boxes = kind == "Detections"
    _declare(dataset, field, is_boxes)
    earlier = dict(zip(*dataset.select(list(found)).values(["id", field]), strict=True))
    values: dict[str, fo.Label] = {}
    written: list[Review] = []
    total = 0
    for sample_id, reviews in found.items():
        total += len(reviews)
        before = earlier.get(sample_id)
        build = _boxes if is_boxes else _classification
        value, used = build(before, reviews, overwrite)
        if used:
            values[sample_id] = value
            written += used
    if values:
        # All attributes are declared above
        dataset.set_values(field, values, key_field="id", validate=False)
    corrected = sum(review.is_correction for review in written)
    return len(written), corrected, total - len(written)


def _review(new: NewReviews, key: str, predicted: str | None, label, box=None) -> Review:
    return Review(
        label_id=label.id,
        name=new.name_of(key, predicted),
        attributes={
            PREDICTED: predicted,
            "predicted_confidence": label.confidence,
            "source_field": new.label_field,
            "source_id": label.id,
            "reviewed_at": new.at,
        },
        box=box,
    )


def _classification(
    before: fo.Classification | None, reviews: list[Review], overwrite: bool
) -> tuple[fo.Classification, list[Review]]:
    import fiftyone as fo

    (review,) = reviews
    if before is not None and not overwrite:
        return before, []
    return fo.Classification(label=review.name, **review.attributes), reviews


def _boxes(
    before: fo.Detections | None, reviews: list[Review], overwrite: bool
) -> tuple[fo.Detections, list[Review]]:
    import fiftyone as fo

    kept = list(before.detections) if before is not None else []
    dropped = list(before[DISCARDED] or ()) if before is not None else []
    done = {box.source_id for box in kept} | {one["source_id"] for one in dropped}
    used = [review for review in reviews if overwrite or review.label_id not in done]
    again = {review.label_id for review in used}
    kept = [box for box in kept if box.source_id not in again]
    dropped = [one for one in dropped if one["source_id"] not in again]
    for review in used:
        place = {
            name: review.box[name]
            for name in ("bounding_box", "mask", "mask_path", "index")
            if review.box[name] is not None
        }
        if review.name is None:
            dropped.append({**review.attributes, "bounding_box": place["bounding_box"]})
        else:
            kept.append(fo.Detection(label=review.name, **place, **review.attributes))
    return fo.Detections(detections=kept, **{DISCARDED: dropped}), used


def _declare(dataset: fo.Dataset, field: str, is_boxes: bool) -> None:
    import fiftyone as fo

    if dataset.get_field(field) is None:
        dataset.add_sample_field(
            field,
            fo.EmbeddedDocumentField,
            embedded_doc_type=fo.Detections if is_boxes else fo.Classification,
            description="Labels that a person has reviewed, with the name that is right",
        )
    prefix = f"{field}.detections" if is_boxes else field
    for name, kind in ATTRIBUTES.items():
        if dataset.get_field(f"{prefix}.{name}") is None:
            dataset.add_sample_field(f"{prefix}.{name}", getattr(fo, kind))
    if is_boxes and dataset.get_field(f"{field}.{DISCARDED}") is None:
        dataset.add_sample_field(f"{field}.{DISCARDED}", fo.ListField, subfield=fo.DictField)
