"""Boxes: frames, clipping, validity, fusion of scores and overlap suppression.

``_px`` boxes are (N, 4) float32 ``x1, y1, x2, y2`` in pixels of the upright image, where pixel
``i`` covers ``[i, i + 1)``; ``_rel`` boxes are (N, 4) ``x, y, width, height`` as fractions of the
image, FiftyOne's format.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zs_operators.errors import InvalidInputError

if TYPE_CHECKING:
    import torch

OVERLAPS = ("none", "per_class", "agnostic")
OVERLAP_METRICS = ("iou", "ios")

NOT_FINITE = "not finite"
INVERTED = "inverted"
TOO_SMALL = "too small"
OUTSIDE = "outside the image"


@dataclass(frozen=True)
class UsableBoxes:
    """Those of N boxes that a region of the image can be taken from.

    Attributes:
        boxes_px: (M, 4) float32, clipped to the image, in the order given
        index: (M,) int64, the position of each among the N
        refused: why each of the others is not usable, by its position: :data:`NOT_FINITE`,
            :data:`INVERTED`, :data:`OUTSIDE` or :data:`TOO_SMALL`
    """

    boxes_px: torch.Tensor
    index: torch.Tensor
    refused: dict[int, str]


def as_boxes(boxes: Any) -> torch.Tensor:
    """(N, 4) float32 tensor on the CPU of anything like one; an empty list is (0, 4).

    Raises:
        InvalidInputError: if it has another shape or is not made of numbers
    """
    import torch

    try:
        tensor = torch.as_tensor(boxes, dtype=torch.float32).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInputError(f"boxes must be (N, 4) numbers: {error}") from error
    if tensor.numel() == 0 and tensor.ndim <= 2:
        return tensor.reshape(0, 4)
    if tensor.ndim != 2 or tensor.shape[1] != 4:
        raise InvalidInputError(f"boxes must be of shape (N, 4), not {tuple(tensor.shape)}")
    return tensor


def xyxy_px_to_xywh_rel(boxes_px: Any, width_px: int, height_px: int) -> torch.Tensor:
    """Corners in pixels -> FiftyOne's relative boxes, (N, 4) float64.

    Raises:
        InvalidInputError: if the boxes are not (N, 4) or a side of the image is not positive
    """
    boxes, size = as_boxes(boxes_px).double(), _size(width_px, height_px)
    corners, sizes = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    return _cat(corners / size, sizes / size)


def whole_px_to_rel(
    box_px: tuple[int, int, int, int], width_px: int, height_px: int
) -> tuple[float, float, float, float]:
    """A box of whole pixels -> ``x, y, width, height`` that lead back to just these pixels.

    FiftyOne truncates ``x * width_px`` when it draws a mask, and rounding puts one of eight such
    products just below the pixel that it stands for: then the mask is drawn a pixel off.
    """
    x1, y1, x2, y2 = box_px
    x, width = _span_rel(x1, x2, width_px)
    y, height = _span_rel(y1, y2, height_px)
    return x, y, width, height


def _span_rel(start: int, stop: int, size: int) -> tuple[float, float]:
    offset, length = start / size, (stop - start) / size
    while int(offset * size) < start:
        offset = math.nextafter(offset, math.inf)
    while int((offset + length) * size) < stop:
        length = math.nextafter(length, math.inf)
    return offset, length


def xywh_rel_to_xyxy_px(boxes_rel: Any, width_px: int, height_px: int) -> torch.Tensor:
    """FiftyOne's relative boxes -> corners in pixels, (N, 4) float32.

    Raises:
        InvalidInputError: if the boxes are not (N, 4) or a side of the image is not positive
    """
    boxes, size = as_boxes(boxes_rel).double(), _size(width_px, height_px)
    return _cat(boxes[:, :2] * size, (boxes[:, :2] + boxes[:, 2:]) * size).float()


def clip_to_image(boxes_px: torch.Tensor, width_px: int, height_px: int) -> torch.Tensor:
    """Boxes with every corner moved into the image."""
    from torchvision.ops import clip_boxes_to_image

    return clip_boxes_to_image(boxes_px, (height_px, width_px))


def select_usable(
    boxes_px: Any, width_px: int, height_px: int, *, min_size_px: float = 0.0
) -> UsableBoxes:
    """Clip boxes to the image and leave out those that hold no part of it.

    RoIAlign gives finite zeros for an empty or inverted box, which would be scored like any other
    region: so they are refused before.

    Args:
        boxes_px: (N, 4)
        width_px, height_px: of the upright image
        min_size_px (0): refuse boxes whose width or height, after clipping, is below this; one of
            no width or no height is always refused

    Raises:
        InvalidInputError: if the boxes are not (N, 4) or a side of the image is not positive
    """
    import torch

    boxes = as_boxes(boxes_px)
    _size(width_px, height_px)
    finite = torch.isfinite(boxes).all(dim=1)
    known = torch.where(finite[:, None], boxes, torch.zeros_like(boxes))
    clipped = clip_to_image(known, width_px, height_px)
    width, height = (known[:, 2:] - known[:, :2]).unbind(1)
    inner = clipped[:, 2:] - clipped[:, :2]
    # rules in rising order of precedence
    rules = (
        (TOO_SMALL, (inner < min_size_px).any(1) | (inner <= 0).any(1)),
        (OUTSIDE, (inner <= 0).any(1) & (width > 0) & (height > 0)),
        (INVERTED, (width < 0) | (height < 0)),
        (NOT_FINITE, ~finite),
    )
    refused: dict[int, str] = {}
    for reason, broken in rules:
        for position in broken.nonzero().flatten().tolist():
            refused[position] = reason
    index = torch.tensor([i for i in range(len(boxes)) if i not in refused], dtype=torch.int64)
    return UsableBoxes(clipped[index], index, dict(sorted(refused.items())))


def fuse_scores(
    probability: torch.Tensor, objectness: torch.Tensor, objectness_weight: float
) -> torch.Tensor:
    """Geometric mean of "which class" and "an object at all": ``p^(1-γ) · o^γ``.

    RegionCLIP (Zhong et al. 2022) takes γ = 0.5 of the raw objectness logit, whose
    negative values give NaN; here ``o`` is a probability, so the result is in [0, 1].

    Args:
        probability: float tensor in [0, 1]
        objectness: float tensor in [0, 1] that broadcasts with it
        objectness_weight: γ in [0, 1]; 0 gives ``p``, 1 gives ``o``

    Returns:
        float32 tensor in [0, 1]; a NaN counts as 0

    Raises:
        InvalidInputError: if γ is outside [0, 1]
    """
    if not 0 <= objectness_weight <= 1:
        raise InvalidInputError(f"objectness_weight={objectness_weight!r} must be between 0 and 1")
    p = probability.float().nan_to_num(0.0).clamp(0, 1)
    o = objectness.float().nan_to_num(0.0).clamp(0, 1)
    return p.pow(1 - objectness_weight) * o.pow(objectness_weight)


def suppress_overlaps(
    boxes_px: torch.Tensor,
    scores: torch.Tensor,
    classes: torch.Tensor | None = None,
    *,
    overlap: str = "agnostic",
    metric: str = "iou",
    threshold: float = 0.5,
    limit: int | None = None,
) -> torch.Tensor:
    """Greedy suppression: of boxes that overlap by more than ``threshold`` the best one stays.

    Args:
        boxes_px: (N, 4) float32
        scores: (N,) float32
        classes (None): (N,) int64; needed for "per_class"
        overlap ("agnostic"): "none" only sorts; "per_class" lets boxes of different classes
            overlap; "agnostic" does not
        metric ("iou"): "iou", intersection over union, or "ios", intersection over the smaller
            box, which also removes parts that lie inside a whole
        threshold (0.5): in [0, 1]
        limit (None): keep at most this many

    Returns:
        (M,) int64 positions of those that stay, best first; of equal scores the first stays

    Raises:
        InvalidInputError: for an unknown ``overlap`` or ``metric``
    """
    import torch

    if overlap not in OVERLAPS:
        raise InvalidInputError(f"overlap={overlap!r} must be one of {', '.join(OVERLAPS)}")
    if metric not in OVERLAP_METRICS:
        raise InvalidInputError(f"metric={metric!r} must be one of {', '.join(OVERLAP_METRICS)}")
    boxes, scores = boxes_px.float(), scores.float()
    order = scores.argsort(descending=True, stable=True)
    if overlap == "per_class":
        if classes is None:
            raise InvalidInputError("overlap='per_class' needs the class of each box")
        groups = classes[order]
    else:
        groups = torch.zeros_like(order)
    boxes = boxes[order]
    if overlap == "none" or not len(boxes):
        kept = order
    elif metric == "iou":
        from torchvision.ops import batched_nms

        # ranks as scores: torchvision's own sort is not stable
        ranks = torch.arange(len(boxes), 0, -1, dtype=torch.float64, device=boxes.device)
        kept = order[batched_nms(boxes.double(), ranks, groups, threshold)]
    else:
        kept = order[_suppress_by_ios(boxes, groups, threshold)]
    return kept if limit is None else kept[:limit]


def _suppress_by_ios(boxes: torch.Tensor, groups: torch.Tensor, threshold: float) -> torch.Tensor:
    """Positions that stay of boxes sorted best first; one vectorised step a box that stays."""
    import torch

    areas = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)
    alive = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    kept = []
    for position in range(len(boxes)):
        if not alive[position]:
            continue
        kept.append(position)
        rest = boxes[position + 1 :]
        corner_min = torch.maximum(boxes[position, :2], rest[:, :2])
        corner_max = torch.minimum(boxes[position, 2:], rest[:, 2:])
        shared = (corner_max - corner_min).clamp(min=0).prod(dim=1)
        smaller = torch.minimum(areas[position], areas[position + 1 :])
        # shared > threshold * smaller, and not a quotient: areas may be 0
        same = groups[position + 1 :] == groups[position]
        alive[position + 1 :] &= ~(same & (shared > threshold * smaller))
    return torch.tensor(kept, dtype=torch.int64, device=boxes.device)


def _size(width_px: int, height_px: int) -> torch.Tensor:
    import torch

    if not (width_px > 0 and height_px > 0):
        raise InvalidInputError(f"an image of {width_px} x {height_px} px has no boxes")
    return torch.tensor([width_px, height_px], dtype=torch.float64)


def _cat(*parts: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.cat(parts, dim=1)
