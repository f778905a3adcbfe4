"""Decode and preprocess images in threads, ahead of the model, in order and in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from zs_operators import reader_threads
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


def read_ahead(
    sources: Sequence[Any],
    load: Callable[[Any], Any],
    *,
    workers: int,
    ahead: int,
    seconds_a_file: float | None = None,
) -> Iterator[tuple[int, Any]]:
    """Yields ``(index, load(source))`` in order, or ``(index, exception)`` where loading failed.

    At most ``ahead`` results exist at any time, so memory does not grow with ``len(sources)``.
    Closing the iterator drops what has not been started. A source that takes too long is given up
    with an ``UnreadableMediaError``; the others go on.

    Args:
        sources: what to load, one item a sample
        load: called once per source, in a reader thread
        workers: number of threads; 0 loads in the calling thread, however long that takes
        ahead: how many items may be loaded or loading ahead of the consumer, >= 1
        seconds_a_file (300): how long one source may take

    Raises:
        RunError: if so many sources hang at once that their drive must be gone
    """
    if workers == 0:
        for index, source in enumerate(sources):
            yield index, guarded(load, source)
        return
    seconds = reader_threads.MAX_SECONDS_A_FILE if seconds_a_file is None else seconds_a_file
    threads = ReaderThreads(load, min(workers, len(sources)), seconds)
    pending: deque[Job] = deque()
    try:
        submitted = 0
        for index in range(len(sources)):
            while submitted < len(sources) and len(pending) < max(1, ahead):
                pending.append(threads.submit(sources[submitted]))
                submitted += 1
            yield index, threads.result(pending.popleft())
    finally:
        threads.close()
