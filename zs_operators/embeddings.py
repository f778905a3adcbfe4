"""Store of image, region and text embeddings on disk, appended to while a run goes on.

>>> with EmbeddingStore({"model": "…", "weights": "…"}, dim=512) as store:
...     key = image_key(path)  # before the image is read
...     found = store.find([key])  # [-1]: not there
...     vectors = store.put([key], vectors)

``<folder>/<model>/*.emb``, see :mod:`zs_operators.embedding_files`. Any number of processes share a
store; each sees what was there when it opened it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from zs_operators.embedding_files import (
    KEY_BYTES,
    MAX_SHARD_BYTES,
    SUFFIX,
    Block,
    Layout,
    ShardWriter,
    iter_shards,
    remove_shard,
)
from zs_operators.option_checks import check_choice, check_count
from zs_operators.store_keys import media_key, model_key, store_folder
from zs_operators.store_upkeep import IDENTITY_NAME
from zs_operators.whole_files import write_whole

logger = logging.getLogger(__name__)

STORE_NAME = "embeddings"
DEFAULT_MAX_BYTES = 20 * 2**30  # 20 million images of 512 float16 numbers
MODES = ("off", "reuse", "refresh")
_ITEMSIZES = {"float16": 2, "float32": 4}
_FORMAT = 1
_BLOCK_ROWS = 2048
_BLOCK_SECONDS = 2.0


class Record(NamedTuple):
    """What the store has under one key.

    Attributes:
        vectors: (R, D) float32
        extras: (R, E) float32
        facts: (F,) float64
    """

    vectors: np.ndarray
    extras: np.ndarray
    facts: np.ndarray


class EmbeddingStore:
    """The stored embeddings of one model and preprocessing; its methods may be called in threads.

    Args:
        identity: plain JSON of all that decides an embedding besides the media: architecture,
            weights' sha256, preprocessing, precision
        dim: D, length of a vector
        extras (0): float32 numbers kept with every vector, such as a box
        facts (0): float64 numbers kept with every key, such as the size of an image
        dtype ("float16"): or "float32"; what vectors are rounded to
        folder (None): of the store, shared by all models; None is ``store_folder("embeddings")``
        max_bytes (20 GiB): of all models together; shards that were not used for longest go first

    Attributes:
        folder: where this model's files are; created with the first of them
        warnings: why the store stopped writing, if it did: a sentence for the report

    Raises:
        InvalidInputError: if ``dtype`` or ``max_bytes`` has no meaning
    """

    def __init__(
        self,
        identity: Mapping[str, Any],
        dim: int,
        *,
        extras: int = 0,
        facts: int = 0,
        dtype: str = "float16",
        folder: str | os.PathLike | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        check_choice("dtype", dtype, tuple(_ITEMSIZES))
        check_count("max_bytes", max_bytes, 1)
        self.layout = Layout(dim, _ITEMSIZES[dtype], extras, facts)
        self.max_bytes = max_bytes
        self.warnings: list[str] = []
        self._root = store_root(folder)
        self._identity = {**identity, "vectors": [dim, dtype, extras, facts], "format": _FORMAT}
        self.folder = self._root / model_key(self._identity)[:16]
        self._lock = threading.Lock()
        self._writer: ShardWriter | None = None
        self._room = 0  # bytes that may be written before looking at the disk again
        self._waiting: list[tuple[bytes, int, np.ndarray, np.ndarray, np.ndarray]] = []
        self._waiting_rows = 0
        self._waiting_since = 0.0
        self.reload()

    def __enter__(self) -> EmbeddingStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Keys that were on the disk when the store was opened, or since :meth:`reload`."""
        return len(self._records)

    def reload(self) -> None:
        """See what was written since, by this process or others."""
        self._shards = [
            shard for shard in iter_shards(self.folder, self.layout) if len(shard.blocks)
        ]
        blocks = [block for shard in self._shards for block in shard.blocks]
        blocks.sort(key=lambda block: block.time_ns)
        self._blocks: list[Block] = blocks
        self._starts = np.cumsum([0, *(len(block.keys) for block in blocks)])
        # Rows are few and short; kept per block, so that opening copies keys only
        self._rows: dict[int, np.ndarray] = {}
        keys = np.concatenate([block.keys for block in blocks]) if blocks else _no_keys()
        prefixes = _prefixes(keys)
        # Stable: of records with one key the last written comes last
        self._records = np.argsort(prefixes, kind="stable")
        self._prefixes = prefixes[self._records]
        self._keys = keys
        for shard in self._shards:
            _touch(shard.path)

    def find(self, keys: Sequence[bytes]) -> np.ndarray:
        """Where the newest record of each key is; (N,) int64, -1 where there is none."""
        wanted = np.frombuffer(b"".join(keys), f"V{KEY_BYTES}") if len(keys) else _no_keys()
        found = np.full(len(wanted), -1, np.int64)
        if not len(self._records) or not len(wanted):
            return found
        at = np.searchsorted(self._prefixes, _prefixes(wanted), side="right") - 1
        candidates = self._records[np.maximum(at, 0)]
        same = (at >= 0) & (self._keys[candidates] == wanted)
        found[same] = candidates[same]
        return found

    def read(self, record: int) -> Record | None:
        """What is stored under a key, copied; None if the disk lost it.

        Args:
            record: of :meth:`find`, not -1
        """
        number = int(np.searchsorted(self._starts, record, side="right")) - 1
        block = self._blocks[number]
        if not block.is_intact:
            return None
        rows, row = self._rows_of(number), int(record - self._starts[number])
        part = slice(rows[row], rows[row + 1])
        return Record(
            block.vectors[part].astype(np.float32), block.extras[part].copy(), block.facts[row]
        )

    def vectors(self, records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The first vector of many records at once, for images and texts that have only one.

        Args:
            records: (N,) of :meth:`find`; -1 gives zeros

        Returns:
            (N, D) float32 vectors, and (N,) bool whether each could be read
        """
        found = np.zeros((len(records), self.layout.dim), np.float32)
        readable = np.zeros(len(records), bool)
        numbers = np.searchsorted(self._starts, records, side="right") - 1
        for number in np.unique(numbers[records >= 0]):
            block = self._blocks[number]
            mine = np.flatnonzero(numbers == number)
            if block.is_intact:
                rows = self._rows_of(int(number))[records[mine] - self._starts[number]]
                found[mine] = block.vectors[rows]
                readable[mine] = True
        return found, readable

    def release(self) -> None:
        """Let the system take back memory that holds parts of the files."""
        for shard in self._shards:
            shard.release()

    def put(
        self,
        keys: Sequence[bytes],
        vectors: np.ndarray,
        *,
        counts: Sequence[int] | None = None,
        extras: np.ndarray | None = None,
        facts: np.ndarray | None = None,
    ) -> np.ndarray:
        """Store vectors, and round them as :meth:`read` will return them.

        Labels made of what this returns are those of any later run. Records with a vector that is
        not finite are not stored. The first failure to write ends writing, with a warning.

        Args:
            keys: N, from before the media were read
            vectors: (R, D) of all records, one after the other
            counts (None): vectors of each record; None is one each
            extras (None): (R, E)
            facts (None): (N, F)

        Returns:
            (R, D) float32
        """
        vectors = np.asarray(vectors, np.float32)
        with np.errstate(over="ignore"):
            rounded = vectors.astype(self.layout.dtype)
        if not self.warnings:
            counts = [1] * len(keys) if counts is None else counts
            extras = np.zeros((len(rounded), 0)) if extras is None else np.asarray(extras)
            facts = np.zeros((len(keys), 0)) if facts is None else np.asarray(facts)
            ends = np.cumsum([0, *counts])
            with self._lock:
                for i, key in enumerate(keys):
                    part = slice(ends[i], ends[i + 1])
                    if np.isfinite(rounded[part]).all():
                        self._wait(key, rounded[part], extras[part], facts[i])
                if self._is_due:
                    self._write()
        return rounded.astype(np.float32)

    def flush(self) -> None:
        """Write what waits."""
        with self._lock:
            self._write()

    def close(self) -> None:
        """Write what waits and give the file up; the store can still be read."""
        with self._lock:
            self._write()
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def _rows_of(self, number: int) -> np.ndarray:
        if number not in self._rows:
            self._rows[number] = np.cumsum([0, *self._blocks[number].counts])
        return self._rows[number]

    def _wait(self, key: bytes, vectors: np.ndarray, extras: np.ndarray, facts: np.ndarray) -> None:
        if not self._waiting:
            self._waiting_since = time.monotonic()
        self._waiting.append((key, len(vectors), facts, extras, vectors))
        self._waiting_rows += len(vectors)

    @property
    def _is_due(self) -> bool:
        if not self._waiting:
            return False
        age = time.monotonic() - self._waiting_since
        return self._waiting_rows >= _BLOCK_ROWS or age >= _BLOCK_SECONDS

    def _write(self) -> None:
        waiting, self._waiting, self._waiting_rows = self._waiting, [], 0
        if not waiting or self.warnings:
            return
        keys, counts, facts, extras, vectors = zip(*waiting, strict=True)
        try:
            if self._writer is not None and self._writer.is_full:
                self._writer.close()
                self._writer = None
            wanted = _bytes_of(len(keys), sum(counts), self.layout)
            if not self._make_room(wanted):
                self._stop_writing(f"max_bytes={self.max_bytes:,} has no room for {wanted:,}")
                return
            if self._writer is None:
                self._writer = self._open_writer()
            self._writer.append(
                b"".join(keys),
                np.array(counts),
                np.stack(facts),
                np.concatenate(extras),
                np.concatenate(vectors),
            )
        except OSError as error:
            self._stop_writing(error.strerror or str(error))

    def _open_writer(self) -> ShardWriter:
        self.folder.mkdir(parents=True, exist_ok=True)
        identity = self.folder / IDENTITY_NAME
        if not identity.exists():
            write_whole(identity, json.dumps(self._identity, indent=2).encode())
        # Several shards within the limit, so that the old ones can go
        return ShardWriter(self.folder, self.layout, min(MAX_SHARD_BYTES, self.max_bytes // 8 + 1))

    def _make_room(self, wanted: int) -> bool:
        """Whether so many bytes may be written, after removing what was not used for longest."""
        if wanted > self._room:
            files = stored_files(self._root)
            total = sum(file.bytes for file in files)
            step = max(wanted, self.max_bytes // 16)
            mine = None if self._writer is None else self._writer.path
            for file in files if total + wanted > self.max_bytes >= wanted else ():
                if total + step <= self.max_bytes:
                    break
                if file.path != mine and remove_shard(file.path):
                    total -= file.bytes
            self._room = min(self.max_bytes - total, step)
        if wanted > self._room:
            return False
        self._room -= wanted
        return True

    def _stop_writing(self, reason: str) -> None:
        self.warnings.append(
            f"Embeddings are not stored any more: {str(self._root)!r} cannot be written "
            f"({reason}). The labels are not affected; make space there (zs embeddings prune), or "
            "choose another folder (ZS_STORE_DIR)."
        )
        logger.warning(self.warnings[0])


class StoredFile(NamedTuple):
    """One shard: when it was last used, its size, where it is."""

    used_ns: int
    bytes: int
    path: Path


def store_root(folder: str | os.PathLike | None = None) -> Path:
    """The folder of all models' embeddings."""
    return store_folder(STORE_NAME) if folder is None else Path(folder).expanduser()


def stored_files(root: Path) -> list[StoredFile]:
    """All shards of a store, the least recently used first."""
    found = []
    for path in root.glob(f"{'[0-9a-f]' * 16}/*{SUFFIX}"):
        with contextlib.suppress(OSError):  # removed by another process
            status = path.stat()
            found.append(StoredFile(status.st_mtime_ns, status.st_size, path))
    return sorted(found)


def image_key(path: str | os.PathLike) -> bytes:
    """What identifies an image file as it is now: path, size and modification time.

    Raises:
        MissingMediaError: if there is no such file
    """
    return bytes.fromhex(media_key(path))


def derived_key(*parts: Any) -> bytes:
    """32 bytes that identify plain JSON values, such as a prompt, or an image and its boxes."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode("utf-8", "replace")).digest()


def _no_keys() -> np.ndarray:
    return np.empty(0, f"V{KEY_BYTES}")


def _prefixes(keys: np.ndarray) -> np.ndarray:
    """The first 8 of the 32 bytes as numbers; sha256 makes them all different in practice."""
    return np.ascontiguousarray(keys).view("<u8")[:: KEY_BYTES // 8]


def _bytes_of(records: int, rows: int, layout: Layout) -> int:
    a_record = KEY_BYTES + 4 + 8 * layout.facts
    a_row = 4 * layout.extras + layout.dim * layout.itemsize
    return records * a_record + rows * a_row + 6 * 64


def _touch(path: Path) -> None:
    # explicitly, because the clock of the file system ticks in milliseconds
    with contextlib.suppress(OSError):
        os.utime(path, ns=(time.time_ns(),) * 2)
