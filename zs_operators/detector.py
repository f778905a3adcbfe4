"""Open-vocabulary detection without FiftyOne: images and a vocabulary in, labelled boxes out.

Proposals say where something is, CLIP says what it is: boxes -> embeddings -> class scores, fused
with objectness, and of overlapping boxes the best one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zs_operators import boxes as box_ops
from zs_operators import tiling
from zs_operators.classifier import ClassScore
from zs_operators.detect_options import DetectOptions
from zs_operators.detections import Detection, DetectItem, DetectPrediction, Regions
from zs_operators.errors import InvalidInputError, ZeroShotError
from zs_operators.images import read_image

if TYPE_CHECKING:
    import torch

    from zs_operators.clip import ClipModel
    from zs_operators.device import BatchBudget
    from zs_operators.heads.head import Head
    from zs_operators.proposals import Proposals, Proposer
    from zs_operators.regions import RegionEncoder
    from zs_operators.vocabulary import Vocabulary

_CPU_IMAGES, _CUDA_IMAGES = 4, 16


class ZeroShotDetector:
    """A CLIP model with the class vectors of one vocabulary, and where to look.

    Args:
        clip: a loaded model
        vocabulary: classes, templates and background prompts; encoded once, here
        options: how regions become detections
        proposer (None): finds boxes; not needed to score existing ones
        encoder (None): embeds boxes; None is ``RegionEncoder(clip)``
        head (None): adds to the logits what labelled samples taught it

    Attributes:
        batch_size: images a call of :meth:`predict` for ``batch_size="auto"``. Full-size images
            are held in memory, so it is smaller than a classifier's; regions are batched apart

    Raises:
        InvalidInputError: if options do not fit the vocabulary or the model
    """

    def __init__(
        self,
        clip: ClipModel,
        vocabulary: Vocabulary,
        options: DetectOptions | None = None,
        *,
        proposer: Proposer | None = None,
        encoder: RegionEncoder | None = None,
        head: Head | None = None,
    ) -> None:
        from zs_operators.regions import RegionEncoder

        self.clip = clip
        self.vocabulary = vocabulary
        self.options = options or DetectOptions()
        self.proposer = proposer
        self.encoder = encoder or RegionEncoder(clip)
        self.head = None if head is None else head.fitted_to(clip, vocabulary)
        self._text_budget = clip.text_budget()
        self.vectors = clip.class_vectors(vocabulary, budget=self._text_budget)
        self._proposal_budget = None if proposer is None else proposer.budget()
        self.batch_size = _CUDA_IMAGES if clip.device.startswith("cuda") else _CPU_IMAGES
        # Options that do not fit the vocabulary or the model are refused now, not mid-run
        self._score(self.vectors[:1], existing=False)

    @property
    def budgets(self) -> list[BatchBudget]:
        """Of all that is done in parts, each of which may run out of memory."""
        found = [self._text_budget, self._proposal_budget, self.encoder.budget]
        return [one for one in found if one is not None]

    @property
    def reduce_to_px(self) -> int | None:
        """What to pass to :func:`~zs_operators.images.read_image` where boxes are to be found."""
        if self.proposer is None:
            return self.encoder.reduce_to_px
        if self.options.tile_size_px is not None:
            return None
        return max(self.encoder.reduce_to_px, self.proposer.reduce_to_px)

    def load(self, source: str | bytes, boxes_rel: Any = None) -> DetectItem:
        """Reads one image; safe to call from many threads.

        Args:
            source: path or bytes of the image
            boxes_rel (None): (N, 4) ``x, y, width, height`` of boxes to score, None to propose

        Raises:
            MediaError: if the image cannot be read
        """
        reduce_to_px = self.encoder.reduce_to_px if boxes_rel is not None else self.reduce_to_px
        return DetectItem(read_image(source, reduce_to_px=reduce_to_px), boxes_rel)

    def predict(self, items: Sequence[DetectItem]) -> list[DetectPrediction | Exception]:
        """One prediction per loaded image."""
        return [self.predict_regions(one) for one in self.embed(items)]

    def embed(self, items: Sequence[DetectItem]) -> list[Regions]:
        """Boxes of each image, proposed or existing, and their embeddings.

        Proposals that no class could lift over ``min_confidence`` are left out before they are
        embedded: ``objectness^γ`` is the most they can reach.

        Raises:
            InvalidInputError: if an item has no boxes and there is no proposer
        """
        items = [one if isinstance(one, DetectItem) else DetectItem(one) for one in items]
        open_items = [i for i, item in enumerate(items) if item.boxes_rel is None]
        if open_items and self.proposer is None:
            raise InvalidInputError(
                "There are no boxes to score: give boxes_rel, or a proposer to find them."
            )
        proposals = dict(
            zip(open_items, self._propose([items[i].image for i in open_items]), strict=True)
        )
        chosen = [self._choose(item, proposals.get(i)) for i, item in enumerate(items)]
        in_one = [
            i for i in range(len(items)) if not isinstance(proposals.get(i), tiling.TiledProposals)
        ]
        embeddings, sizes = self.encoder.encode(
            [items[i].image for i in in_one], [chosen[i][0].boxes_px for i in in_one]
        )
        parts = dict(zip(in_one, embeddings.split(sizes), strict=True))
        regions = []
        for i, (item, (usable, objectness)) in enumerate(zip(items, chosen, strict=True)):
            is_cut = None
            if i not in parts:
                tiled, index = proposals[i], usable.index
                is_cut = tiled.is_cut[index]
                parts[i] = tiling.encode_in_tiles(
                    self.encoder, item.image, usable.boxes_px, tiled.tiles, tiled.tile[index]
                )
            regions.append(
                Regions(
                    usable.boxes_px,
                    usable.index,
                    objectness,
                    parts[i],
                    *_image_size(item.image),
                    refused=usable.refused if objectness is None else {},
                    is_cut=is_cut,
                )
            )
        return regions

    def predict_regions(self, regions: Regions) -> DetectPrediction | Exception:
        """Score regions with the vocabulary and choose among them; no model runs here."""
        import torch

        size = (regions.width_px, regions.height_px)
        if not len(regions.index):
            return DetectPrediction((), *size, 0, refused=regions.refused)
        existing = regions.objectness is None
        scores, decisions = self._score(regions.embeddings, existing=existing)
        if not scores.finite.any():
            return ZeroShotError("the model returned no embedding that is finite")
        probability = torch.from_numpy(decisions.confidence[:, 0].copy())
        confidence = probability
        if not existing:
            confidence = box_ops.fuse_scores(
                probability, regions.objectness, self.options.objectness_weight
            )
        if existing:
            kept, dropped = list(range(len(probability))), Counter()
        else:
            kept, dropped = self._select(regions, confidence, decisions)
        relative = box_ops.xyxy_px_to_xywh_rel(regions.boxes_px, *size)
        detections = []
        for row in kept:
            best, *others = self._ranked(decisions, row)
            detections.append(
                Detection(
                    label=best.label,
                    confidence=float(confidence[row]),
                    probability=best.confidence,
                    cosine=best.cosine,
                    margin=best.margin,
                    objectness=None if existing else float(regions.objectness[row]),
                    region_index=int(regions.index[row]),
                    box_px=tuple(regions.boxes_px[row].tolist()),
                    box_rel=tuple(relative[row].tolist()),
                    runners_up=tuple(others),
                    rejected_by=decisions.rejected_by[row],
                )
            )
        return DetectPrediction(
            tuple(detections), *size, len(probability), regions.refused, dict(dropped)
        )

    def _propose(self, images: Sequence[Any]) -> list[Proposals]:
        """Regions of each image, of large ones in tiles."""
        options = self.options
        large = [tiling.is_tiled(*_image_size(image), options.tile_size_px) for image in images]
        small = [image for image, is_large in zip(images, large, strict=True) if not is_large]
        found = iter(self.proposer.propose(small, self._proposal_budget) if small else ())
        return [
            tiling.propose_in_tiles(
                self.proposer,
                image,
                size_px=options.tile_size_px,
                overlap=options.tile_overlap,
                max_regions=options.max_regions,
                budget=self._proposal_budget,
            )
            if is_large
            else next(found)
            for image, is_large in zip(images, large, strict=True)
        ]

    def _choose(
        self, item: DetectItem, proposals: Proposals | None
    ) -> tuple[box_ops.UsableBoxes, torch.Tensor | None]:
        """Boxes of one image to embed, and their objectness if they are proposals."""
        options = self.options
        size = _image_size(item.image)
        if proposals is None:
            boxes = box_ops.xywh_rel_to_xyxy_px(item.boxes_rel, *size)
            return box_ops.select_usable(boxes, *size), None
        is_tiled = isinstance(proposals, tiling.TiledProposals)
        boxes = proposals.boxes_px[: None if is_tiled else options.max_regions]
        usable = box_ops.select_usable(boxes, *size, min_size_px=options.min_size_px)
        objectness = proposals.objectness[usable.index]
        lowest = self.vocabulary.limits("min_confidence", options.min_confidence)
        lowest = min(lowest) if isinstance(lowest, list) else lowest
        reachable = objectness.double() ** options.objectness_weight >= lowest
        usable = box_ops.UsableBoxes(
            usable.boxes_px[reachable], usable.index[reachable], usable.refused
        )
        return usable, objectness[reachable]

    def _score(self, embeddings: torch.Tensor, *, existing: bool) -> tuple[Any, Any]:
        from zs_operators import scoring

        background = len(self.vocabulary.background)
        scores = scoring.score(
            embeddings,
            self.vectors,
            logit_scale=self.clip.logit_scale,
            logit_bias=self.clip.logit_bias,
            temperature=self.options.temperature,
            num_background=background,
            columns=self.vocabulary.vector_columns(),
            head=self.head,
        )
        limits = self.vocabulary.limits
        decisions = scoring.decide(
            scores,
            num_background=background,
            top_k=1 + self.options.runners_up,
            # Of proposals only after fusion with objectness
            min_confidence=limits("min_confidence") if existing else None,
            min_margin=limits("min_margin", self.options.min_margin),
            min_cosine=limits("min_cosine", self.options.min_cosine),
        )
        return scores, decisions

    def _select(
        self, regions: Regions, confidence: torch.Tensor, decisions: Any
    ) -> tuple[list[int], Counter]:
        """Rows of proposals that become detections, best first, and what removed the others."""
        import torch

        options = self.options
        # 1. the rules of scoring: background, margin, cosine, finite embeddings
        dropped = Counter(reason for reason in decisions.rejected_by if reason is not None)
        accepted = torch.tensor([reason is None for reason in decisions.rejected_by])
        # 2. confidence, after fusion
        winners = torch.from_numpy(decisions.order[:, 0].copy())
        limit = self.vocabulary.limits("min_confidence", options.min_confidence)
        if isinstance(limit, list):
            limit = torch.tensor(limit)[winners]
        weak = accepted & (confidence < limit)
        dropped["confidence"] += int(weak.sum())
        rows = (accepted & ~weak).nonzero().flatten()
        num_rows = len(rows)
        # 3. what seams between tiles have cut
        if regions.is_cut is not None:
            rows = rows[
                tiling.outlast_seams(
                    regions.boxes_px[rows],
                    confidence[rows],
                    winners[rows],
                    regions.is_cut[rows],
                    overlap=options.overlap,
                    threshold=options.overlap_threshold,
                )
            ]
        # 4. overlap, among what is left
        classes = winners[rows]
        kept = rows[
            box_ops.suppress_overlaps(
                regions.boxes_px[rows],
                confidence[rows],
                classes,
                overlap=options.overlap,
                metric=options.overlap_metric,
                threshold=options.overlap_threshold,
            )
        ].tolist()
        dropped["overlap"] += num_rows - len(kept)
        # 5. the best of them
        limited = kept[: options.max_detections]
        dropped["max_detections"] += len(kept) - len(limited)
        return limited, +dropped

    def _ranked(self, decisions: Any, row: int) -> list[ClassScore]:
        return [
            ClassScore(
                self.vocabulary.labels[column],
                confidence,
                cosine,
                None if math.isnan(margin) else margin,
            )
            for column, confidence, cosine, margin in zip(
                decisions.order[row].tolist(),
                decisions.confidence[row].tolist(),
                decisions.cosine[row].tolist(),
                decisions.margin[row].tolist(),
                strict=True,
            )
        ]


def _image_size(image: Any) -> tuple[int, int]:
    from zs_operators.frames import as_pixels

    return as_pixels(image)[1:]
