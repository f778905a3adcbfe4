"""OWL-ViT, OWLv2, Grounding DINO and SAM 3 of Hugging Face's ``transformers``, from a folder.

>>> detector = load_hugging_face(Path("owlv2-base-patch16-ensemble"))
>>> detector.find([pixels], ["a photo of a cat"])[0].boxes_px  # (N, 4), best first
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zs_operators.detectors.grounding_dino import GroundingDino
from zs_operators.detectors.hugging_face_base import HuggingFaceDetector
from zs_operators.detectors.hugging_face_files import (
    read_model_type,
    require_transformers,
    weights_of,
)
from zs_operators.detectors.owl import Owl
from zs_operators.detectors.sam3 import Sam3
from zs_operators.device import resolve_device, resolve_precision
from zs_operators.errors import WeightsError

#: ``model_type`` -> who runs it, and the classes of transformers that read it.
_FAMILIES: dict[str, tuple[type[HuggingFaceDetector], str, str]] = {
    "owlvit": (Owl, "AutoModelForZeroShotObjectDetection", "AutoProcessor"),
    "owlv2": (Owl, "AutoModelForZeroShotObjectDetection", "AutoProcessor"),
    "grounding-dino": (GroundingDino, "AutoModelForZeroShotObjectDetection", "AutoProcessor"),
    "mm-grounding-dino": (GroundingDino, "AutoModelForZeroShotObjectDetection", "AutoProcessor"),
    "sam3": (Sam3, "Sam3Model", "Sam3Processor"),
    # as published: the detector is a part of it
    "sam3_video": (Sam3, "Sam3Model", "Sam3Processor"),
}


def load_hugging_face(
    folder: Path, *, name: str | None = None, device: str = "auto", precision: str = "auto"
) -> HuggingFaceDetector:
    """Load a zero-shot detector from a folder; code beside the weights is never run.

    Args:
        folder: with ``config.json``, ``*.safetensors`` and the files of its processor
        name (None): what to call it; None is the folder's name
        device ("auto"): see :func:`zs_operators.device.resolve_device`
        precision ("auto"): of the matrix products; "auto" is fp32. Scores are always fp32

    Raises:
        MissingDependencyError: if ``transformers`` is not installed
        WeightsError: if the folder holds no such model, or not all of it
        DeviceError: if the device is not there
    """
    name = name or folder.name
    require_transformers(name)
    family = read_model_type(folder)
    weights_of(folder)
    device = resolve_device(device)
    precision = "fp32" if precision == "auto" else resolve_precision(precision, device)
    import torch
    import transformers

    run, model_class, processor_class = _FAMILIES[family]
    if not hasattr(transformers, model_class):
        raise WeightsError(
            f"transformers {transformers.__version__} has no {model_class}, which {name!r} needs: "
            "pip install --upgrade transformers"
        )
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = getattr(transformers, processor_class).from_pretrained(folder, **options)
        module, loading = getattr(transformers, model_class).from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
        raise WeightsError(f"folder {str(folder)!r} cannot be loaded: {error}") from error
    missing = sorted(loading["missing_keys"])
    if missing:
        raise WeightsError(
            f"folder {str(folder)!r} lacks {len(missing)} tensors of its model ({missing[0]}, …)"
        )
    module = module.to(torch.float32).to(device).eval().requires_grad_(False)
    facts: dict[str, Any] = {"name": name, "family": family, "device": device}
    return run(module, processor, folder, precision=precision, **facts)
