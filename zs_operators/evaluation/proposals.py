"""For each predicted name the least confidence that gives it the highest F1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from zs_operators.sweeps import Candidates, Sweep

#: A predicted name, its confidence, and whether it is right.
Candidate = tuple[str, float, bool]


def propose_thresholds(
    candidates: Iterable[Candidate], num_true: Mapping[str, int]
) -> dict[str, float]:
    """What :func:`zs_operators.apply_thresholds` takes, found as ``zs sweep`` finds it.

    Args:
        candidates: predicted labels, under the names they have in the field
        num_true: how many labels ground truth has of what each of those names counts as
    """
    rows = [row for row in candidates if not np.isnan(row[1])]
    if not rows:
        return {}
    names, values, right = zip(*rows, strict=True)
    found = Candidates(
        np.array(names, dtype=object),
        np.array(values, dtype=float),
        np.array(right, dtype=bool),
        {name: num_true.get(name, 0) for name in set(names)},
    )
    return Sweep("", "confidence", "", (), found).best_per_class()
