"""A call of a task, checked and ready before any model is loaded, and who does its work."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from zs_operators.executors.options import RayExecutor, resolve_executor

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

    from zs_operators.device import BatchBudget
    from zs_operators.embeddings import EmbeddingStore
    from zs_operators.report import Progress, RunReport
    from zs_operators.run_options import RunOptions
    from zs_operators.runner import Run, Task
    from zs_operators.targets import Target


@dataclass(frozen=True)
class Prepared:
    """What comes of loading the models; made once in each process that labels samples.

    Attributes:
        model: what the task runs
        record, details, budget, seconds, warnings: see :class:`zs_operators.runner.Run`
        run_class: what runs the task
        store: of embeddings, which is closed when all is done
    """

    model: Any
    record: dict[str, Any]
    details: dict[str, Any]
    budget: BatchBudget
    run_class: type[Run]
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    store: EmbeddingStore | None = None

    def open(self) -> contextlib.AbstractContextManager:
        """The block in which samples are labelled."""
        return contextlib.nullcontext() if self.store is None else self.store


@dataclass(frozen=True)
class Job:
    """One call of a task.

    Attributes:
        function: the generator that was called, such as ``iter_classify``
        parameters: its arguments as :func:`.run_parameters.recorded` gives them
        parsed: those that were looked up, such as classes, as they were found
        samples: dataset or view, already checked
        target: where results go
        options: of the run
        prepare: loads the models
        make_task: a new task, with counts of its own, over what was prepared, here or for an
            earlier call with the same arguments
        sources: what the task loads for each sample; their filepaths if None
    """

    function: Callable[..., Generator]
    parameters: Mapping[str, Any]
    parsed: Mapping[str, Any]
    samples: SampleCollection
    target: Target
    options: RunOptions
    prepare: Callable[[], Prepared]
    make_task: Callable[[Prepared], Task]
    sources: Sequence[Any] | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """With which another process does the same, besides samples and executor."""
        apart = ("templates", "background")  # the parsed classes have theirs
        return {**{k: v for k, v in self.parameters.items() if k not in apart}, **self.parsed}


class Executor(Protocol):
    """Who does the work, if not the calling process."""

    def steps(self, job: Job) -> Generator[Progress, None, Any]:
        """Yields progress and returns the report."""


def steps_of(
    job: Job, executor: str | RayExecutor | Executor
) -> Generator[Progress, None, RunReport]:
    """The steps of a run, wherever its work is done.

    Args:
        job: the call
        executor: ``"local"``, ``"ray"``, a :class:`RayExecutor`, or what a worker has of its own

    Raises:
        InvalidInputError: if there is no such executor
        MissingDependencyError: if its package is not installed
    """
    executor = resolve_executor(executor)
    if isinstance(executor, RayExecutor):
        from zs_operators.executors.ray_run import steps_on_ray

        return (yield from steps_on_ray(job, executor))
    if executor is not None:
        return (yield from executor.steps(job))
    prepared = job.prepare()
    run = prepared.run_class(
        job.samples,
        job.make_task(prepared),
        job.target,
        sources=job.sources,
        record=prepared.record,
        details=prepared.details,
        budget=prepared.budget,
        options=job.options,
        seconds=prepared.seconds,
        warnings=prepared.warnings,
    )
    with prepared.open():
        return (yield from run.steps())
