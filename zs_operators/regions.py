"""Regions of images -> unit embeddings of a CLIP model.

Two ways. "roi" is RegionCLIP's (Zhong et al. 2022, arXiv:2112.09106), for CLIP ResNets: features
of stride 16 once per image, RoIAlign, last stage, attention pool. "crops" is for any model: each
box is resampled to the model's input size, at its own size and with context around it, as ViLD
(Gu et al. 2022, arXiv:2104.13921) does. Regions of many images share batches, whose size is
bounded by memory and not by how many regions an image has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from zs_operators.attention_pool import pool_first_query
from zs_operators.boxes import as_boxes, clip_to_image
from zs_operators.device import BatchBudget, default_batch_size, resolve_batch_size
from zs_operators.errors import InvalidInputError
from zs_operators.frames import as_pixels, make_frame
from zs_operators.roi_head import RoiMaps, last_stage
from zs_operators.stage_times import stage

if TYPE_CHECKING:
    import numpy as np
    import torch

    from zs_operators.clip import ClipModel
    from zs_operators.images import UprightImage

METHODS = ("auto", "roi", "crops")
CONTEXTS = (1.0, 1.5)
"""How much larger than the box its crops are; the embeddings of all are averaged (ViLD)."""

ROI_SHORTEST_PX, ROI_LONGEST_PX = 800, 1333
"""RegionCLIP's size of the image at test time, for models of 224 px or more."""

_CLIP_PX = 224  # the smallest input of published CLIP models
_FEATURE_STRIDE = 16
_PAD_TO_PX = 32
_ROIS_PER_CROP = 4  # a region of features costs about a quarter of a crop, in time and memory
_DECODE_TO_PX = 1024  # crops: JPEGs of twice this on the shorter side may be decoded smaller
_WHOLE_IMAGE_PIXELS = 2**22  # below this, an image is converted to float once, not per window


