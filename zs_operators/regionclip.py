"""RegionCLIP checkpoints (Zhong et al. 2022, arXiv:2112.09106) under open_clip's tensor names.

A RegionCLIP file is a detectron2 checkpoint, ``{"model": state_dict, ...}``. Its visual tower is
CLIP's ModifiedResNet with frozen batch norm, its text tower CLIP's transformer, so a change of
names is all it takes; the outputs stay the same to the last bit. The localiser, the teacher and
the box heads that lie in the same file are left out: boxes come from a proposer of ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zs_operators.errors import WeightsError

if TYPE_CHECKING:
    import torch

LOGIT_SCALE = math.log(1 / 0.01)
"""RegionCLIP trains and tests at a fixed temperature of 0.01 and saves no scale."""

_VISUAL_PREFIXES = ("backbone.bottom_up.", "backbone.")
_TEXT_PREFIX = "lang_encoder."
_VISUAL_PARTS = ("conv", "bn", "layer", "attnpool.")
_ARCHITECTURES = {  # channels of the third stem convolution, blocks of layer3 -> open_clip's name
    (64, 6): "RN50-quickgelu",
    (80, 10): "RN50x4-quickgelu",
}


def unwrap(checkpoint: Any) -> Any:
    """The state dict in ``{"model": state_dict, "iteration": ...}``, else what was given."""
    inner = checkpoint.get("model") if isinstance(checkpoint, Mapping) else None
    return inner if isinstance(inner, Mapping) else checkpoint


def is_regionclip(state: Mapping[str, Any]) -> bool:
    """Whether a state dict has RegionCLIP's names, wrapped in a checkpoint or not."""
    state = unwrap(state)
    return f"{_TEXT_PREFIX}token_embedding.weight" in state and _visual_prefix(state) is not None


def architecture(state: Mapping[str, Any]) -> str:
    """open_clip's name of the architecture; with QuickGELU, as OpenAI trained the text tower.

    Raises:
        WeightsError: if it is neither of the two that RegionCLIP was published with
    """
    state = unwrap(state)
    prefix = _visual_prefix(state)
    width = state[f"{prefix}conv3.weight"].shape[0]
    blocks = {
        key.split(".")[-3]
        for key in state
        if key.startswith(f"{prefix}layer3.") and key.endswith(".conv1.weight")
    }
    name = _ARCHITECTURES.get((width, len(blocks)))
    if name is None:
        raise WeightsError(
            f"this RegionCLIP checkpoint has {width} stem channels and {len(blocks)} blocks in "
            f"layer3; supported are {' and '.join(_ARCHITECTURES.values())}"
        )
    return name


def remap(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """RegionCLIP's tensors under the names of ``open_clip.CLIP``.

    Args:
        state: a state dict for which :func:`is_regionclip` holds, or its checkpoint

    Returns:
        a state dict that loads strictly into the architecture of :func:`architecture`; tensors
        are not copied

    Raises:
        WeightsError: if it is no RegionCLIP state dict, or has no attention pool or text tower
    """
    import torch

    state = unwrap(state)
    prefix = _visual_prefix(state)
    if prefix is None or not is_regionclip(state):
        raise WeightsError(
            "this is no RegionCLIP checkpoint: it needs tensors backbone.* with an attention pool "
            "and lang_encoder.*"
        )
    found: dict[str, torch.Tensor] = {}
    for key, tensor in state.items():
        if key.startswith(prefix) and key[len(prefix) :].startswith(_VISUAL_PARTS):
            found[f"visual.{key[len(prefix) :]}"] = tensor
        elif key.startswith(_TEXT_PREFIX):
            found[key[len(_TEXT_PREFIX) :]] = tensor
    for key in [key for key in found if key.endswith(".running_var")]:
        # frozen batch norm has no counter; ordinary batch norm's is never used in evaluation
        found.setdefault(f"{key[: -len('running_var')]}num_batches_tracked", torch.tensor(0))
    found.setdefault("logit_scale", torch.tensor(LOGIT_SCALE))
    return found


def _visual_prefix(state: Mapping[str, Any]) -> str | None:
    for prefix in _VISUAL_PREFIXES:
        if f"{prefix}attnpool.positional_embedding" in state:
            return prefix
    return None
