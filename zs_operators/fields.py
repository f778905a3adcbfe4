"""Which label field a run may write, and the schema it declares before the first write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zs_operators.errors import FieldError
from zs_operators.guarded_writes import db_field, stored
from zs_operators.media_views import every_sample

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

#: Attribute of every label written: the signature of the run that wrote it.
RUN_ATTRIBUTE = "run"

#: Label types a task may write, by the name of their FiftyOne class.
TASK_LABELS = {
    "classify": ("Classification", "Classifications"),
    "detect": ("Detections",),
    "segment": ("Detections", "Segmentation"),
}

_MASK = {
    "detections.predicted_iou": "FloatField",
    "detections.stability": "FloatField",
    "detections.area_px": "IntField",
}

#: Kinds of ``Detections`` with masks, by the attributes they have.
MASKS, PROMPTED_MASKS, NAMED_MASKS = "masks", "prompted masks", "named masks"

_ATTRIBUTES = {
    "Classification": {
        "cosine": "FloatField",
        "margin": "FloatField",
        "rejected_by": "StringField",
        "rejected_label": "StringField",
        RUN_ATTRIBUTE: "StringField",
    },
    "Classifications": {
        "classifications.cosine": "FloatField",
        "classifications.margin": "FloatField",
        "rejected_by": "StringField",
        RUN_ATTRIBUTE: "StringField",
    },
    "Detections": {
        "detections.objectness": "FloatField",
        "detections.cosine": "FloatField",
        "detections.margin": "FloatField",
        "detections.region_index": "IntField",
        "detections.runners_up": ("ListField", "StringField"),
        "detections.source_id": "StringField",
        "detections.source_label": "StringField",
        "detections.rejected_by": "StringField",
        "detections.rejected_label": "StringField",
        RUN_ATTRIBUTE: "StringField",
    },
    MASKS: {**_MASK, RUN_ATTRIBUTE: "StringField"},
    PROMPTED_MASKS: {
        **_MASK,
        "detections.source_id": "StringField",
        RUN_ATTRIBUTE: "StringField",
    },
    NAMED_MASKS: {
        **_MASK,
        "detections.objectness": "FloatField",
        "detections.cosine": "FloatField",
        "detections.margin": "FloatField",
        "detections.region_index": "IntField",
        "detections.runners_up": ("ListField", "StringField"),
        RUN_ATTRIBUTE: "StringField",
    },
    "Segmentation": {RUN_ATTRIBUTE: "StringField"},
}


def error_field(label_field: str) -> str:
    """Name of the string field that holds why a sample got no label."""
    return f"{label_field}_error"


def check_label_field(
    samples: SampleCollection,
    label_field: str,
    task: str = "classify",
    *,
    overwrite: bool = False,
    label_type: str | None = None,
) -> None:
    """Refuses a field that ``task`` cannot or must not write.

    An existing field that an earlier run of the same task wrote is let through: the run itself
    decides whether it continues that run or would overwrite its labels.

    Args:
        samples: the dataset or view to label
        label_field: name of the field
        task: ``"classify"``, ``"detect"`` or ``"segment"``
        overwrite (False): whether existing labels of the samples may be replaced
        label_type (None): the FiftyOne label class that will be written, if known

    Raises:
        FieldError: with a message that fits under the field of a form
    """
    from zs_operators import provenance

    dataset = samples._dataset
    _check_name(dataset, label_field)
    field = dataset.get_field(label_field)
    sidecar = dataset.get_field(error_field(label_field))
    if sidecar is not None and _kind(sidecar) != "StringField":
        raise FieldError(
            f"Field {error_field(label_field)!r}, where failures would be recorded, exists and "
            f"holds {_kind(sidecar)}: choose another label field."
        )
    if field is None:
        return
    if field.read_only:
        raise FieldError(f"Field {label_field!r} is read-only: choose another name.")
    allowed = (label_type,) if label_type else TASK_LABELS[task]
    if _kind(field) not in allowed:
        raise FieldError(
            f"Field {label_field!r} exists and holds {_kind(field)}, not "
            f"{' or '.join(allowed)}: choose another name."
        )
    if overwrite or not has_values(samples, label_field):
        return
    if provenance.find(samples, task, label_field) is None:
        raise FieldError(
            f"Field {label_field!r} exists and holds labels: choose another name, or allow "
            "overwriting (overwrite=True)."
        )


def has_values(samples: SampleCollection, label_field: str) -> bool:
    """Whether any sample of the whole dataset has a value in the field."""
    if samples._dataset._is_generated:  # its videos may have frames that are not in the view
        return stored(samples).find_one({db_field(samples, label_field): {"$ne": None}}) is not None
    return bool(every_sample(samples).exists(label_field).limit(1).values("id"))


def kind_of(samples: SampleCollection, label_field: str) -> str | None:
    """The label class of a field, None if there is no such field."""
    field = samples._dataset.get_field(label_field)
    return None if field is None else _kind(field)


def declare(
    samples: SampleCollection,
    label_field: str,
    label_type: str,
    description: str,
    *,
    attributes: str | None = None,
) -> None:
    """Adds the label field with its extra attributes to the schema, so the sidebar filters them.

    Args:
        samples: the dataset or view to label
        label_field: name of the field, checked by :func:`check_label_field`
        label_type: name of the FiftyOne label class
        description: shown in the App's field tooltip
        attributes (None): the kind of label whose attributes are added, ``label_type`` if None
    """
    import fiftyone as fo

    dataset = samples._dataset
    if dataset.get_field(label_field) is None:
        dataset.add_sample_field(
            label_field,
            fo.EmbeddedDocumentField,
            embedded_doc_type=getattr(fo, label_type),
            description=description,
        )
    new = {}
    for attribute, kind in _ATTRIBUTES[attributes or label_type].items():
        path = f"{label_field}.{attribute}"
        if dataset.get_field(path) is None:
            kind, *element = kind if isinstance(kind, tuple) else (kind,)
            new[path] = getattr(fo, kind)(*(getattr(fo, one)() for one in element))
    if new:
        # All at once: after each call FiftyOne reads the whole of the dataset's document again
        dataset._merge_sample_field_schema(new)
    field = dataset.get_field(label_field)
    # Views generated by FiftyOne, such as frames, cannot save changes of a field
    if field.description != description and not dataset._is_generated:
        field.description = description
        field.save()
    share_with_videos(samples, label_field)


def declare_errors(samples: SampleCollection, label_field: str) -> None:
    """Adds the field for failure reasons, once the first failure happens."""
    import fiftyone as fo

    dataset = samples._dataset
    if dataset.get_field(error_field(label_field)) is None:
        dataset.add_sample_field(
            error_field(label_field),
            fo.StringField,
            description=f"Why a sample has no {label_field!r}: outcome and reason",
        )
    share_with_videos(samples, error_field(label_field))


def share_with_videos(samples: SampleCollection, name: str) -> None:
    """Adds a top-level field of frames to the schema of their videos; nothing for other samples."""
    dataset = samples._dataset
    if dataset._is_generated:
        samples._root_dataset._merge_frame_field_schema({name: dataset.get_field(name)})


def _check_name(dataset, label_field: str) -> None:
    import fiftyone as fo
    import fiftyone.core.odm as foo

    if not isinstance(label_field, str) or not label_field:
        raise FieldError("Give the label field a name, for example 'zs_classification'.")
    try:
        foo.validate_field_name(label_field, media_type=dataset.media_type)
    except ValueError as error:
        raise FieldError(f"{error}.") from error
    # Run keys and evaluation keys are built from the name and must be identifiers
    if not label_field.isidentifier():
        raise FieldError(
            f"{label_field!r} is not usable as a field name: use letters, digits and "
            "underscores, and do not begin with a digit."
        )
    is_default = label_field in dataset._get_default_sample_fields(include_private=True)
    if is_default or hasattr(fo.Sample, label_field):
        raise FieldError(f"{label_field!r} is reserved by FiftyOne: choose another name.")


def _kind(field) -> str:
    """The label class of a label field, else the class of the field."""
    document_type = getattr(field, "document_type", None)
    return document_type.__name__ if document_type is not None else type(field).__name__
