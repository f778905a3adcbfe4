"""Where the time of a run goes: code names its stages, and a run adds up how long they take.

>>> times = StageTimes(seconds)
>>> with times.measuring("model"):  # in any thread
...     with stage("score"):  # in any module; counts as "score" and not as "model"
...         ...
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

_here = threading.local()


class StageTimes:
    """Adds up seconds of wall-clock time by stage, from any number of threads.

    Args:
        seconds: where they are added up
    """

    def __init__(self, seconds: Counter[str]) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()

    @contextmanager
    def measuring(self, name: str | None = None) -> Iterator[None]:
        """Times this thread until the block ends, its stages apart.

        Args:
            name (None): of what is in none of the stages within; None counts that nowhere
        """
        outer = getattr(_here, "laps", None)
        _here.laps = laps = _Laps(name)
        try:
            yield
        finally:
            laps.end()
            _here.laps = outer
            with self._lock:
                self._seconds.update(laps.seconds)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Counts what is in the block as a stage of its own, where somebody measures this thread."""
    laps = getattr(_here, "laps", None)
    if laps is None:
        yield
        return
    laps.begin(name)
    try:
        yield
    finally:
        laps.end()


class _Laps:
    """The stages of one thread; only the innermost runs."""

    def __init__(self, name: str | None) -> None:
        self.seconds: Counter[str] = Counter()
        self._names = [name]
        self._since = time.perf_counter()

    def begin(self, name: str) -> None:
        self._count()
        self._names.append(name)

    def end(self) -> None:
        self._count()
        self._names.pop()

    def _count(self) -> None:
        now = time.perf_counter()
        if self._names[-1] is not None:
            self.seconds[self._names[-1]] += now - self._since
        self._since = now
