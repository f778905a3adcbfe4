"""OWL-ViT, OWLv2 and Grounding DINO of Hugging Face's ``transformers`` as text detectors.

>>> detector = load_hugging_face(Path("owlv2-base-patch16-ensemble"))
>>> detector.find([pixels], ["a photo of a cat"])[0].boxes_px  # (N, 4), best first
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zs_operators.detectors.hugging_face_files import (
    FAMILIES,
    describe_folder,
    read_model_type,
    require_transformers,
    revision_of,
    weights_of,
)
from zs_operators.detectors.text_detector import FoundBoxes, TextDetector
from zs_operators.device import resolve_device, resolve_precision, torch_dtype
from zs_operators.errors import InvalidInputError, WeightsError
from zs_operators.frames import Frame, make_frame

if TYPE_CHECKING:
    import numpy as np
    import torch

_CPU_BATCH_SIZE, _CUDA_BATCH_SIZE = 1, 8
_AGNOSTIC_PROMPT = "object"


def load_hugging_face(
    folder: Path, *, name: str | None = None, device: str = "auto", precision: str = "auto"
) -> HuggingFaceDetector:
    """Load a zero-shot detector from a folder; code beside the weights is never run.

    Args:
        folder: with ``config.json``, ``*.safetensors`` and the files of its processor
        name (None): what to call it; None is the folder's name
        device ("auto"): see :func:`zs_operators.device.resolve_device`
        precision ("auto"): of the matrix products; "auto" is fp32. Scores are always fp32

    Raises:
        MissingDependencyError: if ``transformers`` is not installed
        WeightsError: if the folder holds no such model, or not all of it
        DeviceError: if the device is not there
    """
    name = name or folder.name
    require_transformers(name)
    family = read_model_type(folder)
    weights_of(folder)
    device = resolve_device(device)
    precision = "fp32" if precision == "auto" else resolve_precision(precision, device)
    import torch
    import transformers

    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = transformers.AutoProcessor.from_pretrained(folder, **options)
        module, loading = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
        raise WeightsError(f"folder {str(folder)!r} cannot be loaded: {error}") from error
    missing = sorted(loading["missing_keys"])
    if missing:
        raise WeightsError(
            f"folder {str(folder)!r} lacks {len(missing)} tensors of its model ({missing[0]}, …)"
        )
    module = module.to(torch.float32).to(device).eval().requires_grad_(False)
    make = _Owl if family.startswith("owl") else _GroundingDino
    return make(module, processor, folder, name=name, family=family, device=device,
                precision=precision)  # fmt: skip


class HuggingFaceDetector(TextDetector):
    """What the families have in common; made by :func:`load_hugging_face`.

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
        self._revision = revision_of(folder)
        self._shortest_px, self._longest_px = _input_size(self._image_processor, family)
        self.reduce_to_px = self._shortest_px
        self._encoded: tuple[tuple[str, ...], Any] = ((), None)

    def identity(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "architecture": self.family,
            "weights_sha256": self._weights["sha256"],
            "revision": self._revision,
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


class _Owl(HuggingFaceDetector):
    """OWL-ViT and OWLv2: every prompt is a query of its own, boxes do not depend on prompts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.has_objectness = hasattr(self.module, "objectness_head")
        self._context = int(self.module.config.text_config.max_position_embeddings)

    def too_long(self, prompts: Sequence[str]) -> list[str]:
        lengths = [len(ids) for ids in self._tokenizer(list(prompts))["input_ids"]]
        return [p for p, length in zip(prompts, lengths, strict=True) if length > self._context]

    def _tokens(self, prompts: list[str]) -> dict[str, torch.Tensor]:
        encoded = self._tokenizer(
            prompts,
            padding="max_length",
            max_length=self._context,
            truncation=True,
            return_tensors="pt",
        )
        return {key: encoded[key].to(self.device) for key in ("input_ids", "attention_mask")}

    def _forward(self, batch: Any, tokens: Any) -> Iterator[Any]:
        import torch

        count = len(batch["pixel_values"])
        repeated = {key: value.repeat(count, 1) for key, value in tokens.items()}
        output = self.module(pixel_values=batch["pixel_values"], **repeated)
        scores = output.logits.float().sigmoid()
        if self.has_objectness:
            objectness = output.objectness_logits.float().sigmoid()
            scores = torch.cat([scores, objectness.reshape(*scores.shape[:2], 1)], dim=2)
        yield output.pred_boxes, scores, list(range(len(tokens["input_ids"])))

    def _scale(self, frame: Frame) -> torch.Tensor:
        import torch

        if self.family != "owlv2":
            return super()._scale(frame)
        # OWLv2 pads to a square, at the right or below
        rows, columns = frame.pixels.shape[:2]
        side = max(rows, columns)
        scale = [side * frame.width_px / columns, side * frame.height_px / rows]
        return torch.tensor(scale, dtype=torch.float32).repeat(2)


class _GroundingDino(HuggingFaceDetector):
    """Grounding DINO: prompts are joined to one text, ``cat. dog.``, as many as fit at a time.

    The score of a prompt is the highest of its tokens, as transformers has it.
    """

    def _tokens(
        self, prompts: list[str]
    ) -> list[tuple[dict[str, Any], list[list[int]], list[int]]]:
        """Of each text: its tokens, which of them each of its prompts has, and which prompts."""
        # A full stop ends a prompt, and the model was trained on lower case
        texts = [" ".join(text.lower().replace(".", " ").split()) or "object" for text in prompts]
        lengths = [
            len(ids) + 1 for ids in self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        ]
        room = int(self.module.config.max_text_len) - 2
        for prompt, length in zip(prompts, lengths, strict=True):
            if length > room:
                raise InvalidInputError(
                    f"the prompt {prompt[:40]!r}… has {length} tokens, and {self.name!r} reads "
                    f"{room} at most: shorten it"
                )
        parts: list[list[int]] = []
        left = 0
        for number, length in enumerate(lengths):
            if length > left:
                parts.append([])
                left = room
            parts[-1].append(number)
            left -= length
        return [(*self._joined([texts[i] for i in part]), part) for part in parts]

    def _joined(self, texts: list[str]) -> tuple[dict[str, Any], list[list[int]]]:
        encoded = self._tokenizer(
            ". ".join(texts) + ".",
            return_tensors="pt",
            return_token_type_ids=True,
            return_offsets_mapping=True,
        )
        offsets = encoded.pop("offset_mapping")[0].tolist()
        spans, start = [], 0
        for text in texts:
            stop = start + len(text)
            spans.append([i for i, (a, b) in enumerate(offsets) if a < b and start <= a < stop])
            start = stop + len(". ")
        return {key: value.to(self.device) for key, value in encoded.items()}, spans

    def _forward(self, batch: Any, tokens: Any) -> Iterator[Any]:
        import torch

        count = len(batch["pixel_values"])
        for encoded, spans, part in tokens:
            repeated = {key: value.repeat(count, 1) for key, value in encoded.items()}
            output = self.module(**batch, **repeated)
            probabilities = output.logits.float().sigmoid()
            scores = [
                probabilities[..., span].amax(dim=-1)
                if span
                else torch.zeros_like(probabilities[..., 0])
                for span in spans
            ]
            yield output.pred_boxes, torch.stack(scores, dim=-1), part


def _input_size(image_processor: Any, family: str) -> tuple[int, int | None]:
    """Sides in pixels that an image processor resizes to: shorter, and longer if it has a limit."""
    size = {key: value for key, value in dict(image_processor.size).items() if value is not None}
    if "height" in size:
        side = int(max(size["height"], size["width"]))
        # What is padded to a square first must not be long
        return side, side if family == "owlv2" else None
    return int(size.get("shortest_edge", 800)), size.get("longest_edge")
