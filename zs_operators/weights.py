"""Which weights a model name means and where they are.

Planning never touches the network. Registry names are read from ``data/models.yaml`` without
importing torch, so a form can plan at every keystroke.
"""

from __future__ import annotations

import difflib
import logging
import os
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from zs_operators.errors import InvalidInputError, UnknownModelError, WeightsError
from zs_operators.weights_files import (
    CONFIG_NAME,
    OFFLINE_VARIABLES,
    WEIGHT_SUFFIXES,
    cached_file,
    fetch_weights,
    file_sha256,
    find_weights_file,
    hub_filenames,
    is_offline,
    verify_weights,
)

logger = logging.getLogger(__name__)

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

DEFAULT_CLIP = "clip-vit-b-32"
KINDS = ("clip", "proposals", "sam")

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
_PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class ModelEntry:
    """A named model of the registry.

    Attributes:
        name: what to pass as ``model``
        kind: "clip", "proposals" or "sam"
        architecture: open_clip's name of it
        pretrained: open_clip's tag of the weights, None for bundled ones
        licence: of the weights
        size_mb: about what is downloaded
        sha256: of the weights file, None where not known
        source: Hugging Face repository, or "bundled"
        description: one line for people
        folder: of bundled weights, absolute; else None
    """

    name: str
    kind: str
    architecture: str
    pretrained: str | None
    licence: str | None
    size_mb: int | None
    sha256: str | None
    source: str
    description: str
    folder: str | None = None


@dataclass(frozen=True)
class WeightsPlan:
    """What will be loaded and where it comes from.

    Attributes:
        kind: as asked for
        model: as asked for; of a folder without a model named, the folder's name
        architecture: open_clip's name, the variant with the activation the weights were trained
            with; of a folder, the folder's name
        pretrained: open_clip's tag, None for local, bundled and random weights
        path: weights file, or folder with ``open_clip_config.json``; None if not here yet
        state: "bundled", "local", "cached", "download" (not here yet) or "random"
        size_mb, licence: None where not known
        sha256: before loading the one to expect, after loading the one of the file
        source: Hugging Face repository or URL, "bundled", "local" or "random"
        filenames: names the file goes by at the source, preferred first
    """

    kind: str
    model: str
    architecture: str
    pretrained: str | None
    path: str | None
    state: str
    size_mb: int | None = None
    licence: str | None = None
    sha256: str | None = None
    source: str | None = None
    filenames: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            field.name: list(value) if isinstance(value, tuple) else value
            for field in fields(self)
            for value in (getattr(self, field.name),)
        }


@lru_cache(maxsize=1)
def _registry() -> dict[str, ModelEntry]:
    import yaml

    table = yaml.safe_load((_PACKAGE / "data" / "models.yaml").read_text(encoding="utf-8"))
    entries = {}
    for name, row in table.items():
        if row.get("folder"):
            row["folder"] = str(_PACKAGE / row["folder"])
        entries[name] = ModelEntry(name=name, **row)
    return entries


def models(kind: str | None = None) -> tuple[ModelEntry, ...]:
    """The registry's models, all or those of one kind, in the order to offer them."""
    if kind is not None:
        _check_kind(kind)
    return tuple(entry for entry in _registry().values() if kind in (None, entry.kind))


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
    _check_kind(kind)
    model = str(model).strip()
    entry = _registry().get(model) or _registry().get(model.lower())
    # One name stands for the whole offline family, whatever the kind
    if entry is not None and entry.kind != kind and model != "shapes-tiny":
        raise UnknownModelError(f"model {model!r} is of kind {entry.kind!r}, not {kind!r}")
    if kind == "proposals":
        from zs_operators.proposal_loading import plan_proposer

        return plan_proposer(model, weights)
    if kind == "sam":
        from zs_operators.sam_loading import plan_sam

        return plan_sam(model, weights)
    folder = Path(model).expanduser()
    if entry is None and (folder / CONFIG_NAME).is_file():
        if weights is not None:
            raise InvalidInputError(
                f"model {model!r} is a folder with its own weights: leave out weights={weights!r}"
            )
        return _plan_local(kind, folder.name, None, folder.absolute())

    if weights is not None:
        local = _local_path(weights)
        if local is not None:
            return _plan_local(kind, model, entry, local)
        weights = str(weights).strip()
    if weights == "random":
        architecture = entry.architecture if entry else _architecture(model)
        if entry is not None and entry.folder is not None:
            raise WeightsError(f"model {model!r} is bundled with its weights; leave out 'random'")
        return WeightsPlan(kind, model, architecture, None, None, "random", source="random")
    if entry is not None and weights in (None, "", entry.pretrained):
        return _plan_entry(kind, model, entry)
    return _plan_tag(kind, model, entry.architecture if entry else _architecture(model), weights)


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise InvalidInputError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")


def _local_path(weights: str | Path) -> Path | None:
    """``weights`` as a path if it is one or clearly means to be one."""
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


def _plan_local(kind: str, model: str, entry: ModelEntry | None, path: Path) -> WeightsPlan:
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
    return WeightsPlan(kind, model, architecture, None, str(path), "local", source="local")


def _plan_entry(kind: str, model: str, entry: ModelEntry) -> WeightsPlan:
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
        return WeightsPlan(kind, model, entry.architecture, None, entry.folder, "bundled", **common)
    if entry.pretrained is None:
        raise WeightsError(
            f"the weights of {model!r} have to be fetched by hand. {entry.description}"
        )
    filenames = hub_filenames("")
    path = cached_file(entry.source, filenames)
    return WeightsPlan(
        kind,
        model,
        entry.architecture,
        entry.pretrained,
        path,
        "cached" if path else "download",
        filenames=filenames,
        **common,
    )


def _plan_tag(kind: str, model: str, architecture: str, tag: str | None) -> WeightsPlan:
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
        (e for e in models(kind) if (e.architecture, e.pretrained) == (architecture, tag)), None
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
        kind,
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
        f"no model or open_clip architecture is called {model!r}; "
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
