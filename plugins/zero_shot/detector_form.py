"""Inputs for a detector of another make: one that is not in our registry of models."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import fiftyone.operators.types as types

from zs_operators.errors import InvalidInputError, ZeroShotError
from zs_operators.weights_files import is_offline

from . import params

#: The input, and the engine's argument.
DETECTOR = "detector"
#: The input where it takes the place of the proposer.
PROPOSING = "proposal_detector"
LABEL = "Other detector: of Hugging Face, of FiftyOne's zoo, or a folder"
#: What a picker of models offers besides its own.
CHOICE = MappingProxyType({params.OTHER_DETECTOR: LABEL})


def is_chosen(ctx) -> bool:
    """Whether such a detector takes the place of CLIP and the proposer."""
    return ctx.params.get("model") == params.OTHER_DETECTOR


def own_templates(ctx) -> tuple[str, ...] | None:
    """The templates of the detector that is chosen and usable, as far as they are known."""
    from zs_operators.detectors import loading

    given = (ctx.params.get(DETECTOR) or "").strip()
    if not is_chosen(ctx) or not given:
        return None
    try:
        return loading.plan_detector(given).templates
    except ZeroShotError:
        return None


def detector(inputs: types.Object, ctx, name: str = DETECTOR) -> None:
    """Asks for the detector, and says what is wrong with it or what it needs.

    Args:
        inputs: the form
        ctx: the execution context
        name: of the input: :data:`DETECTOR` or :data:`PROPOSING`
    """
    from zs_operators.detectors import loading
    from zs_operators.detectors.hugging_face_files import is_installed

    where = "A model of FiftyOne's zoo, such as yolov8s-world-torch"
    if is_installed():
        where += "; a name of Hugging Face, such as google/owlv2-base-patch16-ensemble; or a folder"
    else:
        where += ". OWLv2 and Grounding DINO need: pip install 'zs-operators[hf]'"
    prop = inputs.str(
        name, required=True, label="Detector", description=where, view=types.TextFieldView()
    )
    given = (ctx.params.get(name) or "").strip()
    if not given:
        prop.invalid, prop.error_message = True, "Name a detector"
        return
    try:
        plan = loading.plan_detector(given)
    except ZeroShotError as error:
        prop.invalid, prop.error_message = True, str(error)
        return
    licence = f" · licence {plan.licence}" if plan.licence else ""
    size = f" ({plan.size_mb:,.0f} MB)" if plan.size_mb else ""
    if plan.state == "download":
        if is_offline():
            label = f"The weights{size} are not on this machine, and downloads are switched off"
            how = "Copy the model's folder here and give its path"
        else:
            label = f"The weights will be downloaded{size}"
            how = f"Once, by the client of {plan.source}"
        inputs.view(f"{name}_state", types.Warning(label=label, description=f"{how}{licence}"))
    if name == DETECTOR and not plan.takes_text:
        inputs.view(
            f"{name}_classes",
            types.Notice(
                label="This detector has a list of classes of its own",
                description="Classes it does not know are refused. To use any names, choose a "
                "CLIP model and this detector as the model that finds boxes",
            ),
        )
    elif name == DETECTOR:
        inputs.view(
            f"{name}_templates",
            types.Notice(
                label="Prompts are made as this detector was trained",
                description="Instead of the simple templates, which are CLIP's; others that you "
                "choose are used. A class counts by its best prompt",
            ),
        )


def arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """The engine's argument if such a detector was chosen in a form, or given by a script.

    Raises:
        InvalidInputError: if it was chosen and not named
    """
    values = params.flat(given)
    is_form = values.get("model") == params.OTHER_DETECTOR
    if not is_form and ("model" in values or DETECTOR not in values):
        return {}
    if DETECTOR not in values:
        raise InvalidInputError("Name the detector: a zoo model, a name of Hugging Face, a folder.")
    return {DETECTOR: values[DETECTOR]}
