"""Build an open_clip model from a weights plan: network, tokenizer, transform. Nothing is guessed.

With local weights nothing here touches the network, neither for the weights nor for the config
or the tokenizer.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zs_operators.clip_preprocess import ClipPreprocess
from zs_operators.clip_weights import is_clip_family, load_weights
from zs_operators.errors import MissingDependencyError, WeightsError
from zs_operators.model_registry import DEFAULT_CLIP, models
from zs_operators.weights_files import (
    CONFIG_NAME,
    fetch_weights,
    forbidden_downloads,
    offline_error,
    verify_weights,
)
from zs_operators.weights_places import find_in_hub
from zs_operators.weights_plan import WeightsPlan

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "spiece.model", "tokenizer.model")
_BPE_NAME = "bpe.txt.gz"
# What a folder's config may ask of its tokenizer. Others reach transformers, where one of them
# makes it run code that lies in the folder.
_TOKENIZER_OPTIONS = (
    "additional_special_tokens",
    "clean",
    "language",
    "reduction_mask",
    "strip_sep_token",
)


@dataclass(frozen=True)
class LoadedClip:
    """The parts of a checkpoint, on the CPU in float32.

    Attributes:
        module: open_clip's CLIP, CustomTextCLIP or CoCa, in eval mode
        tokenizer: open_clip's SimpleTokenizer or HFTokenizer
        preprocess: the checkpoint's own image transform
        plan: with ``path`` and ``sha256`` of the file that was loaded
    """

    module: torch.nn.Module
    tokenizer: Any
    preprocess: ClipPreprocess
    plan: WeightsPlan


def load_parts(plan: WeightsPlan, *, allow_download: bool = True) -> LoadedClip:
    """Load what a plan describes.

    Raises:
        WeightsError: if the file is damaged, unsafe, or of another architecture; if nothing says
            how its images were preprocessed; or if the tokenizer's files are missing
        OfflineError: if something is not on this machine and cannot be downloaded
        MissingDependencyError: if the architecture needs a package that is not installed
    """
    folder = _config_folder(plan)
    config = _read_config(folder) if folder else None
    model_config = config["model_cfg"] if config else _built_in_config(plan.architecture)
    if config is not None:
        _check_same_architecture(plan, folder, model_config)
    # everything that can be refused comes before a long download
    local = plan.state in ("local", "bundled", "random")
    _check_towers(plan, model_config, local)
    preprocess_config = _preprocess_config(plan, model_config, config)
    tokenizer = _tokenizer(plan, model_config, folder, local, allow_download)

    if plan.state == "random":
        module = _build(plan, None)
    else:
        file = fetch_weights(plan, allow_download=allow_download)
        sha256 = verify_weights(plan, file)
        module = _build(plan, folder)
        load_weights(module, file, plan.architecture)
        plan = replace(plan, sha256=sha256, path=plan.path or str(file))
    _check_vocabulary_size(plan, module, tokenizer)
    preprocess = ClipPreprocess.from_open_clip(
        preprocess_config, getattr(module.visual, "image_size", None)
    )
    module.eval().requires_grad_(False)
    return LoadedClip(module, tokenizer, preprocess, plan)


# ---- config ----


def _config_folder(plan: WeightsPlan) -> Path | None:
    """The folder whose ``open_clip_config.json`` belongs to local or bundled weights."""
    if plan.state not in ("local", "bundled"):
        return None
    path = Path(plan.path)
    folder = path if path.is_dir() else path.parent
    return folder if (folder / CONFIG_NAME).is_file() else None


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG_NAME
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{str(file)!r} cannot be read as JSON: {error}") from error
    keys = ("embed_dim", "vision_cfg", "text_cfg")
    if not isinstance(config, dict) or not all(k in config.get("model_cfg", {}) for k in keys):
        raise WeightsError(f"{str(file)!r} has no model_cfg with {', '.join(keys)}")
    return config


def _built_in_config(architecture: str) -> dict[str, Any]:
    import open_clip

    return open_clip.get_model_config(architecture)


def _check_same_architecture(
    plan: WeightsPlan, folder: Path, model_config: Mapping[str, Any]
) -> None:
    """Refuse a folder of another architecture than the one asked for by name."""
    if plan.state == "bundled" or plan.model == DEFAULT_CLIP:
        return  # the default is what nobody asked for
    names = {entry.name: entry.architecture for entry in models("clip")}
    asked = names.get(plan.model, plan.architecture if Path(plan.path).is_file() else plan.model)
    built_in = _built_in_config(asked.replace("/", "-"))
    if built_in is None:
        return
    differing = [
        f"{name}: {ours!r} in {folder.name}, {theirs!r} in {asked}"
        for name, ours, theirs in _compare_configs(model_config, built_in)
    ]
    if differing:
        raise WeightsError(
            f"folder {str(folder)!r} holds another architecture than {asked!r} "
            f"({'; '.join(differing)}); leave out model, or name the right one"
        )


def _compare_configs(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """What two model configs set to different values and shapes depend on."""
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    if first["embed_dim"] != second["embed_dim"]:
        yield "embed_dim", first["embed_dim"], second["embed_dim"]
    parts = {
        "vision_cfg": (CLIPVisionCfg, "image_size patch_size layers width timm_model_name"),
        "text_cfg": (CLIPTextCfg, "context_length vocab_size layers width hf_model_name"),
    }
    for part, (defaults, names) in parts.items():
        for name in names.split():
            default = getattr(defaults, name, None)
            ours, theirs = (config[part].get(name, default) for config in (first, second))
            if ours != theirs and (ours is None or theirs is None or str(ours) != str(theirs)):
                yield f"{part}.{name}", ours, theirs


def _check_towers(plan: WeightsPlan, config: Mapping[str, Any], local: bool) -> None:
    """Refuse what is not installed, and what open_clip could only build with the network."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    if (text.get("hf_tokenizer_name") or text.get("hf_model_name")) and not _has("transformers"):
        raise MissingDependencyError(
            f"{plan.architecture} reads its text with a Hugging Face tokenizer: "
            "pip install transformers sentencepiece"
        )
    if vision.get("timm_model_name") and not _has("timm"):
        raise MissingDependencyError(f"{plan.architecture} has a timm tower: pip install timm")
    remote = text.get("hf_model_name") or (
        ":" in str(vision.get("timm_model_name")) and vision["timm_model_name"]
    )
    if local and remote:
        raise WeightsError(
            f"{plan.architecture} contains {remote!r}, whose config open_clip gets from the "
            "network: it cannot be loaded from local weights alone; use an architecture that "
            "open_clip builds itself"
        )


