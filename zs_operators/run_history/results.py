"""What a run wrote, as columns, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zs_operators.errors import InvalidInputError
from zs_operators.run_history import marks
from zs_operators.run_history.matching import REJECTED, UNNAMED, Objects

if TYPE_CHECKING:
    from zs_operators.run_history.stored_run import StoredRun

#: Kinds of labels that are compared with one another.
IMAGES, BOXES, MASKS = "images", "boxes", "masks"
_KINDS = {
    "Classification": IMAGES,
    "Classifications": IMAGES,
    "Detection": BOXES,
    "Detections": BOXES,
}


def place_of(run: StoredRun) -> marks.Place:
    """Where the results of a run are.

    Raises:
        InvalidInputError: if there is nothing left of it, or its labels cannot be compared
    """
    if run.task not in ("classify", "detect", "segment"):
        raise InvalidInputError(
            f"Run {run.key!r} is of {run.task!r} and wrote no labels of its own: compare runs of "
            "classify, detect or segment."
        )
    place = marks.place_of(run.dataset, run.record)
    if place is None:
        raise InvalidInputError(
            f"Dataset {run.dataset.name!r} has no field {run.label_field!r}: nothing is left of "
            f"run {run.key!r} to compare."
        )
    if place.kind not in _KINDS:
        raise InvalidInputError(f"Labels of {place.kind}, of run {run.key!r}, cannot be compared.")
    return place


def kind_of(place: marks.Place) -> str:
    """``"images"`` or ``"boxes"``."""
    return _KINDS[place.kind]


def read_results(run: StoredRun, place: marks.Place) -> dict[str, Objects]:
    """What a run wrote, by id of sample or frame; those without its mark are left out."""
    boxes = kind_of(place) == BOXES
    adds = marks.adds_attributes(run.record)
    names = {"name": "zs_label", "rejected": "zs_rejected_by", "mark": "zs_run"}
    if not adds:
        names = {"name": "label", "rejected": "rejected_by", "source": "source_id"}
    paths = {key: f"{place.labels}.{name}" for key, name in names.items()}
    if boxes:
        paths |= {"id": f"{place.labels}.id", "box": f"{place.labels}.bounding_box"}
    if not adds:
        paths["mark"] = f"{place.field}.{place.mark}"
    if place.kind == "Classifications":
        paths["rejected"] = f"{place.field}.rejected_by"
    dataset = run.dataset
    wanted = [key for key, path in paths.items() if dataset.get_field(path) is not None]
    prefix = marks.FRAMES if place.is_frames else ""
    columns = [_flat(paths[key]) for key in wanted]
    ids, *values = dataset.values([_flat(f"{prefix}id"), *columns])
    # One list a column, whatever the number of samples
    by_name = dict(zip(wanted, values, strict=True))
    single = place.labels == place.field
    found = {}
    for row, sample_id in enumerate(ids):
        one = {key: column[row] for key, column in by_name.items()}
        objects = _objects(run.signature, one, single=single, adds=adds, boxes=boxes)
        if objects is not None:
            found[sample_id] = objects
    return found


def _objects(
    signature: str | None, one: dict[str, Any], *, single: bool, adds: bool, boxes: bool
) -> Objects | None:
    """The labels of one sample that have the mark; None if it has not."""
    if single:
        one = {key: [value] if key != "mark" or adds else value for key, value in one.items()}
    if adds:
        kept = [i for i, mark in enumerate(one.get("mark") or ()) if mark == signature and mark]
        if not kept:
            return None
    elif not one.get("mark") or one["mark"] != signature:
        return None
    else:
        kept = list(range(len(one.get("name") or ())))

    def column(key: str) -> Sequence[Any]:
        values = one.get(key)
        return [values[i] if isinstance(values, list) else values for i in kept]

    rejected = column("rejected")
    names = [
        name or (REJECTED if why else UNNAMED)
        for name, why in zip(column("name"), rejected, strict=True)
    ]
    if not boxes and not names:
        names = [REJECTED]  # of several labels an image none was certain enough
    return Objects(
        names=names,
        sources=column("id") if adds else column("source"),
        boxes_rel=column("box") if boxes else None,
        labels=column("id") if boxes else (),
    )


def _flat(path: str) -> str:
    return path.replace(marks.FRAMES, "frames[].", 1) if path.startswith(marks.FRAMES) else path
