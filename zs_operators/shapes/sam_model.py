"""The architecture of shapes-sam: segment_anything's Sam with a small convolutional encoder.

Prompt encoder, mask decoder, SamPredictor and SamAutomaticMaskGenerator are Meta's own code, only
narrower; the encoder takes the ViT's slot, as in MobileSAM.
"""

from __future__ import annotations

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock

CONFIG = {
    "architecture": "zs_operators.shapes.sam_model:build_shapes_sam",
    "image_size_px": 256,
    "stride_px": 8,
    "prompt_dim": 64,
    "encoder_channels": [16, 32, 64, 96],
    "transformer_depth": 2,
    "transformer_heads": 4,
    "transformer_mlp_dim": 256,
    "mask_in_channels": 8,
    "iou_head_hidden_dim": 64,
}


def build_shapes_sam(config: dict | None = None) -> Sam:
    """A randomly initialised small Sam; input images RGB 0-255, longest side 256 px.

    Args:
        config: values that replace those of ``CONFIG``; default none.

    Returns:
        ``segment_anything.modeling.Sam`` in training mode; embeddings are (B, 64, 32, 32).
    """
    c = {**CONFIG, **(config or {})}
    size, dim = c["image_size_px"], c["prompt_dim"]
    cells = size // c["stride_px"]
    return Sam(
        image_encoder=ConvEncoder(size, c["encoder_channels"], dim),
        prompt_encoder=PromptEncoder(
            embed_dim=dim,
            image_embedding_size=(cells, cells),
            input_image_size=(size, size),
            mask_in_chans=c["mask_in_channels"],
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=c["transformer_depth"],
                embedding_dim=dim,
                mlp_dim=c["transformer_mlp_dim"],
                num_heads=c["transformer_heads"],
            ),
            transformer_dim=dim,
            iou_head_depth=3,
            iou_head_hidden_dim=c["iou_head_hidden_dim"],
        ),
    )


class ConvEncoder(nn.Module):
    """(B, 3, S, S) normalised pixels to (B, out_dim, S / 8, S / 8), with context from S / 16."""

    def __init__(self, image_size_px: int, channels: list[int], out_dim: int) -> None:
        super().__init__()
        thin, middle, fine, coarse = channels
        self.img_size = image_size_px  # SamPredictor and Sam.preprocess read it
        self.stem = nn.Sequential(_conv(3, thin), _conv(thin, middle), _conv(middle, fine))
        self.fine = nn.Sequential(BasicBlock(fine, fine), BasicBlock(fine, fine))
        self.coarse = nn.Sequential(
            _conv(fine, coarse), BasicBlock(coarse, coarse), BasicBlock(coarse, coarse)
        )
        self.lateral = nn.Conv2d(fine, out_dim, 1)
        self.top = nn.Conv2d(coarse, out_dim, 1)
        self.out = nn.Sequential(
            nn.Conv2d(out_dim, out_dim, 3, padding=1, bias=False), LayerNorm2d(out_dim)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.fine(self.stem(x))
        coarse = self.top(self.coarse(fine))
        return self.out(self.lateral(fine) + F.interpolate(coarse, scale_factor=2.0))


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    """Halve the resolution."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
