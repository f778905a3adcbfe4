"""Calls into FiftyOne that take long, as steps of a run: progress, and a way out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar

from zs_operators.report import Progress

if TYPE_CHECKING:
    T = TypeVar("T")

_SECONDS_BETWEEN_LOOKS = 0.2


class _Stopped(BaseException):
    """Ends FiftyOne's loop from inside its progress callback."""


def watched(
    work: Callable[[Callable[[Any], None]], T], stage: str, total: int
) -> Generator[Progress, None, T]:
    """Runs ``work`` in a thread and yields how far it is; closing the generator ends it.

    Args:
        work: gets a progress callback as FiftyOne's functions take it
        stage: what is done, for people
        total: samples
    """
    done, stop = [0], threading.Event()
    outcome: dict[str, Any] = {}

    def look(bar: Any) -> None:
        done[0] = int(bar.iteration or 0)
        if stop.is_set():
            raise _Stopped

    def run() -> None:
        try:
            outcome["value"] = work(look)
        except BaseException as error:  # handed on to whoever waits
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True, name="zs-evaluate")
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_SECONDS_BETWEEN_LOOKS)
            yield Progress(min(done[0], total), total, stage)
    finally:
        stop.set()
        thread.join()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]
