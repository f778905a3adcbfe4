"""Inputs of the operator ``review``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import fiftyone.operators.types as types

from . import forms

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

ACTIONS = {
    "tag": ("Tag what is suspicious", "To look at later, the worst first"),
    "mark": ("Mark as reviewed", "Note that these labels are right, or what is right"),
    "export": ("Export what was reviewed", "A row for each label, with who was right"),
}
VERDICTS = {
    "right": "The labels are right",
    "name": "They should have another name",
    "discard": "No name is right",
}
_MAX_NAMES = 200


def ask(inputs: types.Object, ctx, samples: SampleCollection) -> None:
    """The fields, what to do, and what that needs."""
    fields = _fields(samples)
    if not fields:
        forms.refuse(inputs, "field", "There are no labels to review", "Label these samples first.")
        return
    field = ctx.params.get("label_field")
    field = field if field in fields else fields[0]
    _choice(inputs, "label_field", fields, fields[0], "Label field", "The labels to review")
    action = ctx.params.get("action", "tag")
    view = types.RadioGroup()
    for name, (label, description) in ACTIONS.items():
        view.add_choice(name, label=label, description=description)
    inputs.enum("action", list(ACTIONS), default="tag", label="What to do", view=view)
    if action == "mark":
        _mark(inputs, ctx, samples, field)
    elif action == "export":
        _export(inputs, samples, field)
    else:
        _tag(inputs, ctx, samples, field)


def arguments(params: Mapping[str, Any], action: str) -> dict[str, Any]:
    """What a form or a script put into ``ctx.params``, as arguments of the engine."""
    found = {name: value for name, value in params.items() if value not in (None, "", [])}
    if action == "mark":
        verdict = found.pop("verdict", None)
        if verdict is not None and verdict != "name":
            found.pop("name", None)
        if verdict == "discard":
            found["discard"] = True
    return found


def default_field(samples: SampleCollection) -> str | None:
    """The field that is reviewed if none is named."""
    return next(iter(_fields(samples)), None)


def title_of(kind: str) -> str:
    """A kind of error for people."""
    from zs_operators.analysis.error_kinds import ERROR_KINDS, ErrorKind

    return ERROR_KINDS[ErrorKind(kind)].title


def _tag(inputs: types.Object, ctx, samples: SampleCollection, field: str) -> None:
    from zs_operators.analysis.error_inputs import kinds_for
    from zs_operators.analysis.error_kinds import ERROR_KINDS
    from zs_operators.analysis.review import DEFAULT_KINDS

    kinds = kinds_for(samples, field)
    view = types.AutocompleteView(allow_user_input=False, allow_duplicates=False)
    for kind in kinds:
        info = ERROR_KINDS[kind]
        view.add_choice(kind.value, label=info.title, description=info.description)
    prop = inputs.list(
        "kinds",
        types.String(),
        default=[kind.value for kind in DEFAULT_KINDS if kind in kinds],
        label="What counts as suspicious",
        view=view,
    )
    chosen = ctx.params.get("kinds")
    if chosen is not None and not chosen:
        prop.invalid = True
        prop.error_message = "Choose at least one."
    needing = [kind for kind in kinds if ERROR_KINDS[kind].needs and kind.value in (chosen or ())]
    if needing:
        truths = [name for name in _fields(samples) if name != field]
        prop = _choice(
            inputs, "ground_truth", truths, None, "Ground truth", "What the labels should be"
        )
        if ctx.params.get("ground_truth") not in truths:
            prop.invalid = True
            prop.error_message = f"{ERROR_KINDS[needing[0]].title}: choose the ground truth."
    inputs.int(
        "limit",
        min=1,
        label="At most so many images of each",
        description="Empty: all",
        view=types.FieldView(space=6),
    )
    inputs.str(
        "tag",
        default="zs_review",
        label="Tag",
        description="Goes on what should be looked at",
        view=types.FieldView(space=6),
    )


def _mark(inputs: types.Object, ctx, samples: SampleCollection, field: str) -> None:
    view = types.RadioGroup()
    for name, label in VERDICTS.items():
        view.add_choice(name, label=label)
    inputs.enum("verdict", list(VERDICTS), default="right", label="What is right", view=view)
    if ctx.params.get("verdict") == "name":
        names = types.AutocompleteView(allow_user_input=True)
        for name in _names(samples, field):
            names.add_choice(name, label=name)
        prop = inputs.str("name", label="The right name", required=True, view=names)
        if not (ctx.params.get("name") or "").strip():
            prop.invalid = True
            prop.error_message = "Name what is right."
    inputs.bool(
        "overwrite",
        default=False,
        label="Overwrite",
        description="Replace what was said of these labels before",
        view=types.CheckboxView(),
    )


def _export(inputs: types.Object, samples: SampleCollection, field: str) -> None:
    name = samples._root_dataset.name
    inputs.str(
        "path",
        default=f"~/{name}-{field}-reviewed.csv",
        required=True,
        label="File",
        description="On the machine where FiftyOne runs; .csv or .json",
    )
    inputs.bool(
        "overwrite",
        default=False,
        label="Overwrite",
        description="Replace a file that is there",
        view=types.CheckboxView(),
    )


def _fields(samples: SampleCollection) -> list[str]:
    """Fields of labels that can be reviewed, those that a run wrote first."""
    from zs_operators.analysis.review import REVIEWED_FIELD
    from zs_operators.samples import label_fields
    from zs_operators.stored_scores import KINDS

    schema = samples.get_field_schema()
    found = [
        name
        for name in label_fields(samples)
        if name != REVIEWED_FIELD and schema[name].document_type.__name__ in KINDS
    ]
    written = {key.split("_", 2)[-1] for key in samples._root_dataset.list_runs()}
    return sorted(found, key=lambda name: name not in written)


def _names(samples: SampleCollection, field: str) -> list[str]:
    from zs_operators.samples import class_names

    try:
        return class_names(samples, field)[:_MAX_NAMES]
    except ValueError:  # no labels yet
        return []


def _choice(
    inputs: types.Object,
    name: str,
    values: list[str],
    default: str | None,
    label: str,
    description: str,
) -> types.Property:
    view = types.DropdownView()
    for value in values:
        view.add_choice(value, label=value)
    return inputs.enum(
        name, values, default=default, label=label, description=description, view=view
    )
