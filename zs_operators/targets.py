"""Where a run puts its results: a label field of its own, or attributes of existing labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from zs_operators import fields

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection
    from fiftyone.core.labels import Label


class Target(Protocol):
    """What the runner needs to know of the place it writes to."""

    #: names the run and the field of failure reasons
    name: str

    def declare(self, description: str) -> None:
        """Adds what will be written to the schema."""

    def marks(self, ids: Sequence[str]) -> list[str | None]:
        """Signature of the run that labelled each sample; ``""`` for labels of other origin."""

    def has_values(self) -> bool:
        """Whether any sample of the whole dataset has a result here."""

    def write(self, labels: Mapping[str, Any]) -> None:
        """Writes results by sample id, value and mark in one update per document."""


class FieldTarget:
    """A label field of its own; every label carries the signature of the run.

    Args:
        samples: the dataset or view to label
        label_field: checked by :func:`zs_operators.fields.check_label_field`
        label_type: name of the FiftyOne label class
    """

    def __init__(self, samples: SampleCollection, label_field: str, label_type: str) -> None:
        self.samples = samples
        self.name = label_field
        self.label_type = label_type

    def declare(self, description: str) -> None:
        fields.declare(self.samples, self.name, self.label_type, description)

    def marks(self, ids: Sequence[str]) -> list[str | None]:
        if self.samples._dataset.get_field(self.name) is None:
            return [None] * len(ids)
        labelled = set(self.samples.exists(self.name).values("id"))
        path = f"{self.name}.{fields.RUN_ATTRIBUTE}"
        if self.samples._dataset.get_field(path) is None:
            found: Sequence[str | None] = [None] * len(ids)
        else:
            found = self.samples.values(path)
        return [
            mark or ("" if sample_id in labelled else None)
            for sample_id, mark in zip(ids, found, strict=True)
        ]

    def has_values(self) -> bool:
        exists = self.samples._dataset.get_field(self.name) is not None
        return exists and fields.has_values(self.samples, self.name)

    def write(self, labels: Mapping[str, Label | None]) -> None:
        writable(self.samples).set_values(self.name, labels, key_field="id", validate=False)


def writable(samples: SampleCollection) -> SampleCollection:
    """The collection to write to by id: the dataset, or the view itself if FiftyOne generated it.

    Frame views copy what is written through them back to their videos.
    """
    dataset = samples._dataset
    return samples if dataset._is_generated else dataset
