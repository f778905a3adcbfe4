"""The part of a run that a worker does: no lease, schema or record of its own, and reports."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zs_operators import provenance
from zs_operators.analysis.suspicions import CertaintyTally
from zs_operators.errors import RunError
from zs_operators.executors.messages import Description, Order, Report
from zs_operators.field_access import FieldAccess
from zs_operators.report import DELETED
from zs_operators.run_lease import SharedLease
from zs_operators.run_selection import Selection

if TYPE_CHECKING:
    from zs_operators.executors.jobs import Job, Prepared
    from zs_operators.guarded_writes import LeftAlone
    from zs_operators.report import Progress, RunReport


class ShardAccess(FieldAccess):
    """Fields that another process of the run has declared, and whose lease it has."""

    def __init__(self, order: Order, samples: Any, task: str, target: Any, **options: Any) -> None:
        run_key = provenance.run_key(task, target.run_name)
        lease = SharedLease(samples, target.field_names, run_key, order.owner)
        super().__init__(samples, task, target, lease=lease, **options)
        self._signature = order.signature

    def declare(self, description: str) -> None:
        """Done already."""

    def save(self, record: dict[str, Any]) -> None:
        """Not of a part."""

    def write(self, prepare: Callable[[], Any], errors: Mapping[str, str | None]) -> LeftAlone:
        """Like :meth:`FieldAccess.write`; what a lost worker of this run has written is ours."""
        left = super().write(prepare, errors)
        if not left.edited:
            return left
        ids = list(left.edited)
        marks = self.patiently(lambda: self._target.marks(ids))
        return left.but(i for i, mark in zip(ids, marks, strict=True) if mark == self._signature)


class ShardRun:
    """Over a class of run: does the samples it was given, whatever their marks, and reports."""

    def __init__(self, order: Order, *args: Any, **kwargs: Any) -> None:
        self._order = order
        self._done: list[str] = []
        self._reused = 0
        super().__init__(*args, **kwargs)
        self.started = order.started  # the sign to stop names it

    def drain(self, *, is_last: bool = False) -> Report:
        """What was written since the last call."""
        reused = getattr(self.task, "reused", 0)
        budgets = self._inference.budgets
        report = Report(
            ids=self._done,
            counts=dict(self.counts),
            labels=dict(self.label_counts),
            tally=self.tally,
            seconds={stage: value for stage, value in self.seconds.items() if stage != "total"},
            reused=reused - self._reused,
            warnings=tuple(self.task.warnings) if is_last else (),
            memory=tuple(one.warning for one in budgets if one.warning),
            stopped=self.state == provenance.CANCELLED,
        )
        self._done, self.tally, self._reused = [], CertaintyTally(), reused
        for one in (self.counts, self.label_counts, self.seconds):
            one.clear()
        return report

    def _open_access(self) -> FieldAccess:
        overwrite = self.options.overwrite
        options = {"overwrite": overwrite, "kept": self._kept}
        return ShardAccess(self._order, self.samples, self.task.name, self.target, **options)

    def _select(self, sources: Sequence[Any] | None) -> Selection:
        if self.signature != self._order.signature:
            raise RunError("This worker does not do what the run it belongs to does.")
        ids, paths = self.samples.values(["id", "filepath"])
        self.target.incomplete(ids)  # so that it knows what is there of other prompts
        self.target.watch_too(self._order.watched)
        gone = set(self._order.ids).difference(ids)
        self._done += gone
        self.counts.update({DELETED: len(gone)} if gone else {})
        found = paths if sources is None else sources
        return Selection(ids, list(found), len(ids), self._order.failed_before)

    def _store(
        self,
        prepare: Callable[[], Any],
        errors: Mapping[str, str | None],
        outcomes: Mapping[str, tuple[str, Sequence[str]]],
    ) -> None:
        super()._store(prepare, errors, outcomes)
        self._done += outcomes

    def _check_result(self, report: RunReport) -> None:
        """That all failed would be an error of the whole run only."""


class ShardExecutor:
    """What a task's function gets as its executor in a worker: models loaded once, then shards.

    Attributes:
        order: the next shard; None to describe what would be done
        run: of the shard that is being done
    """

    def __init__(self) -> None:
        self.order: Order | None = None
        self.run: Any = None
        self._prepared: Prepared | None = None

    def steps(self, job: Job) -> Generator[Progress, None, Any]:
        if self._prepared is None:
            self._prepared = job.prepare()
        prepared = self._prepared
        task = job.make_task(prepared)
        if self.order is None:
            yield from ()
            return _description(prepared, task)
        run_class = type("ShardRun", (ShardRun, prepared.run_class), {})
        self.run = run_class(
            self.order,
            job.samples,
            task,
            job.target,
            sources=job.sources,
            record=prepared.record,
            details={},
            budget=prepared.budget,
            options=job.options,
        )
        return (yield from self.run.steps())


def _description(prepared: Prepared, task: Any) -> Description:
    import os
    import socket

    return Description(
        host=socket.gethostname(),
        pid=os.getpid(),
        record=prepared.record,
        details=prepared.details,
        signature=provenance.signature(prepared.record),
        batch_size=prepared.budget.size,
        num_classes=getattr(task, "num_classes", None),
        warnings=tuple(prepared.warnings),
        seconds=prepared.seconds,
    )
