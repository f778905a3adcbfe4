"""Threads that load one thing after the other, and go on without what never comes back."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures import wait as wait_for_all
from dataclasses import dataclass, field
from typing import Any

from zs_operators.errors import RunError, UnreadableMediaError
from zs_operators.host_memory import size_of
from zs_operators.redaction import without_secrets

#: A file that takes longer is given up, as a network drive that is gone never answers. Decoding
#: the largest image that is read takes seconds.
MAX_SECONDS_A_FILE = 300.0

#: Every file given up keeps its thread until it answers; more of them mean that a drive is gone.
MAX_HANGING = 8

#: Closing waits so long for what is being loaded.
_SECONDS_TO_CLOSE = 5.0


@dataclass
class Job:
    """One thing to load."""

    source: Any
    future: Future = field(default_factory=Future)
    begun: float | None = None
    given_up: bool = False
    dropped: bool = False
    size: int = 0


class ReaderThreads:
    """Loads what is submitted, first come first served.

    The threads are daemons: a hanging one must not keep the process from ending.

    Args:
        load: called once per source; an exception is its result
        workers: number of threads
        seconds: after which a source that is being loaded is given up
        max_bytes: of results that wait; while there are as many nothing else is loaded but what
            is waited for
    """

    def __init__(
        self, load: Callable[[Any], Any], workers: int, seconds: float, max_bytes: int
    ) -> None:
        self._load = load
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Condition()
        self._hanging = 0
        self._waiting_bytes = 0
        self._awaited: Job | None = None
        self._is_closed = False
        self._threads: list[threading.Thread] = []
        for _ in range(workers):
            self._start_thread()

    def submit(self, source: Any) -> Job:
        """Queues a source."""
        job = Job(source)
        self._jobs.put(job)
        return job

    def result(self, job: Job) -> Any:
        """Waits for what was loaded; an ``UnreadableMediaError`` if that took too long.

        Raises:
            RunError: if so many hang that nothing more can be expected
        """
        with self._lock:
            self._awaited = job
            self._lock.notify_all()
        found = self._wait(job)
        with self._lock:
            self._awaited = None  # or its result would stay in memory
            self._forget(job)
        return found

    def drop(self, jobs: Iterable[Job]) -> None:
        """Frees what was loaded, and returns when nothing more of it is being loaded."""
        with self._lock:
            for job in jobs:
                job.dropped = True
                self._forget(job)
            going_on = [job.future for job in jobs if job.begun is not None]
        wait_for_all(going_on, timeout=self._seconds)
        for job in jobs:
            job.future = Future()

    def _wait(self, job: Job) -> Any:
        while True:
            waited = 0.0 if job.begun is None else time.monotonic() - job.begun
            try:
                return job.future.result(timeout=max(0.0, self._seconds - waited))
            except FutureTimeoutError:
                if job.begun is None or time.monotonic() - job.begun < self._seconds:
                    continue
                if self._give_up(job):
                    return UnreadableMediaError(
                        f"{_named(job.source)} was not read within {self._seconds:g} s; see "
                        "whether its drive answers"
                    )

    def close(self) -> None:
        """Drops what has not been started and waits a little for what has."""
        with self._lock:
            self._is_closed = True
            self._lock.notify_all()
        for _ in self._threads:
            self._jobs.put(None)
        until = time.monotonic() + _SECONDS_TO_CLOSE
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._work, name="zs-reader", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if not self._begin(job):
                continue
            found, failure = None, None
            try:
                found = guarded(self._load, job.source)
            except BaseException as error:
                failure = error
            with self._lock:
                if failure is None:
                    job.size = 0 if job.dropped or job.given_up else size_of(found)
                    self._waiting_bytes += job.size
                    job.future.set_result(found)
                else:
                    job.future.set_exception(failure)
                if job.given_up:  # another thread has taken this one's place
                    self._hanging -= 1
                    return
            del job, found, failure  # or the last image stays in memory

    def _begin(self, job: Job) -> bool:
        """Waits until there is room for it; False if nobody wants it any more."""
        with self._lock:
            while not (self._is_closed or job.dropped or job is self._awaited):
                if self._waiting_bytes < self._max_bytes:
                    break
                self._lock.wait()
            if self._is_closed or job.dropped:
                return False
            job.begun = time.monotonic()
            return True

    def _forget(self, job: Job) -> None:
        """Its result does not wait any more."""
        self._waiting_bytes -= job.size
        job.size = 0
        self._lock.notify_all()

    def _give_up(self, job: Job) -> bool:
        """Goes on without it; False if it has come after all."""
        with self._lock:
            if job.future.done():
                return False
            job.given_up = True
            self._hanging += 1
            hanging = self._hanging
        if hanging > MAX_HANGING:
            raise RunError(
                f"{hanging} files have not been read within {self._seconds:g} s each, the last is "
                f"{_named(job.source)}: see whether their drive answers, and run again. What was "
                "labelled is kept."
            )
        self._start_thread()
        return True


def guarded(load: Callable[[Any], Any], source: Any) -> Any:
    """``load(source)``, or the exception: a reader must never take the run down."""
    try:
        return load(source)
    except Exception as error:
        return error


def _named(source: Any) -> str:
    if isinstance(source, str | os.PathLike):
        return without_secrets(repr(os.fsdecode(os.fspath(source))))
    return "An image"
