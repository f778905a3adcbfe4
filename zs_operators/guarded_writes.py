"""Writes by sample id that leave alone what a person changed while a run went on.

What samples hold is looked at just before they are written: where there was no value, whether there
is one now; where there was one that may be replaced, whether its fingerprint is still the same. To
ask for that in the updates themselves would make each of them slower by a third.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

#: More samples than these are not named one by one; the whole column is read.
MAX_SELECTED = 10_000


class LeftAlone(NamedTuple):
    """Ids of samples that were not written: gone, or changed by somebody else."""

    deleted: frozenset[str] = frozenset()
    edited: frozenset[str] = frozenset()

    def __or__(self, other: LeftAlone) -> LeftAlone:  # type: ignore[override]
        deleted = self.deleted | other.deleted
        return LeftAlone(deleted, (self.edited | other.edited) - deleted)

    def but(self, ours: Iterable[str]) -> LeftAlone:
        """Without samples of which it was this run itself that changed them."""
        return LeftAlone(self.deleted, self.edited.difference(ours))


class FieldGuard:
    """Writes to a top-level field where it holds what it held when the guard was made.

    Args:
        samples: the dataset or view; frames are looked at where their videos have them
        field: its name
        with_values: ids of the samples that may have a value now; the others have none
        before (None): of a guard in another process, :meth:`fingerprints`, instead
    """

    def __init__(
        self,
        samples: SampleCollection,
        field: str,
        with_values: Sequence[str] = (),
        *,
        before: Mapping[str, bytes] | None = None,
    ) -> None:
        self._samples = samples
        self._field = field
        if before is None:
            before = self._fingerprints(with_values) if with_values else ()
        self._before = dict(before)

    def fingerprints(self, ids: Iterable[str]) -> dict[str, bytes]:
        """What those of the samples held that had a value when the guard was made."""
        return {one: self._before[one] for one in ids if one in self._before}

    def write(self, documents: Mapping[str, Any]) -> LeftAlone:
        """Sets the field to values as the database holds them; done twice, it does the same."""
        changed = self._changed(list(documents))
        rest = {one: value for one, value in documents.items() if one not in changed}
        left = write_values(self._samples, self._field, rest)
        if changed:
            # After an answer that was lost, some of these are what we wrote
            changed_values = {one: documents[one] for one in changed}
            left |= left_alone(self._samples, self._field, changed_values)
        return left

    @property
    def _db_field(self) -> str:
        return db_field(self._samples, self._field)

    def _changed(self, ids: Sequence[str]) -> set[str]:
        """Samples that do not hold what they held before."""
        replaced = [one for one in ids if one in self._before]
        empty = [one for one in ids if one not in self._before]
        where = {"_id": {"$in": _object_ids(empty)}, self._db_field: {"$ne": None}}
        found = stored(self._samples).find(where, {"_id": True}) if empty else ()
        changed = {str(one["_id"]) for one in found}
        for one, fingerprint in self._fingerprints(replaced) if replaced else ():
            if fingerprint != self._before[one]:
                changed.add(one)
        return changed

    def _fingerprints(self, ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """``(id, digest)`` of the field as stored; that of nothing where there is no value."""
        where = {"_id": {"$in": _object_ids(ids)}} if len(ids) <= MAX_SELECTED else {}
        wanted = set(ids) if not where else None
        batches = stored(self._samples).find_raw_batches(where, {self._db_field: True})
        for batch in batches:
            for sample_id, rest in _split(batch):
                if wanted is None or sample_id in wanted:
                    yield sample_id, hashlib.blake2b(rest, digest_size=8).digest()


def write_values(samples: SampleCollection, field: str, values: Mapping[str, Any]) -> LeftAlone:
    """Set a top-level field by sample id to values as the database holds them.

    What ``set_values`` does in the end, without turning each value into an object and back:
    samples in memory are reloaded, and ``last_modified_at`` is set. Frames are written to their
    videos, and to the copy that a view of frames reads.

    Args:
        samples: the dataset or view
        field: its name
        values: by sample id

    Returns:
        samples that are gone
    """
    import fiftyone.core.odm as foo
    from bson import ObjectId
    from pymongo import UpdateOne

    if not values:
        return LeftAlone()
    name = db_field(samples, field)
    now = datetime.now(timezone.utc)
    operations = [
        UpdateOne({"_id": ObjectId(one)}, {"$set": {name: value, "last_modified_at": now}})
        for one, value in values.items()
    ]
    results = foo.bulk_write(operations, stored(samples))
    if samples._dataset._is_generated:
        foo.bulk_write(operations, samples._dataset._sample_collection)
    _reload(samples, list(values))
    if sum(result.matched_count for result in results) == len(values):
        return LeftAlone()
    return LeftAlone(deleted=missing(samples, list(values)))


def left_alone(samples: SampleCollection, field: str, values: Mapping[str, Any]) -> LeftAlone:
    """Which samples do not hold these values: after a lost answer, some hold them already."""
    import bson

    name = db_field(samples, field)
    where = {"_id": {"$in": _object_ids(values)}}
    found = {str(one["_id"]): one for one in stored(samples).find(where, {name: True})}
    edited = {
        one
        for one, document in found.items()
        if bson.encode({"": document.get(name)}) != bson.encode({"": values[one]})
    }
    return LeftAlone(frozenset(values.keys() - found.keys()), frozenset(edited))


def missing(samples: SampleCollection, ids: Sequence[str]) -> frozenset[str]:
    """Samples that are not there any more."""
    where = {"_id": {"$in": _object_ids(ids)}}
    found = stored(samples).find(where, {"_id": True})
    return frozenset(set(ids) - {str(one["_id"]) for one in found})


def stored(samples: SampleCollection) -> Any:
    """The collection of the database that holds these samples; of frames that of their videos.

    A view of frames is a copy that FiftyOne generated, in which frames have the same ids.
    """
    if samples._dataset._is_generated:
        return samples._root_dataset._frame_collection
    return samples._dataset._sample_collection


def db_field(samples: SampleCollection, field: str) -> str:
    """The name of a top-level field in the database."""
    return samples._dataset.get_field(field).db_field or field


def _reload(samples: SampleCollection, ids: Sequence[str]) -> None:
    """Lets samples and frames in memory see what was written."""
    import fiftyone as fo

    fo.Sample._reload_docs(samples._dataset._sample_collection_name, sample_ids=ids)
    if samples._dataset._is_generated:
        fo.Frame._reload_docs(samples._root_dataset._frame_collection_name)


def _object_ids(ids: Any) -> list[Any]:
    from bson import ObjectId

    return [ObjectId(one) for one in ids]


def _split(batch: bytes) -> Iterator[tuple[str, bytes]]:
    """Sample id and all else of the documents in a batch; MongoDB puts ``_id`` first.

    A document is its length (4 bytes), ``\\x07_id\\0`` (5 bytes), 12 bytes of id, the rest.
    """
    start = 0
    while start < len(batch):
        end = start + int.from_bytes(batch[start : start + 4], "little")
        yield batch[start + 9 : start + 21].hex(), batch[start + 21 : end]
        start = end
