"""Sources in, raw results out: read ahead, infer in batches, halve a batch that fails."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from zs_operators import host_memory
from zs_operators.device import is_out_of_memory
from zs_operators.errors import MediaError
from zs_operators.reading import ReadAhead
from zs_operators.report import MODEL_ERROR, OUT_OF_MEMORY
from zs_operators.stage_times import StageTimes

if TYPE_CHECKING:
    from zs_operators.device import BatchBudget
    from zs_operators.runner import Task

logger = logging.getLogger(__name__)


class Inference:
    """What a task makes of sources, each on its own; needs no database.

    Args:
        task: reads a source and infers batches of them
        budget: batch size and out-of-memory policy
        workers: reader threads; 0 reads in the calling thread
        seconds (None): where to add up the time of each stage
    """

    def __init__(
        self,
        task: Task,
        budget: BatchBudget,
        *,
        workers: int,
        seconds: Counter[str] | None = None,
    ) -> None:
        self._task = task
        self._budget = budget
        self._workers = workers
        #: of the models and of reading, each with a warning if it had to shrink
        self.budgets = [budget, *getattr(task, "budgets", ())]
        self.seconds: Counter[str] = Counter() if seconds is None else seconds
        self._times = StageTimes(self.seconds)

    def results(self, sources: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Yields ``(index, raw result or exception)``, every source once."""
        batch_size = self._budget.size
        reader = ReadAhead(
            sources,
            self._load,
            workers=self._workers,
            ahead=self._task.prefetch_batches * batch_size,
        )
        self.budgets.append(reader.budget)
        max_bytes, num_bytes = host_memory.image_bytes(), 0
        indices: list[int] = []
        items: list[Any] = []
        waiting = time.perf_counter()
        try:
            for index, item in reader:
                if host_memory.ran_out(item):
                    # 1. make room: what has been read is inferred, what is read ahead dropped
                    item = None
                    yield from zip(indices, self._infer(items), strict=True)
                    indices, items, num_bytes = [], [], 0
                    # 2. one more try, alone
                    item = reader.again(index)
                if isinstance(item, Exception):
                    yield index, item
                else:
                    indices.append(index)
                    items.append(item)
                    num_bytes += host_memory.size_of(item)
                is_full = len(items) >= batch_size or num_bytes >= max_bytes
                if is_full or (items and index == len(sources) - 1):
                    self.seconds["read"] += time.perf_counter() - waiting
                    yield from zip(indices, self._infer(items), strict=True)
                    indices, items, num_bytes = [], [], 0
                    waiting = time.perf_counter()
        finally:
            reader.close()

    def _load(self, source: Any) -> Any:
        with self._times.measuring():
            return self._task.load(source)

    def _infer(self, items: Sequence[Any]) -> list[Any]:
        with self._times.measuring("model"):
            return self._isolated(items)

    def _isolated(self, items: Sequence[Any]) -> list[Any]:
        """One result or exception per item: a batch that fails is halved down to its culprit."""
        too_large: dict[int, BaseException] = {}
        try:
            calls = self._budget.run(self._task.infer, items, failed=too_large)
        except Exception as error:
            if len(items) == 1:
                logger.debug("inference failed", exc_info=True)
                return [error]
            middle = len(items) // 2
            return self._isolated(items[:middle]) + self._isolated(items[middle:])
        results: list[Any] = [too_large.get(i) for i in range(len(items))]
        for start, stop, found in calls:
            results[start:stop] = found
        return results


def outcome_of(error: Exception) -> str:
    """The outcome recorded for a sample that failed with ``error``."""
    if isinstance(error, MediaError):
        return error.outcome
    return OUT_OF_MEMORY if is_out_of_memory(error) else MODEL_ERROR
