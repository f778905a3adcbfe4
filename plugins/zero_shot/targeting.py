"""What an operator works on: whole images, or labels of a field that were chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bson import json_util

from . import forms, running

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection
    from fiftyone.core.view import DatasetView

#: The samples of a run that follows a preview, whatever the App shows or has selected by then.
STAGES = "stages"


def ask(inputs, ctx, verb: str, *, labels_description: str) -> SampleCollection | None:
    """Asks what to process; the images with all of their labels, or None with the reason shown.

    Args:
        inputs: the form
        ctx: the execution context
        verb: what happens to the samples, in the imperative: ``"Detect objects in"``
        labels_description: what happens to selected labels
    """
    if ctx.dataset is not None and ctx.params.get(STAGES) is not None:
        return with_all_fields(ctx, chosen(ctx))
    return forms.target(
        inputs,
        ctx,
        verb,
        labels_description=labels_description,
        images=lambda samples: with_all_fields(ctx, samples),
    )


def chosen(ctx) -> SampleCollection:
    """What the person chose, which may be patches or labels instead of images."""
    if ctx.params.get(STAGES) is not None:
        return build_view(ctx, ctx.params[STAGES])
    return forms.targeted(ctx)


def patches_field(samples: SampleCollection) -> str | None:
    """The field whose labels a view of patches shows; None for other views."""
    from fiftyone.core.patches import PatchesView

    return samples.patches_field if isinstance(samples, PatchesView) else None


def labels_field(ctx, samples: SampleCollection, offered: Sequence[str]) -> str | None:
    """The field of the patches, or the first one of ``offered`` with selected labels, if any."""
    if patches_field(samples):
        return patches_field(samples)
    if not are_selected_labels(ctx):
        return None
    selected = {label.get("field") for label in ctx.selected_labels}
    return next((name for name in offered if name in selected), None)


def images(ctx, samples: SampleCollection, field: str | None) -> SampleCollection:
    """The images to process.

    Args:
        ctx: the execution context
        samples: what the person chose
        field: of the labels to work on, then only the chosen ones are in the result; None to work
            on whole images
    """
    from zs_operators.region_fields import images_of

    if patches_field(samples):
        return images_of(samples, patches_field(samples))
    if are_selected_labels(ctx) and field is None:
        return samples._root_dataset.select(samples.values("id"))
    return samples


def with_all_fields(ctx, samples: SampleCollection) -> SampleCollection:
    """The same images with all of their labels, which a selection of labels hides."""
    if not is_restricted(ctx, samples):
        return samples
    # Selecting tens of thousands of labels takes seconds, selecting their samples does not
    ids = samples.distinct("sample_id") if patches_field(samples) else samples.values("id")
    return samples._root_dataset.select(ids)


def is_restricted(ctx, samples: SampleCollection) -> bool:
    """Whether only some labels of the images were chosen."""
    return patches_field(samples) is not None or are_selected_labels(ctx)


def are_selected_labels(ctx) -> bool:
    """Whether the person chose the selected labels."""
    from fiftyone.operators.constants import ViewTarget

    target = ctx.request_params.get("view_target")
    if target is None and running.is_app_request(ctx):
        return bool(ctx.selected_labels)  # the App's default arrives after the first paint
    return target == ViewTarget.SELECTED_LABELS


def stages(samples: SampleCollection) -> str:
    """``samples`` as a JSON string, for the parameters of a button."""
    return json_util.dumps(samples.view()._serialize())


def build_view(ctx, serialized: str) -> DatasetView:
    """The view that :func:`stages` made a string of."""
    import fiftyone.core.view as fov

    return fov.DatasetView._build(ctx.dataset, json_util.loads(serialized))
