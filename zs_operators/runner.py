"""Samples in, labels out: read ahead, infer in batches, write in chunks, account for every sample.

The way of a batch: columns of ids and paths -> reader threads -> model -> labels -> one write by
id per chunk. Labels carry the run's signature, so value and "done" mark are a single update and a
run can continue after any interruption.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from zs_operators import fields, provenance, run_parameters
from zs_operators.analysis.suspicions import CertaintyTally, findings_of_run
from zs_operators.errors import (
    BusyFieldError,
    DatabaseError,
    DeletedError,
    MediaError,
    RunError,
)
from zs_operators.field_access import FieldAccess
from zs_operators.inference import Inference, outcome_of
from zs_operators.report import (
    DELETED,
    EDITED,
    LABELED,
    Progress,
    RunReport,
    left_alone_warnings,
)
from zs_operators.run_options import RunOptions
from zs_operators.run_selection import Selection, select
from zs_operators.stopping import Stopped, StopSign

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

    from zs_operators.device import BatchBudget
    from zs_operators.targets import Target

#: A chunk is written when it holds as many samples as its task lets wait, this many where labels
#: are small, or is this old, whichever comes first.
CHUNK_SAMPLES = 512
CHUNK_SECONDS = 2.0


class Task(Protocol):
    """What the runner needs of a task."""

    name: str
    #: batches read ahead of the model
    prefetch_batches: int
    #: samples whose results may wait in memory for the next write
    chunk_samples: int
    #: sentences for the report that only the run's data could tell
    warnings: Sequence[str]

    def load(self, source: Any) -> Any:
        """Reads and preprocesses one image; called in reader threads."""

    def infer(self, items: Sequence[Any]) -> Sequence[Any]:
        """One raw result per loaded image."""

    def label(self, result: Any, run: str) -> tuple[Any, str, Sequence[str]]:
        """What the target writes, the sample's outcome, and the class names it shows.

        Raises:
            MediaError: if this one sample's result cannot be kept
        """


@dataclass
class Chunk:
    """Results waiting for the next write."""

    labels: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, str | None] = field(default_factory=dict)
    #: outcome and class names by sample id
    outcomes: dict[str, tuple[str, Sequence[str]]] = field(default_factory=dict)
    since: float = field(default_factory=time.perf_counter)

    def __len__(self) -> int:
        return len(self.labels)

    def is_due(self, limit: int) -> bool:
        age = time.perf_counter() - self.since
        enough = len(self) >= min(limit, CHUNK_SAMPLES)
        return enough or (len(self) > 0 and age >= CHUNK_SECONDS)


class Run:
    """One run of a task over a collection.

    Args:
        samples: dataset or view, already checked
        task: what to do with each image
        target: where results go
        sources (None): what ``task.load`` gets for each sample; their filepaths if None
        record: what decides the labels, as plain JSON values; its hash is the run's signature
        details: further provenance that does not change labels
        budget: batch size and out-of-memory policy
        options: see :class:`RunOptions`
        seconds: stages timed before the run, such as loading the model
        warnings: sentences for the report

    Raises:
        FieldError: if the field holds labels of other settings and may not be overwritten
        BusyFieldError: if another run is writing to the field
    """

    def __init__(
        self,
        samples: SampleCollection,
        task: Task,
        target: Target,
        *,
        sources: Sequence[Any] | None = None,
        record: dict[str, Any],
        details: dict[str, Any],
        budget: BatchBudget,
        options: RunOptions,
        seconds: dict[str, float] | None = None,
        warnings: Sequence[str] = (),
    ) -> None:
        self.samples = samples
        self.task = task
        self.target = target
        self.signature = provenance.signature(record)
        self.record = {**record, **details}
        self.budget = budget
        self.options = options
        self.warnings = list(warnings)
        self.counts: Counter[str] = Counter()
        self.label_counts: Counter[str] = Counter()
        self.tally = CertaintyTally()
        self.seconds: Counter[str] = Counter(seconds or {})
        self._inference = Inference(task, budget, workers=options.workers, seconds=self.seconds)
        self.state = provenance.RUNNING
        self.started = time.time()
        self._take(Selection())
        self.access = self._open_access()
        try:
            self._take(self.access.patiently(lambda: self._select(sources)))
        except BaseException:
            self.access.close()
            raise
        self._scope = {"num_samples": self.total, **run_parameters.scope(samples)}

    @property
    def run_key(self) -> str:
        """Key of the custom run that describes the results."""
        return provenance.run_key(self.task.name, self.target.run_name)

    @property
    def resumed(self) -> int:
        """Samples that were already done when the run began."""
        return self.total - len(self.todo_ids)

    def __iter__(self) -> Generator[Progress, None, RunReport]:
        return self.steps()

    def steps(self) -> Generator[Progress, None, RunReport]:
        """Yields progress after each written chunk and returns the report.

        Closing the generator stops the run, and so does :func:`zs_operators.stop_run`: everything
        yielded so far is in the database, and the same call continues from there.

        Raises:
            RunError: if every sample failed
            MediaError: of the first failed sample, with ``on_error="raise"``
            DeletedError: if somebody deletes the dataset or the field
            DatabaseError: if the database is away for too long; the same call continues
        """
        with self.access:
            return (yield from self._steps())

    def _steps(self) -> Generator[Progress, None, RunReport]:
        described = {"task": self.task.name, "started": self.started, **self.record}
        self.access.declare(provenance.describe(self.run_key, described))
        self._save_record()
        sign = StopSign(self.samples, self.run_key, self.started)
        begun = time.perf_counter()
        chunk = Chunk()
        try:
            yield self._progress("starting", begun)
            with contextlib.closing(self._before_reading(begun)) as results_known_otherwise:
                for progress in results_known_otherwise:
                    yield progress
                    self.access.patiently(sign.heed)
            for index, result in self._inference.results(self.todo_sources):
                self._collect(chunk, self.todo_ids[index], result)
                if chunk.is_due(self.task.chunk_samples):
                    self._write(chunk)
                    chunk = Chunk()
                    yield self._progress("labelling", begun)
                    self.access.patiently(sign.heed)
            if chunk:
                self._write(chunk)
                chunk = Chunk()
                yield self._progress("labelling", begun)
            self.state = provenance.COMPLETE
        except (GeneratorExit, KeyboardInterrupt):
            self.state = provenance.CANCELLED
            raise
        except Stopped:
            self.state = provenance.CANCELLED
        except (DatabaseError, DeletedError, BusyFieldError):
            chunk = Chunk()  # there is nowhere to write it
            raise
        finally:
            if self.state == provenance.RUNNING:
                self.state = provenance.FAILED
            self._write(chunk)
            self.seconds["total"] += time.perf_counter() - begun
            self._save_record()
        report = self.report()
        self._check_result(report)
        return report

    def _open_access(self) -> FieldAccess:
        overwrite = self.options.overwrite
        return FieldAccess(
            self.samples, self.task.name, self.target, overwrite=overwrite, kept=self._kept
        )

    def _before_reading(self, begun: float) -> Generator[Progress, None, None]:
        """For runs that get some results otherwise; leaves the others in ``todo_sources``."""
        yield from ()

    def _check_result(self, report: RunReport) -> None:
        if self.counts and report.num_failed == self.total:
            self.state = provenance.FAILED
            self._save_record()
            raise RunError(self._all_failed())

    def report(self) -> RunReport:
        """The report of the run as it stands."""
        done = sum(self.counts.values())
        busy = self.seconds.get("total", 0.0)
        findings = findings_of_run(
            self.tally,
            self.label_counts,
            self.counts,
            getattr(self.task, "num_classes", None),
        )
        report = RunReport(
            run_key=self.run_key,
            task=self.task.name,
            label_field=self.target.name,
            counts=dict(self.counts.most_common()),
            labels=dict(self.label_counts.most_common()),
            seconds={stage: round(value, 4) for stage, value in self.seconds.items()},
            images_per_second=round(done / busy, 3) if busy else 0.0,
            resumed=self.resumed,
            reused=getattr(self.task, "reused", 0),
            cancelled=self.state == provenance.CANCELLED,
            sanity=findings.short(),
            warnings=(
                *self.warnings,
                *self.task.warnings,
                *(one.warning for one in self._inference.budgets if one.warning),
                *left_alone_warnings(self.counts),
                *findings.warnings(),
            ),
        )
        return replace(report, error_field=self._error_field) if report.num_failed else report

    @property
    def _error_field(self) -> str:
        return fields.error_field(self.target.name)

    def _select(self, sources: Sequence[Any] | None) -> Selection:
        return select(
            self.samples, self.task.name, self.target, self.signature, self.options, sources
        )

    def _take(self, selection: Selection) -> None:
        self.todo_ids = selection.ids
        self.todo_sources = selection.sources
        self.total = selection.total
        self.failed_before = selection.failed_before
        self.warnings += selection.warnings

    def _collect(self, chunk: Chunk, sample_id: str, result: Any) -> None:
        if isinstance(result, Exception):
            self._fail(chunk, sample_id, result)
            return
        begun = time.perf_counter()
        try:
            label, outcome, names = self.task.label(result, self.signature)
        except MediaError as error:
            self._fail(chunk, sample_id, error)
            return
        chunk.labels[sample_id] = label
        if hasattr(self.task, "scores"):
            self.tally.add(self.task.scores(result))
        if sample_id in self.failed_before:
            chunk.errors[sample_id] = None
        chunk.outcomes[sample_id] = outcome, names
        self.seconds["labels"] += time.perf_counter() - begun

    def _fail(self, chunk: Chunk, sample_id: str, error: Exception) -> None:
        if self.options.on_error == "raise":
            raise error
        outcome = outcome_of(error)
        chunk.labels[sample_id] = None
        chunk.errors[sample_id] = f"{outcome}: {str(error) or type(error).__name__}"
        chunk.outcomes[sample_id] = outcome, ()

    def _write(self, chunk: Chunk) -> None:
        if len(chunk):
            self._store(lambda: self.target.prepare(chunk.labels), chunk.errors, chunk.outcomes)

    def _store(
        self,
        prepare: Callable[[], Any],
        errors: Mapping[str, str | None],
        outcomes: Mapping[str, tuple[str, Sequence[str]]],
    ) -> None:
        """Writes results and counts what came of them."""
        begun = time.perf_counter()
        left = self.access.write(prepare, errors)
        for sample_id, (outcome, names) in outcomes.items():
            if sample_id in left.deleted:
                self.counts[DELETED] += 1
            elif sample_id in left.edited:
                self.counts[EDITED] += 1
            else:
                self.counts[outcome] += 1
                if outcome == LABELED:
                    self.label_counts.update(names)
        self.seconds["write"] += time.perf_counter() - begun

    def _kept(self) -> str:
        """For errors: what of the run is safe."""
        if not self.total:
            return ""
        done = self.resumed + sum(self.counts.values())
        return f"{done:,} of {self.total:,} samples are done in {self.target.name!r}, and kept."

    def _save_record(self) -> None:
        record = {
            **self.record,
            "label_field": self.target.name,
            "signature": self.signature,
            "state": self.state,
            "started": self.started,
            "samples": self._scope,
            "environment": provenance.environment(),
            "report": self.report().to_dict(),
            "batch_size": self.budget.size,
        }
        self.access.save(record)

    def _progress(self, stage: str, begun: float) -> Progress:
        done = sum(self.counts.values())
        elapsed = time.perf_counter() - begun
        return Progress(
            done=self.resumed + done,
            total=self.total,
            stage=stage,
            images_per_second=done / elapsed if done else 0.0,
            counts=dict(self.counts),
        )

    def _all_failed(self) -> str:
        outcomes = ", ".join(f"{n} {outcome}" for outcome, n in self.counts.most_common())
        sidecar = self._error_field
        reasons = self.samples.exists(sidecar).limit(1).values(sidecar)
        return (
            f"No sample of this run could be labelled ({outcomes}). First reason: "
            f"{reasons[0] if reasons else 'unknown'}. All reasons are in field {sidecar!r}."
        )
