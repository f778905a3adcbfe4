"""Inputs of ``@zs/operators/segment`` that no other operator asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import fiftyone.operators.types as types

from zs_operators.errors import InvalidInputError

from . import (
    detect_cost,
    detect_form,
    detect_target,
    forms,
    model_form,
    params,
    running,
    segment_cost,
    segment_target,
    targeting,
    torch_model_form,
    vocabulary_form,
)

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

#: Arguments that :class:`zs_operators.segment_options.SegmentOptions` checks.
OPTIONS = (
    "multimask",
    "min_iou",
    "min_stability",
    "tight_boxes",
    "fill_holes_px",
    "drop_islands_px",
    "max_masks",
    "points_per_side",
    "crop_n_layers",
    "box_nms_threshold",
)

_SLOW_SECONDS = 1.0


def prompts(inputs: types.Object, ctx, samples: SampleCollection) -> str:
    """Asks what prompts; returns the ``prompts`` argument.

    Args:
        inputs: the form
        ctx: the execution context
        samples: what the person chose, patches included
    """
    from zs_operators.prompt_fields import has_points

    chosen = segment_target.prompts(ctx, samples)
    fields = segment_target.fields(ctx, samples)
    known = (segment_target.EVERYTHING, segment_target.PROPOSALS, *fields)
    patches = targeting.patches_field(samples)
    if patches is not None and chosen == patches and patches in fields:
        inputs.view(
            "prompts_notice",
            types.Notice(
                label=f"These patches prompt, one mask each: {forms.escaped(patches)}",
                description="To segment anything else, leave the view of patches first.",
            ),
        )
        return chosen
    if patches is not None or "prompts" in ctx.params:
        _check_prompts(inputs, samples, chosen)
        return chosen
    view = types.DropdownView()
    view.add_choice(segment_target.EVERYTHING, label="Everything: a grid of points")
    view.add_choice(segment_target.PROPOSALS, label="By text: objects found by class names")
    for name in fields:
        kind = "Points" if has_points(samples, name) else "Boxes"
        view.add_choice(name, label=f"{kind} of {name}")
    prop = inputs.enum(
        "prompt_with",
        view.values(),
        default=chosen if chosen in known else segment_target.EVERYTHING,
        label="Prompt with",
        description="What is segmented; a box or a keypoint becomes one mask with its label",
        view=view,
    )
    if chosen not in known:
        prop.invalid = True
        prop.error_message = f"{chosen} has no labels here that can prompt: choose again"
    return chosen


def names(inputs: types.Object, ctx, samples: SampleCollection, prompts: str) -> bool:
    """Asks for class names and for what names masks, where they apply; whether masks get names.

    Args:
        inputs: the form
        ctx: the execution context
        samples: the images with all of their labels
        prompts: the ``prompts`` argument
    """
    from zs_operators.segment_setup import split_options

    is_naming = segment_target.is_naming(ctx.params, prompts)
    if prompts not in (segment_target.EVERYTHING, segment_target.PROPOSALS):
        try:
            split_options(prompts, ctx.params.get("classes"), {})
        except InvalidInputError as error:
            forms.refuse(inputs, "classes", "Class names cannot be given", str(error))
        return False
    required = prompts == segment_target.PROPOSALS
    vocabulary_form.class_names(inputs, ctx, samples, required=required)
    if is_naming:
        vocabulary_form.templates(inputs, ctx)
        vocabulary_form.details(inputs)
        words = vocabulary_form.preview(inputs, ctx, samples)
        vocabulary_form.save_as(inputs, ctx, samples, words)
    return is_naming


def models(inputs: types.Object, ctx, prompts: str, *, is_naming: bool) -> None:
    """Asks for the SAM, and for a CLIP and a proposer where they are needed."""
    torch_model_form.sam(inputs, ctx)
    if is_naming:
        model_form.model(inputs, ctx, params.CLIP_INPUTS, "Model that names")
    if prompts == segment_target.PROPOSALS:
        torch_model_form.proposer(inputs, ctx)


def output(
    inputs: types.Object,
    ctx,
    samples: SampleCollection,
    prompts: str,
    *,
    default: str,
    is_restricted: bool,
) -> None:
    """Asks for the field of the masks."""
    forms.label_field(
        inputs, ctx, samples, task="segment", default=default, label_type="Detections"
    )
    is_field = prompts not in (segment_target.EVERYTHING, segment_target.PROPOSALS)
    if is_restricted and is_field and ctx.params.get("overwrite"):
        name = ctx.params.get("label_field") or default
        inputs.view(
            "replaces",
            types.Warning(
                label=f"What {forms.escaped(name)} holds on these samples is replaced",
                description="If other settings made it, only the masks that are made now stay in "
                "it. With the same settings, masks are added to those it holds.",
            ),
        )


def naming(inputs: types.Object, ctx, prompts: str, *, is_naming: bool) -> None:
    """A folded section: which named masks stay, as for boxes that are detected."""
    if is_naming and prompts in (segment_target.EVERYTHING, segment_target.PROPOSALS):
        section = "boxes" if prompts == segment_target.PROPOSALS else "naming"
        detect_form.boxes(inputs, ctx, detect_target.PROPOSALS, section=section)


def masks(inputs: types.Object, ctx, prompts: str) -> None:
    """Folded sections: which masks stay, their form, and the grid; checked as it is typed."""
    from zs_operators.segment_options import SegmentOptions

    is_everything = prompts == segment_target.EVERYTHING
    group = forms.section(inputs, "masks", "Masks: quality and form")
    if not is_everything:
        view = types.DropdownView(space=6)
        view.add_choice("best", label="Single; best of three for a single point")
        view.add_choice("single", label="Single")
        view.add_choice("best_of_three", label="Best of part, larger part and whole")
        group.enum("multimask", view.values(), default="best", label="Mask of a prompt", view=view)
        group.bool(
            "tight_boxes",
            default=True,
            label="Tight boxes",
            description="The smallest box that holds the mask; else it is cut to its prompt's box",
            view=types.CheckboxView(space=6),
        )
    empty = ("Empty: 0.88", "Empty: 0.95") if is_everything else ("0 to 1", "0 to 1")
    for name, label, description in (
        ("min_iou", "Least predicted IoU", empty[0]),
        ("min_stability", "Least stability", empty[1]),
    ):
        group.float(
            name,
            min=0,
            max=1,
            label=label,
            description=description,
            view=types.FieldView(space=6),
        )
    _count(group, "fill_holes_px", "Fill holes below", "Pixels", 0, 4, default=0)
    _count(group, "drop_islands_px", "Remove islands below", "Pixels", 0, 4, default=0)
    _count(group, "max_masks", "Most masks an image", "Empty: no limit", 1, 4)
    if is_everything:
        group = forms.section(inputs, "grid", "Grid of points")
        _count(group, "points_per_side", "Points a side", "Fewer is faster", 1, 4, default=32)
        _count(group, "crop_n_layers", "Layers of crops", "Finds small objects", 0, 4, default=0)
        group.float(
            "box_nms_threshold",
            min=0,
            max=1,
            default=0.7,
            label="Most overlap",
            description="IoU of boxes, 0 to 1",
            view=types.FieldView(space=4),
        )
    values = segment_target.values(ctx.params, prompts)
    try:
        SegmentOptions(**{name: values[name] for name in OPTIONS if name in values})
    except InvalidInputError as error:
        forms.refuse(inputs, "masks", "These masks cannot be made", str(error))


def storage(
    inputs: types.Object,
    ctx,
    samples: SampleCollection,
    prompts: str,
    *,
    default: str,
    is_naming: bool,
) -> None:
    """A folded section: files, one mask of all classes, stored embeddings; checked as typed."""
    from zs_operators.mask_files import check_output_dir
    from zs_operators.semantic_fields import check_semantic_field, names_of

    group = forms.section(inputs, "storage", "Storage: files and embeddings")
    group.str(
        "output_dir",
        label="Folder for masks",
        description="PNG files below it; empty: they are kept in the database",
        view=types.TextFieldView(space=6),
    )
    group.str(
        "semantic_field",
        label="Field for one mask of all classes",
        description="Also write a Segmentation a sample; empty: none",
        view=types.TextFieldView(space=6),
    )
    model_form.embeddings(group, "2 MB an image")
    values = segment_target.values(ctx.params, prompts)
    if "output_dir" in values:
        try:
            check_output_dir(values["output_dir"])
        except InvalidInputError as error:
            forms.refuse(inputs, "output_dir", "This folder cannot be used", str(error))
    if "semantic_field" in values:
        field, label_field = values["semantic_field"], values.get("label_field", default)
        try:
            check_semantic_field(
                samples, field, label_field, overwrite=bool(values.get("overwrite"))
            )
            if prompts == segment_target.EVERYTHING and not is_naming:
                names_of(None)
        except InvalidInputError as error:
            forms.refuse(inputs, "semantic_field", "This field cannot be written", str(error))
        dataset = samples._dataset
        if dataset.get_field(field) is not None and dataset.get_field(label_field) is None:
            inputs.bool(
                "overwrite",
                default=False,
                label="Overwrite",
                description=f"Replace the labels that these samples hold in {field}",
                view=types.CheckboxView(),
            )


def cost(
    inputs: types.Object,
    ctx,
    chosen: SampleCollection,
    prompts: str,
    total: int,
    *,
    is_naming: bool,
) -> None:
    """Says how long a run takes on a CPU and how many bytes its masks have.

    Args:
        inputs: the form
        ctx: the execution context
        chosen: what the person chose, patches included
        prompts: the ``prompts`` argument
        total: number of images
        is_naming: whether masks are named with CLIP
    """
    known = (
        segment_target.EVERYTHING,
        segment_target.PROPOSALS,
        *segment_target.fields(ctx, chosen),
    )
    if prompts not in known:
        return
    values = segment_target.values(ctx.params, prompts)
    try:
        one = segment_cost.per_image(values, prompts, chosen, total, is_naming=is_naming)
    except (TypeError, ValueError):
        return  # an option that cannot be used, which is said elsewhere
    lines = []
    view = types.Notice
    if not detect_cost.runs_on_cpu(values, model_form.devices()):
        lines.append("How long a GPU takes is best tried on a few samples.")
    elif one.cpu_seconds is None:
        lines.append("How long the chosen models take is not known.")
    else:
        seconds = one.cpu_seconds * total
        lines.append(
            f"On this CPU an image takes about {running.duration(one.cpu_seconds)}, "
            f"{total:,} take {running.duration(seconds)}."
            if one.cpu_seconds >= _SLOW_SECONDS / 10
            # Shorter times would read as 0.0 s
            else f"On this CPU that takes about {running.duration(max(seconds, 0.1))}."
        )
        if one.cpu_seconds >= _SLOW_SECONDS:
            view = types.Warning
            if prompts == segment_target.EVERYTHING:
                lines.append("Fewer points (Grid of points) or a smaller model help.")
    if values.get("embeddings", "off") != "off" and "shapes" not in values.get("model", ""):
        lines.append(f"Embeddings: {size(segment_cost.EMBEDDING_BYTES * total)}, kept up to 20 GB.")
    lines.append("Rough estimates.")
    about = "At most" if one.at_most else "About"
    where = "in files" if values.get("output_dir") else "in the database"
    stored = f", {size(one.bytes * total)} {where}" if one.bytes is not None else ""
    images = "1 image" if total == 1 else f"{total:,} images"
    label = f"{about} {round(one.masks * total):,} masks on {images}{stored}"
    inputs.view("cost", view(label=label, description=" ".join(lines)))


def size(num_bytes: float) -> str:
    """``"3 kB"``, ``"1.2 MB"``, ``"45 GB"``."""
    value, units = float(num_bytes) / 1e3, ["kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1e3
        units.pop(0)
    digits = 1 if value < 9.95 and units[0] != "kB" else 0
    return f"{value:,.{digits}f} {units[0]}"


def _check_prompts(inputs: types.Object, samples: SampleCollection, chosen: str) -> None:
    from zs_operators.prompt_fields import check_prompt_field
    from zs_operators.region_fields import images_of

    try:
        images_of(samples, chosen, argument="prompts")
        if chosen not in (segment_target.EVERYTHING, segment_target.PROPOSALS):
            check_prompt_field(samples, chosen)
    except InvalidInputError as error:
        reason = str(error)
        if targeting.patches_field(samples) == chosen:
            reason = f"The labels of {chosen} are no boxes and no keypoints: leave this view first."
        forms.refuse(inputs, "prompts", "These labels cannot prompt", reason)


def _count(
    group: types.Object,
    name: str,
    label: str,
    description: str,
    least: int,
    space: int,
    *,
    default: int | None = None,
) -> None:
    group.int(
        name,
        min=least,
        default=default,
        label=label,
        description=description,
        view=types.FieldView(space=space),
    )
