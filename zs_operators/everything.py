"""Every mask of an image: a Sam prompted with a grid of points, and of what overlaps one each.

Masks, scores and the order of rules are those of segment_anything's ``SamAutomaticMaskGenerator``
(Kirillov et al. 2023, arXiv:2304.02643, section 5 and appendix B), without its full-size logits:
masks are decoded in chunks, resized one by one and only where they are, and wait compressed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from zs_operators.boxes import suppress_overlaps
from zs_operators.errors import InvalidInputError
from zs_operators.frames import as_pixels
from zs_operators.masks import Mask, MaskResizer, PackedMask, PixelBox
from zs_operators.option_checks import check_count, check_range
from zs_operators.sam import Decoded, Prompts, SamEmbedding, SamModel
from zs_operators.stage_times import stage

if TYPE_CHECKING:
    import numpy as np
    import torch

    from zs_operators.device import BatchBudget
    from zs_operators.images import UprightImage


@dataclass(frozen=True)
class EverythingOptions:
    """How everything is looked for; checked on construction. Defaults are the library's.

    Args:
        points_per_side (32): of the grid
        crop_n_layers (0): look again in 4^i overlapping crops for every i up to this
        crop_n_points_downscale (1): the grid of layer i has this^i times fewer points a side, but
            at least one
        box_nms_threshold (0.7): of masks whose boxes have a higher IoU the most confident stays
        crop_nms_threshold (0.7): the same between crops, where the mask of the smallest crop stays
        crop_overlap (512 / 1500): of neighbouring crops, as a share of the image's shorter side
        min_iou (0.88): leave out masks whose predicted IoU is not above this; 0 leaves out none
        min_stability (0.95): leave out masks of a lower stability
        stability_offset (1): of the thresholds that stability compares from the mask's, >= 0

    Raises:
        InvalidInputError: if a value is out of its range
    """

    points_per_side: int = 32
    crop_n_layers: int = 0
    crop_n_points_downscale: int = 1
    box_nms_threshold: float = 0.7
    crop_nms_threshold: float = 0.7
    crop_overlap: float = 512 / 1500
    min_iou: float = 0.88
    min_stability: float = 0.95
    stability_offset: float = 1.0

    def __post_init__(self) -> None:
        check_count("points_per_side", self.points_per_side, 1)
        check_count("crop_n_layers", self.crop_n_layers, 0)
        check_count("crop_n_points_downscale", self.crop_n_points_downscale, 1)
        for name in ("box_nms_threshold", "crop_nms_threshold", "min_iou", "min_stability"):
            check_range(name, getattr(self, name), 0.0, 1.0)
        check_range("crop_overlap", self.crop_overlap, 0.0, 1.0)
        check_range("stability_offset", self.stability_offset, 0.0, math.inf)


@dataclass(frozen=True)
class FoundMask:
    """One mask.

    Attributes:
        mask: in pixels of the image, cut to the smallest box
        raw_iou: the model's guess at its IoU, an unbounded regression
        point_px: ``x, y`` of the point that prompted
        crop_box_px: of the crop it was found in
    """

    mask: PackedMask
    raw_iou: float
    point_px: tuple[float, float]
    crop_box_px: PixelBox

    @property
    def predicted_iou(self) -> float:
        """In [0, 1]."""
        return min(max(self.raw_iou, 0.0), 1.0)


def find_everything(
    sam: SamModel,
    image: UprightImage | np.ndarray | None,
    embedding: SamEmbedding | None = None,
    options: EverythingOptions | None = None,
    *,
    prompt_budget: BatchBudget | None = None,
) -> list[FoundMask]:
    """All masks of an image, the most confident first; none of them is empty.

    Args:
        sam: a loaded model
        image: upright; not needed with an embedding and without crops, for which it is needed at
            its full size
        embedding (None): of the whole image, computed if None
        options (None): see :class:`EverythingOptions`
        prompt_budget (None): that of earlier calls, which knows how many points fit at once

    Raises:
        InvalidInputError: if the image is needed and is not given, was reduced and is to be
            cropped, or is not of the embedding's size
    """
    options = options or EverythingOptions()
    prompt_budget = prompt_budget or sam.prompt_budget()
    size = _checked_size(image, embedding, options)
    found: list[FoundMask] = []
    crops = _crops(options, *size)
    for layer, crop in crops:
        known = embedding if layer == 0 else None
        if known is None:
            (known,) = sam.encode([sam.frame(_cut(image, crop) if layer else image)])
        found += _in_crop(sam, known, crop, layer, size, options, prompt_budget)
    if len(crops) > 1:
        found = _distinct(
            found, [1 / _area(one.crop_box_px) for one in found], options.crop_nms_threshold
        )
    return sorted(found, key=lambda one: -one.raw_iou)


def count_work(options: EverythingOptions, width_px: int, height_px: int) -> tuple[int, int]:
    """How many crops are encoded and how many points decoded for an image."""
    crops = _crops(options, width_px, height_px)
    return len(crops), sum(len(_points(options, layer)) for layer, _ in crops)


def _in_crop(
    sam: SamModel,
    embedding: SamEmbedding,
    crop: PixelBox,
    layer: int,
    size: tuple[int, int],
    options: EverythingOptions,
    budget: BatchBudget,
) -> list[FoundMask]:
    """What is found in one crop, most confident first; of masks whose boxes overlap one."""
    points = _points(options, layer) * (embedding.width_px, embedding.height_px)
    left, top = crop[:2]
    resizers: list[MaskResizer] = []

    @stage("masks")
    def pack(chunk: Decoded) -> list[FoundMask]:
        if not resizers:
            offset = options.stability_offset
            resizers.append(MaskResizer.of(sam, embedding, chunk, stability_offset=offset))
        packed = []
        for mask, raw_iou, prompt in _candidates(chunk, resizers[0], options):
            x1, y1, x2, y2 = mask.box_px
            moved = replace(mask, box_px=(x1 + left, y1 + top, x2 + left, y2 + top))
            # half of something, which another crop has whole
            if layer and _is_cut_off(moved.box_px, crop, size):
                continue
            x, y = points[prompt].tolist()
            packed.append(FoundMask(PackedMask.of(moved), raw_iou, (x + left, y + top), crop))
        return packed

    prompts = Prompts(points_px=points[:, None])
    found = []
    for some in sam.decode(embedding, prompts, budget, then=pack):
        found += some
    return _distinct(found, [one.raw_iou for one in found], options.box_nms_threshold)


def _candidates(
    chunk: Decoded, resizer: MaskResizer, options: EverythingOptions
) -> Iterator[tuple[Mask, float, int]]:
    """Masks of three sizes a point that are confident and stable enough, each with its IoU and
    the position of its point."""
    logits, raw_iou = chunk.logits[:, 1:], chunk.raw_iou[:, 1:]
    # 0 is no filter, though the guess may be lower
    good = (raw_iou > options.min_iou) | (options.min_iou == 0)
    prompts = good.nonzero()[:, 0].tolist()
    masks = resizer.resize(logits[good])
    for mask, iou, prompt in zip(masks, raw_iou[good].tolist(), prompts, strict=True):
        if mask.area_px and mask.stability >= options.min_stability:
            yield mask, iou, chunk.start + prompt


def _is_cut_off(box_px: PixelBox, crop: PixelBox, size: tuple[int, int]) -> bool:
    """Whether a box ends where the crop does and the image does not."""
    import torch
    from segment_anything.utils.amg import is_box_near_crop_edge

    # boxes in the image's frame, so the crop starts at its own corner
    left, top = crop[:2]
    box = _inclusive(box_px) - torch.tensor([left, top, left, top])
    return bool(is_box_near_crop_edge(box[None], list(crop), [0, 0, *size]))


def _distinct(found: list[FoundMask], scores: list[float], threshold: float) -> list[FoundMask]:
    """Of masks whose boxes overlap the one of the highest score."""
    import torch

    if not found:
        return found
    boxes = torch.stack([_inclusive(one.mask.box_px) for one in found])
    kept = suppress_overlaps(boxes, torch.tensor(scores), threshold=threshold)
    return [found[i] for i in kept.tolist()]


def _inclusive(box_px: PixelBox) -> torch.Tensor:
    """The box as the library has it: its last pixels are in it, so it is a pixel smaller."""
    import torch

    x1, y1, x2, y2 = box_px
    return torch.tensor([x1, y1, x2 - 1, y2 - 1])


def _crops(options: EverythingOptions, width_px: int, height_px: int) -> list[tuple[int, PixelBox]]:
    """(layer, box) of every crop, first the whole image, which is layer 0."""
    from segment_anything.utils.amg import generate_crop_boxes

    boxes, layers = generate_crop_boxes(
        (height_px, width_px), options.crop_n_layers, options.crop_overlap
    )
    # of an image of a few pixels some crops have none
    return [(layer, tuple(box)) for layer, box in zip(layers, boxes, strict=True) if _area(box)]


def _points(options: EverythingOptions, layer: int) -> np.ndarray:
    """(N, 2) ``x, y`` of the grid as fractions of a crop."""
    from segment_anything.utils.amg import build_point_grid

    per_side = options.points_per_side // options.crop_n_points_downscale**layer
    return build_point_grid(max(1, per_side))


def _checked_size(
    image: UprightImage | np.ndarray | None,
    embedding: SamEmbedding | None,
    options: EverythingOptions,
) -> tuple[int, int]:
    """(width, height) of the upright image."""
    if image is None:
        if embedding is None or options.crop_n_layers:
            raise InvalidInputError(
                "the image is needed: there is no embedding of it, or crops of it are encoded."
            )
        return embedding.width_px, embedding.height_px
    pixels, *size = as_pixels(image)
    if embedding is not None and size != [embedding.width_px, embedding.height_px]:
        raise InvalidInputError(
            f"the embedding is of an image of {embedding.width_px} x {embedding.height_px} px, "
            f"not of this one of {size[0]} x {size[1]} px."
        )
    if options.crop_n_layers and [*pixels.shape[1::-1]] != size:
        raise InvalidInputError(
            f"crops are cut from the full-size image, {size[0]} x {size[1]} px, but it was read at "
            f"{pixels.shape[1]} x {pixels.shape[0]} px: read it without reduce_to_px."
        )
    return size[0], size[1]


def _cut(image: UprightImage | np.ndarray, crop: PixelBox) -> np.ndarray:
    x1, y1, x2, y2 = crop
    return as_pixels(image)[0][y1:y2, x1:x2]


def _area(box_px: Sequence[int]) -> int:
    return max(0, box_px[2] - box_px[0]) * max(0, box_px[3] - box_px[1])
