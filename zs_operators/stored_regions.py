"""Regions of images in the store: boxes, objectness, embeddings; scored with any names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zs_operators import boxes as box_ops
from zs_operators.detections import Regions
from zs_operators.embeddings import EmbeddingStore, Record, derived_key, image_key
from zs_operators.model_stores import region_store, weights_digest

if TYPE_CHECKING:
    from zs_operators.detector import ZeroShotDetector


class StoredRegions:
    """The store of what a detector's :meth:`~ZeroShotDetector.embed` returns.

    Args:
        detector: its model, region embedding, proposer and limits of proposals decide the regions
        proposer (None): plain JSON that identifies the proposer; None for existing boxes
        refresh (False): find nothing, so that all is computed and stored again
        **options: ``dtype``, ``folder``, ``max_bytes`` of :class:`EmbeddingStore`
    """

    def __init__(
        self,
        detector: ZeroShotDetector,
        proposer: dict[str, Any] | None = None,
        *,
        refresh: bool = False,
        **options: Any,
    ) -> None:
        limits = detector.options
        if proposer is not None:
            proposer = {
                **proposer,
                "weights_sha256": proposer["weights_sha256"] or weights_digest(detector.proposer),
                "max_regions": limits.max_regions,
                "min_size_px": limits.min_size_px,
                **limits.tiles(),
            }
        self.store: EmbeddingStore = region_store(
            detector.clip, detector.encoder.describe(), proposer, **options
        )
        self._refresh = refresh
        lowest = detector.vocabulary.limits("min_confidence", limits.min_confidence)
        self._lowest = min(lowest) if isinstance(lowest, list) else lowest
        self._weight = limits.objectness_weight

    def key(self, path: str, boxes_rel: Sequence[Sequence[float]] | None = None) -> bytes:
        """What identifies an image as it is now, and the boxes to score if they are given.

        Raises:
            MissingMediaError: if there is no such file
        """
        key = image_key(path)
        return key if boxes_rel is None else derived_key(key.hex(), [list(b) for b in boxes_rel])

    def get(self, key: bytes, boxes_rel: Any = None) -> Regions | None:
        """The regions that would be computed now; None if there are none, or too few of them."""
        record = -1 if self._refresh else int(self.store.find([key])[0])
        found = None if record < 0 else self.store.read(record)
        if found is None:
            return None
        if boxes_rel is not None:
            width, height = map(int, found.facts[:2])
            boxes = box_ops.xywh_rel_to_xyxy_px(boxes_rel, width, height)
            return _regions(found, box_ops.select_usable(boxes, width, height).refused)
        if found.facts[2] > self._floor:
            return None
        objectness = found.extras[:, 4].astype(np.float64)
        reachable = objectness**self._weight >= self._lowest
        return _regions(
            found._replace(vectors=found.vectors[reachable], extras=found.extras[reachable])
        )

    def put(self, keys: Sequence[bytes], regions: Sequence[Regions]) -> list[Regions]:
        """Store regions, and round their embeddings as :meth:`get` will return them."""
        import torch

        extras, facts = [], []
        for one in regions:
            rows = np.zeros((len(one.index), 6), np.float32)
            rows[:, :4], rows[:, 5] = one.boxes_px, one.index
            if one.is_cut is not None:
                # Its position says so by its sign
                rows[:, 5] = np.where(one.is_cut, -1 - rows[:, 5], rows[:, 5])
            if one.objectness is not None:
                rows[:, 4] = one.objectness
            extras.append(rows)
            facts.append([one.width_px, one.height_px, self._floor])
        counts = [len(one.index) for one in regions]
        vectors = self.store.put(
            keys,
            np.concatenate([one.embeddings.numpy() for one in regions]),
            counts=counts,
            extras=np.concatenate(extras),
            facts=np.array(facts),
        )
        parts = torch.from_numpy(vectors).split(counts)
        return [
            Regions(**{**vars(one), "embeddings": part})
            for one, part in zip(regions, parts, strict=True)
        ]

    @property
    def _floor(self) -> float:
        """Objectness below which proposals are not embedded."""
        if self._lowest <= 0 or not self._weight:
            return 0.0
        return self._lowest ** (1 / self._weight)


def _regions(record: Record, refused: dict[int, str] | None = None) -> Regions:
    """Regions of a record; existing boxes if ``refused`` is given."""
    import torch

    extras = torch.from_numpy(record.extras)
    position = extras[:, 5].long()
    is_cut = position < 0
    return Regions(
        extras[:, :4].clone(),
        torch.where(is_cut, -1 - position, position),
        extras[:, 4].clone() if refused is None else None,
        torch.from_numpy(record.vectors),
        int(record.facts[0]),
        int(record.facts[1]),
        refused=refused or {},
        is_cut=is_cut,
    )
