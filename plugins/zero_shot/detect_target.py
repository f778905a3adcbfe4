"""Where ``@zs/operators/detect`` looks: at whole images, or at boxes that they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import params, targeting

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

#: ``look``: find boxes, or name those of a field. The first is also a value of ``regions``.
PROPOSALS = "proposals"
BOXES = "boxes"


def regions(ctx, samples: SampleCollection) -> str:
    """The ``regions`` argument of the engine: ``"proposals"`` or a field with boxes.

    Unless it is given: the field of the patches or of the selected labels, else ``"proposals"``.
    """
    from zs_operators.region_fields import box_fields

    values = params.flat(ctx.params)
    offered = box_fields(samples)
    default = targeting.labels_field(ctx, samples, offered)
    if "regions" in values:
        return values["regions"]
    if targeting.patches_field(samples):
        return default
    if values.get("look", BOXES if default else PROPOSALS) == PROPOSALS:
        return PROPOSALS
    return values.get("box_field", default or next(iter(offered), PROPOSALS))


def field(ctx, samples: SampleCollection) -> str | None:
    """The field whose boxes are named; None where boxes are to be found."""
    chosen = regions(ctx, samples)
    return None if chosen == PROPOSALS else chosen


def count_boxes(samples: SampleCollection, field: str) -> int:
    """How many boxes of ``field`` were chosen; 0 if it has none."""
    from zs_operators.region_fields import box_fields, label_path

    if targeting.patches_field(samples):
        return len(samples)
    return samples.count(label_path(samples, field)) if field in box_fields(samples) else 0
