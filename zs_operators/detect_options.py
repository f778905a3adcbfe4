"""Which of the boxes that a detector looks at become detections."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from zs_operators import boxes as box_ops
from zs_operators import tiling
from zs_operators.errors import InvalidInputError
from zs_operators.option_checks import check_choice, check_count, check_range


@dataclass(frozen=True)
class DetectOptions:
    """Options that decide boxes; checked on construction.

    With existing boxes every one of them stays: then only ``min_margin``, ``min_cosine``,
    ``temperature`` and ``runners_up`` apply, and the thresholds mark a box as rejected instead of
    removing it. Thresholds of single classes, ``min_confidence`` too, are the vocabulary's and go
    before these.

    Args:
        max_regions (300): the best proposals of an image that are scored
        objectness_weight (0.5): γ in ``confidence = p^(1-γ) · objectness^γ``, in [0, 1]
        overlap ("agnostic"): "none", "per_class" or "agnostic": which boxes may not overlap
        overlap_metric ("iou"): "iou", or "ios" for intersection over the smaller box
        overlap_threshold (0.5): highest overlap two boxes may have, in [0, 1]
        min_confidence (0.05): leave out boxes below this, in [0, 1]
        max_detections (100): boxes an image, at most; None for no limit
        min_margin (None): leave out boxes below this margin in logits, >= 0
        min_cosine (None): leave out boxes below this cosine, in [-1, 1]
        min_size_px (0): leave out proposals whose width or height is below this
        temperature (None): divide logits by this before they become probabilities, > 0
        runners_up (3): further classes to keep with each box, >= 0
        tile_size_px (None): also look for objects in tiles of this size, in images that are larger;
            ``max_regions`` is then of each tile
        tile_overlap (0.2): share of its side that a tile has in common with the next, in [0, 0.9]

    Raises:
        InvalidInputError: if a value is out of its range
    """

    max_regions: int = 300
    objectness_weight: float = 0.5
    overlap: str = "agnostic"
    overlap_metric: str = "iou"
    overlap_threshold: float = 0.5
    min_confidence: float = 0.05
    max_detections: int | None = 100
    min_margin: float | None = None
    min_cosine: float | None = None
    min_size_px: float = 0.0
    temperature: float | None = None
    runners_up: int = 3
    tile_size_px: int | None = None
    tile_overlap: float = 0.2

    def __post_init__(self) -> None:
        check_count("max_regions", self.max_regions, 1)
        check_count("runners_up", self.runners_up, 0)
        if self.max_detections is not None:
            check_count("max_detections", self.max_detections, 1)
        check_choice("overlap", self.overlap, box_ops.OVERLAPS)
        check_choice("overlap_metric", self.overlap_metric, box_ops.OVERLAP_METRICS)
        check_range("objectness_weight", self.objectness_weight, 0.0, 1.0)
        check_range("overlap_threshold", self.overlap_threshold, 0.0, 1.0)
        check_range("min_confidence", self.min_confidence, 0.0, 1.0)
        check_range("min_size_px", self.min_size_px, 0.0, math.inf)
        tiling.check_tiling(self.tile_size_px, self.tile_overlap)
        if self.min_margin is not None:
            check_range("min_margin", self.min_margin, 0.0, math.inf)
        if self.min_cosine is not None:
            check_range("min_cosine", self.min_cosine, -1.0, 1.0)
        if self.temperature is not None:
            check_range("temperature", self.temperature, 0.0, math.inf)
            if not 0 < self.temperature < math.inf:
                raise InvalidInputError(f"temperature={self.temperature!r} must be a number > 0.")

    def decisive(self) -> dict[str, Any]:
        """All of them by name, those of tiles only where there are any: plain JSON."""
        values = asdict(self)
        del values["tile_size_px"], values["tile_overlap"]
        return {**values, **self.tiles()}

    def tiles(self) -> dict[str, Any]:
        """Those of tiles; nothing where there are none, as before they existed."""
        if self.tile_size_px is None:
            return {}
        return {"tile_size_px": self.tile_size_px, "tile_overlap": self.tile_overlap}
