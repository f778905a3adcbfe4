"""Repeating a run from its record alone, with or without changes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any

from zs_operators.errors import InvalidInputError
from zs_operators.progress import show_progress
from zs_operators.redaction import HIDDEN
from zs_operators.run_history import marks
from zs_operators.run_history.origins import check_head, model_parameters
from zs_operators.run_history.stored_run import StoredRun, check_run
from zs_operators.run_parameters import OBJECT

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

    from zs_operators.report import Progress, RunReport

TASKS = ("classify", "detect", "segment", "evaluate")

_WORDS = ("classes", "templates", "background")
# What was allowed once is not allowed for good: labels may have been corrected since
_ASKED_AGAIN = ("overwrite", "resume")
_MODELS = (
    *("model", "weights", "clip", "clip_weights"),
    *("proposals", "proposal_weights", "detector"),
)


def rerun(
    run: StoredRun,
    samples: SampleCollection | None = None,
    *,
    progress: bool | Callable | None = None,
    **changes: Any,
) -> RunReport:
    """Does again what a run did, from its record alone.

    Unchanged, it goes on where the run stopped, and does the samples that came since. With
    ``overwrite=True, resume=False`` it computes all labels again. With changes it needs another
    ``label_field``, or ``overwrite=True``.

    Args:
        run: from :func:`load_run`
        samples (None): what to process; None is the view that the run was given, or where its
            record does not tell the samples that it has labelled or that failed
        progress (None): see :func:`zs_operators.classify`
        **changes: other arguments than those of the run, by the names of its function

    Returns:
        the report of the function

    Raises:
        InvalidInputError: if the record does not tell all that is needed, or a change has no
            meaning
        WeightsError: if the weights are gone or are others now
        RunError: if no sample could be processed
    """
    return show_progress(iter_rerun(run, samples, **changes), progress)


def iter_rerun(
    run: StoredRun, samples: SampleCollection | None = None, **changes: Any
) -> Generator[Progress, None, RunReport]:
    """Like :func:`rerun`, as a generator that yields :class:`Progress` after each chunk."""
    arguments = arguments_of(check_run(run), changes)
    samples = samples_of(run) if samples is None else samples
    try:
        steps = _task(run.task)(samples, **arguments)
    except TypeError as error:
        raise InvalidInputError(f"zs.{run.task} cannot be called so: {error}.") from error
    return (yield from steps)


def _task(name: str) -> Callable[..., Generator[Progress, None, RunReport]]:
    from zs_operators.classification import iter_classify
    from zs_operators.detection import iter_detect
    from zs_operators.evaluation.running import iter_evaluate
    from zs_operators.segmentation import iter_segment

    tasks = (iter_classify, iter_detect, iter_segment, iter_evaluate)
    return dict(zip(TASKS, tasks, strict=True))[name]


def arguments_of(run: StoredRun, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, besides its samples, that repeat a run.

    Raises:
        InvalidInputError: if the record does not tell one of them
        WeightsError: if the weights are gone or are others now
    """
    if run.task not in TASKS:
        raise InvalidInputError(
            f"Run {run.key!r} is of {run.task!r}, which cannot be repeated; {', '.join(TASKS)} can."
        )
    recorded = run.parameters
    if not recorded:
        raise InvalidInputError(f"The record of run {run.key!r} holds no parameters.")
    apart = (*_WORDS, *_MODELS, *_ASKED_AGAIN) if run.task != "evaluate" else _ASKED_AGAIN
    found = {name: value for name, value in recorded.items() if name not in apart}
    if run.task != "evaluate":
        check_head(run, changes)
        found |= model_parameters(run, changes)
        found |= _words(run, changes)
    found |= changes
    for name, value in found.items():
        if name not in changes:
            _check_known(run, name, value)
    return found


def check_repeatable(run: StoredRun) -> None:
    """Refuses a run that :func:`rerun` would refuse without changes; loads nothing.

    Raises:
        InvalidInputError: if the record does not tell all that is needed
        WeightsError: if the weights are gone or are others now
    """
    arguments_of(run, {})


def samples_of(run: StoredRun) -> SampleCollection:
    """The view that a run was given, else the samples that it has labelled or that failed."""
    import fiftyone.core.view as fov
    from bson import json_util

    scope = run.record.get("samples") or {}
    stages = scope.get("stages") if scope.get("dataset") == run.dataset.name else None
    if stages is not None:
        view = fov.DatasetView._build(run.dataset, json_util.loads(stages))
        return view if view._stages else run.dataset
    place = marks.place_of(run.dataset, run.record)
    if place is not None and place.is_frames:
        raise InvalidInputError(
            f"The record of run {run.key!r} does not tell which frames it was given: pass samples=."
        )
    ids = {*run.samples().values("id"), *run.failed().values("id")}
    if not ids:
        raise InvalidInputError(
            f"Nothing in dataset {run.dataset.name!r} tells which samples run {run.key!r} was "
            "given: pass samples=."
        )
    return run.dataset.select(list(ids))


def _words(run: StoredRun, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Classes, templates and background prompts: as they were encoded, not where they came from."""
    from zs_operators.vocabulary import Vocabulary

    stored = run.record.get("vocabulary")
    changed = {name: changes[name] for name in _WORDS if name in changes}
    if "classes" in changed:
        old = {name: run.parameters.get(name) for name in ("templates", "background")}
        return {name: value for name, value in old.items() if value is not None}
    if stored is None:
        return {}
    if not changed:
        return {"classes": Vocabulary.from_dict(stored)}
    return {
        "classes": {name: v for name, v in stored.items() if name not in (*changed, "warnings")}
    }


def _check_known(run: StoredRun, name: str, value: Any) -> None:
    if isinstance(value, Mapping) and OBJECT in value:
        raise InvalidInputError(
            f"Run {run.key!r} was given {name}= as a {value[OBJECT]}, which its record cannot "
            f"hold: pass {name}=."
        )
    if isinstance(value, str) and HIDDEN in value:
        raise InvalidInputError(
            f"The record of run {run.key!r} has {name}={value!r} without its secret: pass {name}=."
        )
