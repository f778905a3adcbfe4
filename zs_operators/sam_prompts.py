"""Prompts as people and datasets give them -> prompts a Sam can decode together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from zs_operators import boxes as box_ops
from zs_operators.sam import Prompts

NO_POSITIVE_POINT = "no point on the object inside the image"

Point = tuple[float, float]


@dataclass(frozen=True)
class GivenPrompts:
    """N prompts for one image: boxes, or groups of points.

    Attributes:
        boxes_rel: N ``x, y, width, height`` as fractions of the upright image, or None
        points_rel: N groups of ``x, y`` as fractions, or None
        point_labels: for each group 1 on the object or 0 not on it a point; None is all on it
    """

    boxes_rel: Sequence[Sequence[float]] | None = None
    points_rel: Sequence[Sequence[Point]] | None = None
    point_labels: Sequence[Sequence[int] | None] | None = None

    def __len__(self) -> int:
        return len(self.points_rel or () if self.boxes_rel is None else self.boxes_rel)


class PromptGroup(NamedTuple):
    """Prompts of equal form, and the position of each among those given."""

    index: list[int]
    prompts: Prompts

    @property
    def is_ambiguous(self) -> bool:
        """Whether a prompt may mean a part as well as the whole: a single point."""
        points = self.prompts.points_px
        return self.prompts.boxes_px is None and len(points[0]) == 1


def usable_prompts(
    given: GivenPrompts, width_px: int, height_px: int
) -> tuple[list[PromptGroup], dict[int, str]]:
    """Those that mean a part of the image, by form; and why each of the others does not.

    Boxes are clipped to the image. Points outside it are left out, and a group without a point on
    the object is refused. The decoder is not told of absent points, which would change its masks:
    groups of different numbers of points are decoded apart.
    """
    if given.boxes_rel is not None:
        boxes = box_ops.xywh_rel_to_xyxy_px(given.boxes_rel, width_px, height_px)
        usable = box_ops.select_usable(boxes, width_px, height_px)
        index = usable.index.tolist()
        groups = [PromptGroup(index, Prompts(boxes_px=usable.boxes_px.tolist()))] if index else []
        return groups, usable.refused
    by_count: dict[int, PromptGroup] = {}
    refused: dict[int, str] = {}
    for position, points in enumerate(given.points_rel or ()):
        marks = given.point_labels[position] if given.point_labels else None
        marks = [1] * len(points) if marks is None else list(marks)
        if len(marks) != len(points):
            refused[position] = f"{len(points)} points have {len(marks)} labels"
            continue
        if any(mark not in (0, 1) for mark in marks):
            refused[position] = "a point's label is neither 1 (on the object) nor 0 (not on it)"
            continue
        kept = [
            ((x * width_px, y * height_px), int(mark))
            for (x, y), mark in zip(points, marks, strict=True)
            if _is_inside(x) and _is_inside(y)
        ]
        if not any(mark for _, mark in kept):
            refused[position] = NO_POSITIVE_POINT
            continue
        group = by_count.setdefault(len(kept), PromptGroup([], Prompts(None, [], [])))
        group.index.append(position)
        group.prompts.points_px.append([point for point, _ in kept])
        group.prompts.point_labels.append([mark for _, mark in kept])
    return list(by_count.values()), refused


def _is_inside(share: float) -> bool:
    return math.isfinite(share) and 0 <= share <= 1