class RegionEncoder:
    """Embeds boxes of images.

    Args:
        clip: a loaded model
        region_embedding ("auto"): "roi", "crops", or "auto", which is "roi" for CLIP ResNets of
            224 px or more and "crops" for everything else. On ground-truth boxes of shapes scenes
            shapes-tiny (64 px, 2 x 2 grid) names 98 % with crops and 80 % with "roi"
        contexts ((1.0, 1.5)): sizes of the crops relative to the box; "crops" only
        batch_size ("auto"): crops, or four times as many regions of features, that go through
            the model together; lowered when memory runs out
        roi_size_px (None): (shortest, longest) side that images are resized to; "roi" only. None
            is 800 and 1333, less in proportion for models of less than 224 px

    Attributes:
        method: "roi" or "crops"
        reduce_to_px: what to pass to :func:`~zs_operators.images.read_image`
        budget: how many regions go through the model together

    Raises:
        InvalidInputError: for an unknown method, "roi" with another kind of model, or contexts
            below 1
    """

    def __init__(
        self,
        clip: ClipModel,
        region_embedding: str = "auto",
        *,
        contexts: Sequence[float] = CONTEXTS,
        batch_size: int | str = "auto",
        roi_size_px: tuple[int, int] | None = None,
    ) -> None:
        if region_embedding not in METHODS:
            raise InvalidInputError(
                f"region_embedding={region_embedding!r} must be one of {', '.join(METHODS)}"
            )
        has_roi = supports_roi(clip)
        if region_embedding == "roi" and not has_roi:
            raise InvalidInputError(
                f"region_embedding='roi' needs a CLIP ResNet such as RN50 or RegionCLIP, and "
                f"{clip.name!r} is {clip.architecture}; use 'crops' or 'auto'"
            )
        self.clip = clip
        if region_embedding == "auto":
            region_embedding = "roi" if has_roi and clip.image_size_px >= _CLIP_PX else "crops"
        self.method = region_embedding
        self.contexts = tuple(float(context) for context in contexts)
        if not self.contexts or not all(1 <= c < math.inf for c in self.contexts):
            raise InvalidInputError(f"contexts={contexts!r} must be one or more numbers >= 1")
        if roi_size_px is None:
            share = min(1.0, clip.image_size_px / _CLIP_PX)
            roi_size_px = (round(ROI_SHORTEST_PX * share), round(ROI_LONGEST_PX * share))
        self.roi_size_px = roi_size_px

        if batch_size == "auto":
            batch_size = default_batch_size(clip.device, clip.precision)
        batch_size = resolve_batch_size(batch_size)
        if self.method == "roi":
            batch_regions = batch_size * _ROIS_PER_CROP
            self.reduce_to_px = roi_size_px[0]
        else:
            batch_regions = max(1, batch_size // len(self.contexts))
            self.reduce_to_px = max(_DECODE_TO_PX, 4 * clip.image_size_px)
        self.budget = BatchBudget(batch_regions, what="regions", device=clip.device)

    def describe(self) -> dict[str, Any]:
        """Plain JSON that says how regions become embeddings."""
        if self.method == "roi":
            return {"method": "roi", "size_px": list(self.roi_size_px)}
        return {"method": "crops", "contexts": list(self.contexts)}

    def encode(
        self, images: Sequence[UprightImage | np.ndarray], boxes_px: Sequence[Any]
    ) -> tuple[torch.Tensor, list[int]]:
        """Embed the boxes of several images.

        Args:
            images: M upright images, or (H, W, 3) uint8 RGB arrays
            boxes_px: for each image (N_i, 4) ``x1, y1, x2, y2`` in pixels of the full-size upright
                image; see :func:`~zs_operators.boxes.select_usable`

        Returns:
            (N_1 + ... + N_M, D) float32 on the CPU, rows of unit length, image by image in the
            order of the boxes; and the M numbers N_i

        Raises:
            InvalidInputError: if a box is not finite, inverted, empty or outside its image, or
                there are not as many lists of boxes as images
        """
        import torch

        if len(images) != len(boxes_px):
            raise InvalidInputError(
                f"{len(images)} images need as many lists of boxes, not {len(boxes_px)}"
            )
        boxes = [
            _checked_boxes(*pair, i) for i, pair in enumerate(zip(images, boxes_px, strict=True))
        ]
        sizes = [len(one) for one in boxes]
        if not sum(sizes):
            return torch.empty(0, self.clip.dim), sizes
        owners = torch.tensor(sizes).cumsum(0)
        starts = [0, *owners.tolist()]
        source = _Source(_RoiImage if self.method == "roi" else _CropImage, self, images)

        def embed(part: range) -> torch.Tensor:
            samples = []
            at = part.start
            while at < part.stop:
                image = int(torch.searchsorted(owners, at, right=True))
                stop = min(part.stop, starts[image + 1])
                rows = boxes[image][at - starts[image] : stop - starts[image]]
                samples.append(source(image).sample(rows))
                at = stop
            if len(samples) == 1:
                return self._encode_samples(*samples[0])
            return self._encode_samples(*(torch.cat(kind) for kind in zip(*samples, strict=True)))

        with torch.no_grad():
            parts = [result for _, _, result in self.budget.run(embed, range(sum(sizes)))]
        return torch.cat(parts), sizes

    def _encode_samples(self, *samples: torch.Tensor) -> torch.Tensor:
        import torch.nn.functional as F

        if self.method == "roi":
            visual = self.clip.module.visual
            pooled = pool_first_query(visual.attnpool, last_stage(visual, *samples))
            return F.normalize(pooled.float(), dim=-1).cpu()
        (samples,) = (
            samples  # (N, K, 3, H, W): each crop's embedding has unit length before the mean
        )
        embeddings = self.clip.encode_images(samples.flatten(0, 1))
        if len(self.contexts) == 1:
            return embeddings
        return F.normalize(embeddings.unflatten(0, (-1, len(self.contexts))).mean(dim=1), dim=-1)


def supports_roi(clip: ClipModel) -> bool:
    """Whether the model is a CLIP ResNet with attention pooling."""
    from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet

    visual = clip.module.visual
    return isinstance(visual, ModifiedResNet) and isinstance(visual.attnpool, AttentionPool2d)


class _Source:
    """Images prepared one at a time: regions come in the order of their images."""

    def __init__(
        self, prepare: Callable[..., Any], encoder: RegionEncoder, images: Sequence[Any]
    ) -> None:
        self._prepare = prepare
        self._encoder = encoder
        self._images = images
        self._position: int | None = None
        self._prepared: Any = None

    def __call__(self, position: int) -> Any:
        if position != self._position:
            self._position, self._prepared = None, None  # make room first
            self._prepared = self._prepare(self._encoder, self._images[position])
            self._position = position
        return self._prepared


class _RoiImage:
    """Features of one image, from which RoIAlign takes regions."""

    def __init__(self, encoder: RegionEncoder, image: UprightImage | np.ndarray) -> None:
        import torch
        import torch.nn.functional as F

        clip = encoder.clip
        visual = clip.module.visual
        shortest, longest = encoder.roi_size_px
        frame = make_frame(image, shortest, longest)
        pixels = torch.from_numpy(frame.pixels).to(clip.device).permute(2, 0, 1)[None]
        rows, columns = pixels.shape[2:]
        scale = min(shortest / min(rows, columns), longest / max(rows, columns))
        height, width = (max(1, round(side * scale)) for side in (rows, columns))
        mean, std = (
            torch.tensor(clip.preprocessing[name], device=clip.device).view(1, 3, 1, 1)
            for name in ("mean", "std")
        )
        # normalised first: there are fewer pixels before than after
        pixels = pixels.float().div_(255).sub_(mean).div_(std)
        if (height, width) != (rows, columns):
            pixels = F.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
        # padded after normalising, so with the mean colour, as detectron2 does
        pixels = pixels.to(next(visual.parameters()).dtype)
        pixels = F.pad(pixels, (0, -width % _PAD_TO_PX, 0, -height % _PAD_TO_PX))
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        features = visual.layer3(visual.layer2(visual.layer1(visual.stem(pixels))))
        self._maps = RoiMaps(visual, features)
        self._scale = torch.tensor([width / frame.width_px, height / frame.height_px]).repeat(2)
        tokens = visual.attnpool.positional_embedding.shape[0] - 1
        self._side = 2 * round(tokens**0.5)

    def sample(self, boxes_px: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of N boxes, for a last stage that ends in a g x g grid."""
        return self._maps.sample(boxes_px * self._scale / _FEATURE_STRIDE, self._side)


class _CropImage:
    """Pixels of one image, from which RoIAlign resamples boxes: fractional and anti-aliased."""

    def __init__(self, encoder: RegionEncoder, image: UprightImage | np.ndarray) -> None:
        import torch

        pixels, self._width_px, self._height_px = as_pixels(image)
        if not pixels.flags.writeable:
            pixels = pixels.copy()
        self._contexts = encoder.contexts
        self._size = tuple(encoder.clip.preprocessing["size_px"])
        self._pixels = torch.from_numpy(pixels).to(encoder.clip.device).permute(2, 0, 1)
        self._scale = torch.tensor(
            [pixels.shape[1] / self._width_px, pixels.shape[0] / self._height_px]
        ).repeat(2)
        small = pixels.shape[0] * pixels.shape[1] <= _WHOLE_IMAGE_PIXELS
        self._whole = self._pixels.float().contiguous() if small else None

    def sample(self, boxes_px: torch.Tensor) -> tuple[torch.Tensor]:
        """(N, K, 3, H, W) uint8 crops of boxes, K contexts each, squashed to the model's size."""
        with stage("crops"):
            return (self._crops(boxes_px),)

    def _crops(self, boxes_px: torch.Tensor) -> torch.Tensor:
        import torch

        centre = (boxes_px[:, :2] + boxes_px[:, 2:]) / 2
        half = (boxes_px[:, 2:] - boxes_px[:, :2]) / 2
        grown = torch.stack(
            [torch.cat([centre - half * k, centre + half * k], dim=1) for k in self._contexts],
            dim=1,
        ).flatten(0, 1)
        grown = clip_to_image(grown, self._width_px, self._height_px)
        # the sum of centre and half rounds: a box of its own size is itself
        for k, context in enumerate(self._contexts):
            if context == 1:
                grown[k :: len(self._contexts)] = boxes_px
        boxes = grown * self._scale
        rows, columns = self._size
        sides = boxes[:, 2:] - boxes[:, :2]
        factors = (sides / sides.new_tensor([2 * columns, 2 * rows])).long().clamp(min=1)
        out = torch.empty(
            len(boxes), 3, rows, columns, dtype=torch.uint8, device=self._pixels.device
        )
        together = (factors == 1).all(dim=1) & (self._whole is not None)
        if together.any():
            mask = together.to(out.device)
            out[mask] = self._resample(self._whole, boxes[together])
        for row in (~together).nonzero().flatten().tolist():
            out[row] = self._resample_window(boxes[row], factors[row])[0]
        return out.unflatten(0, (len(boxes_px), -1))

    def _resample(self, pixels: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        from torchvision.ops import roi_align

        def sample(part: torch.Tensor) -> torch.Tensor:
            crops = roi_align(pixels[None], [part], self._size, sampling_ratio=0, aligned=True)
            return crops.round_().clamp_(0, 255).byte()

        return in_threads(sample, boxes.to(pixels.device))

    def _resample_window(self, box: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        """One box from the part of the image it covers, averaged down by whole factors first.

        RoIAlign takes a sample for every pixel and its table of them grows with the box; averaging
        keeps that within 4 x 4 samples a pixel of the crop.
        """
        import torch
        import torch.nn.functional as F

        left, top = (max(0, math.floor(v) - 1) for v in box[:2].tolist())
        right, bottom = (math.ceil(v) + 1 for v in box[2:].tolist())
        window = self._pixels[:, top:bottom, left:right]
        across, down = factors.tolist()
        if across > 1 or down > 1:
            # in stripes of whole cells: a float copy of the window could be four times the image
            rows = down * max(1, _WHOLE_IMAGE_PIXELS // (down * window.shape[2]))
            stripes = [
                F.avg_pool2d(stripe[None].float(), (down, across), ceil_mode=True)[0]
                for stripe in window.split(rows, dim=1)
            ]
            window = torch.cat(stripes, dim=1)
        origin = box.new_tensor([left, top]).repeat(2)
        scale = box.new_tensor([across, down]).repeat(2)
        return self._resample(window.float().contiguous(), ((box - origin) / scale)[None])


def in_threads(sample: Callable[[torch.Tensor], torch.Tensor], boxes: torch.Tensor) -> torch.Tensor:
    """``sample(boxes)``, split over processors: torchvision's RoIAlign uses one on a CPU."""
    import torch

    parts = min(torch.get_num_threads(), len(boxes))
    if boxes.device.type != "cpu" or parts < 2:
        return sample(boxes)
    with ThreadPoolExecutor(parts) as pool:
        return torch.cat(list(pool.map(sample, boxes.tensor_split(parts))))


def _checked_boxes(image: UprightImage | np.ndarray, boxes_px: Any, position: int) -> torch.Tensor:
    import torch

    boxes = as_boxes(boxes_px)
    _, width, height = as_pixels(image)
    clipped = clip_to_image(boxes, width, height)
    usable = torch.isfinite(boxes).all(1) & (clipped[:, 2:] > clipped[:, :2]).all(1)
    if not usable.all():
        row = int((~usable).nonzero()[0])
        raise InvalidInputError(
            f"box {row} of image {position} is {boxes[row].tolist()}, which covers nothing of "
            f"{width} x {height} px; leave such boxes out with boxes.select_usable()"
        )
    return clipped
