"""Inputs that the forms of all operators share; every keystroke resolves them again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import fiftyone.operators.types as types

from zs_operators.errors import InvalidInputError, SamplesError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fiftyone.core.collections import SampleCollection


SAMPLE_FRAMES_OPERATOR = "@zs/operators/sample_frames"


def target(
    inputs: types.Object,
    ctx,
    verb: str,
    *,
    labels_description: str | None = None,
    images: Callable[[SampleCollection], SampleCollection] | None = None,
) -> SampleCollection | None:
    """Asks what to process; None, with the reason shown, where nothing can be.

    Args:
        inputs: the form
        ctx: the execution context
        verb: what happens to the samples, in the imperative: ``"Classify"``
        labels_description (None): what happens to selected labels, if not to their samples
        images (None): the images to process instead of the chosen samples, which may be patches
    """
    from zs_operators.samples import check_samples

    if ctx.dataset is None:
        refuse(inputs, "target", "No dataset is open", "Open a dataset first.")
        return None
    inputs.view_target(
        ctx,
        action_description=verb,
        allow_selected_labels=True,
        selected_labels_description=labels_description
        or f"{verb} the samples that hold the selected labels",
    )
    samples = ctx.target_view()
    if samples.media_type == "group":
        samples = _slice_of(inputs, ctx, samples)
        if samples is None:
            return None
    if images is not None:
        samples = images(samples)
    try:
        check_samples(samples)
    except SamplesError as error:
        if samples.media_type == "video":
            _offer_frames(inputs)
        else:
            refuse(inputs, "target", "These samples cannot be processed", str(error))
        return None
    return samples


def targeted(ctx) -> SampleCollection:
    """The samples the person chose; of a grouped dataset the slice they chose, if any."""
    samples = ctx.target_view()
    chosen = ctx.params.get("group_slice")
    if samples.media_type == "group" and chosen:
        return samples.select_group_slices(chosen)
    return samples


def label_field(
    inputs: types.Object,
    ctx,
    samples: SampleCollection,
    *,
    task: str,
    default: str,
    label_type: str | None = None,
) -> None:
    """Asks for the field to write, validated as it is typed."""
    from zs_operators.fields import check_label_field

    prop = inputs.str(
        "label_field",
        default=default,
        label="Label field",
        description="The field that the labels are written to",
    )
    name = ctx.params.get("label_field") or default
    overwrite = bool(ctx.params.get("overwrite", False))
    try:
        check_label_field(samples, name, task, overwrite=overwrite, label_type=label_type)
    except InvalidInputError as error:
        prop.invalid = True
        prop.error_message = str(error)
    if samples._dataset.get_field(name) is not None:
        inputs.bool(
            "overwrite",
            default=False,
            label="Overwrite",
            description=f"Replace the labels that these samples hold in {name}",
            view=types.CheckboxView(),
        )


def rejection(inputs: types.Object) -> None:
    """A folded section: when an image gets no class, and the background prompts."""
    group = section(inputs, "rejection", "None of these: rejection and background")
    thresholds(group)
    group.str(
        "background",
        label="Background prompts",
        description="One a line, encoded as typed. An image that fits one of them best is rejected",
        view=types.TextFieldView(multiline=True, rows=2),
    )
    group.str(
        "reject_label",
        label="Label of rejected images",
        description="Empty: they get no label",
        view=types.TextFieldView(),
    )


def thresholds(group: types.Object) -> None:
    """Inputs for what the best class needs at least."""
    for name, label, description, bounds in (
        ("min_confidence", "Least confidence", "Between 0 and 1", {"min": 0, "max": 1}),
        ("min_margin", "Least margin", "Logit above the next best", {"min": 0}),
        ("min_cosine", "Least cosine", "Between −1 and 1", {"min": -1, "max": 1}),
    ):
        group.float(
            name, label=label, description=description, view=types.FieldView(space=4), **bounds
        )


def classification_output(inputs: types.Object) -> None:
    """A folded section: how many labels an image gets and what is stored with them."""
    group = section(inputs, "output", "Labels and scores")
    group.bool(
        "multi_label",
        default=False,
        label="Several labels an image",
        description="Score every class on its own; with a least confidence, above",
        view=types.CheckboxView(space=6),
    )
    group.bool(
        "store_logits",
        default=False,
        label="Store logits",
        description="For hardness and mistakenness; needs space",
        view=types.CheckboxView(space=6),
    )
    group.int(
        "top_k",
        min=1,
        label="Top k",
        description="Store the k best classes; empty: the best one",
        view=types.FieldView(space=6),
    )
    group.float(
        "temperature",
        min=1e-6,
        label="Temperature",
        description="Divides the logits; empty: as the model was trained",
        view=types.FieldView(space=6),
    )


def refuse(inputs: types.Object, name: str, label: str, description: str) -> None:
    """Shows an error in the form and keeps it from being executed."""
    prop = inputs.view(f"{name}_error", types.Error(label=label, description=escaped(description)))
    prop.invalid = True
    prop.error_message = description


def section(inputs: types.Object, name: str, label: str) -> types.Object:
    return inputs.obj(
        name, view=types.ObjectView(label=label, collapsible=True, default_expanded=False)
    ).type


def _offer_frames(inputs: types.Object) -> None:
    refuse(
        inputs,
        "target",
        "These samples are videos",
        "Their frames are labelled as images: sample them first, or add the stage ToFrames to the "
        "view. Labels of frames are labels of the videos.",
    )
    inputs.view(
        "sample_frames",
        types.Button(
            label="Sample frames",
            operator=SAMPLE_FRAMES_OPERATOR,
            prompt=True,
            variant="contained",
            space=4,
        ),
    )


def _slice_of(inputs: types.Object, ctx, samples) -> SampleCollection | None:
    media_types = ctx.dataset.group_media_types
    slices = [name for name, media_type in media_types.items() if media_type == "image"]
    if not slices:
        refuse(inputs, "target", "No slice holds images", "Only image slices can be processed.")
        return None
    current = ctx.group_slice if ctx.group_slice in slices else slices[0]
    view = types.DropdownView()
    for name in slices:
        view.add_choice(name, label=name)
    inputs.enum(
        "group_slice",
        slices,
        default=current,
        label="Group slice",
        description="The dataset is grouped: images of this slice are processed",
        view=view,
    )
    return samples.select_group_slices(ctx.params.get("group_slice") or current)


def escaped(text: str) -> str:
    """Text that the App's Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", text)
