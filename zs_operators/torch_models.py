"""Proposers and Sams: planned by registry name or folder, fetched, built and loaded.

Models of open_clip have a layout and a hub of their own: see :mod:`zs_operators.weights`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zs_operators.downloads import download
from zs_operators.errors import OfflineError, UnknownModelError, WeightsError
from zs_operators.model_registry import ModelEntry, models
from zs_operators.redaction import without_secrets
from zs_operators.weights_files import (
    WEIGHT_SUFFIXES,
    forbidden_downloads,
    hash_in_name,
    refuse_address,
    verify_weights,
)
from zs_operators.weights_places import checkpoint_folders, find_checkpoint
from zs_operators.weights_plan import WeightsPlan

if TYPE_CHECKING:
    import torch

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"

_BUILDER_KEY = "architecture"
_BUILDER_PREFIX = "zs_operators."
_BUILDER_FUNCTION = "build_"
_KIND_WORDS = {"proposals": "proposal model", "sam": "SAM"}


def plan_torch_model(
    kind: str,
    model: str | Path,
    weights: str | Path | None = None,
    *,
    aliases: Mapping[str, str] | None = None,
) -> WeightsPlan:
    """Find out what ``model`` and ``weights`` mean, without the network and without torch.

    Args:
        kind: "proposals" or "sam"
        model: a name of ``models(kind)``, one of ``aliases``, or a local folder with
            ``config.json`` and ``model.safetensors``
        weights (None): the tag of the registry or "DEFAULT", a local file or folder, "random" for
            untrained weights (tests and timing), or None for the model's own
        aliases (None): further names of models

    Raises:
        UnknownModelError: for an unknown model or tag; the message has the nearest names
        WeightsError: if a local file or folder is missing or is not one
    """
    text = (aliases or {}).get(str(model).strip(), str(model).strip())
    entries = {entry.name: entry for entry in models(kind)}
    entry = entries.get(text) or entries.get(text.lower())
    if entry is None:
        folder = Path(model).expanduser()
        if not folder.is_dir():
            nearest = difflib.get_close_matches(text, entries, n=3, cutoff=0.4)
            raise UnknownModelError(
                f"no {_KIND_WORDS[kind]} is called {without_secrets(text)!r}; "
                + (f"nearest: {', '.join(nearest)}; " if nearest else "")
                + f"there are: {', '.join(entries)}; or give a folder with {CONFIG_NAME}"
            )
        return _plan_folder(kind, text, _checked_folder(weights or folder))
    chosen = "" if weights is None else str(weights).strip()
    if chosen == "random":
        return WeightsPlan(
            kind, entry.name, entry.architecture, None, None, "random", source="random"
        )
    if chosen and chosen.upper() not in ("DEFAULT", str(entry.pretrained).upper()):
        return _plan_local(entry, chosen)
    if entry.folder is not None:
        folder = _checked_folder(entry.folder, hint="; reinstall zs-operators")
        return replace(_plan_folder(kind, entry.name, folder), state="bundled", **_facts(entry))
    filename = str(entry.source).rsplit("/", 1)[-1]
    cached = find_checkpoint(filename)
    return WeightsPlan(
        kind,
        entry.name,
        entry.architecture,
        entry.pretrained,
        str(cached) if cached else None,
        "cached" if cached else "download",
        filenames=(filename,),
        **_facts(entry),
    )


def weights_file(plan: WeightsPlan, *, allow_download: bool = True) -> Path:
    """The weights file of a plan, downloaded if it has to be.

    Raises:
        OfflineError: if it is not on this machine and cannot or must not be downloaded
    """
    if plan.path is not None:
        path = Path(plan.path)
        return path / WEIGHTS_NAME if path.is_dir() else path
    folder = checkpoint_folders()[0]
    reason = forbidden_downloads(allow_download)
    if reason is None:
        file = folder / plan.filenames[0]
        try:
            sha256 = plan.sha256 or hash_in_name(file.name)
            return download(str(plan.source), file, sha256=sha256)
        except OfflineError as error:
            reason = str(error)
    raise OfflineError(
        f"the weights of {plan.model!r} are not on this machine and {reason}. On a machine with "
        f"network get {plan.source}, copy it to {folder}, or pass its path as the weights of the "
        f"{_KIND_WORDS[plan.kind]}"
    )


def build_from_config(plan: WeightsPlan) -> torch.nn.Module:
    """The untrained network of a plan whose architecture is ``"module:function"``.

    Raises:
        WeightsError: if the function is not a ``build_…`` of this package, whose code alone is run
    """
    home, _, function = plan.architecture.partition(":")
    if not home.startswith(_BUILDER_PREFIX) or not function.startswith(_BUILDER_FUNCTION):
        raise WeightsError(
            f"architecture {plan.architecture!r} is no {_BUILDER_FUNCTION}* of {_BUILDER_PREFIX}* "
            "and is not run"
        )
    try:
        builder = getattr(import_module(home), function)
    except (ImportError, AttributeError) as error:
        raise WeightsError(f"architecture {plan.architecture!r}: {error}") from error
    folder = Path(plan.path) if plan.path else None
    # a single published file has no config: the builder knows its network
    return builder(_read_config(folder) if folder is not None and folder.is_dir() else None)


def load_verified(
    module: torch.nn.Module, plan: WeightsPlan, file: Path
) -> tuple[torch.nn.Module, WeightsPlan]:
    """The module with the weights of a file, and the plan with the file's sha256.

    Raises:
        WeightsError: if the file is damaged or of another architecture
    """
    sha256 = verify_weights(plan, file)
    _load(module, file, plan.architecture)
    return module.eval(), replace(plan, path=plan.path or str(file), sha256=sha256)


def _facts(entry: ModelEntry) -> dict[str, Any]:
    return {
        "size_mb": entry.size_mb,
        "licence": entry.licence,
        "sha256": entry.sha256,
        "source": entry.source,
    }


def _plan_local(entry: ModelEntry, weights: str) -> WeightsPlan:
    refuse_address(weights)
    path = Path(weights).expanduser()
    if not path.exists():
        if "/" in weights or "\\" in weights or path.suffix:
            raise WeightsError(
                f"there is no weights file or folder {weights!r} (looked at {path.absolute()})"
            )
        raise UnknownModelError(
            f"{entry.name!r} has no weights {weights!r}; it has {entry.pretrained or 'its own'}, "
            "'random', or give a local file"
        )
    if path.is_dir():
        return _plan_folder(entry.kind, entry.name, _checked_folder(path))
    if path.suffix.lower() not in WEIGHT_SUFFIXES:
        raise WeightsError(f"weights file {weights!r} is none of {', '.join(WEIGHT_SUFFIXES)}")
    return WeightsPlan(
        entry.kind,
        entry.name,
        entry.architecture,
        None,
        str(path.resolve()),
        "local",
        source="local",
    )


def _plan_folder(kind: str, name: str, folder: Path) -> WeightsPlan:
    architecture = _read_config(folder)[_BUILDER_KEY]
    return WeightsPlan(kind, name, architecture, None, str(folder), "local", source="local")


def _checked_folder(folder: str | Path, hint: str = "") -> Path:
    folder = Path(folder).expanduser().resolve()
    missing = [name for name in (CONFIG_NAME, WEIGHTS_NAME) if not (folder / name).is_file()]
    if missing:
        raise WeightsError(f"folder {str(folder)!r} has no {' and no '.join(missing)}{hint}")
    return folder


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG_NAME
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{str(file)!r} cannot be read as JSON: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get(_BUILDER_KEY), str):
        raise WeightsError(f"{str(file)!r} does not say its {_BUILDER_KEY!r}")
    return config


def _load(module: torch.nn.Module, file: Path, architecture: str) -> None:
    from zs_operators.clip_weights import read_state_dict

    state: Mapping[str, torch.Tensor] = read_state_dict(file)
    own = module.state_dict()
    if hasattr(module, "own_names") and not own.keys() <= state.keys():
        state = module.own_names(state)  # a published file has the names of another package
    missing = [name for name in own if name not in state and "num_batches_tracked" not in name]
    unknown = [name for name in state if name not in own and "num_batches_tracked" not in name]
    problems = [
        f"{name} is {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    problems += [f"{len(missing)} tensors are missing ({missing[0]}, …)"] if missing else []
    problems += [f"{len(unknown)} are unknown ({unknown[0]}, …)"] if unknown else []
    if problems:
        raise WeightsError(
            f"{str(file)!r} holds weights of another architecture than {architecture!r}: "
            + "; ".join(problems[:4])
        )
    # copied into the module's own float32 tensors, whatever the file's precision
    module.load_state_dict({name: state[name] for name in own if name in state}, strict=False)