def _has(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


# ---- preprocessing ----


def _preprocess_config(
    plan: WeightsPlan, model_config: Mapping[str, Any], folder_config: Mapping[str, Any] | None
) -> dict[str, Any]:
    """How the images of these weights were preprocessed, from the nearest thing that knows.

    In order: the folder's ``preprocess_cfg``, the tag's, the one that all tags of the
    architecture share, and for towers of the original CLIP family OpenAI's. Other families
    (SigLIP, CLIPA, MobileCLIP, PE) differ in mean, interpolation and resizing; a guess there
    would give wrong numbers without an error.

    Raises:
        WeightsError: if nothing says
    """
    import open_clip
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    if folder_config is not None and folder_config.get("preprocess_cfg"):
        given = folder_config["preprocess_cfg"]
        missing = [key for key in ("mean", "std") if given.get(key) is None]
        if missing and not is_clip_family(model_config):
            raise WeightsError(
                f"preprocess_cfg in {CONFIG_NAME} of {plan.path!r} lacks {', '.join(missing)}"
            )
        return merge_preprocess_dict(PreprocessCfg(), given)
    if plan.pretrained is not None:
        tag_config = open_clip.get_pretrained_cfg(plan.architecture, plan.pretrained)
        return merge_preprocess_dict(PreprocessCfg(), tag_config)

    keys = ("mean", "std", "interpolation", "resize_mode")
    base = plan.architecture.removesuffix("-quickgelu")
    shared = {
        tuple(str(open_clip.get_pretrained_cfg(base, tag)[key]) for key in keys): tag
        for tag in open_clip.list_pretrained_tags_by_model(base)
    }
    if len(shared) == 1:
        tag_config = open_clip.get_pretrained_cfg(base, next(iter(shared.values())))
        return merge_preprocess_dict(PreprocessCfg(), tag_config)
    if is_clip_family(model_config):
        if shared and plan.state == "local":
            logger.warning(
                "weights of %s are published with several preprocessings; using OpenAI CLIP's for "
                "%s. If that is wrong, put the file beside its %s",
                base,
                plan.path,
                CONFIG_NAME,
            )
        return merge_preprocess_dict(PreprocessCfg(), {})
    raise WeightsError(
        f"nothing says how images were preprocessed for {plan.path or plan.model!r} "
        f"({plan.architecture}), and a guess would give wrong scores: put the weights into a "
        f"folder with an {CONFIG_NAME} that has preprocess_cfg, and pass weights=<that folder>"
    )


# ---- tokenizer ----


def _tokenizer(
    plan: WeightsPlan,
    model_config: Mapping[str, Any],
    folder: Path | None,
    local: bool,
    allow_download: bool,
) -> Any:
    from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer

    text = model_config["text_cfg"]
    context_length = text.get("context_length", DEFAULT_CONTEXT_LENGTH)
    options = dict(text.get("tokenizer_kwargs") or {})
    unknown = sorted(set(options) - set(_TOKENIZER_OPTIONS))
    if unknown:
        raise WeightsError(
            f"the config of {plan.path or plan.model!r} sets {', '.join(unknown)} of its "
            f"tokenizer, which is not passed on: remove it from tokenizer_kwargs in {CONFIG_NAME}"
        )
    repo = text.get("hf_tokenizer_name")
    if not repo:
        if folder is not None and (folder / _BPE_NAME).is_file():
            options["bpe_path"] = str(folder / _BPE_NAME)
        return SimpleTokenizer(context_length=context_length, **options)

    source = repo
    if local:
        if folder is None or not any((folder / name).is_file() for name in _TOKENIZER_FILES):
            raise WeightsError(
                f"{plan.architecture} needs its tokenizer, and with local weights nothing is "
                f"downloaded: put {_TOKENIZER_FILES[0]} and {_TOKENIZER_FILES[1]} of "
                f"{repo} (huggingface.co) into one folder with the weights and their "
                f"{CONFIG_NAME}, and pass weights=<that folder>"
            )
        source = str(folder)
    elif (cached := _cached_tokenizer(repo)) is not None:
        # as a folder: of a repository, files that it lacks would be looked for on the network
        source, local = str(cached), True
    no_network = local or forbidden_downloads(allow_download) is not None
    try:
        return HFTokenizer(
            source,
            context_length=context_length,
            tokenizer_mode=text.get("tokenizer_mode"),
            local_files_only=no_network,
            trust_remote_code=False,  # or transformers asks at the terminal
            **options,
        )
    except (OSError, ValueError) as error:
        if local:
            raise WeightsError(f"the tokenizer in {source!r} cannot be read: {error}") from error
        reason = forbidden_downloads(allow_download) or "its tokenizer could not be downloaded"
        raise offline_error(plan, reason) from error


def _cached_tokenizer(repo: str) -> Path | None:
    """The folder of Hugging Face's cache that has all that a tokenizer needs, or None."""
    files = [find_in_hub(repo, (name,)) for name in _TOKENIZER_FILES[:2]]
    return None if None in files else files[0].parent


def _check_vocabulary_size(plan: WeightsPlan, module: torch.nn.Module, tokenizer: Any) -> None:
    """A reduced vocabulary without its merges would look up other words' embeddings."""
    size = getattr(tokenizer, "vocab_size", None)
    expected = getattr(module, "vocab_size", None)
    if size is not None and expected is not None and size != expected:
        raise WeightsError(
            f"the tokenizer has {size} tokens and the text tower of {plan.path or plan.model!r} "
            f"has {expected}; put the {_BPE_NAME} it was trained with into the weights' folder"
        )


# ---- network ----


def _build(plan: WeightsPlan, folder: Path | None) -> torch.nn.Module:
    """The untrained network; from a fixed seed, so that "random" weights repeat."""
    import open_clip
    import torch

    options: dict[str, Any] = {}
    if plan.pretrained is not None and folder is None:
        tag_config = open_clip.get_pretrained_cfg(plan.architecture, plan.pretrained)
        options["force_quick_gelu"] = bool(tag_config.get("quick_gelu"))
    name = f"local-dir:{folder}" if folder else plan.architecture
    with torch.random.fork_rng(devices=[]), _with_quiet_root_logger():
        torch.manual_seed(0)
        try:
            return open_clip.create_model(
                name, load_weights=False, pretrained_text=False, device="cpu", **options
            )
        except ImportError as error:
            raise MissingDependencyError(f"{plan.architecture}: {error}") from error
        except (TypeError, ValueError, RuntimeError) as error:
            raise WeightsError(f"open_clip cannot build {name!r}: {error}") from error


@contextmanager
def _with_quiet_root_logger() -> Iterator[None]:
    """open_clip logs by the root logger: that a model has no weights yet, which are loaded right
    after, and the first line gives the root a handler, by which FiftyOne would say all twice."""

    def keep(record: logging.LogRecord) -> bool:
        return "No pretrained weights loaded" not in record.getMessage()

    root = logging.getLogger()
    before = list(root.handlers)
    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)
        for handler in [one for one in root.handlers if one not in before]:
            root.removeHandler(handler)
