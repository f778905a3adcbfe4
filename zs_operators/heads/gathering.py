"""Labelled images or boxes of a dataset -> embeddings, from the store where they are in it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from zs_operators.embeddings import image_key
from zs_operators.errors import FieldError
from zs_operators.inference import outcome_of
from zs_operators.model_stores import image_store
from zs_operators.reading import read_ahead
from zs_operators.region_fields import ExistingBoxes, read_boxes
from zs_operators.report import Progress
from zs_operators.rescoring import image_keys

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

    from zs_operators.classifier import ZeroShotClassifier
    from zs_operators.detector import ZeroShotDetector
    from zs_operators.vocabulary import Vocabulary

_BATCHES_AHEAD = 3


@dataclass
class Gathered:
    """Embeddings of labelled things, and what could not be used.

    Attributes:
        embeddings: (n, D) float32
        columns: (n,) int64 in the vocabulary's columns
        embedded, reused: images that were encoded, and that were stored
        skipped: reason -> how many
    """

    embeddings: np.ndarray
    columns: np.ndarray
    embedded: int = 0
    reused: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


def label_kind(samples: SampleCollection, ground_truth: str) -> str:
    """ "Classification" or "Detections", what the field holds.

    Raises:
        FieldError: if there is no such field, or it holds something else
    """
    from zs_operators.samples import label_fields

    known = samples.get_field(ground_truth)
    kind = getattr(getattr(known, "document_type", None), "__name__", None)
    if kind not in ("Classification", "Detection", "Detections"):
        fields = ", ".join(label_fields(samples)) or "none"
        holds = "There is no field" if known is None else f"Field holds {kind or type(known)}:"
        raise FieldError(
            f"{holds} {ground_truth!r}: ground_truth must be a field of Classification or "
            f"Detections. Label fields: {fields}."
        )
    return "Classification" if kind == "Classification" else "Detections"


def column_of(vocabulary: Vocabulary) -> dict[str, int]:
    """The column of each name that a label may have.

    A class, a label that classes roll up to, or a background prompt: what was reviewed to be none
    of the classes teaches too.
    """
    columns = {name: number for number, name in enumerate(vocabulary.columns)}
    return {name: columns[vocabulary.label_of(name)] for name in vocabulary.classes} | columns


def gather_images(
    samples: SampleCollection,
    ground_truth: str,
    classifier: ZeroShotClassifier,
    *,
    embeddings: str,
    batch_size: int,
    workers: int,
) -> Generator[Progress, None, Gathered]:
    """Embeddings of the images that have a class in ``ground_truth``."""
    paths, names = samples.values(["filepath", f"{ground_truth}.label"])
    skipped: Counter[str] = Counter()
    columns = _columns(names, column_of(classifier.vocabulary), skipped)
    rows = np.flatnonzero(columns >= 0)
    store = None if embeddings == "off" else image_store(classifier.clip)
    vectors = np.zeros((len(paths), classifier.clip.dim), np.float32)
    known = np.zeros(len(paths), bool)
    if embeddings == "reuse" and len(rows):
        records = store.find(image_keys([paths[row] for row in rows]))
        vectors[rows], known[rows] = store.vectors(records)
    reused = int(known.sum())
    yield Progress(reused, len(rows), "embedding")

    def load(path: str) -> tuple[bytes | None, Any]:
        key = None if store is None else image_key(path)
        return key, classifier.load(path)

    def embed(items: Sequence[tuple[bytes | None, Any]]) -> np.ndarray:
        keys, pixels = zip(*items, strict=True)
        found = classifier.embed(pixels)
        return np.asarray(found if store is None else store.put(keys, found))

    todo = rows[~known[rows]]
    with contextlib.nullcontext() if store is None else store:
        sources = [paths[row] for row in todo]
        for start, found in _batches(sources, load, embed, skipped, batch_size, workers):
            for position, vector in found:
                vectors[todo[position]], known[todo[position]] = vector, True
            yield Progress(reused + min(start, len(todo)), len(rows), "embedding")
    known &= np.isfinite(vectors).all(axis=1) & (np.abs(vectors).sum(axis=1) > 0)
    return Gathered(vectors[known], columns[known], int(known.sum()) - reused, reused, +skipped)


def gather_boxes(
    samples: SampleCollection,
    ground_truth: str,
    detector: ZeroShotDetector,
    *,
    embeddings: str,
    batch_size: int,
    workers: int,
) -> Generator[Progress, None, Gathered]:
    """Embeddings of the boxes of ``ground_truth`` that have a class."""
    from zs_operators.detections import Regions
    from zs_operators.stored_regions import StoredRegions

    skipped: Counter[str] = Counter()
    lookup = column_of(detector.vocabulary)
    boxes = [one for one in read_boxes(samples, ground_truth) if one.boxes_rel]
    columns = [_columns(one.labels, lookup, skipped) for one in boxes]
    wanted = [i for i, found in enumerate(columns) if (found >= 0).any()]
    stored = None
    if embeddings != "off":
        stored = StoredRegions(detector, refresh=embeddings == "refresh")
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    counts: Counter[str] = Counter()

    def load(one: ExistingBoxes) -> tuple[bytes | None, Any]:
        key = None
        if stored is not None:
            key = stored.key(one.filepath, one.boxes_rel)
            found = stored.get(key, one.boxes_rel)
            if found is not None:
                return key, found
        return key, detector.load(one.filepath, one.boxes_rel)

    def embed(items: Sequence[tuple[bytes | None, Any]]) -> list[Any]:
        found = [content for _, content in items]
        new = [i for i, one in enumerate(found) if not isinstance(one, Regions)]
        counts.update(embedded=len(new), reused=len(found) - len(new))
        computed = detector.embed([found[i] for i in new]) if new else []
        if stored is not None and new:
            computed = stored.put([items[i][0] for i in new], computed)
        for i, one in zip(new, computed, strict=True):
            found[i] = one
        return found

    with contextlib.nullcontext() if stored is None else stored.store:
        sources = [boxes[i] for i in wanted]
        yield Progress(0, len(wanted), "embedding")
        for start, found in _batches(sources, load, embed, skipped, batch_size, workers):
            for position, regions in found:
                theirs = columns[wanted[position]]
                skipped.update(regions.refused.values())
                vectors, their = regions.embeddings.numpy(), theirs[regions.index.numpy()]
                usable = (their >= 0) & np.isfinite(vectors).all(axis=1)
                parts.append((vectors[usable], their[usable]))
            yield Progress(min(start, len(wanted)), len(wanted), "embedding")
    empty = (np.zeros((0, detector.clip.dim), np.float32), np.zeros(0, np.int64))
    vectors, found = (np.concatenate(kind) for kind in zip(empty, *parts, strict=True))
    return Gathered(vectors, found, counts["embedded"], counts["reused"], +skipped)


def _batches(
    sources: Sequence[Any],
    load: Callable[[Any], Any],
    embed: Callable[[Sequence[Any]], Sequence[Any]],
    skipped: Counter[str],
    batch_size: int,
    workers: int,
) -> Generator[tuple[int, list[tuple[int, Any]]], None, None]:
    """Yields how many sources are through, and ``(position, result)`` of those that could be."""
    items: list[tuple[int, Any]] = []
    reader = read_ahead(sources, load, workers=workers, ahead=_BATCHES_AHEAD * batch_size)
    with contextlib.closing(reader):
        for position, item in reader:
            if isinstance(item, Exception):
                skipped[outcome_of(item)] += 1
            else:
                items.append((position, item))
            if items and (len(items) >= batch_size or position == len(sources) - 1):
                results = embed([item for _, item in items])
                yield position + 1, [(at, one) for (at, _), one in zip(items, results, strict=True)]
                items = []


def _columns(
    names: Sequence[str | None], lookup: dict[str, int], skipped: Counter[str]
) -> np.ndarray:
    """(N,) int64 column of each label, -1 where there is none."""
    found = np.array([lookup.get(name, -1) for name in names] or [], np.int64)
    skipped.update(
        f"label {name!r} is no class" for name in names if name is not None and name not in lookup
    )
    return found
