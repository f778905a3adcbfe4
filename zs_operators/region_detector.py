"""Open-vocabulary detection as a FiftyOne model, for ``apply_model``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import fiftyone.core.labels as fol
import numpy as np

from zs_operators import labels
from zs_operators.classification import Classes, parse_classes
from zs_operators.clip import ClipModel
from zs_operators.detection import PROPOSALS, detect_options, load_detector
from zs_operators.detections import DetectItem
from zs_operators.fiftyone_models import LoadSample, ZeroShotModel, as_upright
from zs_operators.images import UprightImage
from zs_operators.proposals import DEFAULT_PROPOSER, Proposer
from zs_operators.region_fields import ExistingBoxes
from zs_operators.weights import DEFAULT_CLIP

BOXES = "boxes"


class RegionDetector(ZeroShotModel):
    """A zero-shot detector that FiftyOne can apply.

    ``dataset.apply_model(model, "field", batch_size=4)`` writes the labels that
    :func:`zs_operators.detect` writes. To name the boxes of a field, make it with
    ``regions="<field>"``. :func:`zs_operators.detect` also records failures, progress and
    provenance, and resumes.

    Args:
        classes: see :func:`zs_operators.classify`
        regions ("proposals"): ``"proposals"``, or the field whose boxes are named
        model, weights, templates, background, region_embedding, proposals, proposal_weights,
        proposal_mode, reject_label, device, precision, **options: see :func:`zs_operators.detect`

    Raises:
        InvalidInputError: if an argument cannot be used
        WeightsError: if weights are missing or do not fit
    """

    def __init__(
        self,
        classes: Classes,
        *,
        regions: str = PROPOSALS,
        model: str | ClipModel = DEFAULT_CLIP,
        weights: str | os.PathLike | None = None,
        templates: str | Sequence[str] = "simple",
        background: Sequence[str] | None = None,
        region_embedding: str = "auto",
        proposals: str | Proposer = DEFAULT_PROPOSER,
        proposal_weights: str | os.PathLike | None = None,
        proposal_mode: str = "refined",
        reject_label: str | None = None,
        device: str = "auto",
        precision: str = "auto",
        **options: Any,
    ) -> None:
        super().__init__()
        parsed = detect_options(**options)
        vocabulary = parse_classes(None, classes, templates=templates, background=background)
        self.regions = regions
        self.reject_label = reject_label
        self.detector = load_detector(
            vocabulary,
            parsed,
            find_boxes=regions == PROPOSALS,
            model=model,
            weights=weights,
            region_embedding=region_embedding,
            proposals=proposals,
            proposal_weights=proposal_weights,
            proposal_mode=proposal_mode,
            device=device,
            precision=precision,
        )

    @property
    def transforms(self) -> Any:
        return self._transform

    def build_get_item(self, field_mapping: dict[str, str] | None = None) -> LoadSample:
        if self.regions == PROPOSALS:
            return LoadSample(self._load, field_mapping=field_mapping)
        mapping = {BOXES: self.regions, **(field_mapping or {})}
        return LoadSample(self._load, ("filepath", BOXES), field_mapping=mapping)

    def _load(self, d: dict[str, Any]) -> tuple[DetectItem, ExistingBoxes | None]:
        if self.regions == PROPOSALS:
            return self.detector.load(d["filepath"]), None
        value = d[BOXES]
        found = [] if value is None else getattr(value, "detections", [value])
        source = ExistingBoxes(
            d["filepath"],
            tuple(tuple(label.bounding_box) for label in found),
            tuple(label.id for label in found),
            tuple(label.label for label in found),
        )
        return self.detector.load(source.filepath, source.boxes_rel), source

    def _transform(self, image: Any) -> tuple[DetectItem, None]:
        image = as_upright(image)
        if isinstance(image, np.ndarray):
            image = UprightImage(np.ascontiguousarray(image), image.shape[1], image.shape[0])
        return DetectItem(image), None

    def _predict(self, items: Sequence[Any]) -> list[fol.Detections | None]:
        found = self.detector.predict([item for item, _ in items])
        return [
            None
            if isinstance(one, Exception)
            else labels.detections(one, source=source, reject_label=self.reject_label)
            for one, (_, source) in zip(found, items, strict=True)
        ]
