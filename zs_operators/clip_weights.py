"""Weights file -> tensors -> network, refusing what does not fit and saying what would."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zs_operators.errors import WeightsError

if TYPE_CHECKING:
    import torch


def read_state_dict(file: Path) -> dict[str, torch.Tensor]:
    """Tensors by name, from safetensors or torch's restricted unpickler; never arbitrary pickles.

    Raises:
        WeightsError: if the file is damaged, holds other Python objects, or is TorchScript; for
            all but safetensors also if torch is older than 2.6
    """
    import pickle

    import torch

    try:
        if file.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(file)
        else:
            _refuse_unsafe_torch(file)
            state = torch.load(file, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{str(file)!r} holds Python objects besides tensors and was not read, because that "
            "could run code; save it as safetensors"
        ) from error
    except Exception as error:
        if "TorchScript" in str(error):
            raise WeightsError(
                f"{str(file)!r} is a TorchScript archive, as OpenAI published CLIP; get the same "
                "weights as safetensors from huggingface.co/timm (weights='openai' does)"
            ) from error
        raise WeightsError(f"{str(file)!r} is not a readable weights file: {error}") from error
    if not isinstance(state, dict):
        state = {}
    for wrapper in ("state_dict", "model"):  # training checkpoints of open_clip, of detectron2
        if isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    state = {
        key.removeprefix("module."): value
        for key, value in state.items()
        if isinstance(value, torch.Tensor)
    }
    if not state:
        raise WeightsError(f"{str(file)!r} holds no tensors")
    return state


def _refuse_unsafe_torch(file: Path) -> None:
    """Before 2.6, ``weights_only=True`` let crafted files run code (CVE-2025-32434)."""
    import torch

    major, minor = (int(part) for part in torch.__version__.split(".")[:2])
    if (major, minor) < (2, 6):
        raise WeightsError(
            f"{str(file)!r} was not read, because torch {torch.__version__} cannot read such files "
            "safely: update to torch 2.6 or newer, or save it as safetensors"
        )


def load_weights(module: torch.nn.Module, file: Path, architecture: str) -> None:
    """Load a weights file into the network; every tensor must be there and fit.

    Position embeddings are not interpolated to another image size, as open_clip would: that runs
    and is worse.

    Raises:
        WeightsError: if the file is of another architecture; the message names what differs and,
            where one of open_clip's architectures fits, which
    """
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    from zs_operators import regionclip

    state = read_state_dict(file)
    if regionclip.is_regionclip(state):
        if architecture in ("RN50", "RN50x4"):
            # The shapes would fit, and every activation would be slightly wrong
            raise WeightsError(
                f"{str(file)!r} holds RegionCLIP weights, which were trained with QuickGELU: use "
                f"model='{architecture}-quickgelu' or 'regionclip-{architecture.lower()}'"
            )
        state = regionclip.remap(state)
    own = module.state_dict()
    converted = convert_state_dict(module, dict(state))
    if "positional_embedding" in converted and not hasattr(module, "positional_embedding"):
        converted = convert_to_custom_text_state_dict(converted)
    for name in ("logit_scale", "logit_bias"):
        if name in converted and name in own:
            converted[name] = converted[name].reshape(own[name].shape)
    for name in [name for name in converted if name.endswith("embeddings.position_ids")]:
        if name not in own:  # older transformers saved this buffer
            del converted[name]

    problems = [
        f"{name} is {tuple(converted[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in converted and converted[name].shape != own[name].shape
    ]
    missing = [name for name in own if name not in converted]
    unexpected = [name for name in converted if name not in own]
    problems += [f"{len(missing)} tensors are missing ({missing[0]}, …)"] if missing else []
    problems += [f"{len(unexpected)} are unknown ({unexpected[0]}, …)"] if unexpected else []
    if problems:
        fitting = guess_architectures(state)
        raise WeightsError(
            f"{str(file)!r} holds weights of another architecture than {architecture!r}: "
            + "; ".join(problems[:4])
            + (f"; {len(problems) - 4} more differences" if len(problems) > 4 else "")
            + (f". They fit model={' or '.join(map(repr, fitting))}" if fitting else "")
        )
    module.load_state_dict(converted, strict=True)


def guess_architectures(state: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """open_clip's architectures of the original CLIP family whose shapes a state dict has."""
    import open_clip

    found = _shape_of_state(state)
    if found is None or any(key.startswith("text_decoder.") for key in state):
        return ()
    names = []
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        other = "multimodal_cfg" in config or config["text_cfg"].get("hf_model_name")
        if is_clip_family(config) and not other and _shape_of_config(config) == found:
            names.append(name)
    return tuple(names)


def _shape_of_state(state: Mapping[str, torch.Tensor]) -> tuple | None:
    text = "text." if "text.token_embedding.weight" in state else ""
    try:
        vocab_size, text_width = state[f"{text}token_embedding.weight"].shape
        context_length = state[f"{text}positional_embedding"].shape[0]
        embed_dim = state[f"{text}text_projection"].shape[1]
        text_layers = _count(state, f"{text}transformer.resblocks.")
        conv = state["visual.conv1.weight"].shape
        if "visual.attnpool.positional_embedding" in state:
            vision_layers = tuple(_count(state, f"visual.layer{i}.") for i in (1, 2, 3, 4))
            tokens = state["visual.attnpool.positional_embedding"].shape[0]
            vision = (vision_layers, conv[0] * 2, round((tokens - 1) ** 0.5) * 32)
        else:
            tokens = state["visual.positional_embedding"].shape[0]
            image_size = round((tokens - 1) ** 0.5) * conv[2]
            vision = (_count(state, "visual.transformer.resblocks."), conv[0], conv[2], image_size)
    except (KeyError, IndexError, ValueError, AttributeError):
        return None
    return vision, (vocab_size, text_width, context_length, text_layers), embed_dim


def _shape_of_config(config: Mapping[str, Any]) -> tuple:
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    vision, text = CLIPVisionCfg(**config["vision_cfg"]), CLIPTextCfg(**config["text_cfg"])
    if isinstance(vision.layers, list | tuple):
        image = (tuple(vision.layers), vision.width, vision.image_size)
    else:
        patch = vision.patch_size
        size = vision.image_size
        image = (
            vision.layers,
            vision.width,
            patch,
            size // patch * patch if isinstance(size, int) else size,
        )
    return (
        image,
        (text.vocab_size, text.width, text.context_length, text.layers),
        config["embed_dim"],
    )


def _count(state: Mapping[str, torch.Tensor], prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})


def is_clip_family(model_config: Mapping[str, Any]) -> bool:
    """Whether this is a tower of the original CLIP recipe (ViT or ResNet, softmax, causal text)."""
    return (
        model_config.get("init_logit_bias") is None
        and not model_config["vision_cfg"].get("timm_model_name")
        and not model_config["text_cfg"].get("no_causal_mask")
    )
