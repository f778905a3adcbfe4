"""Which samples a run processes: those without a result, or all where it may overwrite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zs_operators import fields, provenance
from zs_operators.errors import FieldError

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

    from zs_operators.run_options import RunOptions
    from zs_operators.targets import Target


@dataclass(frozen=True)
class Selection:
    """What is to be done.

    Args:
        ids: of the samples to process
        sources: what the task loads for each of them
        total: number of samples of the collection
        failed_before: ids of samples with a reason of failure from an earlier run
        warnings: sentences for the report
    """

    ids: list[str] = field(default_factory=list)
    sources: list[Any] = field(default_factory=list)
    total: int = 0
    failed_before: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()


def select(
    samples: SampleCollection,
    task: str,
    target: Target,
    signature: str,
    options: RunOptions,
    sources: Sequence[Any] | None,
) -> Selection:
    """Finds the samples to process, and has the target watch them from now on.

    Args:
        samples: dataset or view
        task: name of the task
        target: where results go
        signature: of the run's settings
        options: of the run
        sources: what the task loads for each sample; their filepaths if None

    Raises:
        FieldError: if the field holds labels of other settings and may not be overwritten
    """
    ids, paths = samples.values(["id", "filepath"])
    sources = paths if sources is None else sources
    error_field = fields.error_field(target.name)
    failed_before: frozenset[str] = frozenset()
    if samples._dataset.get_field(error_field) is not None:
        failed_before = frozenset(samples.exists(error_field).values("id"))

    marks = target.marks(ids)
    earlier = provenance.find(samples, task, target.run_name)
    same = earlier is not None and earlier.get("signature") == signature
    lacking = target.incomplete(ids)
    warnings: tuple[str, ...] = ()
    if options.overwrite:
        unfinished = same and earlier.get("state") != provenance.COMPLETE
        done = signature if unfinished and options.resume else None
        todo = [i for i, mark in enumerate(marks) if done is None or mark != done]
    else:
        foreign = sum(mark is not None and mark != signature for mark in marks)
        if target.has_values():
            _refuse_foreign(target.name, earlier, same, marks, signature, options.resume)
        if foreign:
            warnings = (_of_others(foreign, target.name),)
        todo = [i for i, mark in enumerate(marks) if mark is None]
    if lacking:
        todo = sorted({*todo, *(i for i, one in enumerate(ids) if one in lacking)})
    todo_ids = [ids[i] for i in todo]
    target.watch(todo_ids, [marks[i] for i in todo])
    return Selection(todo_ids, [sources[i] for i in todo], len(ids), failed_before, warnings)


def _refuse_foreign(
    name: str,
    earlier: dict[str, Any] | None,
    same: bool,
    marks: Sequence[str | None],
    signature: str,
    resume: bool,
) -> None:
    foreign = sum(mark is not None and mark != signature for mark in marks)
    of_other_runs = any(mark and mark != signature for mark in marks)
    if same and not of_other_runs and (resume or not any(marks)):
        return
    if earlier is None or foreign:
        what = f"{foreign or 'some'} labels that this run did not write"
    elif not same:
        what = "labels of a run with other settings"
    else:
        what = "labels of this run already, and resume=False asks to compute them again"
    raise FieldError(
        f"Field {name!r} holds {what}: choose another name, or allow overwriting (overwrite=True)."
    )


def _of_others(foreign: int, name: str) -> str:
    return f"{foreign:,} samples have labels in {name!r} that this run did not write; they stay."
