"""Supported against unsupported classes: harmonic mean, calibrated stacking, AUSUC.

After Xian et al. (arXiv 1707.00600) and Chao et al. (arXiv 1605.04253), whose "seen" and "unseen"
are called supported and unsupported here: no class is surely unseen by a pre-trained model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from zs_operators.evaluation.class_metrics import mean
from zs_operators.evaluation.report_parts import Split, Stacking

_MAX_CURVE = 201


def harmonic_mean(a: float | None, b: float | None) -> float | None:
    """``2ab / (a + b)``; 0 where both are 0, None where one is None."""
    if a is None or b is None:
        return None
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def split_scores(scores: Mapping[str, float | None], seen: Collection[str], measure: str) -> Split:
    """The mean over supported and over unsupported classes, and their harmonic mean.

    Args:
        scores: of each class that ground truth has
        seen: names of supported classes
        measure: what the scores are
    """
    supported = tuple(sorted(name for name in scores if name in seen))
    unsupported = tuple(sorted(name for name in scores if name not in seen))
    s, u = (mean([scores[name] for name in names]) for names in (supported, unsupported))
    return Split(measure, supported, unsupported, s, u, harmonic_mean(s, u))


def merge_columns(logits: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Columns of one name become one, their highest logit.

    Args:
        logits: (N, K)
        names: K names

    Returns:
        (N, C) logits and the C names, in order of their first column
    """
    unique = list(dict.fromkeys(names))
    if len(unique) == len(names):
        return logits, unique
    numbers = np.array([unique.index(name) for name in names])
    merged = np.full((len(logits), len(unique)), -np.inf, dtype=logits.dtype)
    np.maximum.at(merged, (slice(None), numbers), logits)
    return merged, unique


def stack(
    logits: np.ndarray,
    names: Sequence[str],
    truth: np.ndarray,
    seen: Collection[str],
    gamma: float | None = None,
) -> Stacking | None:
    """The exact curve of ``argmax(logit - gamma * supported)`` over all gamma; no grid.

    A sample goes to a supported class exactly if gamma is below its lead ``d``, the best supported
    logit minus the best unsupported one. So the curve changes at the values of ``d`` only.

    Args:
        logits: (N, C), one column a class
        names: C classes
        truth: (N,) names; one that is no column is never right
        seen: names of supported classes, of columns and of ground truth
        gamma (None): also report the accuracies there

    Returns:
        None unless both columns and ground truth have classes of both groups
    """
    is_seen = np.array([name in seen for name in names], dtype=bool)
    of_seen = np.array([name in seen for name in truth.tolist()], dtype=bool)
    if is_seen.all() or not is_seen.any() or of_seen.all() or not of_seen.any():
        return None
    columns = {name: number for number, name in enumerate(names)}
    target = np.array([columns.get(name, -1) for name in truth.tolist()])
    best_seen, best_unseen = _best(logits, is_seen), _best(logits, ~is_seen)
    rows = np.arange(len(logits))
    lead = logits[rows, best_seen].astype(float) - logits[rows, best_unseen]
    weights = _class_weights(truth, of_seen)
    seen_hits = weights * (of_seen & (best_seen == target))
    unseen_hits = weights * (~of_seen & (best_unseen == target))

    edges, numbers = np.unique(lead, return_inverse=True)
    lost = np.bincount(numbers, seen_hits, minlength=len(edges))
    won = np.bincount(numbers, unseen_hits, minlength=len(edges))
    # Below the first edge everything is supported, from the last on nothing is
    s = np.append(lost[::-1].cumsum()[::-1], 0.0).clip(max=1.0)  # sums of floats
    u = np.insert(won.cumsum(), 0, 0.0).clip(max=1.0)
    gammas = np.concatenate([edges[:1] - 1, (edges[:-1] + edges[1:]) / 2, edges[-1:] + 1])
    h = np.divide(2 * s * u, s + u, out=np.zeros_like(s), where=s + u > 0)
    best = int(h.argmax())
    given = None
    if gamma is not None:
        at = int(np.searchsorted(edges, gamma, side="right"))
        given = (float(s[at]), float(u[at]), float(h[at]))
    return Stacking(
        ausuc=min(1.0, float(np.sum((s[:-1] - s[1:]) * (u[:-1] + u[1:])) / 2)),
        gamma=float(gammas[best]),
        supported_accuracy=float(s[best]),
        unsupported_accuracy=float(u[best]),
        harmonic_mean=float(h[best]),
        unsupported_only=float(u[-1]),
        given_gamma=None if gamma is None else float(gamma),
        given=given,
        curve=_thin(gammas, s, u),
    )


def _best(logits: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(N,) the highest column of a group."""
    columns = np.flatnonzero(mask)
    return columns[logits[:, columns].argmax(axis=1)]


def _class_weights(truth: np.ndarray, of_seen: np.ndarray) -> np.ndarray:
    """(N,) what a sample adds to the mean over the classes of its group."""
    found, numbers, counts = np.unique(truth.astype(str), return_inverse=True, return_counts=True)
    num_seen = len(np.unique(numbers[of_seen]))
    group_sizes = np.where(of_seen, num_seen, len(found) - num_seen)
    return 1 / (counts[numbers] * group_sizes)


def _thin(gammas: np.ndarray, s: np.ndarray, u: np.ndarray) -> tuple:
    """Corners of the curve, at most :data:`_MAX_CURVE` of them."""
    keep = np.flatnonzero(np.append(True, (np.diff(s) != 0) | (np.diff(u) != 0)))
    if len(keep) > _MAX_CURVE:
        keep = keep[np.linspace(0, len(keep) - 1, _MAX_CURVE).round().astype(int)]
    return tuple((float(gammas[i]), float(s[i]), float(u[i])) for i in keep)
