"""Pixel values of two segmentation fields, brought together by the names they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zs_operators.errors import FieldError

if TYPE_CHECKING:
    import fiftyone as fo
    from fiftyone.core.collections import SampleCollection

    from zs_operators.evaluation.names import NameMatch

_BACKGROUND = "background"


def named_values(samples: SampleCollection, field: str) -> dict[int | str, str]:
    """What each pixel value of a field stands for, without the background; empty where the
    dataset does not say."""
    dataset = samples._root_dataset
    targets = dataset.mask_targets.get(field) or dataset.default_mask_targets or {}
    return {value: name for value, name in targets.items() if value not in (0, "#000000")}


def evaluated_targets(
    samples: SampleCollection, predictions: str, ground_truth: str, match: NameMatch
) -> tuple[dict[int | str, str] | None, dict[int, int]]:
    """The values to evaluate with their names, and which values of predictions mean others.

    Returns:
        mask targets for FiftyOne, None where neither field has names; and for each value of the
        predictions that has another in the ground truth, that one

    Raises:
        FieldError: if colours would have to be exchanged, or one name has two values
    """
    mine, theirs = named_values(samples, predictions), named_values(samples, ground_truth)
    if not mine or not theirs or mine == theirs:
        targets = theirs or mine
        return (_with_background(targets) if targets else None), {}
    if any(isinstance(value, str) for value in (*mine, *theirs)):
        raise FieldError(
            f"Fields {predictions!r} and {ground_truth!r} have different colours for their "
            "classes: give both the same mask targets."
        )
    targets: dict[int, str] = {}
    values: dict[str, int] = {}
    for value, name in theirs.items():
        name = match.of_truth(name)
        if name in values:
            raise FieldError(
                f"Values {values[name]} and {value} of {ground_truth!r} both count as {name!r}: "
                "evaluate masks without roll_up and with names that stay apart."
            )
        targets[value], values[name] = name, value
    moved = {}
    following = max([0, *mine, *theirs]) + 1
    for value, name in mine.items():
        name = match.of_prediction(name)
        if name not in values:
            values[name] = value if value not in targets else following
            following += values[name] == following
            targets[values[name]] = name
        if values[name] != value:
            moved[value] = values[name]
    return _with_background(targets), moved


def remap(mask: np.ndarray, moved: dict[int, int]) -> np.ndarray:
    """A copy of a mask, (H, W) of integers, with other values for its classes."""
    table = np.arange(max([int(mask.max(initial=0)), *moved]) + 1)
    table[list(moved)] = list(moved.values())
    return table[mask].astype(np.min_scalar_type(int(table.max())))


def write_remapped(
    samples: SampleCollection, field: str, new_field: str, moved: dict[int, int]
) -> None:
    """A copy of a field with other values; its labels keep their ids, so that an evaluation of
    the copy is one of the field."""
    import fiftyone as fo

    dataset = samples._root_dataset
    dataset.add_sample_field(new_field, fo.EmbeddedDocumentField, embedded_doc_type=fo.Segmentation)
    for sample in samples.select_fields(field).iter_samples():
        label = sample[field]
        if label is not None and label.has_mask:
            dataset.set_values(new_field, {sample.id: _remapped(label, moved)}, key_field="id")


def _remapped(label: fo.Segmentation, moved: dict[int, int]) -> fo.Segmentation:
    import fiftyone as fo

    mask = label.get_mask()
    if mask.ndim != 2:
        raise FieldError("Masks of colours cannot be given other values: use masks of one channel.")
    copy = fo.Segmentation(mask=remap(mask, moved))
    copy.id = label.id
    return copy


def _with_background(targets: dict) -> dict:
    is_colour = any(isinstance(value, str) for value in targets)
    zero = "#000000" if is_colour else 0
    return {zero: _BACKGROUND, **targets}
