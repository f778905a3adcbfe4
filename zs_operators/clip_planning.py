"""Which open_clip architecture and weights a name, a tag or a path means."""

from __future__ import annotations

import difflib
import logging
import os
from pathlib import Path
from typing import Any

from zs_operators.errors import InvalidInputError, UnknownModelError, WeightsError
from zs_operators.model_registry import DEFAULT_CLIP, ModelEntry, find_model, models
from zs_operators.redaction import without_secrets
from zs_operators.weights_files import (
    CONFIG_NAME,
    WEIGHT_SUFFIXES,
    cached_file,
    find_weights_file,
    hub_filenames,
    refuse_address,
)
from zs_operators.weights_places import find_checkpoint
from zs_operators.weights_plan import WeightsPlan

logger = logging.getLogger(__name__)

# for a bare architecture: the tag with the best published average among freely licensed ones
_TAG_PREFERENCE = (
    "datacomp_xl_s13b_b90k",
    "datacomp_s34b_b86k",
    "webli",
    "meta",
    "dfndr2b",
    "laion2b_s39b_b160k",
    "laion2b_s34b_b88k",
    "laion2b_s32b_b79k",
    "openai",
)


def plan_clip(model: str = DEFAULT_CLIP, weights: str | Path | None = None) -> WeightsPlan:
    """See :func:`zs_operators.weights.plan_weights`."""
    entry = find_model(model)
    folder = Path(model).expanduser()
    if entry is None and (folder / CONFIG_NAME).is_file():
        if weights is not None:
            raise InvalidInputError(
                f"model {model!r} is a folder with its own weights: leave out weights={weights!r}"
            )
        return _plan_local(folder.name, None, folder.absolute())

    if weights is not None:
        local = _local_path(weights)
        if local is not None:
            return _plan_local(model, entry, local)
        weights = str(weights).strip()
    if weights == "random":
        architecture = entry.architecture if entry else _architecture(model)
        if entry is not None and entry.folder is not None:
            raise WeightsError(f"model {model!r} is bundled with its weights; leave out 'random'")
        return WeightsPlan("clip", model, architecture, None, None, "random", source="random")
    if entry is not None and weights in (None, "", entry.pretrained):
        return _plan_entry(model, entry)
    return _plan_tag(model, entry.architecture if entry else _architecture(model), weights)


def _local_path(weights: str | Path) -> Path | None:
    """``weights`` as a path if it is one or clearly means to be one."""
    refuse_address(weights)
    path = Path(weights).expanduser()
    text = str(weights)
    if path.exists():
        # a folder in the working directory that is called like a tag is not meant
        means_path = isinstance(weights, Path) or path.is_file() or os.sep in text or "." in text
        if means_path or (path / CONFIG_NAME).is_file():
            return path.absolute()
    looks_like_path = (
        isinstance(weights, Path)
        or "/" in text
        or "\\" in text
        or text.startswith(("~", "."))
        or path.suffix.lower() in (*WEIGHT_SUFFIXES, ".npz", ".ckpt", ".onnx")
    )
    if looks_like_path:
        raise WeightsError(
            f"there is no weights file or folder {text!r} (looked at {path.absolute()})"
        )
    return None


def _plan_local(model: str, entry: ModelEntry | None, path: Path) -> WeightsPlan:
    if path.is_dir():
        if not (path / CONFIG_NAME).is_file():
            raise WeightsError(
                f"folder {str(path)!r} has no {CONFIG_NAME}; name the weights file itself "
                "together with its architecture as model, or add the config"
            )
        find_weights_file(path)
        architecture = path.name
        model = path.name if model == DEFAULT_CLIP else model
    else:
        if path.suffix.lower() not in WEIGHT_SUFFIXES:
            raise WeightsError(
                f"weights file {str(path)!r} is none of {', '.join(WEIGHT_SUFFIXES)}"
            )
        if model == DEFAULT_CLIP and (path.parent / CONFIG_NAME).is_file():
            model = architecture = path.parent.name  # nobody named an architecture; its config does
        elif entry is not None and entry.folder is not None:
            raise WeightsError(
                f"model {model!r} is bundled and not an architecture open_clip knows; give the "
                "folder with its config instead of a single file"
            )
        else:
            architecture = entry.architecture if entry else _architecture(model)
    return WeightsPlan("clip", model, architecture, None, str(path), "local", source="local")


