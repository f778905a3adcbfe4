"""Large images in tiles: where tiles lie, what a proposer finds in them, and what seams cut.

A network resizes what it sees to its own size, so small objects vanish in large images. In tiles
they keep their size; the whole image is looked at too, for what is larger than a tile.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zs_operators.boxes import suppress_overlaps
from zs_operators.frames import as_pixels
from zs_operators.option_checks import check_count, check_range
from zs_operators.proposals import Proposals

if TYPE_CHECKING:
    import numpy as np
    import torch

    from zs_operators.device import BatchBudget
    from zs_operators.images import UprightImage
    from zs_operators.proposals import Proposer
    from zs_operators.regions import RegionEncoder

#: ``x1, y1, x2, y2`` in whole pixels.
Tile = tuple[int, int, int, int]

MIN_TILE_PX = 64
MAX_OVERLAP = 0.9
_TILES_TOGETHER = 16  # pixels of a tile are copied for the network: not those of all at once
_SAME_OBJECT = 0.7  # IoU, as between the refined boxes of one image
_TOUCHES, _TOUCHES_PX = 0.1, 2.0  # a network is this unsure of where a cut object ends
_PAIRS = 2**22  # overlaps that are computed at once


def check_tiling(tile_size_px: int | None, tile_overlap: float) -> None:
    """Refuses what cannot be tiled with.

    Raises:
        InvalidInputError: if the size is below 64 px or the overlap is not in [0, 0.9]
    """
    if tile_size_px is not None:
        check_count("tile_size_px", tile_size_px, MIN_TILE_PX)
    check_range("tile_overlap", tile_overlap, 0.0, MAX_OVERLAP)


def make_tiles(width_px: int, height_px: int, size_px: int, overlap: float) -> list[Tile]:
    """Tiles of one size that cover an image, row by row; the image itself if it is no larger.

    They are spread evenly, so neighbours share at least ``overlap`` of a tile: whatever is no
    longer than that lies whole in one of them.

    Args:
        width_px, height_px: of the image
        size_px: side of a tile; shorter where the image is
        overlap: share of a tile's side, in [0, 0.9]
    """
    return [
        (left, top, min(left + size_px, width_px), min(top + size_px, height_px))
        for top in _starts(height_px, size_px, overlap)
        for left in _starts(width_px, size_px, overlap)
    ]


def is_tiled(width_px: int, height_px: int, size_px: int | None) -> bool:
    """Whether an image is looked at in tiles: one of its sides is longer than a tile."""
    return size_px is not None and max(width_px, height_px) > size_px


@dataclass(frozen=True)
class TiledProposals(Proposals):
    """Regions of an image that was looked at in tiles and as a whole, best first.

    Attributes:
        tiles: the whole image, then its tiles
        tile: (N,) int64, in which of these each region was found
        is_cut: (N,) bool, whether a region ends at a seam: at the edge of its tile that is not
            one of the image
    """

    tiles: Sequence[Tile]
    tile: torch.Tensor
    is_cut: torch.Tensor


def propose_in_tiles(
    proposer: Proposer,
    image: UprightImage | np.ndarray,
    *,
    size_px: int,
    overlap: float,
    max_regions: int,
    budget: BatchBudget | None = None,
) -> TiledProposals:
    """Regions of a large image: the best ``max_regions`` of each tile and of the whole image.

    Of the whole image only regions that might not fit into any tile are kept, because a tile shows
    the others in more detail. Of one object found in several tiles one region stays, a whole one
    before one that is cut.

    Args:
        proposer: a loaded proposer
        image: upright, read at full size
        size_px, overlap: see :func:`make_tiles`
        max_regions: the best of each tile
        budget (None): see :meth:`Proposer.propose`
    """
    import torch

    pixels, width, height = as_pixels(image)
    rows, columns = pixels.shape[:2]
    tiles = [(0, 0, columns, rows), *make_tiles(columns, rows, size_px, overlap)]
    shared = size_px - _step(size_px, overlap)
    # A side that is no longer than a tile fits wherever it is
    fits = torch.tensor([shared if side > size_px else side for side in (columns, rows)])

    boxes, objectness, tile = [], [], []
    for number, found in enumerate(_propose(proposer, pixels, tiles, budget)):
        kept, scores = found.boxes_px[:max_regions], found.objectness[:max_regions]
        if number == 0:
            large = ((kept[:, 2:] - kept[:, :2]) > fits).any(dim=1)
            kept, scores = kept[large], scores[large]
        boxes.append(kept + torch.tensor(tiles[number][:2]).repeat(2))
        objectness.append(scores)
        tile.append(torch.full((len(kept),), number))
    boxes, objectness, tile = torch.cat(boxes), torch.cat(objectness), torch.cat(tile)
    is_cut = _ends_at_seam(boxes, torch.tensor(tiles)[tile], columns, rows)
    # Scores are at most 1: whatever is whole goes before all that is cut
    ranked = objectness.double() - 2.0 * is_cut
    stay = suppress_overlaps(boxes, ranked, threshold=_SAME_OBJECT)
    stay = stay[objectness[stay].argsort(descending=True, stable=True)]
    scale = torch.tensor([width / columns, height / rows]).repeat(2)
    return TiledProposals(boxes[stay] * scale, objectness[stay], tiles, tile[stay], is_cut[stay])


def encode_in_tiles(
    encoder: RegionEncoder,
    image: UprightImage | np.ndarray,
    boxes_px: torch.Tensor,
    tiles: Sequence[Tile],
    tile: torch.Tensor,
) -> torch.Tensor:
    """Embeddings of regions, each looked at in the tile where it was found.

    Args:
        encoder: embeds the regions
        image: upright
        boxes_px: (N, 4) in pixels of the full-size upright image
        tiles, tile: (N,); see :class:`TiledProposals`

    Returns:
        (N, D) float32 on the CPU, rows of unit length
    """
    import torch

    pixels, width, height = as_pixels(image)
    scale = torch.tensor([pixels.shape[1] / width, pixels.shape[0] / height]).repeat(2)
    used = tile.unique().tolist()
    views = [_view(pixels, tiles[number]) for number in used]
    parts = [
        (boxes_px * scale)[tile == number] - torch.tensor(tiles[number][:2]).repeat(2)
        for number in used
    ]
    embeddings, _ = encoder.encode(views, parts)
    ordered = torch.empty_like(embeddings)
    ordered[tile.argsort(stable=True)] = embeddings
    return ordered


def outlast_seams(
    boxes_px: torch.Tensor,
    scores: torch.Tensor,
    classes: torch.Tensor,
    is_cut: torch.Tensor,
    *,
    overlap: str,
    threshold: float,
) -> torch.Tensor:
    """Which boxes stay where a seam has cut some of them.

    A box that is cut gives way to one that covers it by more than ``threshold`` (intersection over
    the smaller box) and is surer, or is whole and of the same class: half an object may look surer
    than all of it.

    Args:
        boxes_px: (N, 4)
        scores: (N,)
        classes: (N,) int64
        is_cut: (N,) bool
        overlap: "agnostic"; "per_class" gives way to its own class only, "none" never
        threshold: in [0, 1]

    Returns:
        (N,) bool
    """
    import torch

    stays = torch.ones(len(boxes_px), dtype=torch.bool)
    cut = is_cut.nonzero().flatten()
    if overlap == "none" or not len(cut):
        return stays
    # Of equal scores the first is the surer
    rank = torch.empty(len(scores), dtype=torch.int64)
    rank[scores.argsort(descending=True, stable=True)] = torch.arange(len(scores))
    for part in cut.split(max(1, _PAIRS // len(boxes_px))):
        covered = _intersection_over_smaller(boxes_px[part], boxes_px) > threshold
        same = classes[part][:, None] == classes
        surer = rank < rank[part][:, None]
        rival = same | (overlap == "agnostic")
        stays[part] = ~(covered & ((surer & rival) | (~is_cut & same))).any(dim=1)
    return stays


def _intersection_over_smaller(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """(N, M); 0 where a box is empty."""
    import torch

    corner_min = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    corner_max = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = (corner_max - corner_min).clamp(min=0).prod(dim=2)
    areas, other_areas = ((x[:, 2:] - x[:, :2]).clamp(min=0).prod(dim=1) for x in (boxes, others))
    return shared / torch.minimum(areas[:, None], other_areas[None]).clamp(min=1e-12)


def _propose(
    proposer: Proposer, pixels: np.ndarray, tiles: Sequence[Tile], budget: BatchBudget | None
) -> Iterator[Any]:
    for start in range(0, len(tiles), _TILES_TOGETHER):
        views = [_view(pixels, tile) for tile in tiles[start : start + _TILES_TOGETHER]]
        yield from proposer.propose(views, budget)


def _view(pixels: np.ndarray, tile: Tile) -> np.ndarray:
    left, top, right, bottom = tile
    return pixels[top:bottom, left:right]


def _ends_at_seam(
    boxes: torch.Tensor, tiles: torch.Tensor, width: int, height: int
) -> torch.Tensor:
    """(N,) whether a box reaches an edge of its tile beyond which the image goes on."""
    import torch

    sides = boxes[:, 2:] - boxes[:, :2]
    near = (sides * _TOUCHES).clamp(min=_TOUCHES_PX)
    first = (boxes[:, :2] - tiles[:, :2] <= near) & (tiles[:, :2] > 0)
    last = (tiles[:, 2:] - boxes[:, 2:] <= near) & (tiles[:, 2:] < torch.tensor([width, height]))
    return (first | last).any(dim=1)


def _step(size_px: int, overlap: float) -> int:
    return max(1, math.floor(size_px * (1 - overlap)))


def _starts(length_px: int, size_px: int, overlap: float) -> list[int]:
    if length_px <= size_px:
        return [0]
    rest = length_px - size_px
    count = math.ceil(rest / _step(size_px, overlap))
    return [round(i * rest / count) for i in range(count + 1)]
