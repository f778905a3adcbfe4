"""HQ-SAM behind the interface of a Sam: its early features travel with the embedding."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

_CHANNELS = 256  # of the embedding; what follows is for the further token
_FINER = 4  # how many times finer a grid the features of the further token have
_OF_ENCODER = ("compress_vit_feat", "embedding_encoder")


class HqSam(nn.Module):
    """segment_anything_hq's Sam as :class:`~zs_operators.sam.SamModel` takes one.

    Args:
        sam: its parts are taken over
    """

    def __init__(self, sam: nn.Module) -> None:
        super().__init__()
        self.image_encoder = _Encoder(sam.image_encoder, sam.mask_decoder)
        self.prompt_encoder = sam.prompt_encoder
        self.mask_decoder = _Decoder(sam.mask_decoder)
        self.register_buffer("pixel_mean", sam.pixel_mean, False)
        self.register_buffer("pixel_std", sam.pixel_std, False)

    def preprocess(self, pixels: torch.Tensor) -> torch.Tensor:
        """(3, h, w) pixels, normalised and padded to the encoder's square."""
        side = self.image_encoder.img_size
        pixels = (pixels - self.pixel_mean) / self.pixel_std
        return F.pad(pixels, (0, side - pixels.shape[-1], 0, side - pixels.shape[-2]))

    def own_names(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A published state dict under the names of this module."""
        renamed = {}
        for name, tensor in state.items():
            part, _, rest = name.partition(".")
            if part == "image_encoder":
                name = f"image_encoder.network.{rest}"
            elif part == "mask_decoder" and rest.startswith(_OF_ENCODER):
                name = f"image_encoder.{rest}"
            elif part == "mask_decoder":
                name = f"mask_decoder.network.{rest}"
            elif part in ("pixel_mean", "pixel_std"):
                continue
            renamed[name] = tensor
        return renamed


class _Encoder(nn.Module):
    """Images -> (B, 256 + 512, h, w): the embedding, then finer features in further channels."""

    def __init__(self, network: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.img_size = network.img_size
        # the decoder would compute these again for each prompt
        self.compress_vit_feat = decoder.compress_vit_feat
        self.embedding_encoder = decoder.embedding_encoder
        del decoder.compress_vit_feat, decoder.embedding_encoder

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        embedding, early = self.network(images)
        finer = self.embedding_encoder(embedding)
        finer = finer + self.compress_vit_feat(early[0].permute(0, 3, 1, 2))
        return torch.cat([embedding, F.pixel_unshuffle(finer, _FINER)], dim=1)


class _Decoder(nn.Module):
    """The decoder of masks; each is the sum of SAM's and the finer one, as HQ-SAM's default is."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def predict_masks(
        self, image_embeddings: torch.Tensor, **prompts: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(P, 4, h, w) logits and (P, 4) predicted IoU of P prompts."""
        embedding, folded = image_embeddings.split(
            [_CHANNELS, image_embeddings.shape[1] - _CHANNELS], dim=1
        )
        logits, iou = self.network.predict_masks(
            image_embeddings=embedding, hq_features=F.pixel_shuffle(folded, _FINER), **prompts
        )
        return logits[:, :-1] + logits[:, -1:], iou
