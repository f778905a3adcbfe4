"""Labels of samples whose embeddings are stored: no image is read, no image encoder runs."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

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
        found = (self.task.label(one, self.signature)[0] for one in predictions)
        return self.target.prepare(dict(zip(ids, found, strict=True)))


def image_keys(paths: Sequence[str]) -> list[bytes]:
    """The key of each file, one that is never stored for a file that is not there."""
    keys = []
    for path in paths:
        try:
            keys.append(image_key(path))
        except MediaError:
            keys.append(_NO_KEY)
    return keys
