"""Deleting a run, and what it wrote; never what it did not write."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zs_operators import mask_files
from zs_operators.fields import error_field
from zs_operators.report import FAILURES
from zs_operators.run_history import marks
from zs_operators.run_history.stored_run import StoredRun, check_run, evaluation_key
from zs_operators.run_lease import check_free
from zs_operators.targets import SOURCE_ATTRIBUTES

if TYPE_CHECKING:
    import fiftyone as fo


@dataclass(frozen=True)
class DeletedRun:
    """What was deleted.

    Attributes:
        run_key: of the record
        fields: that are gone from the dataset
        samples: that have lost a result
        files: of masks that were removed
        kept: fields that stay because they hold labels of other origin
        evaluation: key of FiftyOne's evaluation that went with it, None if there was none
    """

    run_key: str
    fields: tuple[str, ...] = ()
    samples: int = 0
    files: int = 0
    kept: tuple[str, ...] = ()
    evaluation: str | None = None

    def __str__(self) -> str:
        parts = [f"Deleted run {self.run_key}"]
        if self.evaluation:
            parts.append(f"evaluation {self.evaluation}")
        if self.samples:
            parts.append(f"results of {self.samples:,} samples")
        parts += [f"field {name}" for name in self.fields]
        if self.files:
            parts.append(f"{self.files:,} mask files")
        text = ", ".join(parts) + "."
        for name in self.kept:
            text += f" Field {name} stays: it holds labels that this run did not write."
        return text


def delete_run(run: StoredRun, fields: bool = False) -> DeletedRun:
    """Forgets a run; labels stay unless asked otherwise.

    Args:
        run: from :func:`load_run`. Of ``"evaluate"``, FiftyOne's evaluation is deleted too
        fields (False): also delete what the run wrote: labels that carry its mark, and their
            field if nothing else is in it; failure reasons in ``<label_field>_error``; mask files
            with its mark below its ``output_dir``. From labels that were there before the run, only
            its attributes are removed

    Returns:
        what was deleted

    Raises:
        BusyFieldError: if the run still goes on
    """
    dataset = check_run(run).dataset
    if run.task != "evaluate":
        names = (run.record.get("label_field"), run.record.get("semantic_field"))
        check_free(dataset, list(filter(None, names)))
    evaluation = None
    gone: list[str] = []
    kept: list[str] = []
    samples = files = 0
    if run.task == "evaluate":
        # An imported record says nothing of what this dataset has under that key
        if dataset.has_evaluation(evaluation_key(run)) and not run.record.get("imported"):
            from zs_operators.evaluation.targets import delete_evaluations

            evaluation = evaluation_key(run)
            delete_evaluations(dataset, evaluation)
    elif fields:
        # Files first: the labels say which there are
        files = _delete_files(run)
        place = marks.place_of(dataset, run.record)
        samples = len(run.samples())
        for one in filter(None, (place, _semantic_place(run))):
            (gone if _delete_labels(run, one) else kept).append(one.field)
        _delete_errors(run, gone)
    if dataset.has_run(run.key):
        dataset.delete_run(run.key)
    attributes = marks.adds_attributes(run.record)
    return DeletedRun(
        run.key,
        () if attributes else tuple(gone),
        samples,
        files,
        () if attributes else tuple(kept),
        evaluation,
    )


def _semantic_place(run: StoredRun) -> marks.Place | None:
    name = run.record.get("semantic_field")
    return marks.place_of(run.dataset, {"label_field": name}) if name else None


def _delete_labels(run: StoredRun, place: marks.Place) -> bool:
    """Removes the labels of a run; whether their field is gone."""
    if marks.adds_attributes(run.record):
        return _delete_attributes(run, place)
    dataset = run.dataset
    target = _frames(dataset) if place.is_frames else dataset
    path = f"{place.name}.{place.mark}"
    if target.get_field(path) is None:
        return False
    ids, found = target.exists(place.name).values(["id", path])
    ours = [one for one, mark in zip(ids, found, strict=True) if mark and mark == run.signature]
    if len(ours) < len(ids):
        target.set_values(place.name, dict.fromkeys(ours), key_field="id")
        return False
    _delete_field(dataset, place.field)
    return True


def _delete_attributes(run: StoredRun, place: marks.Place) -> bool:
    dataset = run.dataset
    target = _frames(dataset) if place.is_frames else dataset
    labels = ".".join(filter(None, (place.name, place.inner)))
    if target.get_field(f"{labels}.zs_run") is None:
        return False
    ids, label_ids, found = target.values(["id", f"{labels}.id", f"{labels}.zs_run"])
    if place.inner is None:
        label_ids, found = ([[one] for one in column] for column in (label_ids, found))
    ours = [
        (sample_id, label_id)
        for sample_id, of_sample, of_marks in zip(ids, label_ids, found, strict=True)
        for label_id, mark in zip(of_sample or (), of_marks or (), strict=True)
        if mark == run.signature
    ]
    others = {mark for of_marks in found for mark in of_marks or ()} - {None, run.signature}
    for name in SOURCE_ATTRIBUTES:
        if target.get_field(f"{labels}.{name}") is None:
            continue
        if not others:
            _delete_field(dataset, ".".join(filter(None, (place.field, place.inner, name))))
        elif ours:
            values = [{"sample_id": i, "label_id": j, "value": None} for i, j in ours]
            target.set_label_values(f"{labels}.{name}", values)
    return not others


def _delete_errors(run: StoredRun, gone: list[str]) -> None:
    """Removes the reasons of failures; texts that are none stay."""
    dataset = run.dataset
    name = error_field(run.label_field)
    path = marks.field_path(dataset, name)
    if path is None or type(dataset.get_field(path)).__name__ != "StringField":
        return
    target = _frames(dataset) if path != name else dataset
    found = dict(zip(*target.exists(name).values(["id", name]), strict=True))
    ours = [one for one, reason in found.items() if reason.partition(":")[0] in FAILURES]
    if len(ours) < len(found):
        target.set_values(name, dict.fromkeys(ours), key_field="id")
        return
    _delete_field(dataset, path)
    gone.append(path)


def _delete_field(dataset: fo.Dataset, path: str) -> None:
    if path.startswith(marks.FRAMES):
        dataset.delete_frame_field(path.removeprefix(marks.FRAMES))
        return
    dataset.delete_sample_field(path)
    if path in dataset.mask_targets:
        del dataset.mask_targets[path]
        dataset.save()


def _frames(dataset: fo.Dataset) -> fo.core.frame.FramesView:
    return dataset.to_frames(sample_frames="dynamic")


def _delete_files(run: StoredRun) -> int:
    """Removes the mask files of a run from the folder that it made for this dataset."""
    folder = run.record.get("output_dir")
    if not folder or not run.signature:
        return 0
    root = Path(folder)
    removed = 0
    folders = {root}
    filepaths = run.dataset.values("filepath")
    for filepath in filepaths:
        image = mask_files.mask_folder(root, run.label_field, filepath)
        if _is_inside(image, root):
            removed += _unlink(mask_files.masks_of(image, run.signature))
            folders |= {image, image.parent}
    semantic = _semantic_place(run)
    if semantic is not None:
        view = marks.marked(run.dataset, semantic, run.signature)
        paths = zip(*view.values(["filepath", f"{semantic.field}.mask_path"]), strict=True)
        for filepath, written in paths:
            path = mask_files.semantic_path(root, semantic.name, filepath)
            if written and Path(written) == path and _is_inside(path, root):
                removed += _unlink([path])
                folders.add(path.parent)
    for one in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        with contextlib.suppress(OSError):
            one.rmdir()  # refused unless empty
    return removed


def _unlink(paths: Iterable[Path]) -> int:
    removed = 0
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()
            removed += 1
    return removed


def _is_inside(path: Path, root: Path) -> bool:
    """Whether a path leads to below ``root`` even if it is a link."""
    return path.resolve().is_relative_to(root.resolve())
