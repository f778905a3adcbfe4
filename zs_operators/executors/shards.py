"""Samples in shards: how many a worker gets at a time, and what becomes of shards that fail."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

#: A worker gets about as much as it does in this time, so that a shard costs little to begin …
SECONDS_A_SHARD = 30.0
#: … of no fewer and no more samples than these, and the first time as many.
SMALLEST, LARGEST, FIRST = 32, 4096, 64
#: A shard is tried so often as it is; then its samples are tried in ever smaller parts.
ATTEMPTS = 2
PARTS = 16


@dataclass
class Shard:
    """Samples that one worker does one after the other.

    Attributes:
        left: ids of those whose result was not reported yet, in order
        failures: how often it failed
    """

    left: dict[str, None]
    failures: int = 0

    def done(self, ids: Iterable[str]) -> None:
        """Takes note of results."""
        for one in ids:
            self.left.pop(one, None)


@dataclass
class ShardQueue:
    """What is left to do.

    Args:
        ids: of all samples
        size: samples a shard; None adapts to the speed
        num_workers: who share it
    """

    ids: Sequence[str]
    size: int | None
    num_workers: int
    _next: int = 0
    _again: deque[Shard] = field(default_factory=deque)

    def __len__(self) -> int:
        """Samples that nobody has taken."""
        return len(self.ids) - self._next + sum(len(one.left) for one in self._again)

    def take(self, images_per_second: float = 0.0) -> Shard | None:
        """The next shard; None if there is nothing left.

        Args:
            images_per_second: of the worker that asks, 0 if that is not known yet
        """
        if self._again:
            return self._again.popleft()
        ids = self.ids[self._next : self._next + self._size_for(images_per_second)]
        self._next += len(ids)
        return Shard(dict.fromkeys(ids)) if ids else None

    def put_back(self, shard: Shard) -> None:
        """Queues what is left of a shard that did not fail."""
        if shard.left:
            self._again.append(shard)

    def failed(self, shard: Shard) -> list[str]:
        """Queues what is left of a shard that failed, in parts if it did so before.

        Returns:
            ids to give up: samples that failed alone, after a shard of theirs had failed
        """
        ids = list(shard.left)
        failures = shard.failures + 1
        if not ids:
            return []
        if failures < ATTEMPTS:
            self._again.append(Shard(shard.left, failures))
            return []
        if len(ids) == 1:
            return ids
        size = -(-len(ids) // PARTS)
        parts = [ids[start : start + size] for start in range(0, len(ids), size)]
        # The next failure of each is to make it smaller again
        self._again.extend(Shard(dict.fromkeys(part), ATTEMPTS - 1) for part in parts)
        return []

    def _size_for(self, images_per_second: float) -> int:
        if self.size is not None:
            return self.size
        wanted = int(images_per_second * SECONDS_A_SHARD) or FIRST
        # Towards the end smaller ones, so that all workers end together
        share = -(-(len(self.ids) - self._next) // (2 * self.num_workers))
        return max(SMALLEST, min(wanted, LARGEST, share))
