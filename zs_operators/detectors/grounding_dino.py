"""Grounding DINO: prompts are joined to one text, ``cat. dog.``, as many as fit at a time.

The score of a prompt is the highest of its tokens, as transformers has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zs_operators.detectors.hugging_face_base import HuggingFaceDetector
from zs_operators.errors import InvalidInputError


class GroundingDino(HuggingFaceDetector):
    """See :mod:`zs_operators.detectors.grounding_dino`."""

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