def _plan_entry(model: str, entry: ModelEntry) -> WeightsPlan:
    common = {
        "size_mb": entry.size_mb,
        "licence": entry.licence,
        "sha256": entry.sha256,
        "source": entry.source,
    }
    if entry.folder is not None:
        if not (Path(entry.folder) / CONFIG_NAME).is_file():
            raise WeightsError(
                f"model {model!r} should be bundled, but {entry.folder} has no {CONFIG_NAME}; "
                "reinstall zs-operators"
            )
        return WeightsPlan(
            "clip", model, entry.architecture, None, entry.folder, "bundled", **common
        )
    if entry.pretrained is None:
        path = find_checkpoint(entry.file)
        if path is None:
            raise WeightsError(
                f"the weights of {model!r} have to be fetched by hand. {entry.description}"
            )
        return WeightsPlan("clip", model, entry.architecture, None, str(path), "cached", **common)
    filenames = hub_filenames("")
    path = cached_file(entry.source, filenames)
    return WeightsPlan(
        "clip",
        model,
        entry.architecture,
        entry.pretrained,
        path,
        "cached" if path else "download",
        filenames=filenames,
        **common,
    )


def _plan_tag(model: str, architecture: str, tag: str | None) -> WeightsPlan:
    import open_clip

    tag = tag or _best_tag(architecture)
    architecture, config = _pair_activation(architecture, tag)
    if not config:
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        nearest = difflib.get_close_matches(tag.lower().replace("-", "_"), tags, n=5, cutoff=0.4)
        if nearest:
            known = f"nearest: {', '.join(nearest)}"
        else:
            known = f"it has: {', '.join(tags[:12])}" if tags else "it has none"
        raise UnknownModelError(
            f"architecture {architecture!r} has no pretrained tag {tag!r}; {known}; or give "
            "weights=<local file or folder>"
        )
    tag = tag.lower().replace("-", "_")
    known = next(
        (e for e in models("clip") if (e.architecture, e.pretrained) == (architecture, tag)), None
    )
    if config.get("hf_hub"):
        source, filename = os.path.split(config["hf_hub"])
        filenames = hub_filenames(filename)
        path = cached_file(source, filenames)
    else:
        source = config["url"]
        filenames = (source.rsplit("/", 1)[-1],)
        file = Path("~/.cache/clip").expanduser() / filenames[0]
        path = str(file) if file.is_file() else None
    return WeightsPlan(
        "clip",
        model,
        architecture,
        tag,
        path,
        "cached" if path else "download",
        size_mb=known.size_mb if known else None,
        licence=known.licence if known else None,
        sha256=known.sha256 if known else None,
        source=source,
        filenames=filenames,
    )


def _architecture(model: str) -> str:
    """open_clip's spelling of an architecture."""
    import open_clip

    names = open_clip.list_models()
    spellings = {name.lower(): name for name in names}
    wanted = model.replace("/", "-").lower()
    if wanted in spellings:
        return spellings[wanted]
    offered = [entry.name for entry in models("clip")]
    pool = {**spellings, **{name.lower(): name for name in offered}}
    nearest = difflib.get_close_matches(wanted, pool, n=5, cutoff=0.5)
    raise UnknownModelError(
        f"no model or open_clip architecture is called {without_secrets(model)!r}; "
        + (f"nearest: {', '.join(pool[name] for name in nearest)}; " if nearest else "")
        + f"by name there are: {', '.join(offered)}"
    )


def _best_tag(architecture: str) -> str:
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if not tags:
        raise UnknownModelError(
            f"open_clip has no pretrained weights for architecture {architecture!r}; "
            "give weights=<file or folder>"
        )
    return next((tag for tag in _TAG_PREFERENCE if tag in tags), tags[0])


def _pair_activation(architecture: str, tag: str) -> tuple[str, dict[str, Any]]:
    """The variant of ``architecture`` with the activation ``tag`` was trained with.

    Weights trained with QuickGELU and run with GELU, or the other way round, still give
    plausible embeddings that are several points of accuracy worse.
    """
    import open_clip

    base = architecture.removesuffix("-quickgelu")
    config = open_clip.get_pretrained_cfg(architecture, tag) or open_clip.get_pretrained_cfg(
        base, tag
    )
    if not config:
        return architecture, {}
    wanted = f"{base}-quickgelu" if config.get("quick_gelu", False) else base
    has_quick_gelu = bool((open_clip.get_model_config(architecture) or {}).get("quick_gelu"))
    if has_quick_gelu == bool(config.get("quick_gelu", False)) or wanted == architecture:
        return architecture, config
    if wanted not in open_clip.list_models():
        return architecture, config
    logger.warning(
        "%s was trained with %s: using architecture %s instead of %s",
        tag,
        "QuickGELU" if config.get("quick_gelu") else "GELU",
        wanted,
        architecture,
    )
    return wanted, config
