"""Which masks to take from a Sam, and in which form."""

from __future__ import annotations

from dataclasses import dataclass

from zs_operators.errors import InvalidInputError
from zs_operators.everything import EverythingOptions
from zs_operators.option_checks import check_choice, check_count, check_range

MULTIMASKS = ("best", "single", "best_of_three")


@dataclass(frozen=True)
class SegmentOptions:
    """Options that decide masks; checked on construction.

    Args:
        multimask ("best"): which of Sam's masks to take: "single" is the one for prompts that mean
            one thing, "best_of_three" the most confident of part, larger part and whole, and
            "best" takes the former for boxes and several points, the latter for a single point
        min_iou (None): leave out masks of a lower predicted IoU, in [0, 1]; None is no limit, and
            0.88 for everything
        min_stability (None): leave out masks of a lower stability, in [0, 1]; None is no limit, and
            0.95 for everything
        tight_boxes (True): a mask's box is the smallest that holds it; False cuts it to the box
            that prompted
        fill_holes_px (0): fill holes of fewer pixels
        drop_islands_px (0): remove separate parts of fewer pixels; the largest always stays
        max_masks (None): masks an image, at most, those of the highest predicted IoU
        points_per_side (32): of the grid, for everything
        crop_n_layers (0): for everything, repeat in 4^i crops for every i up to this
        box_nms_threshold (0.7): for everything, of masks whose boxes have a higher IoU one stays

    Raises:
        InvalidInputError: if a value is out of its range
    """

    multimask: str = "best"
    min_iou: float | None = None
    min_stability: float | None = None
    tight_boxes: bool = True
    fill_holes_px: int = 0
    drop_islands_px: int = 0
    max_masks: int | None = None
    points_per_side: int = 32
    crop_n_layers: int = 0
    box_nms_threshold: float = 0.7

    def __post_init__(self) -> None:
        check_choice("multimask", self.multimask, MULTIMASKS)
        check_range("min_iou", self.min_iou, 0.0, 1.0, optional=True)
        check_range("min_stability", self.min_stability, 0.0, 1.0, optional=True)
        check_count("fill_holes_px", self.fill_holes_px, 0)
        check_count("drop_islands_px", self.drop_islands_px, 0)
        if self.max_masks is not None:
            check_count("max_masks", self.max_masks, 1)
        if not isinstance(self.tight_boxes, bool):
            raise InvalidInputError(f"tight_boxes={self.tight_boxes!r} must be True or False.")
        self.everything()

    def everything(self) -> EverythingOptions:
        """The part that everything mode takes."""
        given = {"min_iou": self.min_iou, "min_stability": self.min_stability}
        return EverythingOptions(
            points_per_side=self.points_per_side,
            crop_n_layers=self.crop_n_layers,
            box_nms_threshold=self.box_nms_threshold,
            **{name: value for name, value in given.items() if value is not None},
        )
