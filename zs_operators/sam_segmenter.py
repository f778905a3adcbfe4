"""SAM as a FiftyOne model, for ``apply_model``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import fiftyone.core.labels as fol
import numpy as np

from zs_operators.classification import Classes, parse_classes
from zs_operators.clip import ClipModel
from zs_operators.errors import InvalidInputError
from zs_operators.fiftyone_models import LoadSample, ZeroShotModel, as_upright
from zs_operators.images import UprightImage
from zs_operators.mask_labels import mask_detections
from zs_operators.prompt_fields import ExistingPrompts, as_prompts
from zs_operators.proposals import DEFAULT_PROPOSER, Proposer
from zs_operators.sam import DEFAULT_SAM, SamModel
from zs_operators.segment_setup import load_segmenter, split_options
from zs_operators.segmenter import EVERYTHING, PROPOSALS, SegmentItem
from zs_operators.weights import DEFAULT_CLIP

PROMPTS = "prompts"


class SamSegmenter(ZeroShotModel):
    """A SAM that FiftyOne can apply.

    ``dataset.apply_model(model, "field")`` writes the masks that :func:`zs_operators.segment`
    writes. To segment what labels of a field point at, make it with ``prompts="<field>"``.
    :func:`zs_operators.segment` also records failures, progress and provenance, resumes, and can
    write masks to files.

    Args:
        prompts ("everything"): ``"everything"``, ``"proposals"``, or the field that prompts
        classes, model, weights, clip, clip_weights, templates, background, region_embedding,
        proposals, proposal_weights, proposal_mode, embeddings, device, precision, **options: see
            :func:`zs_operators.segment`

    Raises:
        InvalidInputError: if an argument cannot be used
        WeightsError: if weights are missing or do not fit
    """

    def __init__(
        self,
        prompts: str = EVERYTHING,
        *,
        classes: Classes | None = None,
        model: str | SamModel = DEFAULT_SAM,
        weights: str | os.PathLike | None = None,
        clip: str | ClipModel = DEFAULT_CLIP,
        clip_weights: str | os.PathLike | None = None,
        templates: str | Sequence[str] = "simple",
        background: Sequence[str] | None = None,
        region_embedding: str = "auto",
        proposals: str | Proposer = DEFAULT_PROPOSER,
        proposal_weights: str | os.PathLike | None = None,
        proposal_mode: str = "refined",
        embeddings: str = "off",
        device: str = "auto",
        precision: str = "auto",
        **options: Any,
    ) -> None:
        super().__init__()
        self.prompts = prompts
        masks, detect = split_options(prompts, classes, options)
        vocabulary = None
        if classes is not None:
            vocabulary = parse_classes(None, classes, templates=templates, background=background)
        self.segmenter = load_segmenter(
            prompts,
            masks,
            vocabulary,
            detect,
            model=model,
            weights=weights,
            clip=clip,
            clip_weights=clip_weights,
            region_embedding=region_embedding,
            proposals=proposals,
            proposal_weights=proposal_weights,
            proposal_mode=proposal_mode,
            embeddings=embeddings,
            device=device,
            precision=precision,
        )

    @property
    def is_prompted(self) -> bool:
        """Whether labels of a field prompt."""
        return self.prompts not in (EVERYTHING, PROPOSALS)

    @property
    def transforms(self) -> Any:
        return self._transform

    def build_get_item(self, field_mapping: dict[str, str] | None = None) -> LoadSample:
        if not self.is_prompted:
            return LoadSample(self._load, field_mapping=field_mapping)
        mapping = {PROMPTS: self.prompts, **(field_mapping or {})}
        return LoadSample(self._load, ("filepath", PROMPTS), field_mapping=mapping)

    def _load(self, d: dict[str, Any]) -> tuple[SegmentItem, ExistingPrompts | None]:
        if not self.is_prompted:
            return self.segmenter.load(d["filepath"]), None
        source = as_prompts(d["filepath"], d[PROMPTS])
        return self.segmenter.load(source.filepath, source.given), source

    def _transform(self, image: Any) -> tuple[SegmentItem, None]:
        if self.is_prompted:
            raise InvalidInputError(
                f"An image alone has no prompts: apply this model to samples with {self.prompts!r}."
            )
        image = as_upright(image)
        if isinstance(image, np.ndarray):
            image = UprightImage(np.ascontiguousarray(image), image.shape[1], image.shape[0])
        return self.segmenter.prepare(image), None

    def _predict(self, items: Sequence[Any]) -> list[fol.Detections | None]:
        found = self.segmenter.predict([item for item, _ in items])
        return [
            None if isinstance(one, Exception) else mask_detections(one, source=source)
            for one, (_, source) in zip(found, items, strict=True)
        ]
