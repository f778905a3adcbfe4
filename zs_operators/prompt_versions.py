"""What one wording of the classes makes of many images: counts, doubts, confusions, suggestions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from zs_operators.errors import InvalidInputError
from zs_operators.option_checks import check_choice

if TYPE_CHECKING:
    from zs_operators.vocabulary import Vocabulary

SCORES = ("confidence", "margin", "cosine")
#: Two labels are close where the second has a third of the odds of the first, or more
CLOSE_MARGIN = math.log(3)
#: Share of two labels' images that must be close between them to be called stealing
MIN_STEALING = 0.1
_SHOWN = 10


@dataclass(frozen=True)
class Stealing:
    """Two labels between which images go either way by a little.

    Attributes:
        labels: the two
        close: images of either with the other as a close second
        share: ``close`` divided by all images of the two, in (0, 1]
    """

    labels: tuple[str, str]
    close: int
    share: float


@dataclass(frozen=True)
class Confusion:
    """Ground truth against labels.

    Attributes:
        truth: T names of the ground truth, sorted
        labels: P labels in the order of the vocabulary; None comes last, for rejected images
        counts: (T, P) int64 images
    """

    truth: tuple[str, ...]
    labels: tuple[str | None, ...]
    counts: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of the images with ground truth whose label is the same text; NaN without any."""
        total = int(self.counts.sum())
        columns = {label: column for column, label in enumerate(self.labels)}
        right = sum(
            int(self.counts[row, columns[name]])
            for row, name in enumerate(self.truth)
            if name in columns
        )
        return right / total if total else math.nan


