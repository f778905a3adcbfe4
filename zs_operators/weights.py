"""Which weights a model name means and where they are.

Planning never touches the network. Registry names are read from ``data/models-*.yaml`` without
importing torch, so a form can plan at every keystroke.
"""

from __future__ import annotations

from pathlib import Path

from zs_operators.errors import UnknownModelError
from zs_operators.model_registry import DEFAULT_CLIP, ModelEntry, check_kind, find_model, models
from zs_operators.weights_files import (
    CONFIG_NAME,
    OFFLINE_VARIABLES,
    WEIGHT_SUFFIXES,
    fetch_weights,
    file_sha256,
    find_weights_file,
    is_offline,
    verify_weights,
)
from zs_operators.weights_plan import WeightsPlan

__all__ = [
    "CONFIG_NAME",
    "DEFAULT_CLIP",
    "OFFLINE_VARIABLES",
    "WEIGHT_SUFFIXES",
    "ModelEntry",
    "WeightsPlan",
    "fetch_weights",
    "file_sha256",
    "find_weights_file",
    "is_offline",
    "models",
    "plan_weights",
    "verify_weights",
]


def plan_weights(
    kind: str, model: str = DEFAULT_CLIP, weights: str | Path | None = None
) -> WeightsPlan:
    """Find out what ``model`` and ``weights`` mean, without touching the network.

    Args:
        kind: "clip", "proposals" or "sam"
        model: a name of :func:`models`, an open_clip architecture such as "ViT-B-32", or a local
            folder with ``open_clip_config.json``
        weights (None): an open_clip tag; a weights file (.safetensors, .pt, .pth, .bin); a folder
            with ``open_clip_config.json`` and weights; None for the model's own; or "random" for
            untrained weights, which are good for timing and testing only

    Raises:
        UnknownModelError: for an unknown model or tag; the message has the nearest names
        WeightsError: if a local file or folder is missing or is not one
    """
    check_kind(kind)
    model = str(model).strip()
    entry = find_model(model)
    # One name stands for the whole offline family, whatever the kind
    if entry is not None and entry.kind != kind and model != "shapes-tiny":
        raise UnknownModelError(f"model {model!r} is of kind {entry.kind!r}, not {kind!r}")
    if kind == "proposals":
        from zs_operators.proposal_loading import plan_proposer

        return plan_proposer(model, weights)
    if kind == "sam":
        from zs_operators.sam_loading import plan_sam

        return plan_sam(model, weights)
    from zs_operators.clip_planning import plan_clip

    return plan_clip(model, weights)
