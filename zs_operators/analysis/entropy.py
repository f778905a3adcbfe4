"""How evenly something is spread, between 0 (all in one place) and 1 (the same everywhere)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def spread_of_counts(counts: Sequence[int], num_classes: int) -> float | None:
    """Entropy of a histogram as a share of the highest possible; None without two classes.

    Args:
        counts: labels of each class; classes without any may be left out
        num_classes: that were asked for
    """
    from scipy.stats import entropy

    size = max(num_classes, len(counts))
    if size < 2 or not sum(counts):
        return None
    return float(entropy(np.asarray(counts, dtype=float)) / math.log(size))


def spread_of_probabilities(logits: np.ndarray) -> float | None:
    """Mean entropy of class probabilities as a share of the highest possible.

    Args:
        logits: (N, K) float; rows with values that are not finite are left out

    Returns:
        None without two classes or without a row
    """
    from scipy.special import softmax
    from scipy.stats import entropy

    logits = np.asarray(logits, dtype=np.float64)
    if logits.ndim != 2 or logits.shape[1] < 2:
        return None
    finite = np.isfinite(logits).all(axis=1)
    if not finite.any():
        return None
    each = entropy(softmax(logits[finite], axis=1), axis=1)
    return float(each.mean() / math.log(logits.shape[1]))
