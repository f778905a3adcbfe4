"""Which sums of which site look wrong before statistics are merged.

Zhang et al. 2022 (arXiv 2209.01994) have sites that hold different classes, so that nobody else can
vouch for a site's class; they compare features with the attributes of the class, and texts take
the place of attributes here. The mean of a class, seen from the centre of all means, should point
where its text points, seen from the centre of all texts. Names may be poor, so sites are the better
witnesses where they can be: two that agree on a class are both believed, and of three or more the
geometric median is what the class looks like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zs_operators.heads.gda import Moments

MIN_WITNESSES = 3
"""Sites that must have a class to say alone what it looks like."""

MIN_LEAD = 0.1
"""By how much another class must fit better: a difference of cosines in [-2, 2]."""

_STEPS = 50


@dataclass(frozen=True)
class Suspicion:
    """A class of a site that looks like another class.

    Attributes:
        site: who sent it
        part: its position among the merged parts
        label: the class
        looks_like: the class it resembles more
        fit: cosine with what the class should look like, from the centre
        other_fit: the same with ``looks_like``
        witness: "text", or "other sites"
    """

    site: str
    part: int
    label: str
    looks_like: str
    fit: float
    other_fit: float
    witness: str

    def __str__(self) -> str:
        return (
            f"{self.label!r} of {self.site!r} looks like {self.looks_like!r} "
            f"({self.other_fit:.2f} against {self.fit:.2f}, by {self.witness})"
        )


def suspicions(
    parts: Sequence[tuple[str, Moments]], columns: Sequence[str], texts: np.ndarray
) -> list[Suspicion]:
    """The classes of sites that look like another class, the clearest first.

    Args:
        parts: name and moments of each site, all in the order of ``columns``
        columns: K names
        texts: (K, D) unit rows
    """
    rows = [
        (part, column)
        for part, (_, moments) in enumerate(parts)
        for column in np.flatnonzero(moments.counts)
    ]
    held = np.unique([column for _, column in rows])
    if len(held) < 2:
        return []
    means = np.stack([parts[p][1].sums[c] / parts[p][1].counts[c] for p, c in rows])
    owners = np.array([column for _, column in rows])
    medians = np.stack([geometric_median(means[owners == column]) for column in held])
    witnesses = np.array([(owners == column).sum() for column in held])
    centre = medians.mean(axis=0)
    by_sites = _cosines(means - centre, medians - centre)
    by_text = _cosines(means - centre, texts[held] - texts[held].mean(axis=0))
    found = []
    for row, (part, column) in enumerate(rows):
        own = int(np.searchsorted(held, column))
        enough = witnesses[own] >= MIN_WITNESSES
        fits = (by_sites if enough else by_text)[row]
        if witnesses[own] == 2:
            (peer,) = (i for i in np.flatnonzero(owners == column) if i != row)
            agreement = by_sites[row].copy()
            agreement[own] = _cosines(means[[row]] - centre, means[[peer]] - centre)[0, 0]
            if agreement.argmax() == own:
                continue
        other = int(np.argmax(np.where(np.arange(len(held)) == own, -np.inf, fits)))
        if fits[other] - fits[own] > MIN_LEAD:
            found.append(
                Suspicion(
                    parts[part][0],
                    part,
                    columns[column],
                    columns[held[other]],
                    round(float(fits[own]), 4),
                    round(float(fits[other]), 4),
                    "other sites" if enough else "text",
                )
            )
    return sorted(found, key=lambda one: one.fit - one.other_fit)


def geometric_median(points: np.ndarray) -> np.ndarray:
    """The point with the least sum of distances to (N, D) points, by Weiszfeld's steps; (D,)."""
    found = np.median(points, axis=0) if len(points) > 2 else points.mean(axis=0)
    for _ in range(_STEPS):
        weights = 1 / np.maximum(np.linalg.norm(points - found, axis=1), 1e-9)
        found = weights @ points / weights.sum()
    return found


def _cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(one, axis=1)[:, None] * np.linalg.norm(other, axis=1)
    return one @ other.T / np.maximum(lengths, 1e-12)
