"""What prompts ``@zs/operators/segment``: a grid of points, boxes found by text, or labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import params, targeting

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

#: Values of ``prompts`` that are no field.
EVERYTHING = "everything"
PROPOSALS = "proposals"

#: Folded sections of every form.
_SECTIONS = ("masks", "storage", "performance")


def prompts(ctx, samples: SampleCollection) -> str:
    """The ``prompts`` argument of the engine: ``"everything"``, ``"proposals"`` or a field.

    Unless it is given: the field of the patches or of the selected labels, else ``"everything"``.
    """
    values = params.flat(ctx.params)
    if "prompts" in values:
        return values["prompts"]
    if targeting.patches_field(samples):
        return targeting.patches_field(samples)
    offered = fields(ctx, samples)
    default = targeting.labels_field(ctx, samples, offered) or EVERYTHING
    return values.get("prompt_with", default)


def fields(ctx, samples: SampleCollection) -> list[str]:
    """Fields that can prompt; of selected labels those that hold some of them."""
    from zs_operators.prompt_fields import prompt_fields

    found = [name for name in prompt_fields(samples) if name not in (EVERYTHING, PROPOSALS)]
    if targeting.are_selected_labels(ctx) and targeting.patches_field(samples) is None:
        selected = {label.get("field") for label in ctx.selected_labels}
        found = [name for name in found if name in selected]
    return found


def field(ctx, samples: SampleCollection) -> str | None:
    """The field whose labels prompt; None where none do."""
    chosen = prompts(ctx, samples)
    return None if chosen in (EVERYTHING, PROPOSALS) else chosen


def is_naming(given: Mapping[str, Any], prompts: str) -> bool:
    """Whether class names go with these prompts: typed for others before, they are left alone."""
    values = params.flat(given)
    if "classes" in values or prompts == PROPOSALS:
        return True
    return prompts == EVERYTHING and params.has_classes(values)


def values(given: Mapping[str, Any], prompts: str) -> dict[str, Any]:
    """:func:`params.flat` without the sections that these prompts do not have."""
    shown = _SECTIONS
    if prompts == PROPOSALS:
        shown += ("words", "boxes")
    elif prompts == EVERYTHING:
        shown += ("grid", "words", "naming") if is_naming(given, prompts) else ("grid",)
    return params.flat(params.only(given, *shown))


def count_prompts(samples: SampleCollection, field: str) -> int:
    """How many labels of ``field`` prompt."""
    if targeting.patches_field(samples):
        return len(samples)
    kind = samples.get_field(field).document_type.__name__
    inner = {"Detections": ".detections", "Keypoints": ".keypoints"}.get(kind, "")
    return samples.count(f"{field}{inner}")
