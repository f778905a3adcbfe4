"""Segment Anything: an image embedded once, any number of prompts decoded from it.

>>> sam = load_sam("sam-vit-b")
>>> (embedding,) = sam.encode([sam.frame(read_image(path))])
>>> for chunk in sam.decode(embedding, Prompts(boxes_px=boxes)):
...     chunk.logits, chunk.predicted_iou  # (P, 4, h, w), (P, 4)

Kirillov et al. 2023, arXiv:2304.02643. The networks are segment_anything's; frames, prompts and
masks equal those of its ``SamPredictor``, without its full-size float masks and its asserts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zs_operators.device import (
    BatchBudget,
    resolve_batch_size,
    resolve_device,
    resolve_precision,
    torch_dtype,
)
from zs_operators.errors import InvalidInputError
from zs_operators.frames import as_pixels
from zs_operators.sam_loading import DEFAULT_SAM, build_sam, plan_sam

if TYPE_CHECKING:
    import numpy as np
    import torch
    from segment_anything.modeling import Sam

    from zs_operators.images import UprightImage
    from zs_operators.weights_plan import WeightsPlan

__all__ = ["DEFAULT_SAM", "Decoded", "Prompts", "SamEmbedding", "SamFrame", "SamModel", "load_sam"]

SINGLE_MASK = 0
"""The mask for prompts that mean one thing, such as a box; the others go from part to whole."""

_CPU_PROMPTS = 4  # 1.6 times as fast as 50 at once: the copies of the embedding stay in the cache
_CUDA_PROMPTS = 64
_CUDA_IMAGES = 4
_SMALL = 5_000_000  # parameters; encoders below gain nothing from reduced precision


@dataclass(frozen=True)
class SamFrame:
    """One image as the encoder takes it, before normalisation and padding.

    Attributes:
        pixels: (h, w, 3) uint8 RGB; its longer side is the encoder's
        width_px, height_px: of the full-size upright image
    """

    pixels: np.ndarray
    width_px: int
    height_px: int


@dataclass(frozen=True)
class SamEmbedding:
    """What the encoder knows of one image.

    Attributes:
        features: (C, h, w) on the model's device, float32
        width_px, height_px: of the full-size upright image
        frame_size: (rows, columns) of the image in the encoder's square input, without padding
    """

    features: torch.Tensor
    width_px: int
    height_px: int
    frame_size: tuple[int, int]


@dataclass(frozen=True)
class Prompts:
    """P prompts for one image, in pixels of the full-size upright image.

    Attributes:
        boxes_px: (P, 4) ``x1, y1, x2, y2``, or None
        points_px: (P, K, 2) ``x, y``, or None; with boxes too, both count
        point_labels: (P, K) 1 on the object, 0 not on it; None is all on it
    """

    boxes_px: Any = None
    points_px: Any = None
    point_labels: Any = None

    def __len__(self) -> int:
        return len(self.points_px if self.boxes_px is None else self.boxes_px)

    def __getitem__(self, part: slice) -> Prompts:
        values = (self.boxes_px, self.points_px, self.point_labels)
        return Prompts(*(None if value is None else value[part] for value in values))


@dataclass(frozen=True)
class Decoded:
    """Masks of some consecutive prompts.

    Attributes:
        start: position of the first of them
        logits: (P, 4, h, w) float32 at the decoder's size; above 0 is the mask. Mask 0 is for
            prompts that mean one thing; 1 to 3 are a part, a larger part and the whole
        raw_iou: (P, 4) float32, the model's guess at each mask's IoU, an unbounded regression:
            compare masks by it, because many good ones are above 1
    """

    start: int
    logits: torch.Tensor
    raw_iou: torch.Tensor

    @property
    def predicted_iou(self) -> torch.Tensor:
        """(P, 4) float32 in [0, 1]."""
        return self.raw_iou.clamp(0, 1)


def load_sam(
    model: str | Path | SamModel = DEFAULT_SAM,
    weights: str | Path | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
    prompt_chunk: int | str = "auto",
    allow_download: bool = True,
) -> SamModel:
    """Load a Sam.

    Args:
        model: a name of ``models("sam")``, "shapes-tiny", a local folder with ``config.json`` and
            ``model.safetensors``, or a loaded model, returned as it is
        weights (None): "SA_1B", a local file or folder, "random", or None for the model's own
        device ("auto"): see :func:`zs_operators.device.resolve_device`
        precision ("auto"): of the image encoder; prompts and masks are always in float32
        prompt_chunk ("auto"): prompts decoded together; lowered when memory runs out
        allow_download (True): whether weights that are not on this machine may be downloaded

    Raises:
        UnknownModelError, WeightsError, OfflineError, DeviceError, InvalidInputError
    """
    if isinstance(model, SamModel):
        if weights is not None:
            raise InvalidInputError("weights cannot be given with a loaded model")
        return model
    device = resolve_device(device)
    module, plan = build_sam(plan_sam(model, weights), allow_download=allow_download)
    return SamModel(module, plan, device=device, precision=precision, prompt_chunk=prompt_chunk)


class SamModel:
    """A Sam on a device.

    Args:
        module: ``segment_anything.modeling.Sam``, or one with another encoder in its slot
        plan: where its weights come from
        device, precision: where, and in which precision its encoder runs; "auto" is fp32 for
            small encoders, else see :func:`zs_operators.device.resolve_precision`
        prompt_chunk ("auto"): prompts decoded together

    Attributes:
        reduce_to_px: what to pass to :func:`~zs_operators.images.read_image`
        batch_size: images the encoder takes together for ``batch_size="auto"``; 1 on a CPU, where
            more are no faster
    """

    def __init__(
        self,
        module: Sam,
        plan: WeightsPlan,
        *,
        device: str = "cpu",
        precision: str = "fp32",
        prompt_chunk: int | str = "auto",
    ) -> None:
        from zs_operators.sam_attention import use_fused_attention

        self.plan = plan
        self.name = plan.model
        self.device = device
        encoder = module.image_encoder
        if precision == "auto" and sum(p.numel() for p in encoder.parameters()) < _SMALL:
            precision = "fp32"
        self.precision = resolve_precision(precision, device)
        self.module = module.to(device).eval().requires_grad_(False)
        use_fused_attention(encoder)
        encoder.to(torch_dtype(self.precision))
        self.size_px = int(encoder.img_size)
        self.reduce_to_px = self.size_px
        on_cuda = device.startswith("cuda")
        self.batch_size = _CUDA_IMAGES if on_cuda else 1
        if prompt_chunk == "auto":
            prompt_chunk = _CUDA_PROMPTS if on_cuda else _CPU_PROMPTS
        self._prompt_chunk = resolve_batch_size(prompt_chunk, device)
        self._positions = self.module.prompt_encoder.get_dense_pe()

    def describe(self) -> dict[str, Any]:
        """Plain JSON that says which model made masks, and how."""
        import torch

        return {
            "model": self.name,
            "architecture": self.plan.architecture,
            "weights": self.plan.to_dict(),
            "size_px": self.size_px,
            "device": self.device,
            "precision": self.precision,
            "versions": {"torch": str(torch.__version__)},
        }

    def identity(self) -> dict[str, Any]:
        """What of the model decides an image's embedding."""
        return {
            "architecture": self.plan.architecture,
            "weights_sha256": self.plan.sha256,
            "precision": self.precision,
            "size_px": self.size_px,
        }

    def frame(self, image: UprightImage | np.ndarray) -> SamFrame:
        """Resize an image for the encoder; safe to call from many threads.

        Args:
            image: an upright image, or (H, W, 3) uint8 RGB, which is taken to be full-size

        Raises:
            InvalidInputError: if the image is not (H, W, 3) uint8 or is empty
        """
        import numpy as np
        from PIL import Image

        pixels, width, height = as_pixels(image)
        rows, columns = self.frame_size(width, height)
        if pixels.shape[:2] != (rows, columns):
            # as SamPredictor does, through Pillow
            resized = Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BILINEAR)
            pixels = np.array(resized)
        return SamFrame(pixels, width, height)

    def frame_size(self, width_px: int, height_px: int) -> tuple[int, int]:
        """(rows, columns) that an image of this size covers of the encoder's square input."""
        if getattr(self.module, "squashes", False):
            return self.size_px, self.size_px
        scale = self.size_px / max(width_px, height_px)
        return max(1, int(height_px * scale + 0.5)), max(1, int(width_px * scale + 0.5))

    def image_budget(self) -> BatchBudget:
        """How many images the encoder may take together."""
        return BatchBudget(self.batch_size, what="images to encode", device=self.device)

    def prompt_budget(self) -> BatchBudget:
        """How many prompts may be decoded together."""
        return BatchBudget(self._prompt_chunk, what="prompts", device=self.device)

    def encode(
        self, frames: Sequence[SamFrame], budget: BatchBudget | None = None
    ) -> list[SamEmbedding]:
        """The embedding of each image: the expensive step.

        Args:
            frames: of the images
            budget (None): that of earlier calls, which knows what fits
        """
        import torch

        budget = budget or self.image_budget()
        found: list[SamEmbedding] = []
        with torch.no_grad():
            for start, stop, features in budget.run(self._encode, frames):
                found += [
                    SamEmbedding(one, frame.width_px, frame.height_px, frame.pixels.shape[:2])
                    for frame, one in zip(frames[start:stop], features, strict=True)
                ]
        return found

    def decode(
        self,
        embedding: SamEmbedding,
        prompts: Prompts,
        budget: BatchBudget | None = None,
        *,
        then: Callable[[Decoded], Any] | None = None,
    ) -> Iterator[Any]:
        """Masks of prompts, a chunk at a time.

        Args:
            embedding: of the image
            prompts: all with the same number of points
            budget (None): that of earlier calls, which knows what fits
            then (None): what is made of each :class:`Decoded`, and yielded in its place; called
                again with fewer prompts if memory runs out in it

        Raises:
            InvalidInputError: if prompts are of a wrong shape or there are neither boxes nor points
        """
        prompts = self._checked(prompts)
        budget = budget or self.prompt_budget()

        def decode(rows: range) -> Any:
            some = prompts[rows.start : rows.stop]
            found = Decoded(rows.start, *self._decode(embedding, some))
            return found if then is None else then(found)

        for start in range(0, len(prompts), self._prompt_chunk):
            part = range(len(prompts))[start : start + self._prompt_chunk]
            for _, _, found in budget.each(decode, part):
                yield found

    def _encode(self, frames: Sequence[SamFrame]) -> torch.Tensor:
        import torch

        encoder = self.module.image_encoder
        dtype = next(encoder.parameters()).dtype
        batch = torch.zeros(len(frames), 3, self.size_px, self.size_px, device=self.device)
        for row, frame in enumerate(frames):
            pixels = torch.from_numpy(frame.pixels).to(self.device).permute(2, 0, 1).float()
            rows, columns = frame.pixels.shape[:2]
            # padded after normalising, so with the mean colour
            batch[row, :, :rows, :columns] = (pixels - self.module.pixel_mean) / (
                self.module.pixel_std
            )
        return encoder(batch.to(dtype)).float()

    def _decode(
        self, embedding: SamEmbedding, prompts: Prompts
    ) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        rows, columns = embedding.frame_size
        # from the image's pixels to the encoder's frame
        scale = torch.tensor(
            [columns / embedding.width_px, rows / embedding.height_px],
            dtype=torch.float64,
            device=self.device,
        )
        points = boxes = None
        if prompts.points_px is not None:
            points = ((prompts.points_px * scale).float(), prompts.point_labels)
        if prompts.boxes_px is not None:
            boxes = (prompts.boxes_px * scale.repeat(2)).float()
        with torch.no_grad():
            sparse, dense = self.module.prompt_encoder(points=points, boxes=boxes, masks=None)
            return self.module.mask_decoder.predict_masks(
                image_embeddings=embedding.features[None],
                image_pe=self._positions,
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
            )

    def _checked(self, prompts: Prompts) -> Prompts:
        import torch

        boxes, points, labels = (
            None if value is None else torch.as_tensor(value, dtype=dtype, device=self.device)
            for value, dtype in (
                (prompts.boxes_px, torch.float64),
                (prompts.points_px, torch.float64),
                (prompts.point_labels, torch.int64),
            )
        )
        # without a prompt the decoder would return a mask of nothing in particular
        if boxes is None and points is None:
            raise InvalidInputError("there is nothing to segment: give boxes_px or points_px")
        if boxes is not None and (boxes.ndim != 2 or boxes.shape[1] != 4):
            raise InvalidInputError(f"boxes_px must be (P, 4), not {tuple(boxes.shape)}")
        if points is not None:
            if points.ndim != 3 or points.shape[2] != 2:
                raise InvalidInputError(f"points_px must be (P, K, 2), not {tuple(points.shape)}")
            if labels is None:
                labels = torch.ones(points.shape[:2], dtype=torch.int64, device=self.device)
            if labels.shape != points.shape[:2]:
                raise InvalidInputError(
                    f"point_labels must be {tuple(points.shape[:2])}, one for each point, not "
                    f"{tuple(labels.shape)}"
                )
            if boxes is not None and len(boxes) != len(points):
                raise InvalidInputError(
                    f"{len(boxes)} boxes and points of {len(points)} prompts do not go together"
                )
        return replace(prompts, boxes_px=boxes, points_px=points, point_labels=labels)
