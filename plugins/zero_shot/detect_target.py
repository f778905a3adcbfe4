"""Where ``@zs/operators/detect`` looks: which images, all of each or boxes that it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bson import json_util

from . import forms, params, running

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection
    from fiftyone.core.view import DatasetView

#: ``look``: find boxes, or name those of a field. The first is also a value of ``regions``.
PROPOSALS = "proposals"
BOXES = "boxes"

#: A preview runs on at most this many samples.
PREVIEW_SAMPLES = 8

#: The samples of a run that follows a preview, whatever the App shows or has selected by then.
STAGES = "stages"
#: The App's view before a preview changed it.
VIEW_BEFORE = "view_before"


def chosen(ctx) -> SampleCollection:
    """What the person chose, which may be patches or labels instead of images."""
    if ctx.params.get(STAGES) is not None:
        return build_view(ctx, ctx.params[STAGES])
    return forms.targeted(ctx)


def patches_field(samples: SampleCollection) -> str | None:
    """The field whose boxes a view of patches shows; None for other views."""
    from fiftyone.core.patches import PatchesView

    return samples.patches_field if isinstance(samples, PatchesView) else None


def default_regions(ctx, samples: SampleCollection) -> str:
    """The field of the patches or of the selected labels, else ``"proposals"``."""
    from zs_operators.region_fields import box_fields

    if patches_field(samples):
        return patches_field(samples)
    if not _are_selected_labels(ctx):
        return PROPOSALS
    selected = {label.get("field") for label in ctx.selected_labels}
    return next((name for name in box_fields(samples) if name in selected), PROPOSALS)


def regions(ctx, samples: SampleCollection) -> str:
    """The ``regions`` argument of the engine: ``"proposals"`` or a field with boxes."""
    from zs_operators.region_fields import box_fields

    values = params.flat(ctx.params)
    default = default_regions(ctx, samples)
    if "regions" in values:
        return values["regions"]
    if patches_field(samples):
        return default
    if values.get("look", PROPOSALS if default == PROPOSALS else BOXES) == PROPOSALS:
        return PROPOSALS
    offered = box_fields(samples)
    if default == PROPOSALS:
        default = offered[0] if offered else PROPOSALS
    return values.get("box_field", default)


def images(ctx, samples: SampleCollection) -> SampleCollection:
    """The images to process, restricted to the chosen labels where their boxes are named."""
    from zs_operators.region_fields import images_of

    if patches_field(samples):
        return images_of(samples, patches_field(samples))
    if _are_selected_labels(ctx) and regions(ctx, samples) == PROPOSALS:
        return samples._root_dataset.select(samples.values("id"))
    return samples


def with_all_fields(ctx, samples: SampleCollection) -> SampleCollection:
    """The same images with all of their labels, which a selection of labels hides."""
    if not is_restricted(ctx, samples):
        return images(ctx, samples)
    # Selecting tens of thousands of labels takes seconds, selecting their samples does not
    ids = samples.distinct("sample_id") if patches_field(samples) else samples.values("id")
    return samples._root_dataset.select(ids)


def is_restricted(ctx, samples: SampleCollection) -> bool:
    """Whether only some labels of the images were chosen."""
    return patches_field(samples) is not None or _are_selected_labels(ctx)


def count_boxes(samples: SampleCollection, field: str) -> int:
    """How many boxes of ``field`` were chosen; 0 if it has none."""
    from zs_operators.region_fields import box_fields, label_path

    if patches_field(samples):
        return len(samples)
    return samples.count(label_path(samples, field)) if field in box_fields(samples) else 0


def stages(samples: SampleCollection) -> str:
    """``samples`` as a JSON string, for the parameters of a button."""
    return json_util.dumps(samples.view()._serialize())


def build_view(ctx, serialized: str) -> DatasetView:
    """The view that :func:`stages` made a string of."""
    import fiftyone.core.view as fov

    return fov.DatasetView._build(ctx.dataset, json_util.loads(serialized))


def _are_selected_labels(ctx) -> bool:
    from fiftyone.operators.constants import ViewTarget

    target = ctx.request_params.get("view_target")
    if target is None and running.is_app_request(ctx):
        return bool(ctx.selected_labels)  # the App's default arrives after the first paint
    return target == ViewTarget.SELECTED_LABELS
