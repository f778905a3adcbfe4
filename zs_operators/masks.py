"""Masks at full size from the decoder's small logits, each computed only where it can be.

Sam resizes its logits twice, to the encoder's square and, without its padding, to the image. Both
are linear along each axis, so for every axis one matrix does the same, and a part of the image
needs a part of it.

``_px`` boxes here are whole pixels, ``x1, y1, x2, y2`` with the end outside: pixel ``x2`` is not in
the box any more.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

    from zs_operators.sam import Decoded, SamEmbedding, SamModel

PixelBox = tuple[int, int, int, int]

_STRIPE_PIXELS = 2**22  # float32 pixels at once; a mask of a very large image is more


@dataclass(frozen=True)
class Mask:
    """One mask, cut to a box.

    Attributes:
        pixels: (h, w) bool
        box_px: where they are in the upright image
        area_px: how many of them are true
        stability: share of the pixels above the lower of two thresholds that are also above the
            higher (arXiv:2304.02643, section 5); 0 for an empty mask
    """

    pixels: np.ndarray
    box_px: PixelBox
    area_px: int
    stability: float


@dataclass(frozen=True)
class PackedMask:
    """A mask in a fraction of the memory of its pixels, for those that wait to be written.

    Attributes:
        data: its pixels, one bit each, compressed
        shape: (h, w)
        box_px, area_px, stability: see :class:`Mask`
    """

    data: bytes
    shape: tuple[int, int]
    box_px: PixelBox
    area_px: int
    stability: float

    @classmethod
    def of(cls, mask: Mask) -> PackedMask:
        """The same mask, packed."""
        import numpy as np

        data = zlib.compress(np.packbits(mask.pixels).tobytes(), 1)
        return cls(data, mask.pixels.shape, mask.box_px, mask.area_px, mask.stability)

    @property
    def pixels(self) -> np.ndarray:
        """(h, w) bool, unpacked at each call."""
        import numpy as np

        bits = np.frombuffer(zlib.decompress(self.data), dtype=np.uint8)
        count = self.shape[0] * self.shape[1]
        return np.unpackbits(bits, count=count).reshape(self.shape).view(bool)

    def unpack(self) -> Mask:
        """The same mask, with its pixels."""
        return Mask(self.pixels, self.box_px, self.area_px, self.stability)


class MaskResizer:
    """Decoder logits of one image -> its masks at full size.

    The result equals ``Sam.postprocess_masks`` up to rounding.

    Args:
        low_size: (h, w) of the logits
        size_px: side of the encoder's square
        frame_size: (rows, columns) that the image covers of it
        width_px, height_px: of the upright image
        device ("cpu"): where the logits are
        threshold (0): logits above it are the mask
        stability_offset (1): of the two thresholds that stability compares, > 0
    """

    def __init__(
        self,
        low_size: tuple[int, int],
        size_px: int,
        frame_size: tuple[int, int],
        width_px: int,
        height_px: int,
        *,
        device: str | torch.device = "cpu",
        threshold: float = 0.0,
        stability_offset: float = 1.0,
    ) -> None:
        self.width_px, self.height_px = width_px, height_px
        self._thresholds = (threshold - stability_offset, threshold, threshold + stability_offset)
        self._rows = _Axis(low_size[0], size_px, frame_size[0], height_px, device)
        self._columns = _Axis(low_size[1], size_px, frame_size[1], width_px, device)

    @classmethod
    def of(
        cls, sam: SamModel, embedding: SamEmbedding, decoded: Decoded, **options: Any
    ) -> MaskResizer:
        """For all masks of an image, of which some have been decoded."""
        return cls(
            decoded.logits.shape[2:],
            sam.size_px,
            embedding.frame_size,
            embedding.width_px,
            embedding.height_px,
            device=decoded.logits.device,
            **options,
        )

    def resize(
        self, logits: torch.Tensor, within_px: Sequence[PixelBox | None] | None = None
    ) -> Iterator[Mask]:
        """The masks of some prompts, one by one.

        Args:
            logits: (P, h, w) float32
            within_px (None): look at each mask only inside its box. Then it is cut to exactly this
                box; else to the smallest that holds it
        """
        # a resized pixel is a mean of logits, so none is above what they all are not above
        alive = logits > self._thresholds[0]
        rows, columns = alive.any(2).cpu().numpy(), alive.any(1).cpu().numpy()
        for i, one in enumerate(logits):
            within = None if within_px is None else within_px[i]
            y1, y2 = self._rows.reach_of(rows[i])
            x1, x2 = self._columns.reach_of(columns[i])
            if within is None:
                yield tighten(self._resize_window(one, (x1, y1, x2, y2)))
            else:
                window = _intersect((x1, y1, x2, y2), within)
                yield expand(self._resize_window(one, window), within)

    def _resize_window(self, logits: torch.Tensor, window: PixelBox) -> Mask:
        import numpy as np
        import torch

        x1, y1, x2, y2 = window
        width, height = max(0, x2 - x1), max(0, y2 - y1)
        pixels = np.zeros((height, width), dtype=bool)
        if not width or not height:
            return Mask(pixels, (0, 0, 0, 0), 0, 0.0)
        low, middle, high = self._thresholds
        counts = torch.zeros(3, dtype=torch.int64, device=logits.device)
        rows, row_taps = self._rows.window(y1, y2)
        columns, column_taps = self._columns.window(x1, x2)
        across = logits[row_taps, column_taps] @ columns.T
        step = max(1, _STRIPE_PIXELS // width)
        for start in range(0, height, step):
            values = rows[start : start + step] @ across
            inside = values > middle
            pixels[start : start + step] = inside.cpu().numpy()
            counts += torch.stack(
                [torch.count_nonzero(one) for one in (values > low, inside, values > high)]
            )
        wide, area, narrow = counts.tolist()
        return Mask(pixels, window, area, narrow / wide if wide else 0.0)


class _Axis:
    """Resizing along one axis: a matrix, and which low-resolution cells which pixels look at."""

    def __init__(
        self, low: int, size_px: int, frame: int, full: int, device: str | torch.device
    ) -> None:
        import numpy as np
        import torch
        import torch.nn.functional as F

        def resize(values: torch.Tensor, size: int) -> torch.Tensor:
            return F.interpolate(values, size, mode="linear", align_corners=False)

        cells = torch.eye(low)[None]
        matrix = resize(resize(cells, size_px)[..., :frame], full)[0].T.contiguous()
        used = matrix.numpy() != 0
        # first and last cell of each pixel, first and last pixel of each cell
        self._cells = np.stack([used.argmax(1), low - used[:, ::-1].argmax(1)], axis=1)
        self._pixels = np.stack([used.argmax(0), full - used[::-1].argmax(0)], axis=1)
        self._pixels[~used.any(0)] = (full, 0)
        self._matrix = matrix.to(device)

    def reach_of(self, alive: np.ndarray) -> tuple[int, int]:
        """First pixel that looks at a cell which is alive, and the one after the last."""
        found = self._pixels[alive]
        return (int(found[:, 0].min()), int(found[:, 1].max())) if len(found) else (0, 0)

    def window(self, start: int, stop: int) -> tuple[torch.Tensor, slice]:
        """(pixels, cells) part of the matrix for these pixels, and the cells it is for."""
        taps = slice(int(self._cells[start, 0]), int(self._cells[stop - 1, 1]))
        return self._matrix[start:stop, taps], taps


def snap_outward(box_px: Sequence[float], width_px: int, height_px: int) -> PixelBox:
    """The whole pixels that a box touches, inside the image."""
    x1, y1, x2, y2 = box_px
    return (
        min(max(math.floor(x1), 0), width_px - 1),
        min(max(math.floor(y1), 0), height_px - 1),
        max(min(math.ceil(x2), width_px), 1),
        max(min(math.ceil(y2), height_px), 1),
    )


def tighten(mask: Mask) -> Mask:
    """The mask cut to its true pixels; (0, 0) if it has none."""
    import numpy as np

    rows = np.flatnonzero(mask.pixels.any(axis=1))
    columns = np.flatnonzero(mask.pixels.any(axis=0))
    if not len(rows):
        return replace(mask, pixels=np.zeros((0, 0), dtype=bool), box_px=(0, 0, 0, 0), area_px=0)
    y1, y2, x1, x2 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    left, top = mask.box_px[:2]
    box = (left + x1, top + y1, left + x2, top + y2)
    # a copy, or the whole window would stay in memory
    return replace(mask, pixels=mask.pixels[y1:y2, x1:x2].copy(), box_px=box)


def expand(mask: Mask, box_px: PixelBox) -> Mask:
    """The mask in a box that holds its own."""
    import numpy as np

    x1, y1, x2, y2 = box_px
    pixels = np.zeros((y2 - y1, x2 - x1), dtype=bool)
    if mask.pixels.size:
        left, top = mask.box_px[0] - x1, mask.box_px[1] - y1
        height, width = mask.pixels.shape
        pixels[top : top + height, left : left + width] = mask.pixels
    return replace(mask, pixels=pixels, box_px=box_px)


def clean(
    mask: Mask, width_px: int, height_px: int, *, fill_holes_px: int = 0, drop_islands_px: int = 0
) -> Mask:
    """Fill small holes, then remove small islands, in the box of the mask.

    Like ``remove_small_regions`` of segment_anything, with 8-connected regions; of islands that
    are all small the largest stays. A hole is enclosed by the mask or by the edge of the image:
    what is around the mask is none, however little it is.

    Args:
        mask: any
        width_px, height_px: of the upright image
        fill_holes_px (0): fill holes of fewer pixels
        drop_islands_px (0): remove islands of fewer pixels
    """
    import numpy as np

    pixels = mask.pixels
    if not pixels.any():
        return mask
    if fill_holes_px > 0:
        x1, y1, x2, y2 = mask.box_px
        # around the box is background, except beyond the image
        open_sides = ((y1 > 0, y2 < height_px), (x1 > 0, x2 < width_px))
        padded = np.pad(pixels, [[int(side) for side in sides] for sides in open_sides])
        regions, sizes = _regions(~padded)
        small = sizes < fill_holes_px
        small[0] = False
        for axis, sides in enumerate(open_sides):
            for side, edge in zip(sides, (0, -1), strict=True):
                if side:
                    small[np.take(regions, edge, axis=axis)] = False
        top, left = int(open_sides[0][0]), int(open_sides[1][0])
        inner = regions[top : top + pixels.shape[0], left : left + pixels.shape[1]]
        pixels = pixels | small[inner]
    if drop_islands_px > 0:
        regions, sizes = _regions(pixels)
        kept = sizes >= drop_islands_px
        kept[0] = False
        if not kept.any():
            kept[1 + sizes[1:].argmax()] = True
        pixels = kept[regions]
    return replace(mask, pixels=pixels, area_px=int(np.count_nonzero(pixels)))


def _regions(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """8-connected regions, 0 where there is none, and the size of each."""
    import numpy as np
    from scipy import ndimage

    regions, count = ndimage.label(pixels, structure=np.ones((3, 3), dtype=bool))
    return regions, np.bincount(regions.ravel(), minlength=count + 1)


def _intersect(first: PixelBox, second: PixelBox) -> PixelBox:
    return (
        max(first[0], second[0]),
        max(first[1], second[1]),
        min(first[2], second[2]),
        min(first[3], second[3]),
    )
