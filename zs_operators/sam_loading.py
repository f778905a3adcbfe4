"""Build a Sam: segment_anything's own by name, or any with another encoder from a folder."""

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
    from segment_anything.modeling import Sam

DEFAULT_SAM = "sam-vit-b"

_ALIASES = {"shapes-tiny": "shapes-sam"}  # one name for the whole offline family


def plan_sam(model: str | Path = DEFAULT_SAM, weights: str | Path | None = None) -> WeightsPlan:
    """Find out what ``model`` and ``weights`` mean, without the network and without torch.

    A Sam with another encoder in the slot of the ViT is a folder whose ``config.json`` names the
    function of this package that builds it, and takes the same place as a registry entry does.

    Args:
        model: a name of ``models("sam")``, "shapes-tiny", or a local folder with ``config.json``
            and ``model.safetensors``
        weights (None): "SA_1B" or "DEFAULT", a local file or folder, "random" for untrained
            weights (tests and timing), or None for the model's own

    Raises:
        UnknownModelError: for an unknown model or tag; the message has the nearest names
        WeightsError: if a local file or folder is missing or is not one
    """
    return plan_torch_model("sam", model, weights, aliases=_ALIASES)


def build_sam(plan: WeightsPlan, *, allow_download: bool = True) -> tuple[Sam, WeightsPlan]:
    """The Sam on the CPU in float32 and eval mode, and its plan with the file's sha256.

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
            _fill_positions(module)
    if file is None:
        return module.eval(), plan
    return load_verified(module, plan, file)


def _build(plan: WeightsPlan) -> Sam:
    """The untrained network."""
    if ":" in plan.architecture:
        module = build_from_config(plan)
    else:
        from segment_anything import sam_model_registry

        if plan.architecture not in sam_model_registry:
            raise WeightsError(
                f"segment_anything has no architecture {plan.architecture!r}; it has "
                f"{', '.join(sam_model_registry)}"
            )
        module = sam_model_registry[plan.architecture]()
    needed = ("image_encoder", "prompt_encoder", "mask_decoder", "preprocess")
    lacking = [name for name in needed if not hasattr(module, name)]
    if lacking or not hasattr(module.image_encoder, "img_size"):
        raise WeightsError(
            f"{plan.architecture!r} is no Sam: it lacks "
            f"{', '.join(lacking) or 'image_encoder.img_size'}"
        )
    return module


def _fill_positions(module: Sam) -> None:
    """Untrained position embeddings are zero: then attention's share of them goes untested."""
    import torch

    for name, parameter in module.image_encoder.named_parameters():
        if "rel_pos" in name or name.endswith("pos_embed"):
            torch.nn.init.normal_(parameter, std=0.02)
