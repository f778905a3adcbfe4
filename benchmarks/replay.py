"""What a run asks of its networks, to be asked again without all the rest."""

from __future__ import annotations

import contextlib
import time
from typing import Any, NamedTuple


class _Call(NamedTuple):
    forward: Any
    args: tuple
    kwargs: dict
    #: dtype of autocast around it, None without
    autocast: Any


class Replay:
    """The calls of some methods, with their tensors.

    Args:
        device: where the networks are
        methods: ``(object, name)`` of a method, "forward" of networks; of a function of a module or
            a class. Calls within calls count once
    """

    def __init__(self, device: str, methods: list[tuple[Any, str]]) -> None:
        self._device = device
        self._kind = device.partition(":")[0]
        self._methods = methods
        self._calls: list[_Call] = []
        self._depth = 0

    @contextlib.contextmanager
    def recording(self):
        """Remembers the calls that are made in the block."""
        self._calls.clear()
        own = [vars(owner).get(name) for owner, name in self._methods]
        for owner, name in self._methods:
            setattr(owner, name, self._recorded(getattr(owner, name)))
        try:
            yield
        finally:
            for (owner, name), before in zip(self._methods, own, strict=True):
                if before is None:  # of its class
                    delattr(owner, name)
                else:
                    setattr(owner, name, before)

    def __call__(self) -> None:
        """Makes the same calls again."""
        import torch

        with torch.no_grad():
            for call in self._calls:
                with torch.autocast(
                    self._kind, dtype=call.autocast, enabled=call.autocast is not None
                ):
                    call.forward(*call.args, **call.kwargs)
        if self._kind == "cuda":
            torch.cuda.synchronize(self._device)

    def _recorded(self, forward: Any) -> Any:
        import torch

        def call(*args, **kwargs):
            if not self._depth:
                dtype = None
                if torch.is_autocast_enabled(self._kind):
                    dtype = torch.get_autocast_dtype(self._kind)
                self._calls.append(_Call(forward, args, kwargs, dtype))
            self._depth += 1
            try:
                return forward(*args, **kwargs)
            finally:
                self._depth -= 1

        return call


class Timed(NamedTuple):
    """Seconds of wall-clock time, and of all processors together."""

    wall: float
    cpu: float


def timed(step) -> tuple[Any, Timed]:
    """What a step returns, and how long it takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = step()
    return found, Timed(time.perf_counter() - wall, time.process_time() - cpu)
