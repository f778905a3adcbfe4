"""What goes between the process that has the run and its workers: small, and never pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zs_operators.analysis.suspicions import CertaintyTally
from zs_operators.errors import ZeroShotError


@dataclass(frozen=True)
class Call:
    """What a worker is to do with samples, told once.

    Attributes:
        function: module and name of the task's generator
        arguments: of it, besides samples and executor
        dataset: its name
        stages: of the view that change what samples hold, serialised
        database: URI and name
    """

    function: tuple[str, str]
    arguments: Mapping[str, Any]
    dataset: str
    stages: Sequence[Any]
    database: tuple[str, str] = field(repr=False)  # a URI may have a password


@dataclass(frozen=True)
class Order:
    """One shard, as a worker gets it.

    Attributes:
        ids: of the samples
        owner: of the run's lease
        started: when the run began, by which it is asked to stop
        signature: of the run
        watched: see :meth:`zs_operators.targets.Target.watched`
        failed_before: ids of samples with a reason of failure from an earlier run
    """

    ids: Sequence[str]
    owner: str
    started: float
    signature: str
    watched: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    failed_before: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Description:
    """What a worker has made of a call.

    Attributes:
        host, pid: where it is
        record, details, warnings, seconds: see :class:`zs_operators.runner.Run`
        signature: of the record
        batch_size: images a forward pass
        num_classes: that are asked for; None if labels get their names from elsewhere
    """

    host: str
    pid: int
    record: dict[str, Any]
    details: dict[str, Any]
    signature: str
    batch_size: int
    num_classes: int | None
    warnings: Sequence[str] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What a worker has written since its last report.

    Attributes:
        ids: of the samples
        counts: by outcome
        labels: by class name
        tally: how sure the labels are
        seconds: by stage
        reused: samples whose embeddings were stored
        warnings: of a whole shard, with the last report on it
        memory: where the worker had to do with less memory, since it began
        stopped: whether it was asked to stop, with the last report
    """

    ids: Sequence[str] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    tally: CertaintyTally = field(default_factory=CertaintyTally)
    seconds: Mapping[str, float] = field(default_factory=dict)
    reused: int = 0
    warnings: Sequence[str] = ()
    memory: Sequence[str] = ()
    stopped: bool = False


@dataclass(frozen=True)
class Failure:
    """An error of ours that ended a shard, or kept a worker from beginning."""

    error: ZeroShotError
