"""A run whose samples are labelled by workers that Ray starts; the run itself stays here.

Here are lease, schema, record, counts and the sign to stop; a worker gets ids of samples, reads
their media itself, writes to the same database and says what came of them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from typing import TYPE_CHECKING

from zs_operators.device import BatchBudget
from zs_operators.errors import InvalidInputError, RunError
from zs_operators.executors.messages import Call, Description, Failure, Order, Report
from zs_operators.executors.ray_pool import Event, Member, RayPool, connected
from zs_operators.executors.shards import Shard, ShardQueue
from zs_operators.executors.views import content_stages
from zs_operators.executors.worker_warnings import WorkerWarnings
from zs_operators.report import Progress, RunReport
from zs_operators.run_parameters import OBJECT
from zs_operators.runner import Chunk, Run
from zs_operators.stopping import StopSign

if TYPE_CHECKING:
    from zs_operators.executors.jobs import Job
    from zs_operators.executors.options import RayExecutor

#: How often a person may stop a run that waits for its workers.
LOOK_S = 0.5
#: Workers that are asked to stop have so long for what they are at.
GRACE_S = 60.0
#: Workers that fail so often without a single sample done, and twice more a worker, end the run.
FAILURES_IN_A_ROW = 6

_DEVICES = ("auto", "cpu", "cuda", "mps")


def steps_on_ray(job: Job, executor: RayExecutor) -> Generator[Progress, None, RunReport]:
    """The steps of a run whose work is done by workers of Ray.

    Raises:
        InvalidInputError: if something cannot be given to other processes
        DeviceError: if the cluster has no place for a worker
        RunError: if workers do not agree on what to do, or keep failing
    """
    call = _call(job)
    total = job.samples.count()
    with connected(executor):
        pool = RayPool(executor, call)
        try:
            found = yield from _first_description(pool, total)
            run = RayRun(job, pool, executor.shard_size, found)
            return (yield from run.steps())
        finally:
            pool.close()


def _call(job: Job) -> Call:
    """The call as other processes can do it."""
    import fiftyone as fo
    import fiftyone.core.odm as foo

    if job.samples._dataset._is_generated:
        raise InvalidInputError(
            "executor='ray' takes datasets and views of their own images, not frames or clips that "
            "FiftyOne generates: leave executor='local' for these, or clone them to a dataset."
        )
    arguments = dict(job.arguments)
    for name, value in arguments.items():
        if isinstance(value, dict) and OBJECT in value:
            raise InvalidInputError(
                f"{name}= is a {value[OBJECT]} in the memory of this process: with executor='ray' "
                "pass its name or folder, from which each worker loads it."
            )
    if arguments.get("device", "auto") not in _DEVICES:
        raise InvalidInputError(
            f"device={arguments['device']!r}: with executor='ray' each worker sees the GPUs that "
            f"Ray gives it, so device must be one of {', '.join(_DEVICES)}."
        )
    uri = fo.config.database_uri
    if uri is None:  # FiftyOne's own, which workers on this machine reach
        uri = "mongodb://{}:{}".format(*foo.get_db_conn().client.address)
    function = job.function.__module__, job.function.__name__
    name = job.samples._root_dataset.name
    return Call(
        function, arguments, name, content_stages(job.samples), (uri, fo.config.database_name)
    )


def _first_description(pool: RayPool, total: int) -> Generator[Progress, None, Description]:
    """Waits for the first worker whose models are loaded."""
    failures = 0
    while True:
        yield Progress(0, total, "starting workers")
        for event in pool.events(LOOK_S):
            if isinstance(event.message, Description):
                return event.message
            if isinstance(event.message, Failure):
                raise event.message.error
            failures += 1
            if failures >= FAILURES_IN_A_ROW:
                raise RunError(f"No worker could be started. The last one: {event.died}")
            pool.remove(event.member)
            pool.add()


class RemoteTask:
    """A task that others do: see :class:`zs_operators.runner.Task`.

    Attributes:
        reused: samples whose embeddings were stored
        said: what workers had to say
    """

    prefetch_batches = 1
    chunk_samples = 1

    def __init__(self, name: str, num_classes: int | None) -> None:
        self.name = name
        self.num_classes = num_classes
        self.reused = 0
        self.said = WorkerWarnings()

    @property
    def warnings(self) -> list[str]:
        """Of all workers."""
        return self.said.sentences()


class RayRun(Run):
    """The run, as those know it that watch it or come second; its work is done elsewhere.

    Args:
        job: the call
        pool: workers, of which one has described the call
        shard_size: see :class:`.options.RayExecutor`
        found: the description
    """

    def __init__(self, job: Job, pool: RayPool, shard_size: int | None, found: Description) -> None:
        self._pool = pool
        self._found = found
        self._shard_size = shard_size
        self._lost = 0
        self._failures = 0  # in a row
        details = {
            **found.details,
            # A worker is given classes, and does not know where they came from
            "parameters": {**found.details["parameters"], **job.parameters},
            "executor": {"name": "ray", **pool.plan._asdict()},
        }
        super().__init__(
            job.samples,
            RemoteTask(found.record["task"], found.num_classes),
            job.target,
            sources=job.sources,
            record=found.record,
            details=details,
            budget=BatchBudget(found.batch_size),
            options=job.options,
            seconds=dict(found.seconds),
            warnings=found.warnings,
        )

    def _before_reading(self, begun: float) -> Generator[Progress, None, None]:
        self.todo_sources = []  # of which nothing is read here
        queue = ShardQueue(self.todo_ids, self._shard_size, self._pool.plan.num_workers)
        try:
            while queue or self._busy:
                self._hand_out(queue)
                for event in self._pool.events(LOOK_S):
                    self._take_note(event, queue)
                yield self._progress("labelling", begun)
        finally:
            self._wind_up()

    @property
    def _busy(self) -> list[Member]:
        return [one for one in self._pool.members if one.shard is not None]

    def _hand_out(self, queue: ShardQueue) -> None:
        """Gives every idle worker a shard, while there are any."""
        for member in self._pool.members:
            if not member.is_idle:
                continue
            shard = queue.take(member.images_per_second)
            if shard is None:
                return
            ids = list(shard.left)
            order = Order(
                ids=ids,
                owner=self.access.owner,
                started=self.started,
                signature=self.signature,
                watched=self.target.watched(ids),
                failed_before=self.failed_before.intersection(ids),
            )
            self._pool.give(member, shard, order)

    def _take_note(self, event: Event, queue: ShardQueue) -> None:
        member, message = event.member, event.message
        if isinstance(message, Report):
            self._add(member, message)
        elif isinstance(message, Description):
            self._check_agreement(message)
        elif isinstance(message, Failure):
            # Of a worker whose drive is gone for example: others may do its shard
            if member.shard is None or type(message.error) is not RunError:
                raise message.error
            member.failure = str(message.error)
        elif event.is_end:
            shard, member.shard = member.shard, None
            if member.is_stopped:
                queue.put_back(shard)
            elif shard.left:
                self._failed(shard, queue, member.failure or "its worker left it undone")
            member.failure = ""
        elif event.died:
            shard, member.shard = member.shard, None
            if event.is_gone or shard is None:
                self._lost += 1
                self._pool.remove(member)
                self._pool.add()
            self._failed(shard, queue, event.died, out_of_memory=event.out_of_memory)

    def _add(self, member: Member, report: Report) -> None:
        """Counts what is in the database now."""
        member.shard.done(report.ids)
        member.done += len(report.ids)
        member.is_stopped = report.stopped
        self.counts.update(report.counts)
        self.label_counts.update(report.labels)
        self.tally.include(report.tally)
        self.seconds.update(report.seconds)
        self.task.reused += report.reused
        self.task.said.add(id(member), report.warnings, report.memory)
        if report.ids:
            self._failures = 0

    def _check_agreement(self, other: Description) -> None:
        """Refuses a worker that would make other labels than the first."""
        if other.signature == self.signature:
            return
        ours, theirs = self._found.record, other.record
        names = sorted(k for k in {*ours, *theirs} if ours.get(k) != theirs.get(k))
        details = "; ".join(f"{k}: {ours.get(k)} and {theirs.get(k)}" for k in names)
        raise RunError(
            f"Workers on {self._found.host} and {other.host} would make different labels, because "
            f"of {details[:600]}. Use the same weights and version of this package on all "
            "machines, and name the precision where their devices differ (precision='fp32'). What "
            "is labelled is kept."
        )

    def _failed(
        self,
        shard: Shard | None,
        queue: ShardQueue,
        reason: str,
        *,
        out_of_memory: bool = False,
    ) -> None:
        """Has a shard tried again, or its last sample recorded; too many in a row are too many."""
        self._failures += 1
        if self._failures > FAILURES_IN_A_ROW + 2 * self._pool.plan.num_workers:
            raise RunError(
                f"Workers failed {self._failures} times in a row without a single sample done. "
                f"The last one: {reason} What is labelled is kept."
            )
        for sample_id in queue.failed(shard) if shard is not None else ():
            said = f"its worker failed each time that it came to this image. {reason}"
            chunk = Chunk()
            self._fail(chunk, sample_id, (MemoryError if out_of_memory else RunError)(said))
            self._write(chunk)
            self._failures = 0

    def _wind_up(self) -> None:
        """Has workers stop after what they are at, and counts that as well."""
        from pymongo.errors import PyMongoError

        if self._lost:
            self.warnings.append(
                f"{self._lost:,} workers were lost and replaced; what they had not written was "
                "done by others."
            )
        if not self._busy:
            return
        with contextlib.suppress(PyMongoError):
            StopSign(self.samples, self.run_key, self.started).show()
        until = time.monotonic() + GRACE_S
        while self._busy and time.monotonic() < until:
            for event in self._pool.events(LOOK_S):
                if isinstance(event.message, Report):
                    self._add(event.member, event.message)
                elif event.is_end or event.died:
                    event.member.shard = None
