"""Labels of samples whose embeddings are stored: no image is read, no image encoder runs."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zs_operators import fields
from zs_operators.embeddings import image_key
from zs_operators.errors import MediaError
from zs_operators.report import LABELED, REJECTED, Progress
from zs_operators.runner import Run

if TYPE_CHECKING:
    from zs_operators.classifier import ClassPrediction

#: Samples scored and written at a time, so that memory does not grow with their number
CHUNK_SAMPLES = 8192
_NO_KEY = bytes(32)


class RescoringRun(Run):
    """A run of :class:`~zs_operators.classification.ClassifyTask` that takes what is stored first.

    The reader gets what is left: samples that are not stored, or whose file is not there.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._resumed = super().resumed

    @property
    def resumed(self) -> int:
        return self._resumed if hasattr(self, "_resumed") else super().resumed

    def _before_reading(self, begun: float) -> Generator[Progress, None, None]:
        store = self.task.store
        started = time.perf_counter()
        records = store.find(image_keys(self.todo_sources)) if len(store) else np.empty(0, int)
        known = np.flatnonzero(records >= 0)
        # In the order of the files, so that each part of them is read once
        known = known[np.argsort(records[known], kind="stable")]
        self.seconds["find"] += time.perf_counter() - started
        taken = np.zeros(len(self.todo_ids), bool)
        for start in range(0, len(known), CHUNK_SAMPLES):
            rows = known[start : start + CHUNK_SAMPLES]
            rows, predictions = self._score(rows, records[rows])
            self._write_stored([self.todo_ids[row] for row in rows], predictions)
            taken[rows] = True
            yield self._progress("labelling", begun)
        left = np.flatnonzero(~taken)
        self.todo_ids = [self.todo_ids[row] for row in left]
        self.todo_sources = [self.todo_sources[row] for row in left]

    def _score(
        self, rows: np.ndarray, records: np.ndarray
    ) -> tuple[list[int], list[ClassPrediction]]:
        """Predictions of those rows that the disk did not lose."""
        started = time.perf_counter()
        vectors, readable = self.task.store.vectors(records)
        found = self.task.classifier.predict_embeddings(vectors[readable])
        self.task.store.release()
        self.seconds["score"] += time.perf_counter() - started
        pairs = zip(rows[readable].tolist(), found, strict=True)
        kept = [(row, one) for row, one in pairs if not isinstance(one, Exception)]
        return [row for row, _ in kept], [one for _, one in kept]

    def _write_stored(self, ids: Sequence[str], predictions: Sequence[ClassPrediction]) -> None:
        self.task.reused += len(ids)
        outcomes = {}
        for one, prediction in zip(ids, predictions, strict=True):
            is_labeled = prediction.rejected_by is None
            kept = [score.label for score in prediction.kept] if is_labeled else ()
            outcomes[one] = (LABELED if is_labeled else REJECTED, kept)
            self.tally.add(self.task.scores(prediction))
        cleared = {one: None for one in ids if one in self.failed_before}
        self._store(lambda: self._prepare(ids, predictions), cleared, outcomes)

    def _prepare(self, ids: Sequence[str], predictions: Sequence[ClassPrediction]) -> Any:
        classifier = self.task.classifier
        if self.samples._dataset._is_generated or classifier.options.store_logits:
            # FiftyOne itself knows how to pass these on to other collections, or to pack them
            pairs = zip(ids, predictions, strict=True)
            return self.target.prepare({i: self.task.label(p, self.signature)[0] for i, p in pairs})
        build = classifications_document if classifier.options.is_list else classification_document
        documents = [build(one, self.signature, self.task.reject_label) for one in predictions]
        return {self.target.name: dict(zip(ids, documents, strict=True))}


def image_keys(paths: Sequence[str]) -> list[bytes]:
    """The key of each file, one that is never stored for a file that is not there."""
    keys = []
    for path in paths:
        try:
            keys.append(image_key(path))
        except MediaError:
            keys.append(_NO_KEY)
    return keys


def classification_document(
    prediction: ClassPrediction, run: str | None, reject_label: str | None
) -> dict[str, Any]:
    """What :func:`zs_operators.labels.classification` is in the database, 20 times as fast."""
    rejected = prediction.rejected_by is not None
    best = prediction.best
    document = _label_document(reject_label if rejected else best.label, best)
    document["rejected_by"] = prediction.rejected_by
    document["rejected_label"] = best.label if rejected else None
    document[fields.RUN_ATTRIBUTE] = run
    return document


def classifications_document(
    prediction: ClassPrediction, run: str | None, reject_label: str | None
) -> dict[str, Any]:
    """What :func:`zs_operators.labels.classifications` is in the database."""
    found = [_label_document(score.label, score) for score in prediction.kept]
    if prediction.rejected_by is not None and reject_label is not None:
        found = [_label_document(reject_label, prediction.best)]
    return {
        "_cls": "Classifications",
        "classifications": found,
        "rejected_by": prediction.rejected_by,
        fields.RUN_ATTRIBUTE: run,
    }


def _label_document(label: str | None, score: Any) -> dict[str, Any]:
    from bson import ObjectId

    document = {
        "_id": ObjectId(),
        "_cls": "Classification",
        "tags": [],
        "label": label,
        "confidence": score.confidence,
        "cosine": score.cosine,
        "margin": score.margin,
    }
    if label is None:
        del document["label"]
    return document
