"""Prompts as text towers of a fixed length take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def encode_padded(
    tokenizer: Any, prompts: list[str], context: int, device: str
) -> dict[str, torch.Tensor]:
    """``input_ids`` and ``attention_mask``, (P, context) int64; what is longer is cut off."""
    encoded = tokenizer(
        prompts, padding="max_length", max_length=context, truncation=True, return_tensors="pt"
    )
    return {key: encoded[key].to(device) for key in ("input_ids", "attention_mask")}


def too_long(tokenizer: Any, prompts: Sequence[str], context: int) -> list[str]:
    """Those of more tokens than that."""
    lengths = [len(ids) for ids in tokenizer(list(prompts))["input_ids"]]
    return [text for text, length in zip(prompts, lengths, strict=True) if length > context]
