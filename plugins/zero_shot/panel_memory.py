"""What the server keeps of panels, so that what the App sends late undoes nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Kept = TypeVar("Kept")


class PanelMemory(Generic[Kept]):
    """The values used last, by panel or any other key.

    The App opens a panel twice, and sends with each click the state it has at that moment: an
    answer to the first opening may come after a click, and would bring back what was there before.

    Args:
        limit: how many values to keep; the one that was used longest ago goes first
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._values: OrderedDict[Hashable, Kept] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Kept]) -> Kept:
        """What is kept under ``key``, or else what ``make`` returns, which is kept from now on."""
        if key not in self._values:
            return self.put(key, make())
        self._values.move_to_end(key)
        return self._values[key]

    def put(self, key: Hashable, value: Kept) -> Kept:
        """Keeps a value, and returns it."""
        self._values[key] = value
        self._values.move_to_end(key)
        while len(self._values) > self.limit:
            self._values.popitem(last=False)
        return value

    def find(self, key: Hashable) -> Kept | None:
        """What is kept under ``key``, if anything is."""
        return self._values.get(key)

    def pop(self, key: Hashable) -> None:
        """Keeps nothing under ``key``."""
        self._values.pop(key, None)

    def clear(self) -> None:
        self._values.clear()
