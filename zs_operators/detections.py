"""What goes into a detector and what comes out: images, regions, detections. Plain values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from zs_operators.classifier import ClassScore
    from zs_operators.images import UprightImage


@dataclass(frozen=True)
class DetectItem:
    """One image that was read, with the boxes to score if they are given.

    Attributes:
        image: upright
        boxes_rel: (N, 4) ``x, y, width, height`` as fractions of the image, None to propose boxes
    """

    image: UprightImage
    boxes_rel: Any = None


@dataclass(frozen=True)
class Detection:
    """One labelled box.

    Attributes:
        label: class with the highest logit
        confidence: ``p^(1-γ) · objectness^γ`` in [0, 1]; the probability ``p`` of an existing box
        probability: ``p``, of the label among all classes and background prompts
        cosine: between the region and the class vector, in [-1, 1]
        margin: logit minus the highest logit of any other class or background prompt; None where
            there is no other
        objectness: of the proposal, in [0, 1]; None for an existing box
        region_index: position among the proposals, best first, or among the existing boxes
        box_px: ``x1, y1, x2, y2`` in pixels of the upright image, inside it
        box_rel: ``x, y, width, height`` as fractions of the image
        runners_up: the next best classes, best first
        rejected_by: "background", "confidence" (below its class's own), "margin", "cosine" or
            "non_finite" (its embedding) for an existing box a rule rejects; None for all others
    """

    label: str
    confidence: float
    probability: float
    cosine: float
    margin: float | None
    objectness: float | None
    region_index: int
    box_px: tuple[float, float, float, float]
    box_rel: tuple[float, float, float, float]
    runners_up: tuple[ClassScore, ...] = ()
    rejected_by: str | None = None


@dataclass(frozen=True)
class DetectPrediction:
    """What a detector says about one image.

    Attributes:
        detections: best first; of existing boxes in their own order
        width_px, height_px: of the upright image
        num_regions: regions that were scored
        refused: existing boxes that cannot be scored, and why, by their position
        dropped: how many regions each rule removed: "background", "margin", "cosine",
            "non_finite" (of their embedding), "confidence", "overlap", "max_detections"
    """

    detections: tuple[Detection, ...]
    width_px: int
    height_px: int
    num_regions: int
    refused: Mapping[int, str] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Regions:
    """Boxes of one image and their embeddings: all that scoring with other classes needs.

    Attributes:
        boxes_px: (N, 4) float32, inside the image
        index: (N,) int64, position among the proposals or the existing boxes
        objectness: (N,) float32 in [0, 1], None for existing boxes
        embeddings: (N, D) float32, L2-normalised
        width_px, height_px: of the upright image
        refused: existing boxes that have no embedding, and why
        is_cut: (N,) bool, whether each ends where its tile does; None without tiles
    """

    boxes_px: torch.Tensor
    index: torch.Tensor
    objectness: torch.Tensor | None
    embeddings: torch.Tensor
    width_px: int
    height_px: int
    refused: Mapping[int, str] = field(default_factory=dict)
    is_cut: torch.Tensor | None = None
