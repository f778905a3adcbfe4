"""Embeddings with a modality gap: texts in one cone, images in another, relations kept."""

from __future__ import annotations

import numpy as np

from zs_operators.heads.support import Support

SCALE = 30.0

#: Four names say what is seen, four say nothing of it.
POOR_NAMES = {
    "circle": ["circle"],
    "square": ["square"],
    "triangle": ["triangle"],
    "star": ["star"],
    "cross": ["a sign"],
    "ring": ["a thing"],
    "heart": ["a symbol"],
    "arrow": ["an item"],
}
MODEL = {"model": "shapes-tiny", "precision": "fp32"}


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


class World:
    """C classes whose images lie where their ideas are; some have poor texts.

    Args:
        seed: of everything
        classes: C
        dim: D
        hard: how many of the first classes have texts that are partly another class's
    """

    def __init__(self, seed=0, classes=12, dim=32, hard=4, spread=0.55):
        rng = np.random.default_rng(seed)
        self.rng, self.spread, self.classes = rng, spread, classes
        ideas = rng.normal(size=(classes, dim))
        cones = rng.normal(size=(2, dim)) * 2
        told = ideas + rng.normal(size=(classes, dim)) * 0.35
        told[:hard] = 0.45 * told[:hard] + 0.55 * told[hard : 2 * hard]
        self.texts = unit(told + cones[0])
        self.means = ideas + cones[1]

    def images(self, columns):
        noise = self.rng.normal(size=(len(columns), self.means.shape[1])) * self.spread * 2
        return unit(self.means[columns] + noise)

    def prior(self, embeddings):
        return SCALE * embeddings @ self.texts.T

    def support(self, shots, columns=None):
        """``shots`` of each of ``columns``, or a list of shots with one number a column."""
        columns = np.arange(self.classes) if columns is None else np.asarray(columns)
        rows = np.repeat(columns, shots)
        embeddings = self.images(rows)
        return Support(embeddings, rows, self.prior(embeddings), self.texts)


def accuracy(logits, columns, among):
    """Mean over the classes ``among`` of the share that is right."""
    right = logits.argmax(axis=1) == columns
    return float(np.mean([right[columns == column].mean() for column in among]))


def without(support, row):
    kept = np.arange(len(support)) != row
    return support.take(kept)
