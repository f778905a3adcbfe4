"""Proximal kernel ridge: what zero-shot gets wrong on the support, spread to what is near.

Bendou et al. 2025 (ProKeR, arXiv 2501.11175) solve ``f = f0 + K(q, X) (K + λI)⁻¹ (Y − f0(X))``
with the zero-shot prediction f0. Here f0 are its probabilities, whose residuals are the gradient
of the log-likelihood, and the solution is a correction of its logits. A sample that zero-shot is
sure of and right about corrects nothing, so a class is not favoured for having examples.
"""

from __future__ import annotations

import numpy as np

from zs_operators.heads.support import Support

MAX_SAMPLES = 4096
"""The kernel of more of them would not fit into memory for long."""


def kernel(queries: np.ndarray, keys: np.ndarray, beta: float) -> np.ndarray:
    """``exp(−β (1 − cos))``; (Q, n) of unit rows."""
    return np.exp(-beta * (1 - queries @ keys.T))


def distance_scale(embeddings: np.ndarray) -> float:
    """Median of ``1 − cos`` between different rows, the unit of widths; 1 for a single row."""
    distances = 1 - embeddings @ embeddings.T
    off = distances[~np.eye(len(embeddings), dtype=bool)]
    return max(float(np.median(off)), 1e-6) if len(off) else 1.0


def fit(support: Support, beta: float, ridge: float) -> np.ndarray:
    """(n, K) float64 coefficients: ``kernel(q, X, β) @ coefficients`` is added to the logits."""
    gram = kernel(support.embeddings, support.embeddings, beta)
    return np.linalg.solve(gram + ridge * np.eye(len(support)), support.residuals)


class LeftOut:
    """Closed-form predictions for samples that were left out, for many λ at one β.

    Args:
        support: n labelled samples
        beta: width of the kernel
    """

    def __init__(self, support: Support, beta: float) -> None:
        self.support = support
        gram = kernel(support.embeddings, support.embeddings, beta)
        self._values, self._vectors = np.linalg.eigh(gram)
        self._turned = self._vectors.T @ support.residuals

    def one(self, ridge: float) -> np.ndarray:
        """What the fit without each sample adds to its logits: ``R − a / diag(G)``; (n, K)."""
        shrunk = 1 / (np.maximum(self._values, 0) + ridge)
        diagonal = (self._vectors**2) @ shrunk
        coefficients = (self._vectors * shrunk) @ self._turned
        return self.support.residuals - coefficients / diagonal[:, None]

    def group(self, ridge: float, left_out: np.ndarray) -> np.ndarray:
        """The same for samples left out together: ``R_B − G_BB⁻¹ a_B``; (B, K)."""
        shrunk = 1 / (np.maximum(self._values, 0) + ridge)
        part = self._vectors[left_out] * shrunk
        block = part @ self._vectors[left_out].T
        return self.support.residuals[left_out] - np.linalg.solve(block, part @ self._turned)
