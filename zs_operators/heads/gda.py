"""Training-free Gaussian discriminant analysis on counts, sums and second moments.

Wang et al. 2024 (arXiv 2402.04087): ``x P μᵀ − ½ μ P μᵀ`` with
``P = D · pinv((n−1) Cov + tr(Cov) I)`` of the class-centred embeddings. All of it follows from
additive statistics, and so does leaving one sample out, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zs_operators.heads.support import Support
from zs_operators.heads.text_means import mean_weights, text_scale


@dataclass(frozen=True, eq=False)
class Moments:
    """Additive statistics of labelled embeddings.

    Attributes:
        counts: (K,) samples of each column
        sums: (K, D) float64, sums of their embeddings
        second: (D, D) float64, sum of ``x xᵀ`` over all of them
    """

    counts: np.ndarray
    sums: np.ndarray
    second: np.ndarray

    @classmethod
    def of(cls, embeddings: np.ndarray, columns: np.ndarray, num_columns: int) -> Moments:
        """Those of (n, D) embeddings with (n,) columns."""
        sums = np.zeros((num_columns, embeddings.shape[1]))
        np.add.at(sums, columns, embeddings)
        return cls(np.bincount(columns, minlength=num_columns), sums, embeddings.T @ embeddings)

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.counts + other.counts, self.sums + other.sums, self.second + other.second
        )

    def __sub__(self, other: Moments) -> Moments:
        return Moments(
            self.counts - other.counts, self.sums - other.sums, self.second - other.second
        )

    def without_mean(self, column: int) -> Moments:
        """The same without where a class lies; how its samples spread about it stays."""
        counts, sums = self.counts.copy(), self.sums.copy()
        second = self.second - np.outer(sums[column], sums[column]) / max(counts[column], 1)
        counts[column], sums[column] = 0, 0
        return Moments(counts, sums, second)

    @property
    def supported(self) -> np.ndarray:
        """(K,) bool, whether a column has samples."""
        return self.counts > 0

    @property
    def means(self) -> np.ndarray:
        """(C, D) float64 means of the supported columns."""
        return self.sums[self.supported] / self.counts[self.supported, None]

    @property
    def scatter(self) -> np.ndarray:
        """(D, D) float64, ``(n−1) Cov`` of the class-centred embeddings."""
        means = self.means
        return self.second - (means.T * self.counts[self.supported]) @ means


def scale_of(moments: Moments, texts: np.ndarray) -> float:
    """The constant of :func:`fit`: what texts say of means, see :func:`.text_scale`."""
    return text_scale(texts, moments.supported, moments.means)


def fit(moments: Moments, texts: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """What the head adds to the logits of an embedding x: ``x @ weight.T + bias``.

    Args:
        moments: of the support
        texts: (K, D) unit rows; columns without samples get the mean that their text implies
        scale: of :func:`scale_of`

    Returns:
        (K, D) float64 weight and (K,) float64 bias; zeros where the samples have no spread
    """
    weights, rest = mean_weights(texts, moments.supported)
    means = weights @ moments.means + scale * rest
    values, vectors = np.linalg.eigh(moments.scatter)
    ridge = max(values.sum(), 0.0) / max(moments.counts.sum() - 1, 1)
    precision = _inverse(np.maximum(values, 0) + ridge) * len(values)
    weight = (means @ vectors * precision) @ vectors.T
    bias = -0.5 * (weight * means).sum(axis=1)
    # What all columns share decides nothing, and would lift or sink them all under a sigmoid
    return weight - weight.mean(axis=0), bias - bias.mean()


def leave_one_out(support: Support, scale: float, moments: Moments | None = None) -> np.ndarray:
    """What the head fitted without each sample adds to that sample's logits, in closed form.

    The scatter is decomposed once; without sample i of class c it is
    ``W − N_c/(N_c−1) v vᵀ`` with ``v = x − μ_c``, a rank-one update of its inverse, and the means
    move along v only. A class with one sample becomes a class without.

    Args:
        support: n labelled samples
        scale: of :func:`scale_of`
        moments (None): of these samples and maybe others; None for of these alone

    Returns:
        (n, K) float64
    """
    if moments is None:
        moments = Moments.of(support.embeddings, support.columns, len(support.texts))
    found = np.zeros((len(support), len(support.texts)))
    alone = moments.counts[support.columns] == 1
    for row in np.flatnonzero(alone):
        one = Moments.of(support.embeddings[[row]], support.columns[[row]], len(support.texts))
        weight, bias = fit(moments - one, support.texts, scale)
        found[row] = weight @ support.embeddings[row] + bias
    rows = np.flatnonzero(~alone)
    if len(rows):
        found[rows] = _downdated(support.take(rows), scale, moments)
    return found


def leave_classes_out(support: Support, scale: float, moments: Moments | None = None) -> np.ndarray:
    """What the heads fitted without each fold of classes add to its samples' logits; (n, K).

    Args:
        support: n labelled samples
        scale: of :func:`scale_of`
        moments (None): of these samples and others, which then keep the spread, not the place, of
            the classes left out; None for of these alone
    """
    found = np.zeros((len(support), len(support.texts)))
    for rows in support.class_folds():
        if moments is None:
            rest = support.take(~rows)
            left = Moments.of(rest.embeddings, rest.columns, len(support.texts))
        else:
            left = moments
            for column in np.unique(support.columns[rows]):
                left = left.without_mean(column)
        weight, bias = fit(left, support.texts, scale)
        found[rows] = support.embeddings[rows] @ weight.T + bias
    return found


def _downdated(support: Support, scale: float, moments: Moments) -> np.ndarray:
    """:func:`leave_one_out` of samples whose class has others."""
    values, vectors = np.linalg.eigh(moments.scatter)
    values = np.maximum(values, 0)
    supported = moments.supported
    position = np.cumsum(supported) - 1
    weights, rest = mean_weights(support.texts, supported)
    # All in the eigenbasis of the scatter: x, the means, and the way from the mean to x
    x = support.embeddings @ vectors
    means = (weights @ moments.means + scale * rest) @ vectors
    away = x - means[support.columns]
    counts = moments.counts[support.columns][:, None].astype(float)
    lost = counts[:, 0] / (counts[:, 0] - 1)
    total = values.sum() - lost * (away**2).sum(axis=1)
    ridge = np.maximum(total, 0) / max(moments.counts.sum() - 2, 1)
    inverse = _inverse(values[None] + ridge[:, None])
    # Means move by -step * away
    step = weights[:, position[support.columns]].T / (counts - 1)
    along = away * inverse
    av = along @ means.T  # v R mu, (n, K)
    vv = (along * away).sum(axis=1, keepdims=True)
    xv = (along * x).sum(axis=1, keepdims=True)
    xm = (x * inverse) @ means.T - step * xv
    mm = inverse @ (means**2).T - 2 * step * av + step**2 * vv
    av = av - step * vv
    gain = lost[:, None] / np.maximum(1 - lost[:, None] * vv, 1e-12)
    found = len(values) * (xm + gain * xv * av - 0.5 * (mm + gain * av**2))
    return found - found.mean(axis=1, keepdims=True)


def _inverse(values: np.ndarray) -> np.ndarray:
    """One over each, zero for zero, as a pseudo-inverse has it."""
    usable = values > 1e-12
    return np.where(usable, 1 / np.where(usable, values, 1), 0)
