"""Networks of other packages in the place of segment_anything's: MobileSAM, SAM-HQ and SAM 2.1.

What a decoder needs besides the image's embedding travels in further channels of it, so that all
that keeps, batches and stores embeddings works with these as well. Each builder needs its package,
and none of them is ours to install.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from zs_operators.errors import MissingDependencyError

if TYPE_CHECKING:
    import torch


def build_mobile_sam(config: Mapping[str, Any] | None = None) -> torch.nn.Module:
    """MobileSAM (Zhang et al. 2023, arXiv:2306.14289): a TinyViT in the encoder's slot.

    Raises:
        MissingDependencyError: without the package ``mobile_sam``
    """
    package = _package("mobile_sam", "git+https://github.com/ChaoningZhang/MobileSAM.git")
    return package.sam_model_registry["vit_t"]()


def build_sam_hq_vit_tiny(config: Mapping[str, Any] | None = None) -> torch.nn.Module:
    """Light HQ-SAM. See :func:`build_sam_hq_vit_b`."""
    return _sam_hq("vit_tiny")


def build_sam_hq_vit_b(config: Mapping[str, Any] | None = None) -> torch.nn.Module:
    """HQ-SAM (Ke et al. 2023, arXiv:2306.01567): a further token that draws finer borders.

    Raises:
        MissingDependencyError: without the package ``segment_anything_hq``
    """
    return _sam_hq("vit_b")


def build_sam_hq_vit_l(config: Mapping[str, Any] | None = None) -> torch.nn.Module:
    """HQ-SAM with a larger encoder. See :func:`build_sam_hq_vit_b`."""
    return _sam_hq("vit_l")


def build_sam_hq_vit_h(config: Mapping[str, Any] | None = None) -> torch.nn.Module:
    """HQ-SAM with the largest encoder. See :func:`build_sam_hq_vit_b`."""
    return _sam_hq("vit_h")


def build_sam2_tiny(config: Mapping[str, Any] | None = None) -> torch.nn.Module:
    """SAM 2.1 (Ravi et al. 2024, arXiv:2408.00714) on single images.

    Raises:
        MissingDependencyError: without the package ``sam2``
    """
    return _sam2("t")


def build_sam2_small(config: Mapping[str, Any] | None = None) -> torch.nn.Module:
    """SAM 2.1 with a larger encoder. See :func:`build_sam2_tiny`."""
    return _sam2("s")


def build_sam2_base_plus(config: Mapping[str, Any] | None = None) -> torch.nn.Module:
    """SAM 2.1 with a larger encoder. See :func:`build_sam2_tiny`."""
    return _sam2("b+")


def build_sam2_large(config: Mapping[str, Any] | None = None) -> torch.nn.Module:
    """SAM 2.1 with the largest encoder. See :func:`build_sam2_tiny`."""
    return _sam2("l")


def _sam_hq(architecture: str) -> torch.nn.Module:
    from zs_operators.sam_hq import HqSam

    package = _package("segment_anything_hq", "segment-anything-hq")
    return HqSam(package.sam_model_registry[architecture]())


def _sam2(size: str) -> torch.nn.Module:
    from zs_operators.sam2_images import Sam2Images

    package = _package("sam2.build_sam", "sam2")
    name = f"configs/sam2.1/sam2.1_hiera_{size}.yaml"
    return Sam2Images(package.build_sam2(name, device="cpu", apply_postprocessing=False))


def _package(name: str, install: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingDependencyError(
            f"this model needs the package {name.partition('.')[0]!r}: pip install {install}"
        ) from error
