"""RoIAlign and the last stage of CLIP ResNets, with what does not depend on the box done once.

RoIAlign (He et al. 2017, arXiv:1703.06870) takes means of interpolated features, whose weights sum
to one inside an image. So it commutes with convolutions of 1 x 1 and with what is affine after
them, and what the network averages afterwards may be averaged at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zs_operators.fused_resnet import conv_relu

if TYPE_CHECKING:
    import torch


class RoiMaps:
    """What the last stage reads of one image.

    Args:
        visual: a ``ModifiedResNet``
        features: (1, C, H, W), the third stage's output
    """

    def __init__(self, visual: torch.nn.Module, features: torch.Tensor) -> None:
        import torch

        block = visual.layer4[0]
        self._dtype = features.dtype
        reduced = block.bn1(block.conv1(features))
        layout = torch.channels_last if features.device.type == "cpu" else torch.contiguous_format
        # float32: RoIAlign has no bf16 kernel, and products of every size are slow in bf16
        self._reduced, self._features = (
            x.float().contiguous(memory_format=layout) for x in (reduced, features)
        )

    def sample(self, boxes: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Regions of the maps.

        Args:
            boxes: (N, 4) ``x1, y1, x2, y2`` in cells of the maps, inside the image
            side: cells a region has on each side, even

        Returns:
            what enters the second convolution of the last stage, (N, C', side, side), and its
            shortcut, (N, C, side / 2, side / 2); in the features' dtype, channels last
        """
        import torch

        if self._features.device.type == "cpu":
            sampled = self._sample_by_products(boxes, side)
        else:
            sampled = self._sample_by_torchvision(boxes.to(self._features.device), side)
        return tuple(x.to(self._dtype, memory_format=torch.channels_last) for x in sampled)

    def _sample_by_products(self, boxes: torch.Tensor, side: int) -> tuple[torch.Tensor, ...]:
        weights = [
            _axis_weights(boxes[:, axis::2], self._features.shape[3 - axis], side)
            for axis in (0, 1)
        ]
        pairs = [weight.unflatten(1, (-1, 2)).mean(dim=2) for weight in weights]
        return (
            _multiply(self._reduced, boxes, weights, self._dtype).relu_(),
            _multiply(self._features, boxes, pairs, self._dtype),
        )

    def _sample_by_torchvision(self, boxes: torch.Tensor, side: int) -> tuple[torch.Tensor, ...]:
        import torch.nn.functional as F
        from torchvision.ops import roi_align

        reduced, features = (
            roi_align(x, [boxes], side, sampling_ratio=0, aligned=True)
            for x in (self._reduced, self._features)
        )
        return reduced.relu_(), F.avg_pool2d(features, 2)


def last_stage(
    visual: torch.nn.Module, reduced: torch.Tensor, shortcut: torch.Tensor
) -> torch.Tensor:
    """(N, C, side / 2, side / 2): ``layer4`` of regions that :meth:`RoiMaps.sample` took."""
    block, *rest = visual.layer4
    out = block.avgpool(conv_relu(block.conv2, block.bn2, reduced))
    _, conv, norm = block.downsample  # the first averages, which has been done
    x = conv_relu(block.conv3, block.bn3, out, norm(conv(shortcut)))
    for block in rest:
        x = block(x)
    return x


def _axis_weights(spans: torch.Tensor, cells: int, side: int) -> torch.Tensor:
    """(N, side, cells): RoIAlign along one axis, as a matrix for each of N spans.

    torchvision's ``sampling_ratio=0, aligned=True``: as many samples a bin as cells it covers, each
    interpolated between the centres of two cells.
    """
    import torch

    start, size = spans[:, :1, None] - 0.5, (spans[:, 1:] - spans[:, :1])[..., None] / side
    counts = size.ceil().clamp(min=1)
    number = torch.arange(int(counts.max()))
    at = start + size * (torch.arange(side)[:, None] + (number + 0.5) / counts)
    at = at.clamp(0, cells - 1)[..., None]
    weights = (1 - (at - torch.arange(cells)).abs()).clamp(min=0)  # (N, side, samples, cells)
    weights = weights * (number < counts)[..., None]
    return weights.sum(dim=2) / counts


def _multiply(
    x: torch.Tensor, boxes: torch.Tensor, weights: Sequence[torch.Tensor], dtype: torch.dtype
) -> torch.Tensor:
    """RoIAlign as two products a box, of the cells it covers: a tenth of torchvision's time."""
    import torch

    cells = x[0].permute(1, 2, 0)  # (H, W, C)
    height, width, channels = cells.shape
    limits = boxes.new_tensor([width, height])
    first = (boxes[:, :2] - 0.5).floor().clamp(min=0).minimum(limits - 1).int().tolist()
    last = (boxes[:, 2:] + 0.5).ceil().clamp(min=1).minimum(limits).int().tolist()
    by_column, by_row = weights
    side = by_row.shape[1]
    out = torch.empty(len(boxes), side, side, channels, dtype=dtype)
    for i, ((left, top), (right, bottom)) in enumerate(zip(first, last, strict=True)):
        window = cells[top:bottom].flatten(1)[:, left * channels : right * channels]
        rows = (by_row[i, :, top:bottom] @ window).view(side, right - left, channels)
        out[i] = by_column[i, :, left:right] @ rows
    return out.permute(0, 3, 1, 2)
