"""Labels that can prompt a Sam, as columns: boxes and keypoints of datasets, views and patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zs_operators.errors import FieldError
from zs_operators.region_fields import four_numbers
from zs_operators.sam_prompts import GivenPrompts

if TYPE_CHECKING:
    import fiftyone as fo
    from fiftyone.core.collections import SampleCollection

#: Attribute of a keypoint, as FiftyOne's own Sam reads it: 1 on the object, 0 not on it, a point.
POINT_LABELS = "sam_labels"

_BOXES = {"Detections": "detections", "Detection": None}
_POINTS = {"Keypoints": "keypoints", "Keypoint": None}


@dataclass(frozen=True)
class ExistingPrompts:
    """The labels of one image that prompt.

    Attributes:
        filepath: of the image
        given: their boxes or points
        label_ids, labels, confidences, indices: of each; confidences of keypoints are None, as
            theirs are a number a point
    """

    filepath: str
    given: GivenPrompts
    label_ids: tuple[str, ...]
    labels: tuple[str | None, ...]
    confidences: tuple[float | None, ...]
    indices: tuple[int | None, ...]

    def __len__(self) -> int:
        return len(self.label_ids)


def prompt_fields(samples: SampleCollection) -> list[str]:
    """Fields whose labels can prompt, in schema order."""
    import fiftyone as fo

    schema = samples.get_field_schema(ftype=fo.EmbeddedDocumentField)
    return [
        name for name, field in schema.items() if field.document_type.__name__ in _BOXES | _POINTS
    ]


def check_prompt_field(samples: SampleCollection, field: str) -> None:
    """Refuses a field whose labels cannot prompt.

    Raises:
        FieldError: the message names those that can
    """
    found = prompt_fields(samples)
    if field not in found:
        raise FieldError(
            f"prompts={field!r} is not a field with boxes or keypoints; fields that have them: "
            f"{', '.join(found) or 'none'}. Use prompts='everything' for a grid of points, or "
            "prompts='proposals' with class names."
        )


def has_points(samples: SampleCollection, field: str) -> bool:
    """Whether the prompts of a field are points."""
    return samples.get_field(field).document_type.__name__ in _POINTS


def read_prompts(samples: SampleCollection, field: str) -> list[ExistingPrompts]:
    """One item a sample, in the order of the samples; labels that a view hides are left out.

    Raises:
        FieldError: if the labels of the field cannot prompt
    """
    check_prompt_field(samples, field)
    kind = samples.get_field(field).document_type.__name__
    points = kind in _POINTS
    inner = (_POINTS if points else _BOXES)[kind]
    path = field if inner is None else f"{field}.{inner}"
    wanted = ["id", "label", "index", "points" if points else "bounding_box"]
    extra = POINT_LABELS if points else "confidence"
    if samples.get_field(f"{path}.{extra}") is not None:
        wanted.append(extra)
    filepaths, *columns = samples.values(["filepath", *(f"{path}.{name}" for name in wanted)])
    if inner is None:
        columns = [[[value] for value in column] for column in columns]
    found = []
    for row, filepath in enumerate(filepaths):
        values = {name: column[row] or () for name, column in zip(wanted, columns, strict=True)}
        # A single label that is absent is one without an id
        rows = [i for i, label_id in enumerate(values["id"]) if label_id is not None]
        found.append(_prompts(filepath, values, rows, points))
    return found


def as_prompts(filepath: str, value: fo.Label | None) -> ExistingPrompts:
    """The same of one label field's value.

    Raises:
        FieldError: if such labels cannot prompt
    """
    kind = type(value).__name__
    if value is not None and kind not in _BOXES | _POINTS:
        raise FieldError(f"A {kind} cannot prompt a Sam; boxes and keypoints can.")
    inner = {**_BOXES, **_POINTS}.get(kind)
    found = [] if value is None else [value] if inner is None else list(value[inner])
    points = kind in _POINTS
    names = ("id", "label", "index", *(("points", POINT_LABELS) if points else _BOX_NAMES))
    values = {name: [label.get_attribute_value(name, None) for label in found] for name in names}
    return _prompts(filepath, values, range(len(found)), points)


_BOX_NAMES = ("bounding_box", "confidence")


def _prompts(
    filepath: str, values: dict[str, Sequence[Any]], rows: Sequence[int], points: bool
) -> ExistingPrompts:
    def column(name: str) -> tuple[Any, ...]:
        given = values.get(name)
        return tuple(given[i] if given else None for i in rows)

    if points:
        given = GivenPrompts(
            points_rel=tuple(tuple(map(tuple, one or ())) for one in column("points")),
            point_labels=column(POINT_LABELS),
        )
    else:
        given = GivenPrompts(boxes_rel=tuple(four_numbers(box) for box in column("bounding_box")))
    confidences = (None,) * len(rows) if points else column("confidence")
    return ExistingPrompts(
        filepath, given, column("id"), column("label"), confidences, column("index")
    )
