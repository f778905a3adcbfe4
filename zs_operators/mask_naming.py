"""What a mask shows, by CLIP: embeddings of what is in its box, with and without what is around it.

The mean of both crops: alone, the box names the neighbours too, and the mask a shape without
context. The background of the masked crop is the image's mean colour; black is a colour that CLIP
has an opinion of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from zs_operators.detections import DetectPrediction, Regions
from zs_operators.detector import ZeroShotDetector
from zs_operators.frames import as_pixels
from zs_operators.regions import RegionEncoder

if TYPE_CHECKING:
    from zs_operators.device import BatchBudget
    from zs_operators.images import UprightImage
    from zs_operators.masks import Mask, PackedMask

_PATCHES = 64  # masked crops in memory at once


class MaskNamer:
    """Names masks with the classes and the rules of a detector.

    Args:
        detector: its options decide which masks stay, with a mask's quality as objectness
    """

    def __init__(self, detector: ZeroShotDetector) -> None:
        self.detector = detector
        # A patch is an image of its own: context around it would be context of nothing
        self._patches = RegionEncoder(detector.clip, "crops", contexts=(1.0,))

    @property
    def budget(self) -> BatchBudget:
        """How many masked crops go through the model together."""
        return self._patches.budget

    def name(
        self,
        image: UprightImage,
        masks: Sequence[Mask | PackedMask],
        quality: Sequence[float],
    ) -> DetectPrediction | Exception:
        """One prediction for all masks of an image; ``region_index`` is a mask's position.

        Args:
            image: upright; may be read smaller than its full size
            masks: none of them empty
            quality: of each mask, in [0, 1]
        """
        import torch
        import torch.nn.functional as F

        boxes = torch.tensor([mask.box_px for mask in masks], dtype=torch.float32).reshape(-1, 4)
        boxed, _ = self.detector.encoder.encode([image], [boxes])
        masked = []
        pixels, width, height = as_pixels(image)
        around = pixels.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
        for start in range(0, len(masks), _PATCHES):
            patches = [
                masked_patch(pixels, width, height, mask, around)
                for mask in masks[start : start + _PATCHES]
            ]
            whole = [[[0, 0, patch.shape[1], patch.shape[0]]] for patch in patches]
            masked.append(self._patches.encode(patches, whole)[0])
        embeddings = F.normalize(boxed + torch.cat(masked), dim=1) if masked else boxed
        return self.detector.predict_regions(
            Regions(
                boxes,
                torch.arange(len(masks)),
                torch.tensor(quality, dtype=torch.float32),
                embeddings,
                width,
                height,
            )
        )


def masked_patch(
    pixels: np.ndarray, width_px: int, height_px: int, mask: Mask | PackedMask, around: np.ndarray
) -> np.ndarray:
    """What a mask shows in its box, and one colour where it is not.

    Args:
        pixels: (h, w, 3) uint8 RGB, of any size
        width_px, height_px: of the full-size image, in whose pixels the mask is
        mask: not empty
        around: (3,) uint8
    """
    rows, columns = pixels.shape[:2]
    x1, y1, x2, y2 = mask.box_px
    # the pixels of the box in the image as it was read, at least one
    left, right = _span(x1, x2, columns / width_px, columns)
    top, bottom = _span(y1, y2, rows / height_px, rows)
    patch = pixels[top:bottom, left:right].copy()
    inside = mask.pixels
    if inside.shape != patch.shape[:2]:
        at_rows = _nearest(np.arange(top, bottom), height_px / rows, y1, y2)
        at_columns = _nearest(np.arange(left, right), width_px / columns, x1, x2)
        inside = inside[np.ix_(at_rows, at_columns)]
    patch[~inside] = around
    return patch


def _span(start: int, stop: int, scale: float, size: int) -> tuple[int, int]:
    first = min(int(start * scale), size - 1)
    return first, min(max(first + 1, int(np.ceil(stop * scale))), size)


def _nearest(places: np.ndarray, scale: float, start: int, stop: int) -> np.ndarray:
    """Rows of the mask that lie at the centres of these pixels."""
    return np.clip(((places + 0.5) * scale).astype(int), start, stop - 1) - start
