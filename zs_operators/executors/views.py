"""The part of a view that says what samples hold, without what says which samples there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

#: Stages that hide or change labels and fields, or choose the slice of a group.
_CONTENT = {
    "ExcludeFields",
    "ExcludeLabels",
    "FilterField",
    "FilterKeypoints",
    "FilterLabels",
    "LimitLabels",
    "MapLabels",
    "SelectFields",
    "SelectGroupSlices",
    "SelectLabels",
    "SetField",
}


def content_stages(samples: SampleCollection) -> list[dict[str, Any]]:
    """Stages, serialised, after which samples chosen by id hold what they hold in the view.

    Which samples there are is known by their ids, and would change: a run writes what some stages
    look at, and others choose at random.
    """
    stages = samples.view()._serialize()
    return [one for one in stages if one["_cls"].rpartition(".")[2] in _CONTENT]
