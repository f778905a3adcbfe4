"""Inputs of ``@zs/operators/detect`` that no other operator asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import fiftyone.operators.types as types

from zs_operators.errors import InvalidInputError

from . import detect_cost, detect_target, forms, model_form, params, running, targeting

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

#: Arguments that :class:`zs_operators.detector.DetectOptions` checks.
OPTIONS = (
    "max_regions",
    "objectness_weight",
    "overlap",
    "overlap_metric",
    "overlap_threshold",
    "min_confidence",
    "max_detections",
    "min_margin",
    "min_cosine",
    "min_size_px",
    "temperature",
    "runners_up",
    "tile_size_px",
    "tile_overlap",
)

_SLOW_SECONDS = 1.0


def where_to_look(inputs: types.Object, ctx, samples: SampleCollection) -> str:
    """Asks whether to find boxes or to name those of a field; returns ``regions``.

    Args:
        inputs: the form
        ctx: the execution context
        samples: what the person chose, patches included
    """
    from zs_operators.region_fields import box_fields

    regions = detect_target.regions(ctx, samples)
    fields = box_fields(samples)
    if "regions" in ctx.params:
        if regions not in (detect_target.PROPOSALS, *fields):
            forms.refuse(inputs, "look", "No such boxes", f"{regions} is not a field with boxes.")
        return regions
    if targeting.patches_field(samples):
        inputs.view(
            "look_notice",
            types.Notice(
                label=f"The boxes of these patches are named: {forms.escaped(regions)}",
                description="To find other objects, leave the view of patches first.",
            ),
        )
        return regions
    if not fields:
        return regions
    look = types.TabsView(label="Where to look")
    look.add_choice(detect_target.PROPOSALS, label="Find objects")
    look.add_choice(detect_target.BOXES, label="Name boxes of a field")
    is_find = regions == detect_target.PROPOSALS
    inputs.enum(
        "look",
        look.values(),
        default=detect_target.PROPOSALS if is_find else detect_target.BOXES,
        view=look,
    )
    if not is_find:
        view = types.DropdownView()
        for name in fields:
            view.add_choice(name, label=name)
        inputs.enum(
            "box_field",
            fields,
            default=regions,
            label="Field with the boxes",
            description="Every box of these samples gets a name; none is added or removed",
            view=view,
        )
    return regions


def output(
    inputs: types.Object,
    ctx,
    samples: SampleCollection,
    regions: str,
    *,
    default: str,
    is_restricted: bool,
) -> None:
    """Asks where labels go: a field of their own, or onto the boxes that are named."""
    is_find = regions == detect_target.PROPOSALS
    if not is_find:
        inputs.bool(
            "update_source",
            default=False,
            label="Write onto the boxes themselves",
            description=f"Adds zs_label, zs_confidence, zs_cosine and zs_margin to each box of "
            f"{regions}; its own label stays as it is",
            view=types.CheckboxView(),
        )
    if is_find or not ctx.params.get("update_source"):
        forms.label_field(
            inputs, ctx, samples, task="detect", default=default, label_type="Detections"
        )
        name = ctx.params.get("label_field") or default
        if is_restricted and not is_find and ctx.params.get("overwrite"):
            inputs.view(
                "replaces",
                types.Warning(
                    label=f"What {forms.escaped(name)} holds on these samples is replaced",
                    description="If other settings named it, only the boxes that are named now "
                    "stay in it. With the same settings, boxes are added to those it holds.",
                ),
            )
    elif _was_named_before(samples, regions):
        inputs.bool(
            "overwrite",
            default=False,
            label="Overwrite",
            description="Replace the names that an earlier run has given these boxes",
            view=types.CheckboxView(),
        )


def boxes(inputs: types.Object, ctx, regions: str, *, section: str = "boxes") -> None:
    """A folded section: which boxes stay, and the background prompts; checked as it is typed.

    Args:
        inputs: the form
        ctx: the execution context
        regions: ``"proposals"`` or a field
        section ("boxes"): ``"naming"`` for masks that are named, of which none is proposed
    """
    from zs_operators.detect_options import DetectOptions

    if regions == detect_target.PROPOSALS:
        group = forms.section(inputs, section, "Thresholds and overlap")
        _proposal_thresholds(group, is_proposed=section == "boxes")
    else:
        group = forms.section(inputs, section, "None of these: rejection and background")
    noun = "mask" if section == "naming" else "box"
    _number(group, "min_margin", "Least margin", "Logit above the next best", {"min": 0}, 6)
    _number(group, "min_cosine", "Least cosine", "Between −1 and 1", {"min": -1, "max": 1}, 6)
    group.str(
        "background",
        label="Background prompts",
        description=f"One a line, encoded as typed. A {noun} that fits one of them best is "
        + ("left out" if regions == detect_target.PROPOSALS else "rejected"),
        view=types.TextFieldView(multiline=True, rows=2),
    )
    if regions != detect_target.PROPOSALS:
        group.str(
            "reject_label",
            label="Label of rejected boxes",
            description="Empty: they get no label",
            view=types.TextFieldView(),
        )
    values = params.flat(params.only(ctx.params, section))
    try:
        DetectOptions(**{name: values[name] for name in OPTIONS if name in values})
    except InvalidInputError as error:
        forms.refuse(inputs, section, "A threshold cannot be used", str(error))


def cost(inputs: types.Object, ctx, chosen: SampleCollection, regions: str, total: int) -> None:
    """Warns where a run on a CPU would take long.

    Args:
        inputs: the form
        ctx: the execution context
        chosen: what the person chose, patches included
        regions: ``"proposals"`` or a field
        total: number of images
    """
    from zs_operators.proposal_loading import DEFAULT_PROPOSER
    from zs_operators.weights import DEFAULT_CLIP

    values = params.flat(ctx.params)
    if not detect_cost.runs_on_cpu(values, model_form.devices()):
        return
    is_find = regions == detect_target.PROPOSALS
    if is_find:
        per_image = float(values.get("max_regions", 300))
    else:
        per_image = detect_target.count_boxes(chosen, regions) / max(total, 1)
    seconds = detect_cost.cpu_seconds_per_image(
        values.get("model", DEFAULT_CLIP),
        values.get("proposals", DEFAULT_PROPOSER) if is_find else None,
        per_image,
    )
    if seconds is not None and seconds < _SLOW_SECONDS:
        return
    if seconds is None:
        label = "Full-size models are slow on a CPU"
    else:
        label = (
            f"On this CPU an image takes about {running.duration(seconds)}, "
            f"{total:,} take {running.duration(seconds * total)}"
        )
    fewer = " Fewer regions (Thresholds and overlap) or a smaller model help." if is_find else ""
    inputs.view("cost", types.Warning(label=label, description=f"A rough estimate.{fewer}"))


def _proposal_thresholds(group: types.Object, *, is_proposed: bool) -> None:
    between = {"min": 0, "max": 1}
    noun, plural = ("box", "boxes") if is_proposed else ("mask", "masks")
    _number(group, "min_confidence", "Least confidence", f"Of a {noun}, 0 to 1", between, 6, 0.05)
    group.float(
        "objectness_weight",
        default=0.5,
        label="Weight of objectness" if is_proposed else "Weight of mask quality",
        description=f"0: the class alone decides, 1: the {noun} alone",
        # A value that is always shown covers the description
        view=types.SliderView(
            space=6, label_position="top", value_label_display="auto", value_precision=2
        ),
        **between,
    )
    overlap = types.DropdownView(space=4)
    overlap.add_choice("agnostic", label="Best one stays")
    overlap.add_choice("per_class", label="Best of a class stays")
    overlap.add_choice("none", label="All stay")
    group.enum(
        "overlap",
        overlap.values(),
        default="agnostic",
        label=f"Of overlapping {plural}",
        view=overlap,
    )
    metric = types.DropdownView(space=4)
    metric.add_choice("iou", label="Intersection over union")
    metric.add_choice("ios", label="Intersection over smaller")
    group.enum(
        "overlap_metric", metric.values(), default="iou", label="Overlap measured as", view=metric
    )
    _number(group, "overlap_threshold", "Most overlap", "0 to 1", between, 4, 0.5)
    counts = [("max_detections", f"Most {plural} an image", "Best first", 100)]
    if is_proposed:
        counts.insert(0, ("max_regions", "Regions scored an image", "Fewer is faster", 300))
    for name, label, description, default in counts:
        group.int(
            name,
            min=1,
            default=default,
            label=label,
            description=description,
            view=types.FieldView(space=4),
        )
    if is_proposed:
        _number(group, "min_size_px", "Least size", "Of a side, in pixels", {"min": 0}, 4, 0)
        _tiles(group)


def _tiles(group: types.Object) -> None:
    group.int(
        "tile_size_px",
        min=64,
        label="Tile size",
        description="For small objects in large images: look in tiles of this many pixels, too",
        view=types.FieldView(space=8),
    )
    _number(group, "tile_overlap", "Overlap of tiles", "0 to 0.9", {"min": 0, "max": 0.9}, 4, 0.2)


def _number(
    group: types.Object,
    name: str,
    label: str,
    description: str,
    bounds: dict[str, float],
    space: int,
    default: float | None = None,
) -> None:
    group.float(
        name,
        default=default,
        label=label,
        description=description,
        view=types.FieldView(space=space),
        **bounds,
    )


def _was_named_before(samples: SampleCollection, regions: str) -> bool:
    schema = samples._dataset
    return any(
        schema.get_field(f"{path}.zs_run") is not None
        for path in (regions, f"{regions}.detections")
    )
