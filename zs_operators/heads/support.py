"""Labelled embeddings with what zero-shot says of them, and what leaving some out means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CLASS_FOLDS = 5
"""Groups of classes that are left out together to see how classes without examples fare."""


@dataclass(frozen=True, eq=False)
class Support:
    """The labelled samples that a head is fitted on.

    Attributes:
        embeddings: (n, D) float64 unit rows
        columns: (n,) int64, the column of each one's class
        prior: (n, K) float64 zero-shot logits
        texts: (K, D) float64 unit rows, the text of each column
    """

    embeddings: np.ndarray
    columns: np.ndarray
    prior: np.ndarray
    texts: np.ndarray

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def counts(self) -> np.ndarray:
        """(K,) int64 samples of each column."""
        return np.bincount(self.columns, minlength=len(self.texts))

    @property
    def supported(self) -> np.ndarray:
        """(K,) bool, whether a column has samples."""
        return self.counts > 0

    @property
    def residuals(self) -> np.ndarray:
        """(n, K) float64, one for the right column minus the zero-shot probabilities."""
        found = -softmax(self.prior)
        found[np.arange(len(self)), self.columns] += 1
        return found

    def take(self, rows: np.ndarray) -> Support:
        """Some of the samples, by index or mask."""
        return Support(self.embeddings[rows], self.columns[rows], self.prior[rows], self.texts)

    def class_folds(self) -> list[np.ndarray]:
        """Masks over the samples, each of some classes whole; every sample is in one of them."""
        names = np.flatnonzero(self.supported)
        number = min(CLASS_FOLDS, len(names))
        return [np.isin(self.columns, names[fold::number]) for fold in range(number)]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax of each row; (N, K) float64."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)
