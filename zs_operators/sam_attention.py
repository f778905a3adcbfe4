"""Attention of SAM's image encoder through torch's fused kernel: the same sums, less memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def use_fused_attention(encoder: torch.nn.Module) -> int:
    """Makes every attention of a ``ImageEncoderViT`` use ``scaled_dot_product_attention``.

    segment_anything 1.0 multiplies out the matrix of weights, 4,096 by 4,096 a head in global
    layers. The decomposed relative positions (Li et al. 2021, arXiv:2112.01526, section 4.1) become
    the bias of the fused kernel.

    Args:
        encoder: changed in place; encoders without such layers stay as they are

    Returns:
        how many layers were changed
    """
    from segment_anything.modeling.image_encoder import Attention

    layers = [module for module in encoder.modules() if type(module) is Attention]
    for layer in layers:
        layer.__class__ = _fused_class()
    return len(layers)


_BIAS_BYTES = 2**26  # of the position bias of queries that are attended together


def _fused_class() -> type:
    global _FusedAttention
    if _FusedAttention is None:
        from segment_anything.modeling.image_encoder import Attention

        class FusedAttention(Attention):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return _attend(self, x)

        _FusedAttention = FusedAttention
    return _FusedAttention


_FusedAttention: type | None = None


def _attend(layer: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """(B, H, W, C) tokens of windows or of the whole image -> the same shape."""
    import torch.nn.functional as F

    batch, height, width, _ = x.shape
    qkv = layer.qkv(x).view(batch, height * width, 3, layer.num_heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = qkv.unbind(0)
    if layer.use_rel_pos:
        out = _attend_with_positions(layer, query, key, value, (height, width))
    else:
        out = F.scaled_dot_product_attention(query, key, value)
    return layer.proj(out.transpose(1, 2).reshape(batch, height, width, -1))


def _attend_with_positions(
    layer: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    size: tuple[int, int],
) -> torch.Tensor:
    """(B, heads, H * W, C), some rows of queries at a time."""
    import torch
    import torch.nn.functional as F

    height, width = size
    by_row, by_column = _position_terms(layer, query, size)
    # the bias of all queries at once would be the largest tensor of the whole network
    bytes_a_row = query.shape[0] * query.shape[1] * width * height * width * query.element_size()
    step = max(1, _BIAS_BYTES // bytes_a_row)
    parts = []
    for row in range(0, height, step):
        bias = (
            by_row[:, :, row : row + step, :, :, None]
            + (by_column[:, :, row : row + step, :, None, :])
        )
        some = query[:, :, row * width : (row + step) * width]
        bias = bias.flatten(4).flatten(2, 3)
        parts.append(F.scaled_dot_product_attention(some, key, value, attn_mask=bias))
    return torch.cat(parts, 2)


def _position_terms(
    layer: torch.nn.Module, query: torch.Tensor, size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, heads, H, W, H) and (B, heads, H, W, W): each query with each row and each column."""
    import torch
    from segment_anything.modeling.image_encoder import get_rel_pos

    height, width = size
    grid = query.unflatten(2, size)
    rows = get_rel_pos(height, height, layer.rel_pos_h)
    columns = get_rel_pos(width, width, layer.rel_pos_w)
    by_row = torch.einsum("bnhwc,hkc->bnhwk", grid, rows)
    by_column = torch.einsum("bnhwc,wkc->bnhwk", grid, columns)
    return by_row, by_column
