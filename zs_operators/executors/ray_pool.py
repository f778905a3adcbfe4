"""Workers that Ray starts: one actor each, with what happens to them as events."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zs_operators.executors.messages import Call, Description, Failure, Order, Report
from zs_operators.executors.options import plan_workers
from zs_operators.executors.worker import Worker

if TYPE_CHECKING:
    from zs_operators.executors.options import RayExecutor, WorkerPlan
    from zs_operators.executors.shards import Shard

#: A cluster of this process's own moves no pixels, so it needs the least that Ray allows.
_OBJECT_STORE_BYTES = 80 * 2**20
#: What Ray says of a worker that it ended because the machine had no memory left.
_OUT_OF_MEMORY = "NODE_OUT_OF_MEMORY"


@dataclass(eq=False)
class Member:
    """One worker.

    Attributes:
        actor: Ray's handle
        waiting_for: what Ray is to give back: a description, or a stream of reports; None if idle
        shard: that it does
        is_ready: whether its models are loaded
        is_stopped: whether it was asked to stop
        failure: what it said of its shard, if that failed
        done: samples so far
        begun: when it was given its first shard
    """

    actor: Any
    waiting_for: Any = None
    shard: Shard | None = None
    is_ready: bool = False
    is_stopped: bool = False
    failure: str = ""
    done: int = 0
    begun: float | None = None

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a shard."""
        return self.is_ready and self.shard is None and not self.is_stopped

    @property
    def images_per_second(self) -> float:
        """Since its first shard; 0 before."""
        return 0.0 if self.begun is None else self.done / (time.monotonic() - self.begun)


class Event(NamedTuple):
    """What happened to a worker: one of a description, report or failure; or it ended, or died."""

    member: Member
    message: Description | Report | Failure | None = None
    #: that nothing more comes of its shard
    is_end: bool = False
    #: why there is no more of it: it is gone, or its code failed
    died: str = ""
    is_gone: bool = False
    out_of_memory: bool = False


@contextlib.contextmanager
def connected(executor: RayExecutor) -> Iterator[None]:
    """A block with a cluster: the one that there is, else one for this block alone."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "configure_logging": False}
    if executor.address is not None:
        ray.init(executor.address, **quiet)
    else:
        try:
            ray.init("auto", **quiet)
        except ConnectionError:
            ray.init(
                "local",
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                **quiet,
            )
    try:
        yield
    finally:
        ray.shutdown()


class RayPool:
    """Workers of one call.

    Args:
        executor: how many, and with what
        call: what they are to do
    """

    def __init__(self, executor: RayExecutor, call: Call) -> None:
        import ray

        self._ray = ray
        self._call = ray.put(call)
        nodes = [one["Resources"] for one in ray.nodes() if one["Alive"]]
        self.plan: WorkerPlan = plan_workers(executor, nodes)
        self._actor_class = ray.remote(Worker).options(
            num_cpus=self.plan.num_cpus,
            num_gpus=self.plan.num_gpus,
            max_restarts=0,  # a shard is tried again by us, with what is left of it
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": {"PYTHONPATH": _python_path()}},
        )
        self.members: list[Member] = []
        for _ in range(self.plan.num_workers):
            self.add()

    def add(self) -> None:
        """Starts one more worker, which begins with loading its models."""
        actor = self._actor_class.remote(self._call)
        self.members.append(Member(actor, actor.describe.remote()))

    def give(self, member: Member, shard: Shard, order: Order) -> None:
        """Has a worker that is idle do a shard."""
        label = member.actor.label.options(num_returns="streaming")
        member.shard, member.waiting_for = shard, label.remote(order)
        member.begun = member.begun or time.monotonic()

    def remove(self, member: Member) -> None:
        """Ends a worker."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(member.actor)
        self.members.remove(member)

    def events(self, seconds: float) -> Iterator[Event]:
        """What happened meanwhile; waits at most so long for the first."""
        busy = {id(one.waiting_for): one for one in self.members if one.waiting_for is not None}
        waiting = [one.waiting_for for one in busy.values()]
        if not waiting:
            time.sleep(seconds)
            return
        ready, _ = self._ray.wait(waiting, num_returns=1, timeout=seconds)
        if ready:
            # All others that have something to say as well
            ready, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        for one in ready:
            yield self._event(busy[id(one)])

    def close(self) -> None:
        """Ends all workers, at once."""
        for one in list(self.members):
            self.remove(one)

    def _event(self, member: Member) -> Event:
        errors = self._ray.exceptions
        try:
            if member.shard is None:
                found = self._ray.get(member.waiting_for)
                member.waiting_for, member.is_ready = None, isinstance(found, Description)
                return Event(member, found)
            return Event(member, self._ray.get(next(member.waiting_for)))
        except StopIteration:
            member.waiting_for = None
            return Event(member, is_end=True)
        except errors.RayTaskError as error:
            member.waiting_for = None
            return Event(member, died=f"{type(error.cause).__name__}: {error.cause}")
        except errors.RayError as error:
            member.waiting_for = None
            memory = isinstance(error, errors.OutOfMemoryError) or _OUT_OF_MEMORY in str(error)
            return Event(member, died=_reason(error), is_gone=True, out_of_memory=memory)


def _reason(error: Exception) -> str:
    """What Ray says of a worker that is gone, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if "exit" in line.lower()), lines[0])
    return f"{type(error).__name__}: {said[:300]}"


def _python_path() -> str:
    """Where workers find this package if it is not installed, as in FiftyOne's plugin folder."""
    root = str(Path(__file__).resolve().parents[2])
    if Path(root).name in ("site-packages", "dist-packages"):
        return "${PYTHONPATH}"
    return f"{root}{os.pathsep}${{PYTHONPATH}}"
