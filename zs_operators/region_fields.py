"""Boxes that a dataset already holds, as columns, from datasets, filtered views and patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zs_operators.errors import FieldError, SamplesError

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection


@dataclass(frozen=True)
class ExistingBoxes:
    """The boxes of one image that are to be scored.

    Attributes:
        filepath: of the image
        boxes_rel: one ``[x, y, width, height]`` per label, as fractions of the upright image
        label_ids: id of each label
        labels: name of each label
    """

    filepath: str
    boxes_rel: tuple[tuple[float, ...], ...]
    label_ids: tuple[str, ...]
    labels: tuple[str | None, ...]


def box_fields(samples: SampleCollection) -> list[str]:
    """Fields whose labels have bounding boxes, in schema order."""
    import fiftyone as fo

    schema = samples.get_field_schema(ftype=fo.EmbeddedDocumentField)
    kinds = (fo.Detection, fo.Detections)
    return [name for name, field in schema.items() if issubclass(field.document_type, kinds)]


def label_path(samples: SampleCollection, field: str) -> str:
    """``"field.detections"`` for a list of boxes, ``"field"`` for a single one.

    Raises:
        FieldError: if the field has no boxes
    """
    import fiftyone as fo

    if field not in box_fields(samples):
        available = ", ".join(box_fields(samples)) or "none"
        raise FieldError(
            f"regions={field!r} is not a field with bounding boxes; fields that have them: "
            f"{available}. Use regions='proposals' to find boxes."
        )
    is_list = issubclass(samples.get_field(field).document_type, fo.Detections)
    return f"{field}.detections" if is_list else field


def images_of(
    samples: SampleCollection, field: str, *, argument: str = "regions"
) -> SampleCollection:
    """The images behind a view of patches, with only the patches' labels; other views unchanged.

    Args:
        samples: a dataset or view
        field: whose labels are wanted
        argument ("regions"): that named the field, for the message

    Raises:
        SamplesError: if the patches are of another field
    """
    from fiftyone.core.patches import PatchesView

    if not isinstance(samples, PatchesView):
        return samples
    if samples.patches_field != field:
        raise SamplesError(
            f"This view holds patches of {samples.patches_field!r}: use "
            f"{argument}={samples.patches_field!r}, or pass the dataset."
        )
    ids = samples.values(f"{field}.id")
    return samples._root_dataset.select_labels(ids=ids, fields=field)


def read_boxes(samples: SampleCollection, field: str) -> list[ExistingBoxes]:
    """One item a sample, in the order of the samples; filtered labels are left out."""
    path = label_path(samples, field)
    filepaths, boxes, ids, names = samples.values(
        ["filepath", f"{path}.bounding_box", f"{path}.id", f"{path}.label"]
    )
    if path == field:
        boxes, ids, names = (
            [[] if value is None else [value] for value in boxes],
            [[] if value is None else [value] for value in ids],
            [[name] for name in names],
        )
    return [
        ExistingBoxes(
            filepath,
            tuple(four_numbers(box) for box in boxes_ or ()),
            tuple(ids_ or ()),
            tuple(names_ or ()),
        )
        for filepath, boxes_, ids_, names_ in zip(filepaths, boxes, ids, names, strict=True)
    ]


def four_numbers(box: Sequence[float] | None) -> tuple[float, ...]:
    """The box, or four NaN where there is none."""
    # Refused later, with a reason of its own
    nan = float("nan")
    return tuple(box) if box is not None and len(box) == 4 else (nan, nan, nan, nan)
