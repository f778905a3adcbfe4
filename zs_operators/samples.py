"""Which samples a run may process, and the class names a dataset already holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zs_operators.errors import SamplesError, VocabularyError

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection


def check_samples(samples: SampleCollection | None) -> None:
    """Refuses collections whose samples are not single images.

    Raises:
        SamplesError: if there is no dataset, no sample, or samples are videos, 3D scenes,
            groups or patches; the message says which view to take instead
    """
    import fiftyone.core.collections as foc
    import fiftyone.core.media as fom

    if samples is None:
        raise SamplesError("There is no dataset: open one, or pass a dataset or a view.")
    if not isinstance(samples, foc.SampleCollection):
        raise SamplesError(
            f"samples must be a FiftyOne dataset or view, not {type(samples).__name__}."
        )
    media_type = samples.media_type
    if media_type == fom.GROUP:
        slices = ", ".join(repr(name) for name in samples.group_slices)
        raise SamplesError(
            f"This dataset is grouped: choose the slice to label with "
            f"select_group_slices(...). Its slices are {slices}."
        )
    if media_type == fom.VIDEO:
        raise SamplesError(
            "These samples are videos: pass a view of their frames, which zs.sample_frames() or "
            "dataset.to_frames() makes."
        )
    # A collection without samples has no media type yet
    if media_type is not None and media_type not in (fom.IMAGE, "mixed"):
        raise SamplesError(
            f"These samples are of media type {media_type!r}; only images can be labelled."
        )
    if getattr(samples, "_is_patches", False):
        raise SamplesError(
            "This view holds patches, whose files are the whole images: pass the dataset or a "
            "view of its images instead."
        )
    if not samples.limit(1).values("id"):
        raise SamplesError("There is nothing to label: the view holds no samples.")


def class_names(samples: SampleCollection, field: str | None = None) -> list[str]:
    """Class names a dataset holds, sorted unless the dataset defines an order.

    A field's own ``dataset.classes`` come first, then the names of its mask targets without the
    background 0, then its labels.

    Args:
        samples: a dataset or view
        field (None): the field whose classes are wanted; None for ``dataset.default_classes``

    Raises:
        VocabularyError: if the field does not exist, holds no labels, or there are no classes
    """
    dataset = samples._dataset
    if field is None:
        if not dataset.default_classes:
            raise VocabularyError(
                f"Dataset {dataset.name!r} has no default_classes: pass class names, a file or "
                "the name of a label field."
            )
        return list(dataset.default_classes)
    if dataset.classes.get(field):
        return list(dataset.classes[field])
    if targets := mask_names(samples, field):
        return targets
    schema = samples.get_field_schema()
    if field not in schema:
        raise VocabularyError(
            f"classes={field!r} is neither a file, nor a saved vocabulary, nor a field of dataset "
            f"{dataset.name!r}. "
            f"Label fields: {', '.join(label_fields(samples)) or 'none'}. For a single class "
            f"pass a list: [{field!r}]."
        )
    if field not in label_fields(samples):
        raise VocabularyError(
            f"Field {field!r} holds {schema[field]}, not labels. "
            f"Label fields: {', '.join(label_fields(samples)) or 'none'}."
        )
    _, path = samples._get_label_field_path(field, "label")
    names = [name for name in samples.distinct(path) if name is not None]
    if not names:
        raise VocabularyError(f"Label field {field!r} holds no labels in these samples.")
    return names


def mask_names(samples: SampleCollection, field: str) -> list[str]:
    """Names of a segmentation field's mask targets without the background 0, in their order."""
    import fiftyone as fo

    dataset = samples._dataset
    known = dataset.get_field(field) if field in dataset.get_field_schema() else None
    if getattr(known, "document_type", None) is not fo.Segmentation:
        return []
    targets = dataset.mask_targets.get(field) or dataset.default_mask_targets
    named = {value: name for value, name in targets.items() if value not in (0, "#000000")}
    return list(dict.fromkeys(named.values()))


def class_fields(samples: SampleCollection) -> list[str]:
    """Fields that :func:`class_names` finds classes in, in schema order."""
    import fiftyone as fo

    labels = label_fields(samples)
    schema = samples.get_field_schema(ftype=fo.EmbeddedDocumentField)
    return [name for name in schema if name in labels or mask_names(samples, name)]


def label_fields(samples: SampleCollection) -> list[str]:
    """Top-level fields whose labels have a ``label`` attribute, in schema order."""
    import fiftyone as fo

    kinds = (
        fo.Classification,
        fo.Classifications,
        fo.Detection,
        fo.Detections,
        fo.Polyline,
        fo.Polylines,
        fo.Keypoint,
        fo.Keypoints,
    )
    schema = samples.get_field_schema(ftype=fo.EmbeddedDocumentField)
    return [name for name, field in schema.items() if issubclass(field.document_type, kinds)]
