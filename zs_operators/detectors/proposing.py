"""A detector of another make as proposer: where it sees any of the classes, CLIP says which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from zs_operators.boxes import clip_to_image, suppress_overlaps
from zs_operators.detectors.text_detector import TextDetector, check_found
from zs_operators.errors import InvalidInputError
from zs_operators.frames import as_pixels
from zs_operators.proposals import ProposalOptions, Proposals

if TYPE_CHECKING:
    import numpy as np

    from zs_operators.device import BatchBudget
    from zs_operators.images import UprightImage
    from zs_operators.vocabulary import Vocabulary

_FULL_SIZE_PX = 2**20  # no image is reduced to this
_NMS_THRESHOLD = 0.7  # as between refined boxes of a Faster R-CNN
_BEFORE_NMS = 3  # boxes asked for, for each that is wanted


class DetectorProposer:
    """Has the interface of :class:`zs_operators.proposals.Proposer`.

    Objectness is the detector's own where it has one (OWLv2: classes do not matter at all), else
    the score of the class that fits best.

    Args:
        detector: what looks
        vocabulary: what for; in the detector's own templates
        options: ``max_proposals`` and ``min_size_px`` count
    """

    def __init__(
        self, detector: TextDetector, vocabulary: Vocabulary, options: ProposalOptions
    ) -> None:
        self.detector = detector
        self.options = options
        self.name, self.precision = detector.name, detector.precision
        self.device = detector.device
        self.reduce_to_px = detector.reduce_to_px or _FULL_SIZE_PX
        own = replace(vocabulary, templates=detector.templates, background=())
        is_blind = detector.has_objectness or not detector.takes_text
        self._prompts = ["object"] if is_blind else [prompt.text for prompt in own.prompts()]
        detector.prepare(self._prompts)

    @property
    def module(self) -> Any:
        """Whose tensors tell it from others, for the store of regions.

        Raises:
            InvalidInputError: if the detector is a program rather than weights
        """
        found = getattr(self.detector, "module", None)
        if found is None:
            raise InvalidInputError(
                f"nothing tells detector {self.name!r} from another version of it, so what it "
                "proposes cannot be stored: use embeddings='off'"
            )
        return found

    def identity(self) -> dict[str, Any]:
        """What of it decides boxes, its prompts among them."""
        return {
            **self.detector.identity(),
            "options": asdict(self.options),
            "prompts": self._prompts,
        }

    def describe(self) -> dict[str, Any]:
        """Plain JSON that says which model proposed boxes."""
        return self.detector.describe()

    def budget(self) -> BatchBudget:
        """How many images may go through the network together."""
        from zs_operators.device import BatchBudget

        return BatchBudget(
            self.detector.batch_size, what="images to propose in", device=self.device
        )

    def propose(
        self, images: Sequence[UprightImage | np.ndarray], budget: BatchBudget | None = None
    ) -> list[Proposals]:
        """Boxes and objectness of each image; see :meth:`Proposer.propose`."""
        given = [as_pixels(image) for image in images]
        results = (budget or self.budget()).run(
            lambda part: self.detector.find(
                [pixels for pixels, _, _ in part],
                self._prompts,
                floor=self.options.score_floor,
                limit=self.options.max_proposals * _BEFORE_NMS,
                agnostic=True,
            ),
            given,
        )
        found = [one for _, _, part in results for one in part]
        return [self._select(one, *image) for one, image in zip(found, given, strict=True)]

    def _select(self, found: Any, pixels: np.ndarray, width_px: int, height_px: int) -> Proposals:
        import torch

        found = check_found(found, len(self._prompts), self.name)
        scale = [width_px / pixels.shape[1], height_px / pixels.shape[0]]
        boxes = torch.from_numpy(found.boxes_px) * torch.tensor(scale).repeat(2).float()
        objectness = found.scores if found.objectness is None else found.objectness
        objectness = torch.from_numpy(objectness.copy())
        keep = torch.isfinite(boxes).all(1) & torch.isfinite(objectness)
        boxes, objectness = clip_to_image(boxes[keep], width_px, height_px), objectness[keep]
        sides = boxes[:, 2:] - boxes[:, :2]
        keep = (sides >= self.options.min_size_px).all(1) & (sides > 0).all(1)
        boxes, objectness = boxes[keep], objectness[keep]
        best = suppress_overlaps(
            boxes, objectness, threshold=_NMS_THRESHOLD, limit=self.options.max_proposals
        )
        return Proposals(boxes[best], objectness[best])
