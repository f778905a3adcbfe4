"""Labels that a person should look at, and what they said about them.

What was reviewed is in a label field of its own, so that a new run cannot lose it and everything
that takes ground truth takes it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from zs_operators.analysis.error_inputs import kinds_for, label_type
from zs_operators.analysis.error_kinds import ErrorKind, parse_kind
from zs_operators.analysis.error_views import error_view
from zs_operators.analysis.reviewed_labels import (
    PREDICTED,
    NewReviews,
    check_reviewed_field,
    read_reviews,
    reviewed_boxes,
    write_reviews,
)
from zs_operators.errors import FieldError, InvalidInputError

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection
    from fiftyone.core.view import DatasetView

REVIEW_TAG = "zs_review"
REVIEWED_FIELD = "zs_reviewed"
#: Kinds that need nothing but the labels.
DEFAULT_KINDS = (ErrorKind.LOW_MARGIN, ErrorKind.REJECTED)


@dataclass(frozen=True)
class ReviewQueue:
    """What :func:`tag_for_review` did.

    Attributes:
        tag: on all that should be looked at
        on: "samples" or "labels", what has the tag
        counts: how many were tagged by kind; some may be of several kinds
    """

    tag: str
    on: str
    counts: Mapping[str, int]

    def __str__(self) -> str:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.counts.items())
        return f"tag {self.tag!r} on {self.on}: {kinds}"


@dataclass(frozen=True)
class Reviewed:
    """What :func:`mark_reviewed` did.

    Attributes:
        field: where the reviewed labels are
        marked: labels reviewed now
        corrected: of those, how many got another name, or none
        kept: labels that had been reviewed before and stay as they were
    """

    field: str
    marked: int
    corrected: int
    kept: int


def tag_for_review(
    samples: SampleCollection,
    label_field: str,
    kinds: Iterable[ErrorKind | str] | None = None,
    *,
    tag: str = REVIEW_TAG,
    limit: int | None = None,
    reviewed_field: str = REVIEWED_FIELD,
    **arguments: Any,
) -> ReviewQueue:
    """Tags what is suspicious: samples where they have one label, else the labels themselves.

    Each gets ``tag`` and ``<tag>:<kind>``. What was reviewed already is left out.

    Args:
        samples: a dataset or view
        label_field: of the predictions
        kinds (None): see :func:`zs_operators.error_view`; None is "low_margin" and "rejected",
            as far as these labels can have them
        tag ("zs_review"): the tag
        limit (None): at most so many samples of each kind
        reviewed_field ("zs_reviewed"): where :func:`mark_reviewed` writes
        **arguments: further ones of :func:`zs_operators.error_view`, such as ``ground_truth``

    Raises:
        FieldError, InvalidInputError: see :func:`zs_operators.error_view`
    """
    if kinds is None:
        possible = kinds_for(samples, label_field)
        kinds = [kind for kind in DEFAULT_KINDS if kind in possible]
    wanted = list(dict.fromkeys(parse_kind(kind) for kind in kinds))
    if not wanted:
        raise InvalidInputError("Name at least one kind of what is to be reviewed in kinds=.")
    on_labels = label_type(samples, label_field) == "Detections"
    todo = _not_reviewed(samples, label_field, reviewed_field)
    counts = {}
    for kind in wanted:
        view = error_view(todo, kind, predictions=label_field, limit=limit, **arguments)
        tags = [tag, f"{tag}:{kind.value}"]
        if not on_labels or kind is ErrorKind.FAILED:
            counts[kind.value] = len(view)
            view.tag_samples(tags)
            continue
        # Missed objects have no predicted label
        field = label_field if kind is not ErrorKind.MISSED_OBJECTS else _truth(view, arguments)
        counts[kind.value] = view.count(f"{field}.detections")
        view.tag_labels(tags, label_fields=field)
    return ReviewQueue(tag, "labels" if on_labels else "samples", counts)


def mark_reviewed(
    samples: SampleCollection,
    label_field: str,
    name: str | Mapping[str, str] | None = None,
    *,
    discard: bool = False,
    reviewed_field: str = REVIEWED_FIELD,
    tag: str = REVIEW_TAG,
    overwrite: bool = False,
) -> Reviewed:
    """Notes that a person has looked at labels, and what they should be called.

    Writes labels of the same kind into ``reviewed_field``, with the name that is right now, and
    with ``predicted``, ``predicted_confidence`` and ``source_field``. Predictions stay as they
    are; their review tags go.

    Args:
        samples: exactly what was reviewed: a view of samples; for boxes a view that shows only
            the boxes reviewed, or patches of them
        label_field: of the predictions
        name (None): the right name; None confirms that the prediction is right; or a mapping of
            sample ids (of boxes: label ids) to names, then only those are marked
        discard (False): the prediction is wrong and no other name is right
        reviewed_field ("zs_reviewed"): where to write
        tag ("zs_review"): review tags that are taken off
        overwrite (False): replace what was said of these labels before

    Raises:
        FieldError: if there are no labels, or ``reviewed_field`` holds something else
        InvalidInputError: if both a name and ``discard`` are given, or a name is blank
    """
    if discard and name is not None:
        raise InvalidInputError("Give the right name, or discard=True if there is none; not both.")
    names = name.values() if isinstance(name, Mapping) else () if name is None else (name,)
    if any(not isinstance(one, str) or not one.strip() for one in names):
        raise InvalidInputError("The right name is blank: use discard=True if there is none.")
    if getattr(samples, "_is_patches", False):
        ids = samples.values(f"{label_field}.id")
        samples = samples._root_dataset.select_labels(ids=ids, fields=label_field)
    kind = label_type(samples, label_field)
    if kind == "Segmentation":
        raise FieldError(f"{label_field!r} holds one mask an image, which has no name to review.")
    check_reviewed_field(samples, reviewed_field, kind)
    new = NewReviews(label_field, name, discard=discard, at=datetime.now(timezone.utc))
    found = read_reviews(samples, new)
    if not found:
        raise FieldError(f"None of these samples has a label in {label_field!r} to review.")
    marked, corrected, kept = write_reviews(
        samples, found, reviewed_field, kind, overwrite=overwrite
    )
    _untag(samples, label_field, found, tag, kind)
    return Reviewed(reviewed_field, marked, corrected, kept)


def reviewed_view(samples: SampleCollection, reviewed_field: str = REVIEWED_FIELD) -> DatasetView:
    """The samples that have a reviewed label with a name: ground truth for what comes next.

    Raises:
        FieldError: if nothing was reviewed yet
    """
    from zs_operators.analysis.error_inputs import ErrorInputs

    if samples.get_field(reviewed_field) is None:
        raise FieldError(f"There is no field {reviewed_field!r}: nothing was reviewed yet.")
    from fiftyone import ViewField as F

    path = ErrorInputs(samples, reviewed_field).path("label")
    has_name = F(path).exists()
    if label_type(samples, reviewed_field) == "Detections":
        has_name = F(path).length() > 0
    return samples.match(has_name)


def _not_reviewed(
    samples: SampleCollection, label_field: str, reviewed_field: str
) -> SampleCollection:
    from fiftyone import ViewField as F

    if samples.get_field(f"{reviewed_field}.{PREDICTED}") is not None:
        # Of another run it counts as not reviewed
        of_this = F(f"{reviewed_field}.source_field") == label_field
        return samples.match(~of_this)
    path = f"{reviewed_field}.detections.source_id"
    if samples.get_field(path) is None or label_type(samples, label_field) != "Detections":
        return samples
    done = reviewed_boxes(samples, reviewed_field)
    return samples.exclude_labels(ids=done, fields=label_field) if done else samples


def _truth(view: DatasetView, arguments: Mapping[str, Any]) -> str:
    from zs_operators.analysis.error_inputs import evaluated_fields

    if arguments.get("eval_key"):
        return evaluated_fields(view, arguments["eval_key"])[1]
    return arguments["ground_truth"]


def _untag(
    samples: SampleCollection, label_field: str, found: Mapping[str, list], tag: str, kind: str
) -> None:
    tags = [tag, *(f"{tag}:{one.value}" for one in ErrorKind)]
    dataset = samples._root_dataset
    if kind == "Detections":
        ids = [review.label_id for reviews in found.values() for review in reviews]
        dataset.select_labels(ids=ids, fields=label_field).untag_labels(
            tags, label_fields=label_field
        )
    else:
        dataset.select(list(found)).untag_samples(tags)
