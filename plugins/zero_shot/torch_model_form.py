"""Inputs for a model that is chosen by name, folder or file: a proposer or a SAM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone.operators.types as types

from zs_operators.errors import InvalidInputError, ZeroShotError
from zs_operators.proposal_loading import DEFAULT_PROPOSER
from zs_operators.sam_loading import DEFAULT_SAM

from . import detector_form, forms, model_form, params
from .model_choices import add_choices


@dataclass(frozen=True)
class Picker:
    """Names of the inputs and of the engine's arguments.

    Attributes:
        kind: of :func:`zs_operators.models`
        model, weights: the engine's arguments, and inputs
        path, architecture: further inputs, of local weights
        label: of the first input
        default: name of the model
    """

    kind: str
    model: str
    weights: str
    path: str
    architecture: str
    label: str
    default: str


PROPOSER = Picker(
    "proposals",
    "proposals",
    "proposal_weights",
    "proposal_path",
    "proposal_architecture",
    "Model that finds boxes",
    DEFAULT_PROPOSER,
)
SAM = Picker(
    "sam", "model", "weights", "sam_path", "sam_architecture", "Model that segments", DEFAULT_SAM
)


def proposer(inputs: types.Object, ctx) -> None:
    """Asks for the model that finds boxes, says what its weights need, and how to use it."""
    more = {params.OTHER_DETECTOR: detector_form.LABEL}
    if ctx.params.get(PROPOSER.model) == params.OTHER_DETECTOR:
        _choose(inputs, ctx, PROPOSER, space=12, more=more)
        detector_form.detector(inputs, ctx, detector_form.PROPOSING)
        return
    _choose(inputs, ctx, PROPOSER, space=8, more=more)
    modes = types.DropdownView(space=4)
    modes.add_choice("refined", label="Refined boxes")
    modes.add_choice("rpn", label="First-stage proposals")
    inputs.enum(
        "proposal_mode", modes.values(), default="refined", label="Boxes to take", view=modes
    )
    _local_weights(inputs, ctx, PROPOSER)


def sam(inputs: types.Object, ctx) -> None:
    """Asks for the model that segments, and says what its weights need."""
    _choose(inputs, ctx, SAM, space=12)
    _local_weights(inputs, ctx, SAM)


def arguments(given: Mapping[str, Any], picker: Picker) -> dict[str, str]:
    """Model and weights in ``ctx.params`` as the engine takes them, as far as they are given.

    Raises:
        InvalidInputError: if local weights were chosen and not named
    """
    values = params.flat(given)
    name, weights = values.get(picker.model), values.get(picker.weights)
    if name == params.OTHER_DETECTOR:
        name, weights = values.get(detector_form.PROPOSING), None
        if not name:
            raise InvalidInputError("Name the detector that finds boxes.")
    if name == params.CUSTOM_MODEL:
        weights = values.get(picker.path)
        if not weights:
            raise InvalidInputError("Give the path of a folder or of a weights file.")
        if Path(weights).expanduser().is_dir():
            name, weights = weights, None
        else:
            name = values.get(picker.architecture, picker.default)
    found = {picker.model: name, picker.weights: weights}
    return {name: value for name, value in found.items() if value}


def _choose(
    inputs: types.Object,
    ctx,
    picker: Picker,
    *,
    space: int,
    more: Mapping[str, str] | None = None,
) -> None:
    view = types.DropdownView(space=space)
    chosen = ctx.params.get(picker.model)
    rest = add_choices(view, ctx, picker.kind, chosen, picker.default)
    view.add_choice(params.CUSTOM_MODEL, label="Local weights: a folder or a file")
    for choice, words in (more or {}).items():
        view.add_choice(choice, label=words)
    inputs.str(
        picker.model, default=picker.default, label=picker.label, description=rest, view=view
    )


def _local_weights(inputs: types.Object, ctx, picker: Picker) -> None:
    """Asks for local weights if those were chosen, and says what the weights need."""
    from zs_operators import weights

    if ctx.params.get(picker.model) == params.CUSTOM_MODEL:
        inputs.str(
            picker.path,
            label="Folder or file",
            description="A folder with config.json and model.safetensors, or a weights file",
            view=types.TextFieldView(space=8),
        )
        architecture = types.DropdownView(space=4)
        for name in _names(picker):
            if not name.startswith("shapes-"):
                architecture.add_choice(name, label=name)
        inputs.enum(
            picker.architecture,
            architecture.values(),
            default=picker.default,
            label="Architecture of a file",
            view=architecture,
        )
    state = f"{picker.model}_state"
    try:
        given = arguments(ctx.params, picker)
        name = given.get(picker.model, picker.default)
        plan = weights.plan_weights(picker.kind, name, given.get(picker.weights))
    except ZeroShotError as error:
        forms.refuse(inputs, state, "This model cannot be used", str(error))
        return
    model_form.notice(inputs, plan, state)


def _names(picker: Picker) -> list[str]:
    from zs_operators import weights

    return [entry.name for entry in weights.models(picker.kind)]
