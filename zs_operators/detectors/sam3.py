"""SAM 3: every prompt is a concept, looked for on its own in the features of the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from zs_operators.detectors.hugging_face_base import HuggingFaceDetector
from zs_operators.detectors.padded_prompts import encode_padded, too_long

if TYPE_CHECKING:
    import torch


class Sam3(HuggingFaceDetector):
    """See :mod:`zs_operators.detectors.sam3`. Its masks are not kept."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._context = int(self.module.text_encoder.config.max_position_embeddings)

    def too_long(self, prompts: Sequence[str]) -> list[str]:
        return too_long(self._tokenizer, prompts, self._context)

    def _tokens(self, prompts: list[str]) -> dict[str, torch.Tensor]:
        return encode_padded(self._tokenizer, prompts, self._context, self.device)

    def _forward(self, batch: Any, tokens: Any) -> Iterator[Any]:
        from torchvision.ops import box_convert

        pixels = batch["pixel_values"]
        features = self.module.get_vision_features(pixel_values=pixels)
        for number in range(len(tokens["input_ids"])):
            repeated = {
                key: value[number : number + 1].repeat(len(pixels), 1)
                for key, value in tokens.items()
            }
            output = self.module(vision_embeds=features, **repeated)
            scores = output.pred_logits.float().sigmoid()
            if output.presence_logits is not None:
                scores = scores * output.presence_logits.float().sigmoid()
            boxes = box_convert(output.pred_boxes.float(), "xyxy", "cxcywh")
            yield boxes, scores[..., None], [number]
