"""Where a run puts its results: a label field of its own, or attributes of existing labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from zs_operators import fields
from zs_operators.errors import DeletedError
from zs_operators.guarded_writes import MAX_SELECTED, FieldGuard, LeftAlone, missing
from zs_operators.media_views import every_sample

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection
    from fiftyone.core.labels import Label


class Target(Protocol):
    """What the runner needs to know of the place it writes to."""

    #: names the field of failure reasons
    name: str
    #: names the run; the field's name, unless another run has that
    run_name: str

    @property
    def field_names(self) -> Sequence[str]:
        """The fields that are written, this run's alone while it lasts."""

    def check(self, task: str, *, overwrite: bool) -> None:
        """Refuses a field that became unusable since the arguments were checked.

        Raises:
            FieldError: if it may not be written
        """

    def declare(self, description: str) -> None:
        """Adds what will be written to the schema."""

    def marks(self, ids: Sequence[str]) -> list[str | None]:
        """Signature of the run that labelled each sample; ``""`` for labels of other origin."""

    def incomplete(self, ids: Sequence[str]) -> set[str]:
        """Samples whose result lacks some of what this run is to find, whatever their mark."""

    def has_values(self) -> bool:
        """Whether any sample of the whole dataset has a result here."""

    def watch(self, ids: Sequence[str], marks: Sequence[str | None]) -> None:
        """From now on, nobody else's changes to these samples' results are written over."""

    def watched(self, ids: Sequence[str]) -> dict[str, dict[str, bytes]]:
        """What :meth:`watch` has seen of some samples, for :meth:`watch_too`."""

    def watch_too(self, watched: Mapping[str, Mapping[str, bytes]]) -> None:
        """Like :meth:`watch`, in another process of the run that has watched since it began."""

    def prepare(self, labels: Mapping[str, Any]) -> Any:
        """Results by sample id as :meth:`write` takes them."""

    def write(self, prepared: Any) -> LeftAlone:
        """Writes value and mark in one update per document; done twice, it does the same."""


class FieldTarget:
    """A label field of its own; every label carries the signature of the run.

    Args:
        samples: the dataset or view to label
        label_field: checked by :func:`zs_operators.fields.check_label_field`
        label_type: name of the FiftyOne label class
    """

    def __init__(self, samples: SampleCollection, label_field: str, label_type: str) -> None:
        self.samples = samples
        self.name = self.run_name = label_field
        self.label_type = label_type
        self._known = fields.kind_of(samples, label_field)
        self._guards: dict[str, FieldGuard] = {}

    @property
    def field_names(self) -> Sequence[str]:
        return (self.name,)

    def check(self, task: str, *, overwrite: bool) -> None:
        if fields.kind_of(self.samples, self.name) != self._known:
            fields.check_label_field(
                self.samples, self.name, task, overwrite=overwrite, label_type=self.label_type
            )

    def declare(self, description: str) -> None:
        fields.declare(self.samples, self.name, self.label_type, description)

    def marks(self, ids: Sequence[str]) -> list[str | None]:
        if self.samples._dataset.get_field(self.name) is None:
            return [None] * len(ids)
        whole = unfiltered(self.samples, ids)
        labelled = set(whole.exists(self.name).values("id"))
        path = f"{self.name}.{fields.RUN_ATTRIBUTE}"
        found: dict[str, str | None] = {}
        if self.samples._dataset.get_field(path) is not None:
            found = dict(zip(*whole.values(["id", path]), strict=True))
        return [found.get(one) or ("" if one in labelled else None) for one in ids]

    def incomplete(self, ids: Sequence[str]) -> set[str]:
        return set()

    def has_values(self) -> bool:
        exists = self.samples._dataset.get_field(self.name) is not None
        return exists and fields.has_values(self.samples, self.name)

    def watch(self, ids: Sequence[str], marks: Sequence[str | None]) -> None:
        labelled = [one for one, mark in zip(ids, marks, strict=True) if mark is not None]
        self._guards[self.name] = FieldGuard(self.samples, self.name, labelled)

    def watched(self, ids: Sequence[str]) -> dict[str, dict[str, bytes]]:
        return {name: guard.fingerprints(ids) for name, guard in self._guards.items()}

    def watch_too(self, watched: Mapping[str, Mapping[str, bytes]]) -> None:
        for name, before in watched.items():
            self._guards[name] = FieldGuard(self.samples, name, before=before)

    def prepare(
        self, labels: Mapping[str, Label | dict[str, Any] | None]
    ) -> dict[str, dict[str, Any]]:
        """Values by field and sample id, as the database holds them."""
        field = self.samples._dataset.get_field(self.name)
        return {self.name: {i: field.to_mongo(one) for i, one in labels.items()}}

    def write(self, prepared: Mapping[str, Mapping[str, Any]]) -> LeftAlone:
        left = LeftAlone()
        for name, documents in prepared.items():
            left |= self._guards[name].write(documents)
        return left


