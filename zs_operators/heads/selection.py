"""Constants of a head, chosen on its own support: each sample is scored by a head without it.

No labels are set aside. Samples left out one by one say how classes with examples fare; classes
left out whole say how a class fares that has none, which keeps a head from taking everything for
what it has seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from zs_operators.errors import InvalidInputError
from zs_operators.heads import gda, kernel_ridge, logistic
from zs_operators.heads.gda import Moments
from zs_operators.heads.support import Support, softmax

METHODS = ("kernel_ridge", "gda", "logistic_regression")
MIN_GDA_SHOTS, MIN_LOGISTIC_SHOTS = 2, 16

ALPHAS = (0.0, *(2.0**power for power in range(-7, 4)))
"""Weights of what a head adds, in units that make its spread that of the zero-shot logits."""

_WIDTHS = (0.5, 1.0, 2.0, 4.0, 8.0)  # of the kernel, in median distances
_RIDGES = (0.01, 0.1, 1.0)
_ONE_SHOT = {"width": 4.0, "ridge": 1.0}
_ONE_SHOT_STEPS = (4.0, 2.0, 1.0, 0.5, 0.25)  # alpha in spreads of the zero-shot logits


@dataclass(frozen=True)
class Accuracy:
    """Mean over classes of the share of each class that is right, in [0, 1].

    Attributes:
        supported: of classes with examples, each sample scored by a head without it
        unsupported: of classes without, estimated by leaving out all samples of a class; None
            where there is no column without examples
        by_class: of each column, NaN for those without examples
    """

    supported: float
    unsupported: float | None
    by_class: np.ndarray

    @property
    def harmonic(self) -> float | None:
        """Harmonic mean of the two; None where there is no second."""
        if self.unsupported is None:
            return None
        total = self.supported + self.unsupported
        return 2 * self.supported * self.unsupported / total if total else 0.0

    @property
    def target(self) -> float:
        """What constants are chosen by."""
        return self.supported if self.harmonic is None else self.harmonic


@dataclass(frozen=True, eq=False)
class Choice:
    """A method with its constants, and how it does on the support.

    Attributes:
        method: one of :data:`METHODS`
        alpha: what is added to the logits is multiplied by this; 0 leaves zero-shot as it is
        constants: of the method, by name
        before, after: zero-shot, and the head
        likelihood: mean log-probability of the right class, which decides between equals
    """

    method: str
    alpha: float
    before: Accuracy
    after: Accuracy
    likelihood: float
    constants: dict[str, float] = field(default_factory=dict)

    @property
    def rank(self) -> tuple[float, float, float]:
        return (round(self.after.target, 9), round(self.likelihood, 9), -self.alpha)


def methods_for(support: Support, method: str = "auto") -> tuple[str, ...]:
    """The methods to choose among.

    "auto" is kernel ridge for one sample a class (the median over classes with samples), kernel
    ridge and GDA from 2, GDA and logistic regression from 16. The best one left-one-out is taken.

    Raises:
        InvalidInputError: if a method cannot be fitted on so few, or so many, samples
    """
    counts = support.counts[support.supported]
    if method == "auto":
        shots = np.median(counts)
        if shots < MIN_GDA_SHOTS:
            names = ("kernel_ridge",)
        else:
            names = ("gda", "kernel_ridge" if shots < MIN_LOGISTIC_SHOTS else METHODS[2])
        if len(support) > kernel_ridge.MAX_SAMPLES:
            names = tuple(name for name in names if name != "kernel_ridge") or ("gda",)
        return names
    if method not in METHODS:
        raise InvalidInputError(f"method={method!r} must be one of auto, {', '.join(METHODS)}.")
    if method == "gda" and counts.max() < MIN_GDA_SHOTS:
        raise InvalidInputError(
            "method='gda' needs two samples of a class, and every class has one: label more, or "
            "use 'kernel_ridge'."
        )
    if method == "logistic_regression" and len(counts) < 2:
        raise InvalidInputError(
            "method='logistic_regression' needs samples of two classes: use 'kernel_ridge'."
        )
    if method == "kernel_ridge" and len(support) > kernel_ridge.MAX_SAMPLES:
        raise InvalidInputError(
            f"method='kernel_ridge' takes {kernel_ridge.MAX_SAMPLES:,} samples, not "
            f"{len(support):,}: use 'gda', or a view of fewer samples."
        )
    return (method,)


def choose(support: Support, method: str = "auto", moments: Moments | None = None) -> Choice:
    """The method and constants that do best on samples and classes they have not seen.

    Best is the harmonic mean of both accuracies, or the accuracy of classes with examples where
    all classes have some. Between equals the likelier wins, then the smaller alpha.

    One sample a class is a case of its own: without it the class has none, so leaving it out can
    show harm and no gain. Then kernel ridge takes a fixed width and the largest alpha that costs
    the samples and classes left out nothing.

    Args:
        support: n labelled samples
        method ("auto"): see :func:`methods_for`
        moments (None): for GDA, statistics of these samples and others

    Raises:
        InvalidInputError: see :func:`methods_for`
    """
    names = methods_for(support, method)
    supported = support.supported if moments is None else moments.supported
    groups = None if supported.all() else support.class_folds()
    if names == ("kernel_ridge",) and support.counts.max() == 1:
        return _one_shot(support, groups)
    best = None
    for name in names:
        for constants, one, group in _tries(support, name, groups, moments):
            unit = _spread(support.prior) / max(_spread(one), 1e-9)
            for weight in ALPHAS:
                found = _weighed(support, name, weight * unit, constants, one, group)
                if best is None or found.rank > best.rank:
                    best = found
    return best


def _one_shot(support: Support, groups: list[np.ndarray] | None) -> Choice:
    """The largest alpha that does no harm."""
    beta = _ONE_SHOT["width"] / kernel_ridge.distance_scale(support.embeddings)
    constants = {"beta": beta, "ridge": _ONE_SHOT["ridge"]}
    one, group = _kernel_left_out(kernel_ridge.LeftOut(support, beta), constants["ridge"], groups)
    for step in (*_ONE_SHOT_STEPS, 0.0):
        alpha = step * _spread(support.prior)
        found = _weighed(support, "kernel_ridge", alpha, constants, one, group)
        if found.after.target >= found.before.target:
            break
    return found


def choose_weight(
    support: Support, constants: dict[str, float], one: np.ndarray, group: np.ndarray | None
) -> Choice:
    """The weight of a GDA head whose scores on samples and classes it has not seen are given.

    Args:
        support: n samples to choose on
        constants: of the head
        one: (n, K) what the head adds to the logits of each
        group: the same of heads without the class of each; None where all classes have samples
    """
    unit = _spread(support.prior) / max(_spread(one), 1e-9)
    tries = (_weighed(support, "gda", weight * unit, constants, one, group) for weight in ALPHAS)
    return max(tries, key=lambda found: found.rank)


def _weighed(
    support: Support,
    method: str,
    alpha: float,
    constants: dict[str, float],
    one: np.ndarray,
    group: np.ndarray | None,
) -> Choice:
    """How a head does with what it adds to left-out samples and classes times alpha."""
    prior = support.prior
    logits = prior + alpha * one
    grouped = None if group is None else prior + alpha * group
    return Choice(
        method,
        alpha,
        _accuracy(support, prior, None if group is None else prior),
        _accuracy(support, logits, grouped),
        _likelihood(support, logits, grouped),
        constants,
    )


def _tries(
    support: Support, method: str, groups: list[np.ndarray] | None, moments: Moments | None
) -> Iterator[tuple[dict[str, float], np.ndarray, np.ndarray | None]]:
    """Constants, and what heads without the sample, and without its class, add; (n, K) each."""
    if method == "gda":
        known = moments or Moments.of(support.embeddings, support.columns, len(support.texts))
        scale = gda.scale_of(known, support.texts)
        one = gda.leave_one_out(support, scale, moments)
        group = None if groups is None else gda.leave_classes_out(support, scale, moments)
        yield {"text_scale": scale}, one, group
    elif method == "kernel_ridge":
        scale = kernel_ridge.distance_scale(support.embeddings)
        for width in _WIDTHS:
            left = kernel_ridge.LeftOut(support, width / scale)
            for ridge in _RIDGES:
                constants = {"beta": width / scale, "ridge": ridge}
                yield constants, *_kernel_left_out(left, ridge, groups)
    else:
        folds = logistic.sample_folds(support.columns)
        tries = {c: logistic.left_out(support, c, folds) for c in logistic.STRENGTHS}
        # One C for both: leaving classes out as often again would take as long again
        c = max(tries, key=lambda c: _likelihood(support, support.prior + tries[c], None))
        group = None if groups is None else logistic.left_out(support, c, groups)
        yield {"C": c}, tries[c], group


def _kernel_left_out(
    left: kernel_ridge.LeftOut, ridge: float, groups: list[np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray | None]:
    if groups is None:
        return left.one(ridge), None
    group = np.zeros_like(left.support.prior)
    for rows in groups:
        group[rows] = left.group(ridge, rows)
    return left.one(ridge), group


def _accuracy(support: Support, logits: np.ndarray, grouped: np.ndarray | None) -> Accuracy:
    by_class = _by_class(support, logits)
    unsupported = None if grouped is None else float(np.nanmean(_by_class(support, grouped)))
    return Accuracy(float(np.nanmean(by_class)), unsupported, by_class)


def _by_class(support: Support, logits: np.ndarray) -> np.ndarray:
    right = logits.argmax(axis=1) == support.columns
    counts = support.counts
    hits = np.bincount(support.columns, right, minlength=len(counts))
    return np.where(counts > 0, hits / np.maximum(counts, 1), np.nan)


def _likelihood(support: Support, logits: np.ndarray, grouped: np.ndarray | None) -> float:
    rows = np.arange(len(support))
    parts = [logits] if grouped is None else [logits, grouped]
    return float(
        np.mean([np.log(softmax(part)[rows, support.columns] + 1e-12).mean() for part in parts])
    )


def _spread(logits: np.ndarray) -> float:
    """How far columns are apart, on average over the samples."""
    return float(logits.std(axis=1).mean())
