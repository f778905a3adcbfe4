"""Where the images of a class without examples should lie: read off its text.

Texts and images of a CLIP model lie in two cones apart from each other (the modality gap), so a
text cannot stand in for a mean of images, and a class that has such means wins over one that has
none. Relations carry over: both cones are centred, a text's place among the texts is a first guess
at the mean's place among the means, and ridge regression on the classes with examples learns what
that guess gets wrong.
"""

from __future__ import annotations

import numpy as np

RIDGE = 0.1
"""Of the regression, relative to the mean square of the centred texts."""


def mean_weights(texts: np.ndarray, supported: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How the means of all columns follow from those of the supported ones.

    Args:
        texts: (K, D) unit rows
        supported: (K,) bool, C of them True

    Returns:
        (K, C) float64 ``A`` and (K, D) float64 ``B``: ``means = A @ means[supported] + scale * B``
        with the scale of :func:`text_scale`. Rows of A sum to one; a supported column is its own
        mean
    """
    count = int(supported.sum())
    if not count:
        return np.zeros((len(texts), 0)), np.zeros_like(texts)
    centre = texts[supported].mean(axis=0)
    known, places = texts[supported] - centre, texts - centre
    gram = known @ known.T
    ridge = RIDGE * max(np.trace(gram) / count, 1e-12)
    # Dual ridge regression; centred targets stay linear in the means themselves
    solved = np.linalg.solve(gram + ridge * np.eye(count), known @ places.T).T
    weights = solved + (1 - solved.sum(axis=1, keepdims=True)) / count
    rest = places - solved @ known
    weights[supported], rest[supported] = np.eye(count), 0
    return weights, rest


def text_scale(texts: np.ndarray, supported: np.ndarray, means: np.ndarray) -> float:
    """How much of a text's place among the texts its mean has among the means; >= 0.

    Args:
        texts: (K, D) unit rows
        supported: (K,) bool, C of them True
        means: (C, D), of the supported columns
    """
    if len(means) < 2:
        return 0.0
    places = texts[supported] - texts[supported].mean(axis=0)
    found = (places * (means - means.mean(axis=0))).sum() / max((places**2).sum(), 1e-12)
    return max(float(found), 0.0)
