"""CLIP's attention pool for the one query that is used, at a thirtieth of the cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from open_clip.modified_resnet import AttentionPool2d


def pool_first_query(pool: AttentionPool2d, features: torch.Tensor) -> torch.Tensor:
    """What ``pool(features)`` gives, up to rounding.

    The pool attends from every position and returns the first. For a single query ``q`` the keys
    need not be computed: ``q · (W x) = (Wᵀ q) · x``; and as the attention sums to one, the values
    can be projected after they are averaged. That leaves one vector a head to project instead of
    every position. The bias of the keys adds the same to every score, so softmax removes it.

    Args:
        pool: CLIP's, of a ResNet
        features: (N, C, g, g), of the grid the pool was trained on

    Returns:
        (N, D) in the features' dtype
    """
    import torch

    heads = pool.num_heads
    x = features.flatten(2).transpose(1, 2)  # (N, g·g, C)
    x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1)
    x = x + pool.positional_embedding.to(x.dtype)
    n, _, channels = x.shape
    head_dim = channels // heads

    # 1. one query a head: (heads, N, head_dim)
    query = pool.q_proj(x[:, 0]).view(n, heads, head_dim).transpose(0, 1) * head_dim**-0.5
    # 2. carried to the space of x by each head's keys: (N, heads, C)
    carried = (query @ pool.k_proj.weight.view(heads, head_dim, channels)).transpose(0, 1)
    # 3. attention over the positions: (N, heads, g·g + 1)
    attention = (carried @ x.transpose(1, 2)).float().softmax(dim=-1).to(x.dtype)
    # 4. average, then project with each head's values: (heads, N, head_dim)
    averaged = (attention @ x).transpose(0, 1)
    weight = pool.v_proj.weight.view(heads, head_dim, channels)
    values = averaged @ weight.transpose(1, 2)
    values = values.transpose(0, 1).reshape(n, channels) + pool.v_proj.bias
    return pool.c_proj(values)
