"""Where in a dataset the results of a run are: each carries the run's signature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zs_operators.fields import RUN_ATTRIBUTE, error_field
from zs_operators.media_views import FRAMES

if TYPE_CHECKING:
    import fiftyone as fo


@dataclass(frozen=True)
class Place:
    """The field of a run's results.

    Attributes:
        field: its path, below ``frames.`` for frames of videos
        kind: name of its label class
        inner: ``"detections"`` where a list of labels has the marks itself, else None
        mark: name of the attribute with the mark
    """

    field: str
    kind: str
    inner: str | None
    mark: str

    @property
    def is_frames(self) -> bool:
        """Whether the results are in frames of videos."""
        return self.field.startswith(FRAMES)

    @property
    def name(self) -> str:
        """The field's name among those of its sample or frame."""
        return self.field.removeprefix(FRAMES)

    @property
    def labels(self) -> str:
        """Path of the single labels below :attr:`field`."""
        inner = {"Detections": "detections", "Classifications": "classifications"}.get(self.kind)
        return self.field if inner is None else f"{self.field}.{inner}"


def place_of(dataset: fo.Dataset, record: Mapping[str, Any]) -> Place | None:
    """Where a run's results are; None if its field is gone, or never was in this dataset."""
    name = record.get("label_field")
    path = field_path(dataset, name)
    if path is None:
        return None
    kind = getattr(getattr(dataset.get_field(path), "document_type", None), "__name__", None)
    if kind is None:
        return None
    if adds_attributes(record):
        return Place(path, kind, "detections" if kind == "Detections" else None, "zs_run")
    return Place(path, kind, None, RUN_ATTRIBUTE)


def adds_attributes(record: Mapping[str, Any]) -> bool:
    """Whether a run wrote onto labels that were there before it."""
    return record.get("regions") is not None and record["regions"] == record.get("label_field")


def field_path(dataset: fo.Dataset, name: Any) -> str | None:
    """Path of a field of samples, else of frames; None if there is none of that name."""
    if not isinstance(name, str) or not name:
        return None
    if dataset.get_field(name) is not None:
        return name
    has_frames = dataset._has_frame_fields() and dataset.get_field(FRAMES + name) is not None
    return FRAMES + name if has_frames else None


def marked(dataset: fo.Dataset, place: Place | None, signature: str | None) -> fo.DatasetView:
    """The samples that hold a result with this mark."""
    from fiftyone import ViewField as F

    if place is None or signature is None or dataset.get_field(_mark_path(place)) is None:
        return dataset.limit(0)
    if place.inner is None:
        found = F(f"{place.name}.{place.mark}") == signature
    else:
        labels = F(f"{place.name}.{place.inner}")
        found = labels.filter(F(place.mark) == signature).length() > 0
    return dataset.match(F("frames").filter(found).length() > 0 if place.is_frames else found)


def failed(dataset: fo.Dataset, label_field: str) -> fo.DatasetView:
    """The samples whose failure is noted beside a label field."""
    from fiftyone import ViewField as F

    name = error_field(label_field)
    path = field_path(dataset, name)
    if path is None:
        return dataset.limit(0)
    if path == name:
        return dataset.exists(name)
    return dataset.match(F("frames").filter(F(name).exists()).length() > 0)


def _mark_path(place: Place) -> str:
    return ".".join(filter(None, (place.field, place.inner, place.mark)))
