"""How a run is spread over processes, and whether the engine for it is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from zs_operators.errors import DeviceError, InvalidInputError, MissingDependencyError
from zs_operators.option_checks import check_count, check_range

LOCAL, RAY = "local", "ray"
EXECUTORS = (LOCAL, RAY)


@dataclass(frozen=True)
class RayExecutor:
    """Does the work of a run in processes that Ray starts, on this machine or a cluster.

    Args:
        num_workers (None): processes, each with models of its own; None for one a GPU, or without
            GPUs one a machine
        num_gpus (None): GPUs of a worker; a fraction lets several share one. None is one where the
            cluster has any, else none
        num_cpus (None): processors that Ray sets aside for a worker; None is its share of a machine
        shard_size (None): samples given to a worker at a time; None lets it grow with the speed, to
            half a minute of work
        address (None): of a cluster, such as ``"auto"`` or ``"ray://head:10001"``. None is the one
            that this process is connected to, that ``RAY_ADDRESS`` names or that runs on this
            machine, else one that is started here for this run

    Raises:
        InvalidInputError: if an option has no meaning
    """

    num_workers: int | None = None
    num_gpus: float | None = None
    num_cpus: float | None = None
    shard_size: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        for name in ("num_workers", "shard_size"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), 1)
        for name in ("num_gpus", "num_cpus"):
            check_range(name, getattr(self, name), 0, 1024, optional=True)
        if self.address is not None and not isinstance(self.address, str):
            raise InvalidInputError(f"address={self.address!r} must be text, such as 'auto'.")


class WorkerPlan(NamedTuple):
    """How many workers there are, and what each of them has."""

    num_workers: int
    num_gpus: float
    num_cpus: float


def has_ray() -> bool:
    """Whether Ray can be imported, without importing it."""
    return importlib.util.find_spec("ray") is not None


def available_executors() -> tuple[str, ...]:
    """Names that ``executor=`` takes here."""
    return EXECUTORS if has_ray() else (LOCAL,)


def resolve_executor(executor: Any) -> Any:
    """What ``executor=`` means; None for this process.

    Raises:
        InvalidInputError: if it has no meaning
        MissingDependencyError: if its package is not installed
    """
    if executor == LOCAL:
        return None
    if executor == RAY:
        executor = RayExecutor()
    if isinstance(executor, RayExecutor):
        if not has_ray():
            raise MissingDependencyError(
                "executor='ray' needs the package ray: pip install 'zs-operators[ray]', on every "
                "machine of the cluster. Without it, leave executor='local'."
            )
        return executor
    if hasattr(executor, "steps"):
        return executor
    raise InvalidInputError(
        f"executor={executor!r} must be 'local', 'ray', or a zs.RayExecutor(...)."
    )


def plan_workers(executor: RayExecutor, nodes: Sequence[Mapping[str, float]]) -> WorkerPlan:
    """Fills in what the options leave open.

    Args:
        executor: the options
        nodes: resources of each machine, ``"CPU"`` and ``"GPU"``, as Ray counts them

    Raises:
        DeviceError: if no machine has what one worker needs
    """
    with_gpus = [one for one in nodes if one.get("GPU", 0) >= 1]
    num_gpus = executor.num_gpus
    if num_gpus is None:
        num_gpus = 1.0 if with_gpus else 0.0
    places = [_places(one, num_gpus) for one in nodes]
    num_workers = executor.num_workers or max(1, sum(places))
    num_cpus = executor.num_cpus
    if num_cpus is None:
        if executor.num_workers is not None and not num_gpus:
            places = [-(-num_workers // max(1, len(nodes)))] * len(nodes)
        shares = [one.get("CPU", 0) // n for one, n in zip(nodes, places, strict=True) if n]
        num_cpus = max(1.0, min(shares, default=1.0))
    if not any(one.get("CPU", 0) >= num_cpus and one.get("GPU", 0) >= num_gpus for one in nodes):
        raise DeviceError(
            f"A worker needs {num_gpus:g} GPUs and {num_cpus:g} CPUs, and no machine of the "
            f"cluster has as many: {_listed(nodes)}. Ask for less in zs.RayExecutor(num_gpus=…, "
            "num_cpus=…)."
        )
    return WorkerPlan(num_workers, float(num_gpus), float(num_cpus))


def _places(node: Mapping[str, float], num_gpus: float) -> int:
    """How many workers a machine takes; by its GPUs, one if they need none."""
    if not num_gpus:
        return 1 if node.get("CPU", 0) >= 1 else 0
    return int(node.get("GPU", 0) / num_gpus + 1e-9)


def _listed(nodes: Sequence[Mapping[str, float]]) -> str:
    found = [f"{one.get('GPU', 0):g} GPUs and {one.get('CPU', 0):g} CPUs" for one in nodes]
    return "; ".join(found[:8]) or "it has none"
