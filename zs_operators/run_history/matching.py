"""Which object of one run is which of another: by the label both began with, else by overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

#: What a sample has no label, no object and no name for.
NONE, REJECTED, UNNAMED = "(none)", "(rejected)", "(unnamed)"


@dataclass(frozen=True)
class Objects:
    """What a run says of one sample.

    Attributes:
        names: of its labels
        sources: id of the label that each began with, None where there is none
        boxes_rel: (N, 4) ``x, y, width, height``, None for labels of whole images
    """

    names: Sequence[str] = ()
    sources: Sequence[str | None] = ()
    boxes_rel: Sequence[Sequence[float]] | None = None
    labels: Sequence[Any] = field(default=(), repr=False, compare=False)


class Pair(NamedTuple):
    """An object of the first run and of the second; None where one has no such object.

    Attributes:
        first, second: positions
        overlap: IoU of their boxes, None for labels of whole images
    """

    first: int | None
    second: int | None
    overlap: float | None = None


def pair_names(a: Objects, b: Objects) -> list[Pair]:
    """Pairs of whole-image labels: those of the same name, then the others in their order."""
    left = list(range(len(b.names)))
    pairs, alone = [], []
    for i, name in enumerate(a.names):
        same = next((j for j in left if b.names[j] == name), None)
        if same is None:
            alone.append(i)
        else:
            left.remove(same)
            pairs.append(Pair(i, same))
    both = min(len(alone), len(left))
    pairs += [Pair(i, j) for i, j in zip(alone[:both], left[:both], strict=True)]
    pairs += [Pair(i, None) for i in alone[both:]]
    return pairs + [Pair(None, j) for j in left[both:]]


def pair_boxes(a: Objects, b: Objects, min_iou: float) -> list[Pair]:
    """Pairs of objects: of the same source label, then of the most overlap in all.

    Args:
        a, b: with boxes
        min_iou: least overlap of a pair without a common source
    """
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    overlaps = box_overlaps(a.boxes_rel, b.boxes_rel)
    by_source = {source: j for j, source in enumerate(b.sources) if source is not None}
    pairs: list[Pair] = []
    for i, source in enumerate(a.sources):
        j = by_source.pop(source, None) if source is not None else None
        if j is not None:
            pairs.append(Pair(i, j, float(overlaps[i, j])))
    rows = sorted(set(range(len(a.names))) - {pair.first for pair in pairs})
    columns = sorted(set(range(len(b.names))) - {pair.second for pair in pairs})
    if rows and columns:
        left = overlaps[np.ix_(rows, columns)]
        # What overlaps too little is no pair, however well it would add up
        for i, j in zip(*linear_sum_assignment(-np.where(left >= min_iou, left, 0)), strict=True):
            if left[i, j] >= min_iou:
                pairs.append(Pair(rows[i], columns[j], float(left[i, j])))
    first, second = ({pair[side] for pair in pairs} for side in (0, 1))
    pairs += [Pair(i, None) for i in rows if i not in first]
    return pairs + [Pair(None, j) for j in columns if j not in second]


def box_overlaps(a_rel: Sequence, b_rel: Sequence) -> Any:
    """(N, M) float64 array of IoU of relative ``x, y, width, height`` boxes."""
    import torch
    from torchvision.ops import box_convert, box_iou

    a, b = (
        box_convert(torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4), "xywh", "xyxy")
        for boxes in (a_rel, b_rel)
    )
    return torch.nan_to_num(box_iou(a, b)).numpy()
