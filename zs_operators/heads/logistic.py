"""Logistic regression on embeddings, for classes with many examples each."""

from __future__ import annotations

import numpy as np

from zs_operators.heads.support import Support
from zs_operators.heads.text_means import mean_weights

FOLDS = 5
STRENGTHS = (0.01, 0.1)
"""Of ``C`` to choose from, for embeddings scaled to unit variance."""

_MAX_STEPS = 100


def fit(support: Support, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """What the head adds to the logits of an embedding x: ``x @ weight.T + bias``.

    Columns without samples get the weight that their text implies, as a class between the others.

    Args:
        support: labelled samples; of one column alone nothing follows
        strength: scikit-learn's ``C``; less of it keeps weights smaller

    Returns:
        (K, D) float64 weight and (K,) float64 bias
    """
    from sklearn.linear_model import LogisticRegression

    size, dim = support.texts.shape
    if support.supported.sum() < 2:
        return np.zeros((size, dim)), np.zeros(size)
    centre = support.embeddings.mean(axis=0)
    centred = support.embeddings - centre
    # Embeddings of one model hardly differ: in units of their spread one C means the same for all
    scale = np.sqrt(dim) / max(np.sqrt((centred**2).sum(axis=1).mean()), 1e-12)
    model = LogisticRegression(C=strength, max_iter=_MAX_STEPS)
    model.fit(centred * scale, support.columns)
    weight, bias = model.coef_ * scale, model.intercept_
    if len(weight) == 1:  # of two classes scikit-learn keeps the difference
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    # Softmax does not see a shift that all columns share
    weight, bias = weight - weight.mean(axis=0), bias - bias.mean()
    spread, _ = mean_weights(support.texts, support.supported)
    weight, bias = spread @ weight, spread @ bias
    bias -= weight @ centre
    return weight - weight.mean(axis=0), bias - bias.mean()


def sample_folds(columns: np.ndarray) -> list[np.ndarray]:
    """Masks over the samples, each a fifth of every class; every sample is in one of them.

    Args:
        columns: (n,) of samples in any order; those of one class are dealt out in turn
    """
    fold = np.zeros(len(columns), np.int64)
    for column in np.unique(columns):
        rows = np.flatnonzero(columns == column)
        fold[rows] = np.arange(len(rows)) % FOLDS
    return [fold == number for number in range(FOLDS)]


def left_out(support: Support, strength: float, folds: list[np.ndarray]) -> np.ndarray:
    """What heads fitted without each fold add to its samples' logits; (n, K)."""
    found = np.zeros((len(support), len(support.texts)))
    for fold in folds:
        weight, bias = fit(support.take(~fold), strength)
        found[fold] = support.embeddings[fold] @ weight.T + bias
    return found
