"""Segmentation without FiftyOne: images and prompts in, masks with quality scores out.

Prompts are boxes or points that are given, boxes that a detector finds by name, or a grid of points
over the image whose masks CLIP can name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from zs_operators.boxes import whole_px_to_rel
from zs_operators.detections import Detection, DetectItem
from zs_operators.detector import ZeroShotDetector
from zs_operators.errors import InvalidInputError
from zs_operators.everything import find_everything
from zs_operators.images import UprightImage, read_image
from zs_operators.masks import Mask, MaskResizer, PackedMask, clean, snap_outward, tighten
from zs_operators.option_checks import check_choice
from zs_operators.sam import SINGLE_MASK, Decoded, Prompts, SamEmbedding, SamFrame, SamModel
from zs_operators.sam_prompts import GivenPrompts, PromptGroup, usable_prompts
from zs_operators.segment_options import SegmentOptions
from zs_operators.stage_times import stage

if TYPE_CHECKING:
    import torch

    from zs_operators.device import BatchBudget
    from zs_operators.sam_store import SamStore

EVERYTHING, PROPOSALS, GIVEN = "everything", "proposals", "given"
SOURCES = (EVERYTHING, PROPOSALS, GIVEN)


@dataclass(frozen=True)
class SegmentItem:
    """One image that was read, as far as it has to be.

    Attributes:
        prompts: those given; None to find them
        frame: for the encoder; None where the embedding is known or nothing prompts
        embedding: from the store
        key: of the image in the store
        image: where a detector looks at it, or crops of it are encoded
    """

    prompts: GivenPrompts | None = None
    frame: SamFrame | None = None
    embedding: SamEmbedding | None = None
    key: str | None = None
    image: UprightImage | None = None

    @property
    def is_stored(self) -> bool:
        """Whether its embedding was in the store."""
        return self.embedding is not None


@dataclass(frozen=True)
class SegmentedMask:
    """One mask of an image.

    Attributes:
        mask: its pixels in its box
        box_rel: its box, ``x, y, width, height`` as fractions of the image
        predicted_iou: in [0, 1], the model's guess
        index: position of its prompt among those given, of its proposal, or its rank among all
            masks of everything
        detection: what it is, where a detector says so
    """

    mask: PackedMask
    box_rel: tuple[float, float, float, float]
    predicted_iou: float
    index: int
    detection: Detection | None = None

    @property
    def stability(self) -> float:
        """In [0, 1]: how little the mask changes when its threshold does."""
        return self.mask.stability

    @property
    def area_px(self) -> int:
        """Its number of pixels."""
        return self.mask.area_px


@dataclass(frozen=True)
class SegmentPrediction:
    """What a segmenter says about one image.

    Attributes:
        masks: of prompts in their own order; of proposals and everything best first
        width_px, height_px: of the upright image; 0 where nothing prompted and it was not read
        num_prompts: prompts given or found; 0 for everything
        refused: prompts that cannot be used, and why, by their position
        dropped: how many masks each rule removed: "empty", "predicted_iou", "stability",
            "max_masks", and those of a detector
    """

    masks: tuple[SegmentedMask, ...]
    width_px: int
    height_px: int
    num_prompts: int = 0
    refused: Mapping[int, str] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)


class Segmenter:
    """A Sam and where its prompts come from.

    Args:
        sam: a loaded model
        options: which masks, and in which form
        source ("given"): "given", "proposals" or "everything"
        detector (None): finds and names boxes for proposals, and names masks of everything
        store (None): of embeddings, which are then rounded as it rounds them
        refresh (False): compute embeddings that are in the store anew

    Attributes:
        batch_size: images a call of :meth:`predict` for ``batch_size="auto"``

    Raises:
        InvalidInputError: if there is no detector, or one too many
    """

    def __init__(
        self,
        sam: SamModel,
        options: SegmentOptions | None = None,
        *,
        source: str = GIVEN,
        detector: ZeroShotDetector | None = None,
        store: SamStore | None = None,
        refresh: bool = False,
    ) -> None:
        check_choice("source", source, SOURCES)
        if source == PROPOSALS and (detector is None or detector.proposer is None):
            raise InvalidInputError("source='proposals' needs a detector with a proposer.")
        if source == GIVEN and detector is not None:
            raise InvalidInputError("source='given' needs no detector.")
        self.sam = sam
        self.options = options or SegmentOptions()
        self.source = source
        self.detector = detector
        self.store = store
        self.batch_size = sam.batch_size
        self._image_budget, self._prompt_budget = sam.image_budget(), sam.prompt_budget()
        self._refresh = refresh
        self._namer = None
        if source == EVERYTHING and detector is not None:
            from zs_operators.mask_naming import MaskNamer

            self._namer = MaskNamer(detector)

    @property
    def budgets(self) -> list[BatchBudget]:
        """Of all that is done in parts, each of which may run out of memory."""
        others = [] if self.detector is None else self.detector.budgets
        if self._namer is not None:
            others = [*others, self._namer.budget]
        return [self._image_budget, self._prompt_budget, *others]

    def load(self, source: str, prompts: GivenPrompts | None = None) -> SegmentItem:
        """Reads what is needed of one image; safe to call from many threads.

        An image without prompts is not read; nor is one whose embedding is stored, unless it is
        also looked at by a detector or in crops.

        Args:
            source: path of the image
            prompts (None): for ``source="given"``

        Raises:
            MediaError: if the image is needed and cannot be read
        """
        if self.source == GIVEN and not len(prompts or ()):
            return SegmentItem(prompts or GivenPrompts())
        key = embedding = None
        if self.store is not None:
            key = self.store.key(source)  # before reading: the file may change meanwhile
            embedding = None if self._refresh else self.store.get(key)
        if embedding is not None and not self._looks_at_images:
            return SegmentItem(prompts, embedding=embedding, key=key)
        with stage("decode"):
            image = read_image(source, reduce_to_px=self._reduce_to_px)
        with stage("preprocess"):
            return self.prepare(image, prompts, embedding=embedding, key=key)

    def prepare(
        self,
        image: UprightImage,
        prompts: GivenPrompts | None = None,
        *,
        embedding: SamEmbedding | None = None,
        key: str | None = None,
    ) -> SegmentItem:
        """The item of an image in memory."""
        frame = self.sam.frame(image) if embedding is None else None
        kept = image if self._looks_at_images else None
        return SegmentItem(prompts, frame, embedding, key, kept)

    def predict(self, items: Sequence[SegmentItem]) -> list[SegmentPrediction | Exception]:
        """One prediction per loaded image."""
        embeddings = self._embed(items)
        found: list[Any] = [None] * len(items)
        if self.source == PROPOSALS:
            found = self.detector.predict([DetectItem(item.image) for item in items])
        return [
            self._predict_one(item, embedding, detected)
            for item, embedding, detected in zip(items, embeddings, found, strict=True)
        ]

    @property
    def _looks_at_images(self) -> bool:
        return self.detector is not None or (
            self.source == EVERYTHING and self.options.crop_n_layers > 0
        )

    @property
    def _reduce_to_px(self) -> int | None:
        if self.source == EVERYTHING and self.options.crop_n_layers > 0:
            return None
        if self.detector is None:
            return self.sam.reduce_to_px
        wanted = self.detector.reduce_to_px
        return None if wanted is None else max(self.sam.reduce_to_px, wanted)

    def _embed(self, items: Sequence[SegmentItem]) -> list[SamEmbedding | None]:
        """The embedding of each image, computed where it is not known; None where none is used."""
        found = [item.embedding for item in items]
        new = [i for i, item in enumerate(items) if item.frame is not None]
        frames = [items[i].frame for i in new]
        encoded = self.sam.encode(frames, self._image_budget) if new else []
        for i, embedding in zip(new, encoded, strict=True):
            if self.store is not None and items[i].key is not None:
                embedding = self.store.put(items[i].key, embedding)
            found[i] = embedding
        return [one and replace(one, features=one.features.to(self.sam.device)) for one in found]

    def _predict_one(
        self, item: SegmentItem, embedding: SamEmbedding | None, detected: Any
    ) -> SegmentPrediction | Exception:
        if isinstance(detected, Exception):
            return detected
        if embedding is None:
            return SegmentPrediction((), 0, 0)
        if self.source == EVERYTHING:
            return self._everything(item, embedding)
        size = (embedding.width_px, embedding.height_px)
        dropped: Counter[str] = Counter()
        if detected is None:
            groups, refused = usable_prompts(item.prompts, *size)
            count = len(item.prompts)
        else:
            dropped.update(detected.dropped)
            boxes = [one.box_px for one in detected.detections]
            groups = (
                [PromptGroup(list(range(len(boxes))), Prompts(boxes_px=boxes))] if boxes else []
            )
            refused, count = {}, len(boxes)
        masks: dict[int, SegmentedMask] = {}
        for group in groups:
            masks.update(self._decode(embedding, group, dropped))
        if detected is not None:
            for index, mask in masks.items():
                masks[index] = replace(mask, detection=detected.detections[index])
        ordered = [masks[index] for index in sorted(masks)]
        return SegmentPrediction(
            self._limited(ordered, dropped), *size, count, refused, dict(+dropped)
        )

    def _decode(
        self, embedding: SamEmbedding, group: PromptGroup, dropped: Counter
    ) -> Iterator[tuple[int, SegmentedMask]]:
        resizers: list[MaskResizer] = []

        def resize(chunk: Decoded) -> tuple[list[tuple[int, SegmentedMask]], Counter]:
            with stage("masks"):
                if not resizers:
                    resizers.append(MaskResizer.of(self.sam, embedding, chunk))
                return self._resize(chunk, resizers[0], group)

        decoded = self.sam.decode(embedding, group.prompts, self._prompt_budget, then=resize)
        for masks, removed in decoded:
            dropped.update(removed)
            yield from masks

    def _resize(
        self, chunk: Decoded, resizer: MaskResizer, group: PromptGroup
    ) -> tuple[list[tuple[int, SegmentedMask]], Counter]:
        """Position and mask of each prompt, and how many masks each rule removed."""
        import torch

        options = self.options
        size = (resizer.width_px, resizer.height_px)
        chosen = _choice(chunk, options.multimask, group.is_ambiguous)
        rows = torch.arange(len(chosen), device=chosen.device)
        quality = chunk.predicted_iou[rows, chosen].tolist()
        kept = [i for i, iou in enumerate(quality) if iou >= (options.min_iou or 0.0)]
        dropped = Counter(predicted_iou=len(quality) - len(kept))
        within = None
        if group.prompts.boxes_px is not None and not options.tight_boxes:
            boxes = group.prompts.boxes_px[chunk.start : chunk.start + len(quality)]
            within = [snap_outward(boxes[i], *size) for i in kept]
        masks = resizer.resize(chunk.logits[rows[kept], chosen[kept]], within)
        found = []
        for i, mask in zip(kept, masks, strict=True):
            index = group.index[chunk.start + i]
            done = self._finish(mask, size, quality[i], index, dropped, cut=within is not None)
            if done is not None:
                found.append((index, done))
        return found, dropped

    def _finish(
        self,
        mask: Mask | PackedMask,
        size: tuple[int, int],
        predicted_iou: float,
        index: int,
        dropped: Counter,
        *,
        cut: bool = False,
    ) -> SegmentedMask | None:
        """The mask as it is written; None if a rule removes it."""
        options = self.options
        if not mask.area_px:
            dropped["empty"] += 1
            return None
        if mask.stability < (options.min_stability or 0.0):
            dropped["stability"] += 1
            return None
        if options.fill_holes_px or options.drop_islands_px:
            mask = clean(
                mask.unpack() if isinstance(mask, PackedMask) else mask,
                *size,
                fill_holes_px=options.fill_holes_px,
                drop_islands_px=options.drop_islands_px,
            )
            mask = mask if cut else tighten(mask)
        box_rel = whole_px_to_rel(mask.box_px, *size)
        packed = mask if isinstance(mask, PackedMask) else PackedMask.of(mask)
        return SegmentedMask(packed, box_rel, predicted_iou, index)

    def _everything(
        self, item: SegmentItem, embedding: SamEmbedding
    ) -> SegmentPrediction | Exception:
        size = (embedding.width_px, embedding.height_px)
        dropped: Counter[str] = Counter()
        found = find_everything(
            self.sam,
            item.image,
            embedding,
            self.options.everything(),
            prompt_budget=self._prompt_budget,
        )
        masks = [
            self._finish(one.mask, size, one.predicted_iou, i, dropped)
            for i, one in enumerate(found)
        ]
        masks = [mask for mask in masks if mask is not None]
        if self._namer is not None and masks:
            quality = [mask.predicted_iou * mask.stability for mask in masks]
            named = self._namer.name(item.image, [mask.mask for mask in masks], quality)
            if isinstance(named, Exception):
                return named
            dropped.update(named.dropped)
            masks = [replace(masks[one.region_index], detection=one) for one in named.detections]
        return SegmentPrediction(self._limited(masks, dropped), *size, dropped=dict(+dropped))

    def _limited(
        self, masks: Sequence[SegmentedMask], dropped: Counter
    ) -> tuple[SegmentedMask, ...]:
        limit = self.options.max_masks
        if limit is None or len(masks) <= limit:
            return tuple(masks)
        dropped["max_masks"] += len(masks) - limit
        best = sorted(range(len(masks)), key=lambda i: -masks[i].predicted_iou)[:limit]
        return tuple(masks[i] for i in sorted(best))


def _choice(chunk: Decoded, multimask: str, is_ambiguous: bool) -> torch.Tensor:
    """(P,) which of the four masks each prompt takes."""
    import torch

    if multimask == "single" or (multimask == "best" and not is_ambiguous):
        return torch.full((len(chunk.logits),), SINGLE_MASK, device=chunk.logits.device)
    return 1 + chunk.raw_iou[:, 1:].argmax(1)
