"""Images -> class-agnostic boxes with objectness, from a Faster R-CNN whose classes are ignored.

>>> proposer = load_proposer("fasterrcnn_resnet50_fpn_v2")
>>> regions = proposer.propose([read_image(path) for path in paths])
>>> regions[0].boxes_px, regions[0].objectness  # (N, 4), (N,), best first
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zs_operators.boxes import clip_to_image, suppress_overlaps
from zs_operators.device import (
    BatchBudget,
    resolve_batch_size,
    resolve_device,
    resolve_precision,
    torch_dtype,
)
from zs_operators.errors import InvalidInputError
from zs_operators.frames import Frame, make_frame
from zs_operators.proposal_loading import DEFAULT_PROPOSER, build_detector, plan_proposer

if TYPE_CHECKING:
    import numpy as np
    import torch

    from zs_operators.images import UprightImage
    from zs_operators.weights_plan import WeightsPlan

__all__ = ["DEFAULT_PROPOSER", "Proposals", "Proposer", "load_proposer", "plan_proposer"]

MODES = ("refined", "rpn")
_REFINED_NMS_THRESHOLD = 0.7
_REFINE_FACTOR = 2  # boxes refined for each one asked for: refining moves and merges them
_CUDA_BATCH_SIZE = 8
_SMALL = 5_000_000  # parameters; networks below gain nothing from reduced precision


@dataclass(frozen=True)
class Proposals:
    """Regions of one image that may hold an object, best first.

    Attributes:
        boxes_px: (N, 4) float32 ``x1, y1, x2, y2`` in pixels of the full-size upright image
        objectness: (N,) float32 in [0, 1]
    """

    boxes_px: torch.Tensor
    objectness: torch.Tensor

    def __len__(self) -> int:
        return len(self.boxes_px)


@dataclass(frozen=True)
class ProposalOptions:
    """Which boxes a proposer gives; checked on construction.

    Args:
        mode ("refined"): "refined", boxes moved by the detector's second stage, with the
            probability that they hold any of its classes; or "rpn", those of its region proposal
            network with the sigmoid of their objectness, which favour the detector's own classes
            less and fit worse
        max_proposals (300): boxes an image, at most
        nms_threshold (None): suppress boxes that overlap a better one by a higher IoU, across all
            scales; None is 0.7 for "refined" and for "rpn" the model's own setting and way,
            which keeps equal boxes found at different scales
        min_size_px (0): leave out boxes whose width or height in the full-size image is below this
        score_floor (0): leave out boxes with a lower objectness

    Raises:
        InvalidInputError: if a value is out of its range
    """

    mode: str = "refined"
    max_proposals: int = 300
    nms_threshold: float | None = None
    min_size_px: float = 0.0
    score_floor: float = 0.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InvalidInputError(f"mode={self.mode!r} must be one of {', '.join(MODES)}")
        count = self.max_proposals
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InvalidInputError(f"max_proposals={count!r} must be an integer >= 1")
        ranges = (
            ("nms_threshold", 1.0, self.nms_threshold),
            ("min_size_px", math.inf, self.min_size_px),
            ("score_floor", 1.0, self.score_floor),
        )
        for name, high, value in ranges:
            optional = name == "nms_threshold" and value is None
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not optional and not (number and 0 <= value <= high):
                raise InvalidInputError(f"{name}={value!r} must be a number from 0 to {high:g}")


def load_proposer(
    model: str | Path | Proposer = DEFAULT_PROPOSER,
    weights: str | Path | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | str = "auto",
    allow_download: bool = True,
    **options: Any,
) -> Proposer:
    """Load a proposer.

    Args:
        model: a name of ``models("proposals")``, "shapes-tiny", a local folder with
            ``config.json`` and ``model.safetensors``, or a loaded proposer, returned as it is
        weights (None): a torchvision tag such as "COCO_V1", a local file or folder, "random", or
            None for the model's own
        device ("auto"): see :func:`zs_operators.device.resolve_device`
        precision ("auto"): of the convolutions; boxes and scores are always decoded in float32
        batch_size ("auto"): images of one size that go through the network together
        allow_download (True): whether weights that are not on this machine may be downloaded
        **options: of :class:`ProposalOptions`

    Raises:
        UnknownModelError, WeightsError, OfflineError, DeviceError, InvalidInputError
    """
    if isinstance(model, Proposer):
        if weights is not None or options:
            raise InvalidInputError("weights and options cannot be given with a loaded proposer")
        return model
    try:
        parsed = ProposalOptions(**options)
    except TypeError as error:
        raise InvalidInputError(f"load_proposer got an unknown option: {error}") from error
    device = resolve_device(device)
    module, plan = build_detector(plan_proposer(model, weights), allow_download=allow_download)
    return Proposer(module, plan, parsed, device=device, precision=precision, batch_size=batch_size)


class Proposer:
    """A torchvision Faster R-CNN or Mask R-CNN as a class-agnostic proposer.

    No call changes it, so several threads may share one: knobs that torchvision keeps on the
    modules are set once, here, on shallow copies, and the feature scales that its RoI pooler
    would take from the first image it happens to see are set from a square one.

    Args:
        module: torchvision ``GeneralizedRCNN``; its parameters move to the device
        plan: where its weights come from
        options: which boxes to give
        device, precision: where and in which precision to run its convolutions; "auto" is fp32
            for small networks, else see :func:`zs_operators.device.resolve_precision`
        batch_size ("auto"): images of one size that go through the network together; 1 on a CPU,
            where more are no faster

    Attributes:
        reduce_to_px: what to pass to :func:`~zs_operators.images.read_image`
    """

    def __init__(
        self,
        module: torch.nn.Module,
        plan: WeightsPlan,
        options: ProposalOptions | None = None,
        *,
        device: str = "cpu",
        precision: str = "fp32",
        batch_size: int | str = "auto",
    ) -> None:
        import torch

        self.options = options = options or ProposalOptions()
        self.plan = plan
        self.name = plan.model
        self.device = device
        if precision == "auto" and sum(p.numel() for p in module.parameters()) < _SMALL:
            precision = "fp32"
        self.precision = resolve_precision(precision, device)
        # channels last: 15-30 % less time on CPUs
        self.module = module.to(device, memory_format=torch.channels_last).eval()
        self.module.requires_grad_(False)
        if batch_size == "auto":
            batch_size = _CUDA_BATCH_SIZE if torch.device(device).type == "cuda" else 1
        self._batch_size = resolve_batch_size(batch_size, device)

        self._transform = module.transform
        self.reduce_to_px = int(module.transform.min_size[-1])
        self._rpn = rpn = copy.copy(module.rpn)
        refined = options.mode == "refined"
        count = options.max_proposals * (_REFINE_FACTOR if refined else 1)
        before = max(count, rpn._pre_nms_top_n["testing"])
        rpn._pre_nms_top_n = {**rpn._pre_nms_top_n, "testing": before}
        rpn._post_nms_top_n = {**rpn._post_nms_top_n, "testing": count}
        if not refined:
            rpn.score_thresh = options.score_floor
            if options.nms_threshold is not None:
                rpn.nms_thresh = options.nms_threshold
        self._roi_pool = copy.copy(module.roi_heads.box_roi_pool)
        if refined:
            self._set_pooler_scales()

    def identity(self) -> dict[str, Any]:
        """What of it decides boxes: plain JSON."""
        return {
            "name": self.name,
            "weights_sha256": self.plan.sha256,
            "precision": self.precision,
            "options": asdict(self.options),
        }

    def describe(self) -> dict[str, Any]:
        """Plain JSON that says which model proposed boxes, and how."""
        import torchvision

        options = self.options
        return {
            "model": self.name,
            "architecture": self.plan.architecture,
            "weights": self.plan.to_dict(),
            "mode": options.mode,
            "max_proposals": options.max_proposals,
            "nms_threshold": options.nms_threshold,
            "min_size_px": options.min_size_px,
            "score_floor": options.score_floor,
            "device": self.device,
            "precision": self.precision,
            "versions": {"torchvision": str(torchvision.__version__)},
        }

    def budget(self) -> BatchBudget:
        """How many images of one size may go through the network together."""
        return BatchBudget(self._batch_size, what="images to propose in", device=self.device)

    def propose(
        self, images: Sequence[UprightImage | np.ndarray], budget: BatchBudget | None = None
    ) -> list[Proposals]:
        """Boxes and objectness of each image; what is in one image does not depend on the others.

        Only images of the same size share a forward pass, because the padding that torchvision
        adds to mixed sizes changes their boxes.

        Args:
            images: upright images, or (H, W, 3) uint8 RGB arrays
            budget (None): that of earlier calls, which knows what fits

        Raises:
            InvalidInputError: if an image is not (H, W, 3) uint8 or is empty
        """
        budget = budget or self.budget()
        frames = [self._frame(image) for image in images]
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for position, frame in enumerate(frames):
            groups[frame.pixels.shape].append(position)
        found: list[Proposals | None] = [None] * len(frames)
        for members in groups.values():
            results = budget.run(lambda part: self._infer([frames[i] for i in part]), members)
            for start, stop, proposals in results:
                for position, proposal in zip(members[start:stop], proposals, strict=True):
                    found[position] = proposal
        return found

    def _frame(self, image: UprightImage | np.ndarray) -> Frame:
        transform = self._transform
        return make_frame(image, transform.min_size[-1], transform.max_size)

    def _infer(self, frames: Sequence[Frame]) -> list[Proposals]:
        import torch

        with torch.no_grad():
            tensors = [
                torch.from_numpy(frame.pixels).to(self.device).permute(2, 0, 1).float() / 255
                for frame in frames
            ]
            batch, _ = self._transform(tensors)
            del tensors
            with self._reduced_precision():
                features = self.module.backbone(batch.tensors)
            features = {name: level.float() for name, level in features.items()}
            boxes, objectness = self._propose(batch, features)
            if self.options.mode == "refined":
                boxes, objectness = self._refine(features, boxes, batch.image_sizes)
        return [
            self._select(frame, *one)
            for frame, *one in zip(frames, boxes, objectness, batch.image_sizes, strict=True)
        ]

    def _propose(
        self, batch: Any, features: dict[str, torch.Tensor]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The steps of ``RegionProposalNetwork.forward``, which drops the scores."""
        from torchvision.models.detection.rpn import concat_box_prediction_layers

        rpn, levels = self._rpn, list(features.values())
        # 1. objectness logit and box offsets of every anchor
        with self._reduced_precision():
            logits, deltas = rpn.head(levels)
        logits, deltas = [x.float() for x in logits], [x.float() for x in deltas]
        anchors = rpn.anchor_generator(batch, levels)
        counts = [level[0].numel() for level in logits]
        logits, deltas = concat_box_prediction_layers(logits, deltas)
        # 2. offsets -> boxes in the network's frame
        boxes = rpn.box_coder.decode(deltas, anchors).view(len(anchors), -1, 4)
        # 3. best of each level, clipped, suppressed within the level, best of all
        return rpn.filter_proposals(boxes, logits, batch.image_sizes, counts)

    def _refine(
        self,
        features: dict[str, torch.Tensor],
        boxes: list[torch.Tensor],
        sizes: list[tuple[int, int]],
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Boxes of the second stage for the likeliest foreground class of each region."""
        counts = [len(one) for one in boxes]
        if not sum(counts):
            return boxes, [one.new_zeros(0) for one in boxes]
        heads = self.module.roi_heads
        pooled = self._roi_pool(features, boxes, sizes)
        with self._reduced_precision():
            logits, deltas = heads.box_predictor(heads.box_head(pooled))
        probabilities = logits.float().softmax(dim=1)
        refined = heads.box_coder.decode(deltas.float(), boxes)
        best = probabilities[:, 1:].argmax(dim=1) + 1
        refined = refined.gather(1, best[:, None, None].expand(-1, 1, 4)).squeeze(1)
        foreground = (1 - probabilities[:, 0]).clamp(0, 1)
        return list(refined.split(counts)), list(foreground.split(counts))

    def _select(
        self, frame: Frame, boxes: torch.Tensor, objectness: torch.Tensor, net_size: tuple
    ) -> Proposals:
        """From the network's frame to the image's, and the options applied."""
        import torch

        options = self.options
        boxes, objectness = boxes.cpu(), objectness.cpu()
        scale = torch.tensor(
            [frame.width_px / net_size[1], frame.height_px / net_size[0]], dtype=torch.float32
        )
        boxes = clip_to_image(boxes * scale.repeat(2), *frame.image_size_px)
        sides = boxes[:, 2:] - boxes[:, :2]
        keep = (sides >= options.min_size_px).all(1) & (sides > 0).all(1)
        keep &= torch.isfinite(objectness) & (objectness >= options.score_floor)
        boxes, objectness = boxes[keep], objectness[keep]
        threshold = options.nms_threshold
        if threshold is None and options.mode == "refined":
            threshold = _REFINED_NMS_THRESHOLD
        best = suppress_overlaps(
            boxes,
            objectness,
            overlap="none" if threshold is None else "agnostic",
            threshold=threshold or 0.0,
            limit=options.max_proposals,
        )
        return Proposals(boxes[best], objectness[best])

    def _set_pooler_scales(self) -> None:
        import torch

        with torch.no_grad():
            side = 256
            features = self.module.backbone(torch.zeros(1, 3, side, side, device=self.device))
            box = torch.tensor([[0.0, 0.0, side, side]], device=self.device)
            self._roi_pool.scales = self._roi_pool.map_levels = None
            self._roi_pool(features, [box], [(side, side)])

    def _reduced_precision(self) -> Any:
        import torch

        return torch.autocast(
            torch.device(self.device).type,
            dtype=torch_dtype(self.precision),
            enabled=self.precision != "fp32",
        )
