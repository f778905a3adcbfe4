"""OWL-ViT and OWLv2: every prompt is a query of its own, and boxes do not depend on prompts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from zs_operators.detectors.hugging_face_base import HuggingFaceDetector
from zs_operators.detectors.padded_prompts import encode_padded, too_long

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from zs_operators.frames import Frame


class Owl(HuggingFaceDetector):
    """See :mod:`zs_operators.detectors.owl`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.has_objectness = hasattr(self.module, "objectness_head")
        self._context = int(self.module.config.text_config.max_position_embeddings)

    def too_long(self, prompts: Sequence[str]) -> list[str]:
        return too_long(self._tokenizer, prompts, self._context)

    def _tokens(self, prompts: list[str]) -> dict[str, torch.Tensor]:
        return encode_padded(self._tokenizer, prompts, self._context, self.device)

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
