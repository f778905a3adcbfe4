"""Files of embeddings that are only ever appended to, block by block, and survive any crash.

A shard is a row of blocks. A block is a header, what identifies its records, and their vectors;
header and content carry checksums. Reading stops at the first block whose header or index is torn,
and a block whose vectors do not match their checksum holds nothing. So neither ``kill -9`` nor a
lost page can give a wrong vector, and nothing has to be synced while a model waits.

One writer at a time appends to a shard, under a lock that ends with its process; readers map the
file into memory and take no lock.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import time
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

try:
    import fcntl
except ImportError:  # Windows: every writer makes a shard of its own
    fcntl = None

SUFFIX = ".emb"
KEY_BYTES = 32
MAX_SHARD_BYTES = 256 * 2**20
_MAGIC = b"ZSEMB\x00\x00\x01"
_HEADER = struct.Struct("<8sIIIBBBxQIII")
_ALIGN = 64


@dataclass(frozen=True)
class Layout:
    """What the records of a shard are made of.

    Attributes:
        dim: D, length of a vector
        itemsize: 2 for float16 vectors, 4 for float32
        extras: float32 numbers kept with every vector
        facts: float64 numbers kept with every record
    """

    dim: int
    itemsize: int = 2
    extras: int = 0
    facts: int = 0

    @property
    def dtype(self) -> np.dtype:
        return np.dtype("<f2" if self.itemsize == 2 else "<f4")


class _Header(NamedTuple):
    magic: bytes
    records: int
    rows: int
    dim: int
    itemsize: int
    extras: int
    facts: int
    time_ns: int
    index_sum: int
    content_sum: int
    header_sum: int


@dataclass
class Block:
    """Some records of a mapped shard; arrays are views of the file.

    Attributes:
        time_ns: when it was written
        keys: (n,) of 32 bytes
        counts: (n,) uint32, vectors of each record
        facts: (n, F) float64
        extras: (rows, E) float32
        vectors: (rows, D) float16 or float32
    """

    time_ns: int
    keys: np.ndarray
    counts: np.ndarray
    facts: np.ndarray
    extras: np.ndarray
    vectors: np.ndarray
    _content: memoryview = field(repr=False)
    _checksum: int = 0
    _intact: bool | None = None

    @property
    def is_intact(self) -> bool:
        """Whether the vectors are those that were written; computed once."""
        if self._intact is None:
            self._intact = zlib.crc32(self._content) == self._checksum
        return self._intact


class Shard:
    """A shard mapped into memory, as far as it is complete.

    Args:
        path: of the file
        layout: of its records; blocks of another layout end the shard

    Attributes:
        blocks: in the order they were written
        end: byte after the last complete block

    Raises:
        OSError: if the file cannot be read
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path = path
        self.layout = layout
        self.blocks: list[Block] = []
        self.end = 0
        self._map: mmap.mmap | None = None
        with open(path, "rb") as file:
            # Read, not mapped: a writer may cut an unfinished block off at any time
            found = list(self._scan(file))
            if self.end:
                self._map = mmap.mmap(file.fileno(), self.end, access=mmap.ACCESS_READ)
        if self._map is not None:
            view = memoryview(self._map)
            self.blocks = [self._block(view, *one) for one in found]

    def release(self) -> None:
        """Let the system take back memory that holds parts of the file."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            with contextlib.suppress(OSError, ValueError):
                self._map.madvise(mmap.MADV_DONTNEED)

    def _scan(self, file: BinaryIO) -> Iterator[tuple[_Header, bytes, int]]:
        """Header, index and start of the content of every complete block."""
        size = os.fstat(file.fileno()).st_size
        while True:
            file.seek(self.end)
            header = _read_header(file.read(_padded(_HEADER.size)), self.layout)
            if header is None:
                return
            parts = [_padded(n) for n in _parts(header.records, header.rows, self.layout)]
            start = self.end + _padded(_HEADER.size) + sum(parts[:3])
            if start + sum(parts[3:]) > size:
                return
            index = file.read(sum(parts[:3]))
            if len(index) != sum(parts[:3]) or zlib.crc32(index) != header.index_sum:
                return
            self.end = start + sum(parts[3:])
            yield header, index, start

    def _block(self, view: memoryview, header: _Header, index: bytes, start: int) -> Block:
        layout, records, rows = self.layout, header.records, header.rows
        keys, counts, facts, extras, vectors = _parts(records, rows, layout)
        index_view = memoryview(index)
        counts_at = _padded(keys)
        facts_at = counts_at + _padded(counts)
        vectors_at = start + _padded(extras)
        return Block(
            header.time_ns,
            np.frombuffer(index_view[:keys], f"V{KEY_BYTES}"),
            np.frombuffer(index_view[counts_at : counts_at + counts], "<u4"),
            np.frombuffer(index_view[facts_at : facts_at + facts], "<f8").reshape(
                records, layout.facts
            ),
            np.frombuffer(view[start : start + extras], "<f4").reshape(rows, layout.extras),
            np.frombuffer(view[vectors_at : vectors_at + vectors], layout.dtype).reshape(
                rows, layout.dim
            ),
            view[start : vectors_at + _padded(vectors)],
            header.content_sum,
        )


class ShardWriter:
    """The only writer of one shard; opens an unfinished one of the folder or starts a new one.

    Args:
        folder: made if it is not there
        layout: of the records
        max_bytes (256 MiB): shards beyond this are not continued

    Raises:
        OSError: if the folder or the file cannot be written
    """

    def __init__(self, folder: Path, layout: Layout, max_bytes: int = MAX_SHARD_BYTES) -> None:
        self.layout = layout
        self._max_bytes = max_bytes
        self._folder = folder
        self.path, self._fd, self.end = self._open()

    @property
    def is_full(self) -> bool:
        return self.end >= self._max_bytes

    def append(
        self, keys: bytes, counts: np.ndarray, facts: np.ndarray, extras: np.ndarray,
        vectors: np.ndarray,
    ) -> int:  # fmt: skip
        """Write one block and return its size in bytes; a block that fails leaves no trace.

        Args:
            keys: 32 bytes a record
            counts: (n,) vectors of each record
            facts: (n, F), extras: (rows, E), vectors: (rows, D)

        Raises:
            OSError: if it cannot be written, because the disk is full for example
        """
        block = _pack(self.layout, keys, counts, facts, extras, vectors)
        try:
            _write_all(self._fd, block, self.end)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self.end)
            raise
        self.end += len(block)
        return len(block)

    def close(self) -> None:
        """Sync the file and give the shard up."""
        if self._fd < 0:
            return
        try:
            with contextlib.suppress(OSError):
                os.fsync(self._fd)
        finally:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> tuple[Path, int, int]:
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in shard_paths(self._folder) if fcntl is not None else ():
            if path.stat().st_size < self._max_bytes:
                opened = self._continue(path)
                if opened is not None:
                    return opened
        path = self._folder / f"{time.time_ns():020d}-{uuid.uuid4().hex[:12]}{SUFFIX}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        _lock(fd)
        return path, fd, 0

    def _continue(self, path: Path) -> tuple[Path, int, int] | None:
        try:
            fd = os.open(path, os.O_RDWR)
        except OSError:
            return None
        try:
            # A file that was removed between listing and locking has no name any more
            if _lock(fd) and os.fstat(fd).st_nlink:
                end = Shard(path, self.layout).end
                os.ftruncate(fd, end)
                return path, fd, end
        except OSError:
            pass
        os.close(fd)
        return None


def shard_paths(folder: Path) -> list[Path]:
    """The shards of a folder, oldest first; none if there is no folder."""
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX)
    except OSError:  # none yet, or none that may be read
        return []


def remove_shard(path: Path) -> bool:
    """Remove a shard nobody writes to; whether it is gone. Readers keep what they map."""
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        if not _lock(fd):
            return False
        path.unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def iter_shards(folder: Path, layout: Layout) -> Iterator[Shard]:
    """The readable shards of a folder."""
    for path in shard_paths(folder):
        with contextlib.suppress(OSError):
            yield Shard(path, layout)


def _lock(fd: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _padded(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def _parts(records: int, rows: int, layout: Layout) -> tuple[int, ...]:
    """Bytes of keys, counts, facts, extras and vectors."""
    return (
        records * KEY_BYTES,
        records * 4,
        records * layout.facts * 8,
        rows * layout.extras * 4,
        rows * layout.dim * layout.itemsize,
    )


def _read_header(raw: bytes, layout: Layout) -> _Header | None:
    if len(raw) < _padded(_HEADER.size):
        return None
    header = _Header(*_HEADER.unpack_from(raw))
    if header.magic != _MAGIC or zlib.crc32(raw[: _HEADER.size - 4]) != header.header_sum:
        return None
    made_of = Layout(header.dim, header.itemsize, header.extras, header.facts)
    return header if made_of == layout else None


def _pack(
    layout: Layout, keys: bytes, counts: np.ndarray, facts: np.ndarray, extras: np.ndarray,
    vectors: np.ndarray,
) -> bytes:  # fmt: skip
    records, rows = len(keys) // KEY_BYTES, len(vectors)
    arrays = (
        keys,
        np.ascontiguousarray(counts, "<u4").tobytes(),
        np.ascontiguousarray(facts, "<f8").tobytes(),
        np.ascontiguousarray(extras, "<f4").tobytes(),
        np.ascontiguousarray(vectors, layout.dtype).tobytes(),
    )
    if tuple(map(len, arrays)) != _parts(records, rows, layout):
        raise ValueError("records, rows and layout of a block do not agree")
    padded = [part.ljust(_padded(len(part)), b"\0") for part in arrays]
    index, content = b"".join(padded[:3]), b"".join(padded[3:])
    head = _HEADER.pack(
        _MAGIC, records, rows, layout.dim, layout.itemsize, layout.extras, layout.facts,
        time.time_ns(), zlib.crc32(index), zlib.crc32(content), 0,
    )[:-4]  # fmt: skip
    head += struct.pack("<I", zlib.crc32(head))
    return head.ljust(_padded(_HEADER.size), b"\0") + index + content


def _write_all(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    os.lseek(fd, at, os.SEEK_SET)
    while view:
        view = view[os.write(fd, view) :]
