"""How far confidences say how often a prediction is right, and the temperature that mends it.

Guo et al. 2017 (arXiv 1706.04599): bins of equal width, and one number that logits are divided by,
fitted by negative log likelihood. It changes no ranking.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from zs_operators.evaluation.report_parts import Calibration, ReliabilityBin

NUM_BINS = 15
LOGITS, CONFIDENCES = "logits", "confidences"

_BOUNDS = (1e-3, 1e3)
#: Confidences are stored as float32, whose 1.0 would have infinite log odds.
_EPSILON = 1e-7


def reliability(
    confidences: np.ndarray, right: np.ndarray, num_bins: int = NUM_BINS
) -> tuple[ReliabilityBin, ...]:
    """Bins of equal width.

    Args:
        confidences: (N,) in [0, 1]
        right: (N,) bool
        num_bins (15): how many
    """
    edges = np.linspace(0, 1, num_bins + 1)
    numbers = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, num_bins - 1)
    counts = np.bincount(numbers, minlength=num_bins)
    sums = np.bincount(numbers, confidences, minlength=num_bins)
    hits = np.bincount(numbers, right.astype(float), minlength=num_bins)
    return tuple(
        ReliabilityBin(
            float(edges[i]),
            float(edges[i + 1]),
            int(counts[i]),
            float(sums[i] / counts[i]) if counts[i] else None,
            float(hits[i] / counts[i]) if counts[i] else None,
        )
        for i in range(num_bins)
    )


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float | None:
    """Mean distance between confidence and accuracy of the bins, by their counts."""
    total = sum(row.count for row in bins)
    if not total:
        return None
    filled = [row for row in bins if row.count]
    return sum(row.count * abs(row.accuracy - row.mean_confidence) for row in filled) / total


def binary_nll(confidences: np.ndarray, right: np.ndarray) -> float:
    """Mean negative log likelihood of right and wrong, given the confidences."""
    p = np.clip(confidences.astype(float), _EPSILON, 1 - _EPSILON)
    return float(-np.where(right, np.log(p), np.log1p(-p)).mean())


def class_nll(
    logits: np.ndarray, targets: np.ndarray, classes: np.ndarray, temperature: float = 1.0
) -> float:
    """Mean negative log likelihood of the true class under a softmax.

    Args:
        logits: (N, K)
        targets: (N,) int, the class of each row; each is among ``classes``
        classes: (K,) int, the class of each column; columns of one class add up
        temperature (1): divides the logits
    """
    from scipy.special import logsumexp

    scaled = logits.astype(float) / temperature
    mine = np.where(classes[None, :] == targets[:, None], scaled, -np.inf)
    return float((logsumexp(scaled, axis=1) - logsumexp(mine, axis=1)).mean())


def scaled_confidences(confidences: np.ndarray, temperature: float) -> np.ndarray:
    """Confidences whose log odds are divided by a temperature; (N,) float64."""
    from scipy.special import expit, logit

    p = np.clip(np.asarray(confidences, dtype=float), _EPSILON, 1 - _EPSILON)
    return expit(logit(p) / temperature)


def softmax_confidences(logits: np.ndarray, columns: np.ndarray, temperature: float) -> np.ndarray:
    """(N,) float64 probability of one column a row.

    Args:
        logits: (N, K)
        columns: (N,) int
        temperature: divides the logits
    """
    from scipy.special import log_softmax

    scaled = log_softmax(logits.astype(float) / temperature, axis=1)
    return np.exp(np.take_along_axis(scaled, columns[:, None], axis=1)[:, 0])


def calibrate_confidences(
    confidences: np.ndarray, right: np.ndarray, num_bins: int = NUM_BINS
) -> Calibration:
    """Calibration from what is always there: how sure, and whether right.

    The temperature divides the log odds of the confidence. For a sigmoid that is the temperature
    of the logits; for a softmax over more than two classes it is not.

    Args:
        confidences: (N,) in [0, 1]
        right: (N,) bool
        num_bins (15): of the reliability table
    """
    temperature = _fit(lambda t: binary_nll(scaled_confidences(confidences, t), right))
    fitted = None if temperature is None else scaled_confidences(confidences, temperature)
    return _calibration(
        CONFIDENCES,
        confidences,
        fitted,
        right,
        temperature,
        binary_nll(confidences, right) if len(confidences) else None,
        None if fitted is None else binary_nll(fitted, right),
        num_bins,
    )


def calibrate_logits(
    confidences: np.ndarray,
    right: np.ndarray,
    logits: np.ndarray,
    columns: np.ndarray,
    targets: np.ndarray,
    classes: np.ndarray,
    stored_temperature: float = 1.0,
    num_bins: int = NUM_BINS,
) -> Calibration:
    """Calibration from the logits of all classes.

    Args:
        confidences: (N,) as stored, in [0, 1]
        right: (N,) bool
        logits: (N, K)
        columns: (N,) int, the column that was predicted
        targets: (N,) int, the true class of each row; -1 where no column has it, which has no
            likelihood but counts as wrong
        classes: (K,) int, the class of each column
        stored_temperature (1): what the logits were divided by for ``confidences``
        num_bins (15): of the reliability table
    """
    has_column = np.isin(targets, classes)
    known, true = logits[has_column], targets[has_column]
    temperature = nll = nll_fitted = fitted = None
    if len(known):
        temperature = _fit(lambda t: class_nll(known, true, classes, t))
        nll = class_nll(known, true, classes, stored_temperature)
    if temperature is not None:
        nll_fitted = class_nll(known, true, classes, temperature)
        fitted = softmax_confidences(logits, columns, temperature)
    return _calibration(LOGITS, confidences, fitted, right, temperature, nll, nll_fitted, num_bins)


def _calibration(source, confidences, fitted, right, temperature, nll, nll_fitted, num_bins):
    bins = reliability(confidences, right, num_bins)
    bins_fitted = () if fitted is None else reliability(fitted, right, num_bins)
    return Calibration(
        source=source,
        num=len(confidences),
        temperature=temperature,
        ece=expected_calibration_error(bins),
        nll=nll,
        ece_fitted=expected_calibration_error(bins_fitted),
        nll_fitted=nll_fitted,
        reliability=bins,
        reliability_fitted=bins_fitted,
    )


def _fit(loss: Callable[[float], float]) -> float | None:
    """The temperature of lowest loss; None where it runs away, as where everything is right."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda value: loss(float(np.exp(value))),
        bounds=np.log(_BOUNDS),
        method="bounded",
        options={"xatol": 1e-5},
    )
    if not found.fun < min(map(loss, _BOUNDS)) - 1e-12:
        return None
    return float(np.exp(found.x))
