"""What FiftyOne's expressions say of the labels of an image, whether it has one or a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zs_operators.stored_scores import KINDS, kind_of

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection
    from fiftyone.core.expressions import ViewExpression


def best(samples: SampleCollection, field: str, attribute: str) -> ViewExpression:
    """An attribute of the label of each image; of a list that of its first, which is the best."""
    from fiftyone import ViewField as F

    container = KINDS[kind_of(samples, field)]
    if container is None:
        return F(f"{field}.{attribute}")
    return F(f"{field}.{container}.{attribute}")[0]


def is_labeled(samples: SampleCollection, field: str) -> ViewExpression:
    """Whether each image has a label that no rule rejected."""
    from fiftyone import ViewField as F

    has_name = best(samples, field, "label").exists()
    rule = f"{field}.rejected_by"
    return has_name if samples.get_field(rule) is None else has_name & ~F(rule).exists()


def has_name(
    samples: SampleCollection, field: str, names: Sequence[str | ViewExpression]
) -> ViewExpression:
    """Whether one of these is the name of one of the labels of each image."""
    from fiftyone import ViewField as F

    container = KINDS[kind_of(samples, field)]
    if container is None:
        return is_one_of(F(f"{field}.label"), names)
    found = F(f"{field}.{container}.label")
    return F.any([found.contains([_as_it_is(name)]) for name in names])


def is_one_of(name: ViewExpression, names: Sequence[str | ViewExpression]) -> ViewExpression:
    """Whether ``name`` is one of these."""
    from fiftyone import ViewField as F

    return F.any([name == _as_it_is(one) for one in names])


def _as_it_is(name: str | ViewExpression) -> ViewExpression:
    """MongoDB would read a name that begins with ``$`` as the path of a field."""
    from fiftyone import ViewField as F

    return F.literal(name) if isinstance(name, str) else name
