"""CLIP ResNets on CPUs in bfloat16: activations and sums inside the convolutions."""

from __future__ import annotations

from functools import cache
from types import MethodType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def fuse_activations(visual: torch.nn.Module) -> int:
    """Makes the stem and every block of a ``ModifiedResNet`` use :func:`conv_relu`.

    Args:
        visual: changed in place, parameters and their names stay; other networks stay as they are

    Returns:
        how many blocks were changed
    """
    from open_clip.modified_resnet import Bottleneck, ModifiedResNet

    if not isinstance(visual, ModifiedResNet):
        return 0
    visual.stem = MethodType(_stem, visual)
    blocks = [module for module in visual.modules() if type(module) is Bottleneck]
    for block in blocks:
        block.forward = MethodType(_bottleneck, block)
    return len(blocks)


def conv_relu(
    conv: torch.nn.Conv2d,
    norm: torch.nn.Module,
    x: torch.Tensor,
    other: torch.Tensor | None = None,
) -> torch.Tensor:
    """``relu(norm(conv(x)) + other)``, in one pass over memory where oneDNN can.

    That is on CPUs in bfloat16, without gradients, after the norm was folded into the convolution;
    the sum is then rounded once instead of twice.
    """
    import torch

    if (
        x.dtype == torch.bfloat16
        and x.device.type == "cpu"
        and x.stride()[1::2] == (1, x.shape[1])  # channels last, which the fused sum needs
        and isinstance(norm, torch.nn.Identity)
        and not torch.is_grad_enabled()
        and _has_fused_convolutions()
    ):
        return _fused(conv, x, other)
    out = norm(conv(x))
    if other is not None:
        out += other
    return out.relu_()


def _fused(conv: torch.nn.Conv2d, x: torch.Tensor, other: torch.Tensor | None) -> torch.Tensor:
    import torch

    # private, but the only way to oneDNN's post-ops outside torch.compile
    op = torch.ops.mkldnn._convolution_pointwise
    weights = conv.weight, conv.bias
    geometry = conv.padding, conv.stride, conv.dilation, conv.groups
    if other is None:
        return op(x, *weights, *geometry, "relu", [], "")
    return op.binary(x, other, *weights, *geometry, "add", None, "relu", [], "")


@cache
def _has_fused_convolutions() -> bool:
    """Whether this build of torch has them and this processor runs them in bfloat16."""
    import torch

    conv = torch.nn.Conv2d(32, 32, 1).to(torch.bfloat16)
    x = torch.zeros(1, 2, 2, 32, dtype=torch.bfloat16).permute(0, 3, 1, 2)
    try:
        with torch.no_grad():
            _fused(conv, x, None), _fused(conv, x, x)
    except (AttributeError, RuntimeError):  # NotImplementedError too
        return False
    return True


def _stem(visual: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    for number in (1, 2, 3):
        x = conv_relu(getattr(visual, f"conv{number}"), getattr(visual, f"bn{number}"), x)
    return visual.avgpool(x)


def _bottleneck(block: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    out = conv_relu(block.conv1, block.bn1, x)
    out = conv_relu(block.conv2, block.bn2, out)
    other = x if block.downsample is None else block.downsample(x)
    return conv_relu(block.conv3, block.bn3, block.avgpool(out), other)
