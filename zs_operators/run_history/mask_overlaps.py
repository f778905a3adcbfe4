"""How much the masks of pairs of objects overlap, pixel by pixel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from zs_operators.run_history.marks import Place
from zs_operators.run_history.matching import Objects, Pair

if TYPE_CHECKING:
    import fiftyone as fo

#: Samples whose masks are in memory at once.
CHUNK_SAMPLES = 64


def overlaps_of_masks(
    dataset: fo.Dataset,
    place_a: Place,
    place_b: Place,
    of_a: Mapping[str, Objects],
    of_b: Mapping[str, Objects],
    pairs: Iterable[tuple[str, list[Pair]]],
) -> Iterator[tuple[str, list[Pair]]]:
    """The same pairs with the IoU of masks instead of boxes, where both objects have one."""
    pairs = iter(pairs)
    while chunk := list(islice(pairs, CHUNK_SAMPLES)):
        ids = [sample_id for sample_id, found in chunk if any(None not in one for one in found)]
        labels_a, labels_b = (_labels(dataset, place, ids) for place in (place_a, place_b))
        for sample_id, found in chunk:
            names = (of_a[sample_id].labels, of_b[sample_id].labels)
            yield sample_id, [_with_masks(one, names, labels_a, labels_b) for one in found]


def _labels(dataset: fo.Dataset, place: Place, ids: Sequence[str]) -> dict[str, Any]:
    """Labels by their ids."""
    if not ids:
        return {}
    view = dataset.select_frames(ids) if place.is_frames else dataset.select(ids)
    path = f"frames[].{place.name}" if place.is_frames else place.field
    found = view.values(path)
    inner = place.labels.removeprefix(place.field).removeprefix(".")
    listed = [one[inner] if inner else [one] for one in found if one is not None]
    return {label.id: label for labels in listed for label in labels}


def _with_masks(
    pair: Pair,
    names: tuple[Sequence[str], Sequence[str]],
    labels_a: Mapping[str, Any],
    labels_b: Mapping[str, Any],
) -> Pair:
    if pair.first is None or pair.second is None:
        return pair
    a, b = labels_a.get(names[0][pair.first]), labels_b.get(names[1][pair.second])
    if a is None or b is None or not a.has_mask or not b.has_mask:
        return pair
    return pair._replace(overlap=mask_overlap(a, b))


def mask_overlap(a: fo.Detection, b: fo.Detection) -> float:
    """IoU of two masks of the same image; 0 if the file of one cannot be read."""
    import numpy as np
    from fiftyone.utils.iou import compute_ious

    try:
        of_a, of_b = a.get_mask(), b.get_mask()
    except (OSError, ValueError):
        return 0.0
    if of_a is None or of_b is None:
        return 0.0
    if of_a.shape == of_b.shape and list(a.bounding_box) == list(b.bounding_box):
        inside_a, inside_b = of_a > 0, of_b > 0
        union = np.count_nonzero(inside_a | inside_b)
        return float(np.count_nonzero(inside_a & inside_b) / union) if union else 1.0
    return float(compute_ious([a], [b], use_masks=True, error_level=2)[0, 0])
