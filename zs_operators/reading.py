"""Decode and preprocess images in threads, ahead of the model, in order and in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from zs_operators import host_memory, reader_threads
from zs_operators.device import BatchBudget
from zs_operators.errors import InvalidInputError
from zs_operators.reader_threads import Job, ReaderThreads, guarded

MAX_DEFAULT_WORKERS = 8


def default_workers() -> int:
    """Reader threads that keep up with the model: one per available processor, at most 8."""
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows
        processors = os.cpu_count() or 1
    return max(1, min(MAX_DEFAULT_WORKERS, processors))


def validate_workers(workers: int | None) -> int:
    """The number of reader threads to use; 0 reads in the calling thread.

    Raises:
        InvalidInputError: if ``workers`` is not None and not an integer >= 0
    """
    if workers is None:
        return default_workers()
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
        raise InvalidInputError(
            f"workers={workers!r} is not a number of reader threads; give an integer >= 0 "
            "(0 reads in the calling thread) or None"
        )
    return workers


class ReadAhead:
    """Iterates over ``(index, load(source))`` in order, ``(index, exception)`` where that failed.

    At most ``ahead`` results, and no more bytes than a share of the free memory, wait at any time:
    memory does not grow with ``len(sources)``, and large images lower the number read ahead,
    though never below one. Closing drops what has not been started. A source that takes too long
    is given up with an ``UnreadableMediaError``; the others go on.

    Args:
        sources: what to load, one item a sample
        load: called once per source, in a reader thread
        workers: number of threads; 0 loads in the calling thread, however long that takes
        ahead: how many items may be loaded or loading ahead of the consumer, >= 1
        max_bytes (None): of results that wait; None is :func:`.host_memory.image_bytes`. Besides
            them each thread may be loading one
        seconds_a_file (300): how long one source may take

    Attributes:
        budget: how many are read ahead, and whether memory ran out

    Raises:
        RunError: while iterating, if so many sources hang at once that their drive must be gone
    """

    def __init__(
        self,
        sources: Sequence[Any],
        load: Callable[[Any], Any],
        *,
        workers: int,
        ahead: int,
        max_bytes: int | None = None,
        seconds_a_file: float | None = None,
    ) -> None:
        self._sources = sources
        self._load = load
        self._next = 0
        self._pending: deque[Job] = deque()
        self._threads: ReaderThreads | None = None
        self.budget = BatchBudget(max(1, ahead), what="images in memory", grow_after=64)
        if workers and len(sources):
            seconds = reader_threads.MAX_SECONDS_A_FILE
            self._threads = ReaderThreads(
                load,
                min(workers, len(sources)),
                seconds if seconds_a_file is None else seconds_a_file,
                host_memory.image_bytes() if max_bytes is None else max_bytes,
            )

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        return self

    def __next__(self) -> tuple[int, Any]:
        if self._next == len(self._sources):
            self.close()
            raise StopIteration
        index = self._next
        try:
            item = self._load_next()
        except BaseException:
            self.close()
            raise
        self._next += 1
        self.budget.succeeded(self.budget.size)
        return index, item

    def again(self, index: int) -> Any:
        """Loads a source once more, alone, after memory ran out; from now on fewer wait.

        What was read ahead is dropped and will be read again.
        """
        self.budget.shrink(self.budget.size)
        if self._threads is None:
            return guarded(self._load, self._sources[index])
        self._threads.drop(self._pending)
        self._pending.clear()
        return self._threads.result(self._threads.submit(self._sources[index]))

    def close(self) -> None:
        """Ends the threads; nothing more is read."""
        self._next = len(self._sources)
        if self._threads is not None:
            self._threads.close()
            self._threads = None

    def _load_next(self) -> Any:
        if self._threads is None:
            return guarded(self._load, self._sources[self._next])
        while len(self._pending) < self.budget.size:
            following = self._next + len(self._pending)
            if following == len(self._sources):
                break
            self._pending.append(self._threads.submit(self._sources[following]))
        return self._threads.result(self._pending.popleft())


def read_ahead(
    sources: Sequence[Any], load: Callable[[Any], Any], **options: Any
) -> Iterator[tuple[int, Any]]:
    """:class:`ReadAhead` for those that only iterate: it is closed at the latest when forgotten."""
    reader = ReadAhead(sources, load, **options)
    try:
        yield from reader
    finally:
        reader.close()
