"""The settings of a form's last run on a dataset, offered again the next time.

They are in the dataset's own execution store of FiftyOne, and go with the dataset.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import fiftyone.operators.types as types

from . import forms, params, running

logger = logging.getLogger(__name__)

STORE = "zs_settings"
MAX_CHARS = 100_000

#: What is about one run alone: what it works on, names that must be new, what it may replace.
ONCE = frozenset(
    {
        "box_field",
        "class_file",
        "eval_key",
        "group_slice",
        "look",
        "name",
        "overwrite",
        "preview",
        "prompts",
        "regions",
        "replace_saved",
        "save_as",
        "stages",
        "view_before",
        "view_target",
    }
)


def keep(ctx, task: str) -> None:
    """Keeps the settings of a run that a form has started; of a script's run nothing is kept.

    Args:
        ctx: the execution context
        task: name of the operator
    """
    if not (running.is_app_request(ctx) or ctx.delegated) or "classes" in ctx.params:
        return
    settings = {name: value for name, value in ctx.params.items() if name not in ONCE}
    if settings.get("class_source") == "file":
        del settings["class_source"]  # the file itself is not kept
    if len(json.dumps(settings, default=str)) > MAX_CHARS:
        return
    try:
        ctx.store(STORE).set(task, settings)
    except Exception:  # a run does not fail for what is a convenience
        logger.warning("the settings of %s could not be kept", task, exc_info=True)


def offer(ctx, task: str, form: types.Property) -> types.Property:
    """The same form with the kept settings for defaults, and a line that says so.

    Args:
        ctx: the execution context
        task: name of the operator
        form: its inputs, as they are without
    """
    kept = ctx.store(STORE).get(task) if ctx.dataset is not None else None
    if not kept:
        return form
    inputs = form.type
    filled = list(_fill(inputs, kept))
    if not filled:
        return form
    folded = [f"{label} {value}" for label, value, is_folded in filled if is_folded]
    notice = types.Object()
    notice.view(
        "remembered",
        types.Notice(
            label="Filled in as in the last run on this dataset",
            description=forms.escaped(f"In folded parts: {', '.join(folded)}") if folded else None,
        ),
    )
    inputs.properties = {**notice.properties, **inputs.properties}
    return form


def _fill(
    inputs: types.Object, kept: Mapping[str, Any], is_folded: bool = False
) -> Iterator[tuple[str, Any, bool]]:
    """Changes defaults; yields label and value of each, and whether it is in a folded part."""
    for name, prop in inputs.properties.items():
        value = kept.get(name)
        if isinstance(prop.type, types.Object):
            if isinstance(value, Mapping) and name in params.SECTIONS:
                yield from _fill(prop.type, value, is_folded=True)
        elif value not in (None, "") and value != prop.default and _fits(prop.type, value):
            prop.default = value
            yield getattr(prop.view, "label", None) or name, value, is_folded


def _fits(kind: types.BaseType, value: Any) -> bool:
    """Whether an input of this kind takes a value: what can be chosen may have changed."""
    if isinstance(kind, types.Enum):
        return value in kind.values
    if isinstance(kind, types.Boolean):
        return isinstance(value, bool)
    if isinstance(kind, types.Number):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(kind, types.String) and isinstance(value, str)
