"""Which models a form offers: those that can run here, and in a line what the others lack."""

from __future__ import annotations

from collections import Counter

import fiftyone.operators as foo
import fiftyone.operators.types as types

_HERE = {"bundled": "comes with the plugin", "here": "on this machine"}


def add_choices(view: types.DropdownView, ctx, kind: str, chosen: str | None, default: str) -> str:
    """Adds the models that can run here to a list of choices.

    Args:
        view: of the input
        ctx: the execution context
        kind: of :func:`zs_operators.models`
        chosen: what is chosen already, which stays in the list whatever it lacks
        default: of the input, which stays too

    Returns:
        what the models lack that are not offered, for the input's description; "" if none
    """
    found = offered(ctx, kind)
    for name, label, can_run in found["models"]:
        if can_run or name in (chosen, default):
            view.add_choice(name, label=label)
    return found["rest"]


@foo.execution_cache(prompt_scoped=True, residency="ephemeral")
def offered(ctx, kind: str) -> dict:
    """Names and labels of all models, whether each can run, and what the rest lacks in words."""
    from zs_operators.model_registry import models
    from zs_operators.model_state import model_state

    rows, installs, by_hand, away = [], Counter(), [], 0
    for entry in models(kind):
        state = model_state(entry)
        rows.append([entry.name, _label(entry, state), state.can_run])
        if state.can_run:
            continue
        if state.lacks:
            installs[state.how.split("; ")[0]] += 1
        elif entry.file is not None:
            by_hand.append(entry.name)
        else:
            away += 1
    parts = [f"{count} need `{how}`" for how, count in installs.items()]
    if away:
        parts.append(
            f"{away} are not on this machine and downloads are switched off: `zs pull MODEL` where "
            "they are not, or `zs pull --from BUNDLE`"
        )
    if by_hand:
        parts.append(f"{', '.join(by_hand)}: a file to fetch by hand")
    rest = f"Not offered: {'; '.join(parts)}. `zs models` lists all." if parts else ""
    return {"models": rows, "rest": rest}


def _label(entry, state) -> str:
    """A model's name, architecture, and what it costs to get."""
    parts = [entry.name]
    if entry.architecture != entry.name and ":" not in entry.architecture:
        parts.append(entry.architecture)
    if state.lacks:
        parts.append(f"needs {', '.join(state.lacks)}")
    elif state.weights in _HERE:
        parts.append(_HERE[state.weights])
    elif state.can_run:
        parts.append(f"download of {entry.size_mb:,.0f} MB")
    else:
        parts.append("not on this machine")
    if entry.imagenet_top1 is not None:
        parts.append(f"ImageNet {entry.imagenet_top1:.1f} %")
    return " · ".join(parts)
