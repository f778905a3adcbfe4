"""What the zero-shot detectors of Hugging Face's ``transformers`` have in common."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zs_operators.detectors.hugging_face_files import FAMILIES, describe_folder
from zs_operators.detectors.text_detector import FoundBoxes, TextDetector
from zs_operators.device import torch_dtype
from zs_operators.frames import Frame, make_frame

if TYPE_CHECKING:
    import numpy as np
    import torch

_CPU_BATCH_SIZE, _CUDA_BATCH_SIZE = 1, 8
_AGNOSTIC_PROMPT = "object"


class HuggingFaceDetector(TextDetector):
    """A model and its processor; made by :func:`.hugging_face.load_hugging_face`.

    Images of more than four times the network's input are averaged down before it resizes them,
    so that no float copy of a large photo is made.
    """

    has_prompt_scores = True

    def __init__(
        self,
        module: torch.nn.Module,
        processor: Any,
        folder: Path,
        *,
        name: str,
        family: str,
        device: str,
        precision: str,
    ) -> None:
        self.module, self.name, self.family = module, name, family
        self.device, self.precision = device, precision
        self.templates = FAMILIES[family]
        self.batch_size = _CUDA_BATCH_SIZE if device.startswith("cuda") else _CPU_BATCH_SIZE
        self._image_processor, self._tokenizer = processor.image_processor, processor.tokenizer
        self._weights = describe_folder(folder, name)
        self._shortest_px, self._longest_px = _input_size(self._image_processor, family)
        self.reduce_to_px = self._shortest_px
        self._encoded: tuple[tuple[str, ...], Any] = ((), None)

    def identity(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "architecture": self.family,
            "weights_sha256": self._weights["sha256"],
            "precision": self.precision,
        }

    def describe(self) -> dict[str, Any]:
        import torch
        import transformers

        return {
            **self.identity(),
            "weights": self._weights,
            "device": self.device,
            "templates": list(self.templates),
            "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
        }

    def find(
        self,
        images: Sequence[np.ndarray],
        prompts: Sequence[str],
        *,
        floor: float = 0.0,
        limit: int = 300,
        agnostic: bool = False,
    ) -> list[FoundBoxes]:
        import torch

        frames = [make_frame(image, self._shortest_px, self._longest_px) for image in images]
        inputs = [self._pixels(frame) for frame in frames]
        # Padding to a common size changes boxes: only equal sizes share a forward pass
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for position, one in enumerate(inputs):
            groups[tuple(one["pixel_values"].shape)].append(position)
        found: list[FoundBoxes | None] = [None] * len(frames)
        use_objectness = agnostic and self.has_objectness
        if use_objectness:
            prompts = [_AGNOSTIC_PROMPT]
        for members in groups.values():
            batch = {
                key: torch.cat([inputs[i][key] for i in members]).to(self.device)
                for key in inputs[members[0]]
            }
            with torch.no_grad(), self._reduced_precision():
                raw = list(self._forward(batch, self._encode(prompts)))
            for row, position in enumerate(members):
                found[position] = self._select(
                    frames[position],
                    [(boxes[row], scores[row]) for boxes, scores, _ in raw],
                    [columns for _, _, columns in raw],
                    len(prompts),
                    floor=floor,
                    limit=limit,
                    by_objectness=use_objectness,
                )
        return found

    def prepare(self, prompts: Sequence[str]) -> None:
        self._encode(prompts)

    def _pixels(self, frame: Frame) -> dict[str, torch.Tensor]:
        # Named, because of an image three pixels high nobody could tell
        features = self._image_processor(
            images=[frame.pixels], return_tensors="pt", input_data_format="channels_last"
        )
        return {key: features[key] for key in ("pixel_values", "pixel_mask") if key in features}

    def _encode(self, prompts: Sequence[str]) -> Any:
        """Tokens of the prompts, which are the same all through a run."""
        if self._encoded[0] != tuple(prompts):
            self._encoded = (tuple(prompts), self._tokens(list(prompts)))
        return self._encoded[1]

    def _select(
        self,
        frame: Frame,
        raw: Sequence[tuple[torch.Tensor, torch.Tensor]],
        columns: Sequence[list[int]],
        num_prompts: int,
        *,
        floor: float,
        limit: int,
        by_objectness: bool,
    ) -> FoundBoxes:
        """The best boxes of one image, of one or more forward passes with parts of the prompts."""
        import torch
        from torchvision.ops import box_convert

        boxes = torch.cat([box_convert(one.float(), "cxcywh", "xyxy") for one, _ in raw]).cpu()
        parts = []
        for (_, given), part in zip(raw, columns, strict=True):
            given = given.float().cpu()
            # the last column is the objectness, of models that have it
            scores = torch.full((len(given), num_prompts + 1), torch.nan)
            scores[:, part] = given[:, : len(part)]
            if given.shape[1] > len(part):
                scores[:, -1] = given[:, -1]
            parts.append(scores)
        scores = torch.cat(parts)
        best = scores[:, :num_prompts].nan_to_num(-1).max(dim=1)
        rank = scores[:, -1] if by_objectness else best.values
        rows = (rank >= floor).nonzero().flatten()
        rows = rows[rank[rows].argsort(descending=True, stable=True)[:limit]]
        return FoundBoxes(
            (boxes[rows] * self._scale(frame)).numpy(),
            rank[rows].numpy(),
            best.indices[rows].numpy(),
            scores[rows, :num_prompts].numpy(),
            scores[rows, -1].numpy() if self.has_objectness else None,
        )

    def _scale(self, frame: Frame) -> torch.Tensor:
        """What relative corners are multiplied with, for pixels of the image that was given."""
        import torch

        return torch.tensor([frame.width_px, frame.height_px], dtype=torch.float32).repeat(2)

    def _tokens(self, prompts: list[str]) -> Any:
        raise NotImplementedError

    def _forward(
        self, batch: dict[str, torch.Tensor], tokens: Any
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, list[int]]]:
        """Of each part of the prompts: (B, Q, 4) relative boxes ``centre, size``, (B, Q, p [+ 1])
        scores of its p prompts [and objectness], and which prompts these are."""
        raise NotImplementedError

    def _reduced_precision(self) -> Any:
        import torch

        return torch.autocast(
            torch.device(self.device).type,
            dtype=torch_dtype(self.precision),
            enabled=self.precision != "fp32",
        )


def _input_size(image_processor: Any, family: str) -> tuple[int, int | None]:
    """Sides in pixels that an image processor resizes to: shorter, and longer if it has a limit."""
    size = {key: value for key, value in dict(image_processor.size).items() if value is not None}
    if "height" in size:
        side = int(max(size["height"], size["width"]))
        # What is padded to a square first must not be long
        return side, side if family == "owlv2" else None
    return int(size.get("shortest_edge", 800)), size.get("longest_edge")
