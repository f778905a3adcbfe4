"""Decode and preprocess images in threads, ahead of the model, in order and in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from zs_operators.errors import InvalidInputError

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
) -> Iterator[tuple[int, Any]]:
    """Yields ``(index, load(source))`` in order, or ``(index, exception)`` where loading failed.

    At most ``ahead`` results exist at any time, so memory does not grow with ``len(sources)``.
    Closing the iterator drops what has not been started.

    Args:
        sources: what to load, one item a sample
        load: called once per source, in a reader thread
        workers: number of threads; 0 loads in the calling thread
        ahead: how many items may be loaded or loading ahead of the consumer, >= 1
    """
    if workers == 0:
        for index, source in enumerate(sources):
            yield index, _guarded(load, source)
        return
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="zs-reader")
    pending: deque[Future] = deque()
    try:
        submitted = 0
        for index in range(len(sources)):
            while submitted < len(sources) and len(pending) < max(1, ahead):
                pending.append(pool.submit(_guarded, load, sources[submitted]))
                submitted += 1
            yield index, pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _guarded(load: Callable[[Any], Any], source: Any) -> Any:
    # Any exception is one sample's result: a reader must never take the run down.
    try:
        return load(source)
    except Exception as error:
        return error
