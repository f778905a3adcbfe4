"""Build a proposer's detector: torchvision's by name, or any from a folder with a config."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zs_operators.errors import WeightsError
from zs_operators.torch_models import (
    build_from_config,
    load_verified,
    plan_torch_model,
    weights_file,
)
from zs_operators.weights_plan import WeightsPlan

if TYPE_CHECKING:
    import torch

DEFAULT_PROPOSER = "fasterrcnn_resnet50_fpn_v2"

_ALIASES = {"shapes-tiny": "shapes-proposals"}  # one name for the whole offline family


def plan_proposer(
    model: str | Path = DEFAULT_PROPOSER, weights: str | Path | None = None
) -> WeightsPlan:
    """Find out what ``model`` and ``weights`` mean, without the network and without torch.

    Args:
        model: a name of ``models("proposals")``, "shapes-tiny", or a local folder with
            ``config.json`` and ``model.safetensors``
        weights (None): a torchvision tag ("COCO_V1" or "DEFAULT"), a local file or folder,
            "random" for untrained weights (tests and timing), or None for the model's own

    Raises:
        UnknownModelError: for an unknown model or tag; the message has the nearest names
        WeightsError: if a local file or folder is missing or is not one
    """
    return plan_torch_model("proposals", model, weights, aliases=_ALIASES)


def build_detector(
    plan: WeightsPlan, *, allow_download: bool = True
) -> tuple[torch.nn.Module, WeightsPlan]:
    """The detector on the CPU in float32 and eval mode, and its plan with the file's sha256.

    Raises:
        WeightsError: if the weights are damaged or of another architecture
        OfflineError: if they are not on this machine and cannot be downloaded
    """
    import torch

    # what can be refused comes before the network is built
    file = None if plan.state == "random" else weights_file(plan, allow_download=allow_download)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # so that "random" weights repeat
        module = _build(plan)
    if file is None:
        return module.eval(), plan
    return load_verified(module, plan, file)


def _build(plan: WeightsPlan) -> torch.nn.Module:
    """The untrained network."""
    if ":" in plan.architecture:
        module = build_from_config(plan)
    else:
        from torchvision.models import get_model

        try:
            module = get_model(plan.architecture, weights=None, weights_backbone=None)
        except (ValueError, TypeError) as error:
            raise WeightsError(
                f"torchvision has no detector {plan.architecture!r}: {error}"
            ) from error
    from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

    if not isinstance(module, GeneralizedRCNN) or not hasattr(module, "rpn"):
        raise WeightsError(
            f"{plan.architecture!r} is no Faster R-CNN: a proposer needs a region proposal network"
        )
    return module
