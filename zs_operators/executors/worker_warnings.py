"""Sentences of many workers about the same thing, as one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

_COUNT = re.compile(r"^([\d,]+) (.*)$", re.DOTALL)


class WorkerWarnings:
    """Adds up what begins with a number, and says the rest once.

    >>> said = WorkerWarnings()
    >>> said.add(1, ["2 boxes are empty."], [])
    >>> said.add(2, ["3 boxes are empty."], [])
    >>> said.sentences()
    ['5 boxes are empty.']
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._others: dict[str, None] = {}
        self._memory: dict[int, tuple[str, ...]] = {}

    def add(self, worker: int, of_shard: Iterable[str], of_memory: Iterable[str]) -> None:
        """Takes note of a report.

        Args:
            worker: a number of its own
            of_shard: what came up in one shard
            of_memory: of the worker since it began, so that the last ones hold
        """
        for sentence in of_shard:
            counted = _COUNT.match(sentence)
            if counted:
                self._counts[counted[2]] += int(counted[1].replace(",", ""))
            else:
                self._others[sentence] = None
        if of_memory := tuple(of_memory):
            self._memory[worker] = of_memory

    def sentences(self) -> list[str]:
        """All of them, each once."""
        counted = [f"{count:,} {rest}" for rest, count in self._counts.most_common()]
        memory = dict.fromkeys(one for some in self._memory.values() for one in some)
        return [*counted, *self._others, *memory]
