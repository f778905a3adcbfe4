"""Where the images of a class without examples should lie: read off its text.

Texts and images of a CLIP model lie in two cones apart from each other (the modality gap), so a
text cannot stand in for a mean of images, and a class that has such means wins over one that has
none. Relations carry over: both cones are centred, and a linear map from centred texts to centred
means, learned on the classes with examples, gives the others a mean of their own.
"""

from __future__ import annotations

import numpy as np

RIDGE = 0.1
"""Of the map, relative to the mean square of the centred texts."""


def mean_weights(texts: np.ndarray, supported: np.ndarray) -> np.ndarray:
    """How the means of all columns follow from those of the supported ones.

    Args:
        texts: (K, D) unit rows
        supported: (K,) bool, C of them True

    Returns:
        (K, C) float64 ``A`` with ``means = A @ means[supported]``; rows sum to one, and the row of
        a supported column is its own mean
    """
    count = int(supported.sum())
    if not count:
        return np.zeros((len(texts), 0))
    centre = texts[supported].mean(axis=0)
    known, wanted = texts[supported] - centre, texts - centre
    gram = known @ known.T
    ridge = RIDGE * max(np.trace(gram) / count, 1e-12)
    # Dual ridge regression; centred targets stay linear in the means themselves
    solved = np.linalg.solve(gram + ridge * np.eye(count), known @ wanted.T).T
    weights = solved + (1 - solved.sum(axis=1, keepdims=True)) / count
    weights[supported] = np.eye(count)
    return weights
