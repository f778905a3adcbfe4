"""Inputs for the model: which one, where its weights come from, and how it runs here."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import fiftyone.operators.types as types

from zs_operators.errors import ZeroShotError
from zs_operators.weights_files import is_offline

from . import forms, params
from .model_choices import add_choices

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zs_operators.weights import WeightsPlan


def model(
    inputs: types.Object,
    ctx,
    names: tuple[str, str, str] = params.MODEL_INPUTS,
    label: str = "Model",
    more: Mapping[str, str] | None = None,
) -> WeightsPlan | None:
    """Asks for a CLIP model and says what its weights need: nothing, a download, or a file.

    Args:
        inputs: the form
        ctx: the execution context
        names: of the inputs for the model, its weights, and the architecture of a custom one
        label: of the first input
        more (None): further choices that are no CLIP models, with their labels

    Returns:
        what the weights need; None if they cannot be used, or if one of ``more`` was chosen
    """
    from zs_operators import weights

    name, weights_name, architecture_name = names
    view = types.DropdownView()
    rest = add_choices(view, ctx, "clip", ctx.params.get(name), weights.DEFAULT_CLIP)
    view.add_choice(params.CUSTOM_MODEL, label="Another open_clip model or local weights")
    for choice, words in (more or {}).items():
        view.add_choice(choice, label=words)
    # A plain string: scripts may name any architecture
    inputs.str(name, default=weights.DEFAULT_CLIP, label=label, description=rest, view=view)
    if ctx.params.get(name) in (more or {}):
        return None
    if ctx.params.get(name) == params.CUSTOM_MODEL:
        inputs.str(
            architecture_name,
            label="Architecture",
            description="As open_clip names it, for example ViT-B-32",
            view=types.TextFieldView(space=6),
        )
        inputs.str(
            weights_name,
            label="Weights",
            description="A pretrained tag, or the path of a local file or folder",
            view=types.TextFieldView(space=6),
        )
    values = params.flat(ctx.params)
    try:
        chosen, chosen_weights = params.model_and_weights(values, names)
        plan = weights.plan_weights("clip", chosen or weights.DEFAULT_CLIP, chosen_weights)
    except ZeroShotError as error:
        forms.refuse(inputs, f"{name}_state", "This model cannot be used", str(error))
        return None
    notice(inputs, plan, f"{name}_state")
    return plan


def performance(inputs: types.Object) -> types.Object:
    """A folded section: batch size, device, precision and workers; the defaults are measured.

    Returns:
        the section, for further inputs
    """
    section = forms.section(inputs, "performance", "Device and speed")
    section.int(
        "batch_size",
        min=1,
        label="Batch size",
        description="Images encoded at once; empty: chosen for the device",
        view=types.FieldView(space=6),
    )
    section.int(
        "workers",
        min=1,
        label="Reader threads",
        description="Threads that read images ahead; empty: chosen for the machine",
        view=types.FieldView(space=6),
    )
    device = types.DropdownView(space=6)
    for name in devices():
        device.add_choice(name, label={"auto": "Automatic"}.get(name, name.upper()))
    section.enum("device", device.values(), default="auto", label="Device", view=device)
    precision = types.DropdownView(space=6)
    for name in ("auto", "fp32", "bf16", "fp16"):
        precision.add_choice(name, label={"auto": "Automatic"}.get(name, name))
    section.enum("precision", precision.values(), default="auto", label="Precision", view=precision)
    return section


def embeddings(section: types.Object, size: str) -> None:
    """Asks whether embeddings are kept on disk and taken from there.

    Args:
        section: of the form
        size: of what is kept, for people: ``"2 MB an image"``
    """
    view = types.DropdownView()
    view.add_choice("off", label="Not kept")
    view.add_choice("reuse", label="Kept on disk: later runs on these images skip the encoder")
    view.add_choice("refresh", label="Computed again and kept on disk")
    section.enum(
        "embeddings",
        view.values(),
        default="off",
        label="Embeddings",
        description=f"{size}, at most 20 GB in all",
        view=view,
    )


def devices() -> list[str]:
    """Devices a model could run on here, told without importing torch, which takes seconds."""
    found = ["auto", "cpu"]
    if os.path.exists("/dev/nvidiactl") or os.path.exists("/dev/dxg"):
        found.append("cuda")
    if sys.platform == "darwin":
        found.append("mps")
    return found


def notice(inputs: types.Object, plan: WeightsPlan, name: str) -> None:
    """Says what the weights of a model need, in a view called ``name``."""
    licence = f" · licence {plan.licence}" if plan.licence else ""
    if plan.state == "download":
        size = f" ({plan.size_mb:,.0f} MB)" if plan.size_mb else ""
        if is_offline():
            label = f"The weights{size} are not on this machine, and downloads are switched off"
            how = f"`zs pull {plan.model}` where they are not, or `zs pull --from` a bundle"
        else:
            label = f"The weights will be downloaded{size}"
            how = (
                f"Once, from {plan.source or 'their publisher'}; or before: `zs pull {plan.model}`"
            )
        inputs.view(name, types.Warning(label=label, description=f"{how}{licence}"))
    elif plan.state == "random":
        inputs.view(
            name,
            types.Warning(
                label="The weights are random",
                description="For timing only: labels will mean nothing",
            ),
        )
