"""One mask of all classes a sample: whether its field may be written, and each class's value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from zs_operators import fields, provenance
from zs_operators.errors import FieldError, InvalidInputError
from zs_operators.mask_labels import UNNAMED

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

    from zs_operators.prompt_fields import ExistingPrompts

#: Pixels of PNG files have at most 16 bits, and 0 is background.
MAX_VALUE = 2**16 - 1


def check_semantic_field(
    samples: SampleCollection, semantic_field: str, label_field: str, *, overwrite: bool = False
) -> None:
    """Refuses a field that cannot or must not be written.

    One that the run of ``label_field`` has written is let through: that run decides.

    Raises:
        FieldError: with a message that fits under the field of a form
    """
    if semantic_field == label_field:
        raise FieldError(
            f"semantic_field and label_field are both {label_field!r}: give one another name."
        )
    earlier = provenance.find(samples, "segment", label_field) or {}
    fields.check_label_field(
        samples,
        semantic_field,
        "segment",
        overwrite=overwrite or earlier.get("semantic_field") == semantic_field,
        label_type="Segmentation",
    )


def names_of(sources: Sequence[ExistingPrompts] | None) -> list[str]:
    """Class names of the labels that prompt, sorted; what has none counts as one class.

    Raises:
        InvalidInputError: if nothing that is segmented has a name
    """
    if sources is None:
        raise InvalidInputError(
            "semantic_field needs names for masks: give classes, or prompt with a field."
        )
    found = {UNNAMED if name is None else name for one in sources for name in one.labels}
    return sorted(found)


def mask_targets(
    samples: SampleCollection, semantic_field: str, names: Iterable[str]
) -> dict[str, int]:
    """The value of each class: those the dataset has already, then the next free ones.

    Raises:
        InvalidInputError: if there are more classes than 16 bits hold
    """
    known = samples._dataset.mask_targets.get(semantic_field) or {}
    targets = {name: int(value) for value, name in known.items() if isinstance(name, str)}
    taken = {0, *targets.values()}
    following = max(taken) + 1
    for name in names:
        if name not in targets:
            targets[name] = following
            following += 1
    if following > MAX_VALUE + 1:
        raise InvalidInputError(
            f"semantic_field={semantic_field!r} would need {len(targets):,} values and has at "
            f"most {MAX_VALUE:,}: use fewer classes."
        )
    return targets
