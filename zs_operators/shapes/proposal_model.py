"""The architecture of shapes-proposals: a small torchvision Faster R-CNN with one object class."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.resnet import BasicBlock

CONFIG = {
    "architecture": "zs_operators.shapes.proposal_model:build_shapes_proposer",
    "num_classes": 2,
    "stem_channels": [16, 32],
    "stage_channels": [48, 96],
    "fpn_channels": 64,
    "anchor_sizes_px": [[24, 34], [48, 68], [96, 136]],
    "anchor_aspect_ratios": [0.65, 1.0, 1.54],
    "box_head_width": 128,
    "proposals_per_image": 300,
    "min_size_px": 192,
    "max_size_px": 320,
}


def build_shapes_proposer(config: dict | None = None) -> FasterRCNN:
    """A randomly initialised Faster R-CNN that takes shapes scenes and knows "object" only.

    Args:
        config: values that replace those of ``CONFIG``; default none.

    Returns:
        torchvision ``FasterRCNN`` in training mode; input (3, H, W) RGB 0-1, label 1 = object.
    """
    c = {**CONFIG, **(config or {})}

    (thin, wide), (fine, coarse) = c["stem_channels"], c["stage_channels"]
    body = nn.Sequential(
        OrderedDict(
            stem=nn.Sequential(_conv(3, thin, 2), _conv(thin, wide, 2)),
            stride8=_block(wide, fine, 2),
            stride16=nn.Sequential(_block(fine, coarse, 2), BasicBlock(coarse, coarse)),
        )
    )
    channels = c["fpn_channels"]
    backbone = BackboneWithFPN(body, {"stride8": "0", "stride16": "1"}, [fine, coarse], channels)
    sizes = tuple(tuple(level) for level in c["anchor_sizes_px"])
    anchors = AnchorGenerator(sizes, (tuple(c["anchor_aspect_ratios"]),) * len(sizes))
    return FasterRCNN(
        backbone,
        min_size=c["min_size_px"],
        max_size=c["max_size_px"],
        rpn_anchor_generator=anchors,
        box_head=TwoMLPHead(channels * 7 * 7, c["box_head_width"]),
        box_predictor=FastRCNNPredictor(c["box_head_width"], c["num_classes"]),
        # With torchvision's 2000 proposals and 512 boxes an image, training is mostly RoIAlign.
        rpn_pre_nms_top_n_train=400,
        rpn_post_nms_top_n_train=200,
        rpn_post_nms_top_n_test=c["proposals_per_image"],
        box_batch_size_per_image=64,
    )


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _block(inputs: int, outputs: int, stride: int) -> BasicBlock:
    shortcut = nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
    )
    return BasicBlock(inputs, outputs, stride, shortcut)