class NamedBoxesTarget(FieldTarget):
    """A field of boxes that were named one by one: naming some more keeps those there are.

    Args:
        samples: the dataset or view whose boxes are named
        label_field: checked by :func:`zs_operators.fields.check_label_field`
        source_ids: ids of the boxes to name, by sample
    """

    def __init__(
        self,
        samples: SampleCollection,
        label_field: str,
        source_ids: Mapping[str, Sequence[str]],
    ) -> None:
        super().__init__(samples, label_field, "Detections")
        self._source_ids = source_ids
        self._named: set[str] = set()

    def incomplete(self, ids: Sequence[str]) -> set[str]:
        path = f"{self.name}.detections.source_id"
        if self.samples._dataset.get_field(path) is None:
            return set()
        named = dict(zip(*unfiltered(self.samples, ids).values(["id", path]), strict=True))
        self._named = {one for one in ids if named.get(one)}
        return {one for one in ids if set(self._source_ids[one]) - set(named.get(one) or ())}

    def prepare(self, labels: Mapping[str, dict[str, Any] | None]) -> dict[str, dict[str, Any]]:
        named = [one for one in labels if one in self._named]
        there = unfiltered(self.samples, named).values(["id", self.name]) if named else ((), ())
        for sample_id, old in zip(*there, strict=True):
            new = labels[sample_id]
            if old is None or new is None or old[fields.RUN_ATTRIBUTE] != new[fields.RUN_ATTRIBUTE]:
                continue
            again = {label["source_id"] for label in new["detections"]}
            kept = [label for label in old.detections if label.source_id not in again]
            new["detections"][:0] = [label.to_mongo() for label in kept]
        return super().prepare(labels)


#: Attributes that a run adds to existing labels, and their types.
SOURCE_ATTRIBUTES = {
    "zs_label": "StringField",
    "zs_confidence": "FloatField",
    "zs_cosine": "FloatField",
    "zs_margin": "FloatField",
    "zs_rejected_by": "StringField",
    "zs_run": "StringField",
}


class SourceTarget:
    """Attributes ``zs_label``, ``zs_confidence`` … of labels that exist; nothing else changes.

    Args:
        samples: the dataset or view whose labels get the attributes
        label_field: the field that holds them
        label_path: ``"field.detections"`` or ``"field"``
        label_ids: ids of the labels of each sample
        run_name (None): see :class:`Target`
    """

    def __init__(
        self,
        samples: SampleCollection,
        label_field: str,
        label_path: str,
        label_ids: Sequence[Sequence[str]],
        *,
        run_name: str | None = None,
    ) -> None:
        self.samples = samples
        self.name = label_field
        self.run_name = run_name or label_field
        self._path = label_path
        self._label_ids = label_ids

    @property
    def field_names(self) -> Sequence[str]:
        return (self.name,)

    def check(self, task: str, *, overwrite: bool) -> None:
        if self.samples._dataset.get_field(self.name) is None:
            raise DeletedError(f"Field {self.name!r}, whose labels were to be named, is gone.")

    def declare(self, description: str) -> None:
        import fiftyone as fo

        dataset = self.samples._dataset
        for attribute, kind in SOURCE_ATTRIBUTES.items():
            path = f"{self._path}.{attribute}"
            if dataset.get_field(path) is None:
                dataset.add_sample_field(path, getattr(fo, kind), description=description)
        fields.share_with_videos(self.samples, self.name)

    def marks(self, ids: Sequence[str]) -> list[str | None]:
        path = f"{self._path}.zs_run"
        if self.samples._dataset.get_field(path) is None:
            return [None] * len(ids)
        found = self.samples.values(path)
        if self._path == self.name:
            found = [[mark] for mark in found]
        return [_common_mark(marks, own) for marks, own in zip(found, self._label_ids, strict=True)]

    def incomplete(self, ids: Sequence[str]) -> set[str]:
        return set()

    def has_values(self) -> bool:
        from fiftyone import ViewField as F

        path = f"{self._path}.zs_run"
        if self.samples._dataset.get_field(path) is None:
            return False
        dataset = every_sample(self.samples)
        has_mark = F("zs_run").exists()
        if self._path == self.name:
            view = dataset.match(F(self.name).exists() & F(path).exists())
        else:
            view = dataset.match(F(self._path).filter(has_mark).length() > 0)
        return bool(view.limit(1).values("id"))

    def watch(self, ids: Sequence[str], marks: Sequence[str | None]) -> None:
        """Not needed: attributes that only runs write, of labels that are found by their ids."""

    def watched(self, ids: Sequence[str]) -> dict[str, dict[str, bytes]]:
        return {}

    def watch_too(self, watched: Mapping[str, Mapping[str, bytes]]) -> None:
        """Not needed either."""

    def prepare(self, labels: Mapping[str, Any]) -> Mapping[str, Any]:
        return labels

    def write(self, prepared: Mapping[str, Mapping[str, Mapping[str, Any]] | None]) -> LeftAlone:
        """Writes ``{sample id: {label id: {attribute: value}}}``, the mark last."""
        target = writable(self.samples)
        for attribute in SOURCE_ATTRIBUTES:
            values = [
                # What a view of frames calls a sample, its videos call a frame
                {
                    "sample_id": sample_id,
                    "frame_id": sample_id,
                    "label_id": label_id,
                    "value": values.get(attribute),
                }
                for sample_id, found in prepared.items()
                for label_id, values in (found or {}).items()
            ]
            if values:
                target.set_label_values(f"{self._path}.{attribute}", values, validate=False)
        return LeftAlone(deleted=missing(self.samples, list(prepared)))


def _common_mark(marks: Sequence[str | None] | None, own: Sequence[str]) -> str | None:
    """The mark that all labels of a sample share; None if any has none; ``""`` if they differ."""
    found = set(marks or ())
    if not own or None in found or not found:
        return None
    return found.pop() if len(found) == 1 else ""


def unfiltered(samples: SampleCollection, ids: Sequence[str]) -> SampleCollection:
    """At least these samples, with all their labels, whatever a view hides.

    Naming many samples one by one is slower than reading a column of the whole dataset.
    """
    dataset = every_sample(samples)
    return dataset.select(ids) if len(ids) <= MAX_SELECTED else dataset


def writable(samples: SampleCollection) -> SampleCollection:
    """The collection to write to by id: the dataset, or the view itself if FiftyOne generated it.

    Frame views copy what is written through them back to their videos.
    """
    return samples if samples._dataset._is_generated else every_sample(samples)
