"""SAM 2.1 on single images behind the interface of a Sam: its finer levels travel along."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as SAM 2 normalises
_CHANNELS = 256  # of the embedding
_FINEST = 4 * 4 * 32  # channels that the finest level has when it is folded; the middle one follows
_CORNERS = (2, 3)  # labels of a box's corners among points

# what serves video: memory of earlier frames, and pointers to objects
_OF_VIDEO = (
    "mask_downsample",
    "maskmem_tpos_enc",
    "memory_attention",
    "memory_encoder",
    "no_mem_pos_enc",
    "no_obj_embed_spatial",
    "no_obj_ptr",
    "obj_ptr_proj",
    "obj_ptr_tpos_proj",
)


class Sam2Images(nn.Module):
    """``sam2.modeling.sam2_base.SAM2Base`` as :class:`~zs_operators.sam.SamModel` takes one.

    Args:
        sam: its parts for single images are taken over

    Attributes:
        squashes: images are resized to the encoder's square, whatever their shape
    """

    squashes = True

    def __init__(self, sam: nn.Module) -> None:
        super().__init__()
        self.image_encoder = _Encoder(sam)
        self.prompt_encoder = _Prompts(sam.sam_prompt_encoder)
        self.mask_decoder = _Decoder(sam.sam_mask_decoder)
        for name, values in (("pixel_mean", _MEAN), ("pixel_std", _STD)):
            self.register_buffer(name, 255 * torch.tensor(values).view(3, 1, 1), False)

    def preprocess(self, pixels: torch.Tensor) -> torch.Tensor:
        """(3, side, side) pixels, normalised."""
        return (pixels - self.pixel_mean) / self.pixel_std

    def own_names(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A published state dict under the names of this module, without what serves video."""
        renamed = {}
        for name, tensor in state.items():
            part, _, rest = name.partition(".")
            if part in _OF_VIDEO:
                continue
            if part == "image_encoder":
                name = f"image_encoder.network.{rest}"
            elif part == "no_mem_embed":
                name = "image_encoder.no_mem_embed"
            elif part == "sam_prompt_encoder":
                name = f"prompt_encoder.network.{rest}"
            elif part == "sam_mask_decoder" and rest.startswith(("conv_s0.", "conv_s1.")):
                name = f"image_encoder.{rest}"
            elif part == "sam_mask_decoder":
                name = f"mask_decoder.network.{rest}"
            renamed[name] = tensor
        return renamed


class _Encoder(nn.Module):
    """Images -> (B, 256 + 512 + 256, h, w): the embedding, then two finer levels in channels."""

    def __init__(self, sam: nn.Module) -> None:
        super().__init__()
        self.network = sam.image_encoder
        self.img_size = sam.image_size
        self.no_mem_embed = sam.no_mem_embed
        self.conv_s0, self.conv_s1 = sam.sam_mask_decoder.conv_s0, sam.sam_mask_decoder.conv_s1
        del sam.sam_mask_decoder.conv_s0, sam.sam_mask_decoder.conv_s1

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        finest, middle, embedding = self.network(images)["backbone_fpn"]
        # a single image is a video's first frame, of which nothing is remembered
        embedding = embedding + self.no_mem_embed.view(1, -1, 1, 1)
        folded = [F.pixel_unshuffle(self.conv_s0(finest), 4)]
        folded.append(F.pixel_unshuffle(self.conv_s1(middle), 2))
        return torch.cat([embedding, *folded], dim=1)


class _Prompts(nn.Module):
    """The encoder of prompts, which SAM 2 gives a box as two points, before the others."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def get_dense_pe(self) -> torch.Tensor:
        return self.network.get_dense_pe()

    def forward(
        self,
        points: tuple[torch.Tensor, torch.Tensor] | None,
        boxes: torch.Tensor | None,
        masks: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if boxes is not None:
            corners = boxes.reshape(-1, 2, 2)
            labels = torch.tensor(_CORNERS, device=boxes.device).expand(len(boxes), 2)
            if points is not None:
                corners = torch.cat([corners, points[0]], dim=1)
                labels = torch.cat([labels, points[1]], dim=1)
            points = (corners, labels)
        return self.network(points=points, boxes=None, masks=masks)


class _Decoder(nn.Module):
    """The decoder of masks, given the finer levels that came with the embedding."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def predict_masks(
        self, image_embeddings: torch.Tensor, **prompts: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(P, 4, h, w) logits and (P, 4) predicted IoU of P prompts."""
        sizes = [_CHANNELS, _FINEST, image_embeddings.shape[1] - _CHANNELS - _FINEST]
        embedding, finest, middle = image_embeddings.split(sizes, dim=1)
        levels = [F.pixel_shuffle(finest, 4), F.pixel_shuffle(middle, 2)]
        logits, iou, _, _ = self.network.predict_masks(
            image_embeddings=embedding, repeat_image=True, high_res_features=levels, **prompts
        )
        return logits, iou
