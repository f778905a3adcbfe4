"""How much of this machine's memory decoded images may take, and making them wait for it."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zs_operators.device import is_out_of_memory
from zs_operators.errors import InvalidInputError

#: Mebibytes that images may take in each place where they wait; without it an eighth of what is
#: free when a run begins.
VARIABLE = "ZS_IMAGE_MEMORY_MB"

_MIB = 2**20
_SHARE = 8
_LEAST, _MOST = 64 * _MIB, 8192 * _MIB
_WITHOUT_PSUTIL = 2048 * _MIB
#: A limit of a container: what it is, and what of it is in use.
_CONTAINERS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)

#: Decoding takes Pillow's 4 bytes a pixel, the array's 3, and conversions.
_BYTES_A_PIXEL = 8
#: Smaller images need no permission: a dozen threads of them are a few hundred mebibytes.
_FREE_PIXELS = 4_000_000
#: A decoder that hangs must not hold up the others for ever.
_MAX_SECONDS_TO_WAIT = 60.0


def free_bytes() -> int:
    """Memory that this process could take: of the machine, or of its container if that is less."""
    try:
        import psutil
    except ImportError:
        free = _WITHOUT_PSUTIL
    else:
        free = int(psutil.virtual_memory().available)
    for limit, used in _CONTAINERS:
        left = _number(limit) - _number(used)
        if 0 <= left < free:
            free = left
    return free


def image_bytes() -> int:
    """How many bytes of images may wait in one place, from 64 MiB to 8 GiB.

    Raises:
        InvalidInputError: if ``ZS_IMAGE_MEMORY_MB`` is no number of at least 1
    """
    given = os.environ.get(VARIABLE)
    if given:
        if not given.isdecimal() or int(given) < 1:
            raise InvalidInputError(
                f"{VARIABLE}={given!r} must be a whole number of mebibytes, at least 1; or unset it"
            )
        return int(given) * _MIB
    return min(max(free_bytes() // _SHARE, _LEAST), _MOST)


def size_of(item: Any) -> int:
    """Bytes of the arrays and tensors in an item, in tuples and dataclasses too."""
    size = getattr(item, "nbytes", None)
    if isinstance(size, int):
        return size
    if isinstance(item, tuple):
        return sum(map(size_of, item))
    if dataclasses.is_dataclass(item):
        return sum(size_of(getattr(item, field.name)) for field in dataclasses.fields(item))
    return 0


def ran_out(result: Any) -> bool:
    """Whether a result is an exception that says that memory ran out."""
    if not isinstance(result, Exception):
        return False
    # A reader says "does not fit in memory" in words of its own
    return is_out_of_memory(result) or isinstance(result.__cause__, MemoryError)


class Gate:
    """Lets as much through at once as a limit allows, and one that is larger than it alone.

    Args:
        limit (None): bytes; None asks :func:`image_bytes` now and then
    """

    def __init__(self, limit: int | None = None) -> None:
        self._given = limit
        self._limit, self._asked = limit or 0, -float("inf")
        self._used = 0
        self._changed = threading.Condition()

    @contextmanager
    def room(self, size: int) -> Iterator[None]:
        """Waits until ``size`` bytes may be taken, though never for ever."""
        with self._changed:
            self._changed.wait_for(lambda: self._fits(size), _MAX_SECONDS_TO_WAIT)
            self._used += size
        try:
            yield
        finally:
            with self._changed:
                self._used -= size
                self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        if self._given is None and time.monotonic() - self._asked > 10:
            # What is decoded now is not free, and is this gate's own
            self._limit, self._asked = image_bytes() + self._used, time.monotonic()
        return not self._used or self._used + size <= self._limit


_DECODING = Gate()


@contextmanager
def decoding(num_pixels: int) -> Iterator[None]:
    """Around decoding an image: large ones wait until others are done."""
    if num_pixels <= _FREE_PIXELS:
        yield
        return
    with _DECODING.room(num_pixels * _BYTES_A_PIXEL):
        yield


def _number(path: str) -> float:
    """Of a file; infinity if there is none or it says so, so that no limit comes of it."""
    try:
        return int(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return float("inf")