@dataclass(frozen=True, eq=False)
class LabVersion:
    """The labels of N images under one vocabulary; made by ``PromptLab.score``.

    Attributes:
        vocabulary: the words
        ids: (N,) object, of the samples
        best: (N,) int64 index in ``vocabulary.labels`` of the best class, also where rejected
        second: (N,) int64 index in ``vocabulary.columns`` of the best column but ``best``; -1
            where there is only one
        confidence, margin, cosine: (N,) float32 of the best class; margin is NaN where there is
            only one column
        rejected_by: (N,) object, None or the rule that rejected
        prompt_wins: (R,) int64, to how many images each of :attr:`prompts` is the nearest
        truth: (N,) object names of the ground truth, None where there is none
        changed: (N,) bool, whether the label differs from the version before
        limits: the thresholds of all labels that were set, as arguments of ``zs.classify``
    """

    vocabulary: Vocabulary
    ids: np.ndarray
    best: np.ndarray
    second: np.ndarray
    confidence: np.ndarray
    margin: np.ndarray
    cosine: np.ndarray
    rejected_by: np.ndarray
    prompt_wins: np.ndarray
    truth: np.ndarray
    changed: np.ndarray
    limits: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) object, None where rejected."""
        names = np.array([*self.vocabulary.labels, None], dtype=object)
        return names[self._columns]

    @property
    def prompts(self) -> list[tuple[str, str]]:
        """R pairs: a name or description as typed, and its class."""
        return prompt_rows(self.vocabulary)

    @property
    def changed_ids(self) -> list[str]:
        return self.ids[self.changed].tolist()

    def histogram(self) -> dict[str | None, int]:
        """Images of each label in the order of the vocabulary; None, last, for rejected ones."""
        names = (*self.vocabulary.labels, None)
        counts = np.bincount(self._columns, minlength=len(names)).tolist()
        return dict(zip(names, counts, strict=True))

    def distribution(self, by: str = "margin", bins: int = 20) -> tuple[np.ndarray, np.ndarray]:
        """How a score is spread: (bins,) int64 images, and (bins + 1,) edges, as NumPy has them.

        Raises:
            InvalidInputError: if ``by`` is no score
        """
        return np.histogram(self._finite(by), bins=bins)

    def most_certain(self, count: int = 20) -> list[str]:
        """Ids of the images whose label leads most, first the most certain."""
        return self.ids[self._by_certainty()[::-1][:count]].tolist()

    def least_certain(self, count: int = 20) -> list[str]:
        """Ids of the images whose label leads least, first the least certain."""
        return self.ids[self._by_certainty()[:count]].tolist()

    def ids_of(self, label: str | None, truth: str | None = None) -> list[str]:
        """Ids of the images with a label, or rejected (None); only of one ground truth if given.

        Raises:
            InvalidInputError: if the vocabulary has no such label
        """
        names = (*self.vocabulary.labels, None)
        if label not in names:
            raise InvalidInputError(f"{label!r} is no label of this version.")
        found = self._columns == names.index(label)
        return self.ids[found if truth is None else found & (self.truth == truth)].tolist()

    def ids_between(self, by: str, low: float, high: float) -> list[str]:
        """Ids of the images with a score in [low, high]."""
        check_choice("by", by, SCORES)
        values = getattr(self, by)
        return self.ids[(values >= low) & (values <= high)].tolist()

    def ids_between_labels(self, one: str, other: str) -> list[str]:
        """Ids of the images of two labels with the other as a close second, the closest first."""
        pair = [self.vocabulary.labels.index(name) for name in (one, other)]
        close = np.flatnonzero(
            self._is_close & np.isin(self.best, pair) & np.isin(self.second, pair)
        )
        return self.ids[close[np.argsort(self.margin[close], kind="stable")]].tolist()

    def confusion(self) -> Confusion:
        """Ground truth against labels, of the images that have ground truth."""
        return self._confusion

    @cached_property
    def _confusion(self) -> Confusion:
        known = np.array([name is not None for name in self.truth], bool)
        names, rows = np.unique(self.truth[known].astype(str), return_inverse=True)
        labels = (*self.vocabulary.labels, None)
        flat = rows * len(labels) + self._columns[known]
        counts = np.bincount(flat, minlength=len(names) * len(labels))
        return Confusion(tuple(names.tolist()), labels, counts.reshape(len(names), len(labels)))

    def stealing(self, min_share: float = MIN_STEALING) -> list[Stealing]:
        """Pairs of labels that steal from each other, at most 10, the worst first.

        Each has images where the other is second with a margin below ``log 3``, and these are at
        least ``min_share`` of the images of both.
        """
        labels = self.vocabulary.labels
        kept = self._is_close & (self.second < len(labels))
        size = len(labels)
        close = np.bincount(self.best[kept] * size + self.second[kept], minlength=size**2)
        close = close.reshape(size, size)
        totals = np.bincount(self.best, minlength=size)
        found = []
        for one, other in zip(*np.nonzero(np.triu((close > 0) & (close.T > 0), 1)), strict=True):
            both = int(close[one, other] + close[other, one])
            share = both / int(totals[one] + totals[other])
            if share >= min_share:
                found.append(Stealing((labels[one], labels[other]), both, share))
        return sorted(found, key=lambda pair: -pair.share)[:_SHOWN]

    def never_win(self) -> list[tuple[str, str]]:
        """Names and descriptions that are nearest to no image, each with its class."""
        pairs = zip(self.prompts, self.prompt_wins, strict=True)
        return [prompt for prompt, wins in pairs if not wins]

    @cached_property
    def _columns(self) -> np.ndarray:
        """(N,) index of the label; the number of labels where rejected."""
        kept = np.array([rule is None for rule in self.rejected_by], bool)
        return np.where(kept, self.best, len(self.vocabulary.labels))

    @property
    def _is_close(self) -> np.ndarray:
        return np.abs(self.margin) < CLOSE_MARGIN

    def _by_certainty(self) -> np.ndarray:
        # Probabilities saturate and would tie; a class alone has no margin
        only = np.isnan(self.margin).all()
        return np.argsort(self.cosine if only else self.margin, kind="stable")

    def _finite(self, by: str) -> np.ndarray:
        check_choice("by", by, SCORES)
        values = getattr(self, by)
        return values[np.isfinite(values)]


def prompt_rows(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Names and descriptions as typed, each with its class, in the order of their vectors."""
    return [
        (text, label)
        for label in vocabulary.classes
        for text in (*vocabulary.synonyms[label], *vocabulary.descriptions.get(label, ()))
    ]


def seconds(logits: np.ndarray, best: np.ndarray) -> np.ndarray:
    """The best column of each row but one.

    Args:
        logits: (N, K) float32
        best: (N,) column to leave out

    Returns:
        (N,) int64; -1 where K is 1
    """
    if logits.shape[1] == 1:
        return np.full(len(logits), -1, np.int64)
    others = logits.copy()
    others[np.arange(len(others)), best] = -np.inf
    return others.argmax(axis=1)


def changed_labels(labels: np.ndarray, before: Sequence[str | None] | None) -> np.ndarray:
    """(N,) bool, whether each label differs from ``before``; all False without one."""
    if before is None:
        return np.zeros(len(labels), bool)
    return labels != np.asarray(before, dtype=object)
