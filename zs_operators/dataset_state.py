"""What became of a dataset meanwhile, by other processes: FiftyOne looks only when it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zs_operators.errors import DeletedError

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection


_SCHEMAS = ("sample_fields", "frame_fields")


def refresh(samples: SampleCollection) -> None:
    """Sees fields and runs that other processes have added since the dataset was loaded.

    Raises:
        DeletedError: if the dataset is gone
    """
    for dataset in _datasets_of(samples):
        stored = _datasets().find_one({"_id": dataset._doc.id}, dict.fromkeys(_SCHEMAS, True))
        if stored is None:
            raise DeletedError(f"Dataset {dataset.name!r} was deleted.")
        known = dataset._doc.to_mongo().to_dict()
        if any((stored.get(one) or []) != (known.get(one) or []) for one in _SCHEMAS):
            dataset.reload()
        else:
            dataset._doc.reload("runs")


class Standing:
    """Whether the dataset and the fields of a run are still there.

    Args:
        samples: of the run
        fields: that it writes

    Attributes:
        is_deleted: whether the dataset was found to be gone
    """

    def __init__(self, samples: SampleCollection, fields: Sequence[str]) -> None:
        self._ids = [one._doc.id for one in _datasets_of(samples)]
        self._name = samples._root_dataset.name
        # Frames have their fields where their videos are
        self._schema = "frame_fields" if samples._dataset._is_generated else "sample_fields"
        self._fields = set(fields)
        self.is_deleted = False

    def check(self) -> None:
        """Looks.

        Raises:
            DeletedError: if the dataset or a field is gone
        """
        where = {"_id": {"$in": self._ids}}
        found = {one["_id"]: one for one in _datasets().find(where, {f"{self._schema}.name": True})}
        if len(found) < len(self._ids):
            self.is_deleted = True
            raise DeletedError(
                f"Dataset {self._name!r} was deleted while the run went on: nothing more is "
                "written."
            )
        names = {one["name"] for one in found[self._ids[0]].get(self._schema) or ()}
        for one in sorted(self._fields - names):
            raise DeletedError(
                f"Field {one!r} of dataset {self._name!r} was deleted or renamed while the run "
                "went on: nothing more is written. Make the same call again to label it from the "
                "start, or under the new name."
            )


def _datasets_of(samples: SampleCollection) -> list[Any]:
    """The dataset, and the one that FiftyOne generated of it for frames, if that is written."""
    root, written = samples._root_dataset, samples._dataset
    return [root] if written is root else [root, written]


def _datasets() -> Any:
    """The collection of FiftyOne's dataset documents."""
    from fiftyone.core.odm import get_db_conn

    return get_db_conn()["datasets"]
