"""The arguments of a run as plain JSON, so that its record alone can repeat it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zs_operators.class_files import has_known_suffix
from zs_operators.redaction import without_secrets
from zs_operators.torch_models import CONFIG_NAME
from zs_operators.weights_files import CONFIG_NAME as CLIP_CONFIG_NAME

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

#: Stands for what JSON cannot hold: ``{"object": "<name of its type>"}``.
OBJECT = "object"
#: A view that takes more text than this is not recorded: its samples are those the run has marked.
MAX_STAGES_CHARS = 200_000

# Nobody repeats these: the first is the data, the others only where it runs and what is shown
_NOT_RECORDED = ("samples", "executor", "progress", "options")
_MODELS = ("model", "clip", "proposals", "detector")
_FILES = ("weights", "clip_weights", "proposal_weights")


def recorded(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a record keeps of the arguments of a public function.

    Args:
        arguments: by name, those in a mapping called ``options`` among them. Class names are left
            to the record's vocabulary; only where they came from is kept, if it has a name.
    """
    found = {**arguments, **arguments.get("options", {})}
    found = {name: value for name, value in found.items() if name not in _NOT_RECORDED}
    if "classes" in found:
        found["classes"] = _source_of_classes(found["classes"])
    for name in found:
        if _is_path(name, found[name]):
            # Another process has another working directory
            found[name] = os.path.abspath(os.path.expanduser(found[name]))
    return {name: plain(value) for name, value in found.items()}


def plain(value: Any) -> Any:
    """A value as JSON has it, without secrets; ``{"object": …}`` for what JSON has not."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | os.PathLike):
        return without_secrets(os.fspath(value))
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    if hasattr(value, "item"):  # a number of numpy or torch
        return value.item()
    return {OBJECT: type(value).__name__}


def scope(samples: SampleCollection) -> dict[str, Any]:
    """Which samples a run was given: the stages of the view as JSON text.

    None if it is long, or if a stage selects by addresses with secrets in them.
    """
    from bson import json_util

    stages = json_util.dumps(samples.view()._serialize())
    is_kept = len(stages) <= MAX_STAGES_CHARS and without_secrets(stages) == stages
    return {"dataset": samples._root_dataset.name, "stages": stages if is_kept else None}


def _source_of_classes(classes: Any) -> str | None:
    if isinstance(classes, os.PathLike) or (isinstance(classes, str) and has_known_suffix(classes)):
        return os.path.abspath(os.path.expanduser(classes))
    return classes if isinstance(classes, str) else None


def _is_path(name: str, value: Any) -> bool:
    if not isinstance(value, str | os.PathLike) or "://" in os.fspath(value):
        return False
    if name in _MODELS:
        folder = os.path.expanduser(value)
        names = (CLIP_CONFIG_NAME, CONFIG_NAME)
        return any(os.path.isfile(os.path.join(folder, config)) for config in names)
    if name in _FILES:
        # A tag may be called like a folder that happens to be here
        return not isinstance(value, str) or os.sep in value or os.path.isfile(value)
    if name == "head":
        return os.path.isfile(value)
    return name == "output_dir"
