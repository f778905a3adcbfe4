"""SAM's image embeddings on disk, so that new prompts on known images skip reading and encoding.

>>> store = SamStore(sam.identity())
>>> key = store.key(path)  # before the image is read
>>> embedding = store.get(key) or store.put(key, encode(path))

One safetensors file an image, ``<folder>/<model>/<2 hex>/<media key>.safetensors``: float16
features, and the sizes with a checksum as its metadata. Files appear whole, so any number of
processes share a store, and a file that a crash of the machine tore counts as absent.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import threading
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zs_operators.option_checks import check_count
from zs_operators.sam import SamEmbedding
from zs_operators.store_keys import media_key, model_key, store_folder
from zs_operators.store_upkeep import IDENTITY_NAME, Pruned, check_prune, days_ago_ns, read_identity
from zs_operators.whole_files import write_whole

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

STORE_NAME = "sam"
DEFAULT_MAX_BYTES = 20 * 2**30  # 10,000 images of a ViT SAM, 2 MiB each

_FORMAT = 1
# nothing else is ever counted or removed, whatever folder a store is given
_OURS = re.compile(r"[0-9a-f]{16}/[0-9a-f]{2}/([0-9a-f]{64}\.safetensors|\.[0-9a-f]{32}\.tmp)")


class SamStore:
    """The stored embeddings of one model; safe to use from many threads and processes.

    Args:
        identity: of the model, see :meth:`zs_operators.sam.SamModel.identity`
        folder (None): of the store, shared by all models; None is ``store_folder("sam")``
        max_bytes (20 GiB): of all models together; the least recently used files go first. Of
            several processes that write at once each may go over it by a sixteenth

    Attributes:
        folder: where the files of this model are; created with the first of them
        warnings: why the store stopped writing, if it did: a sentence for the report

    Raises:
        InvalidInputError: if ``max_bytes`` is no integer >= 1
    """

    def __init__(
        self,
        identity: Mapping[str, Any],
        *,
        folder: str | os.PathLike | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        check_count("max_bytes", max_bytes, 1)
        self._root = _root(folder)
        self._identity = dict(identity)
        self.folder = self._root / model_key({**identity, "format": _FORMAT})[:16]
        self.max_bytes = max_bytes
        self.warnings: list[str] = []
        self._room = 0  # bytes that may be written before looking at the disk again
        self._lock = threading.Lock()

    def key(self, path: str | os.PathLike) -> str:
        """What identifies an image file as it is now.

        Take it before the file is read: an embedding of a file that changes in between is then
        stored for the old one, and not found for the new one.

        Raises:
            MissingMediaError: if there is no such file
        """
        return media_key(path)

    def get(self, key: str) -> SamEmbedding | None:
        """The embedding of an image, features on the CPU in float32; None if there is none.

        Never raises for the state of the store: what is damaged is removed, what cannot be read
        counts as absent.
        """
        from safetensors import SafetensorError

        path = self._path(key)
        try:
            embedding = _read(path)
        except OSError:
            return None
        except (SafetensorError, ValueError, TypeError):
            _remove(path)
            return None
        with contextlib.suppress(OSError):
            # explicitly, because the clock of the file system ticks in milliseconds
            os.utime(path, ns=(time.time_ns(),) * 2)
        return embedding

    def put(self, key: str, embedding: SamEmbedding) -> SamEmbedding:
        """Store an embedding, and round it to float16 as :meth:`get` will return it.

        Masks decoded from what this returns are those of any later pass, whether or not there was
        space for it on the disk. An embedding beyond float16's range is returned as it is and not
        stored. The first failure to write ends writing, with a warning.

        Args:
            key: of the image, from before it was read
            embedding: on any device

        Returns:
            the embedding, features on the same device in float32
        """
        import torch

        features = embedding.features.to(torch.float16)
        if not bool(torch.isfinite(features).all()):
            return embedding
        if not self.warnings:
            self._write(self._path(key), _pack(features, embedding))
        return replace(embedding, features=features.float())

    def clear(self) -> None:
        """Remove all of this model's files."""
        _evict(_files(self._root, self.folder.name), 0)
        _remove_empty(self._root)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def _write(self, path: Path, data: bytes) -> None:
        try:
            if not self._make_room(len(data)):
                self._stop_writing(f"max_bytes={self.max_bytes:,} has no room for {len(data):,}")
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            identity = self.folder / IDENTITY_NAME
            if not identity.exists():
                write_whole(identity, json.dumps(self._identity, indent=2).encode())
            write_whole(path, data)
        except FileNotFoundError:
            return  # another process cleared the store meanwhile
        except OSError as error:
            self._stop_writing(error.strerror or str(error))

    def _make_room(self, wanted: int) -> bool:
        """Whether so many bytes may be written, after removing what was not used for longest."""
        with self._lock:
            if wanted > self._room:
                files = _files(self._root)
                total = sum(file.bytes for file in files)
                # more than needed, so that not every image has to look at the disk again
                step = max(wanted, self.max_bytes // 16)
                # what never fits must not cost all others
                if total + wanted > self.max_bytes >= wanted:
                    total -= _evict(files, self.max_bytes - step).bytes
                self._room = min(self.max_bytes - total, step)
            if wanted > self._room:
                return False
            self._room -= wanted
            return True

    def _stop_writing(self, reason: str) -> None:
        with self._lock:
            if self.warnings:
                return
            self.warnings.append(
                f"Embeddings are not stored any more: {str(self._root)!r} cannot be written "
                f"({reason}). The masks are not affected; make space there, or choose another "
                "folder."
            )
        logger.warning(self.warnings[0])


@dataclass(frozen=True)
class StoredModel:
    """What a store has of one model.

    Attributes:
        key: 16 hex digits, the name of its folder
        identity: what the model is; empty if that cannot be read
        images: number of embeddings
        bytes: of all its files
        used: seconds since the epoch when one of them was last read or written
    """

    key: str
    identity: dict[str, Any]
    images: int
    bytes: int
    used: float


def stored_models(folder: str | os.PathLike | None = None) -> list[StoredModel]:
    """The models that have files in a store, last used first.

    Args:
        folder (None): of the store; None is ``store_folder("sam")``
    """
    root = _root(folder)
    by_model: dict[str, list[_File]] = {}
    for file in _files(root):
        by_model.setdefault(file.path.parent.parent.name, []).append(file)
    found = [
        StoredModel(
            key=key,
            identity=read_identity(root / key),
            images=sum(file.path.suffix == ".safetensors" for file in files),
            bytes=sum(file.bytes for file in files),
            used=max(file.used_ns for file in files) / 1e9,
        )
        for key, files in by_model.items()
    ]
    return sorted(found, key=lambda model: model.used, reverse=True)


def prune(
    folder: str | os.PathLike | None = None,
    *,
    max_bytes: int | None = None,
    unused_days: float | None = None,
) -> Pruned:
    """Remove embeddings of all models, the least recently used first.

    Args:
        folder (None): of the store; None is ``store_folder("sam")``
        max_bytes (None): how much may stay; 0 removes everything
        unused_days (None): remove what was not read or written for so many days

    Raises:
        InvalidInputError: if neither is given, or one is negative
    """
    check_prune(max_bytes, unused_days)
    root = _root(folder)
    old = Pruned(0, 0)
    if unused_days is not None:
        last_ns = days_ago_ns(unused_days)
        old = _evict([file for file in _files(root) if file.used_ns < last_ns], 0)
    more = Pruned(0, 0) if max_bytes is None else _evict(_files(root), max_bytes)
    _remove_empty(root)
    return Pruned(old.files + more.files, old.bytes + more.bytes)


class _File(NamedTuple):
    used_ns: int
    bytes: int
    path: Path


def _root(folder: str | os.PathLike | None) -> Path:
    return store_folder(STORE_NAME) if folder is None else Path(folder).expanduser()


def _files(root: Path, model: str = "*") -> list[_File]:
    """All files of a store, temporary ones too, the least recently used first."""
    found = []
    for path in root.glob(f"{model}/*/*"):
        if not _OURS.fullmatch(path.relative_to(root).as_posix()):
            continue
        with contextlib.suppress(OSError):  # removed by another process
            status = path.stat()
            found.append(_File(status.st_mtime_ns, status.st_size, path))
    return sorted(found)


def _evict(files: Iterable[_File], max_bytes: int) -> Pruned:
    """Remove the first of these files until the rest is not more than ``max_bytes``."""
    files = list(files)
    left = sum(file.bytes for file in files)
    count = freed = 0
    for file in files:
        if left <= max_bytes and max_bytes:
            break
        if _remove(file.path):
            count += 1
            freed += file.bytes
            left -= file.bytes
    return Pruned(count, freed)


def _remove(path: Path) -> bool:
    """Whether the file is gone."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _remove_empty(root: Path) -> None:
    """Remove the folders of a store that hold no embedding any more."""
    for model in root.glob("[0-9a-f]*"):
        if not re.fullmatch("[0-9a-f]{16}", model.name):
            continue
        with contextlib.suppress(OSError):
            for part in model.glob("[0-9a-f][0-9a-f]"):
                with contextlib.suppress(OSError):
                    part.rmdir()
            if {path.name for path in model.iterdir()} <= {IDENTITY_NAME}:
                _remove(model / IDENTITY_NAME)
                model.rmdir()


def _pack(features: torch.Tensor, embedding: SamEmbedding) -> bytes:
    from safetensors.torch import save

    features = features.cpu().contiguous()
    sizes = (embedding.width_px, embedding.height_px, *embedding.frame_size)
    metadata = dict(zip(_SIZES, map(str, sizes), strict=True))
    return save({"features": features}, {**metadata, "checksum": _checksum(features, sizes)})


def _read(path: Path) -> SamEmbedding:
    """The embedding in a file.

    Raises:
        OSError: if there is no such file or it cannot be opened
        SafetensorError, ValueError, TypeError: if it is damaged
    """
    from safetensors.torch import load

    # at once: between two looks at the file another process may remove or replace it
    data = path.read_bytes()
    features = load(data).get("features")
    if features is None:
        raise ValueError("no features")
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata = header.get("__metadata__", {})
    sizes = [int(metadata.get(name, "")) for name in _SIZES]
    # the file system may have kept the length of a file and lost its content
    if _checksum(features, sizes) != metadata.get("checksum"):
        raise ValueError("checksum differs")
    width, height, rows, columns = sizes
    return SamEmbedding(features.float(), width, height, (rows, columns))


_SIZES = ("width_px", "height_px", "frame_rows", "frame_columns")


def _checksum(features: torch.Tensor, sizes: Iterable[int]) -> str:
    facts = f"{features.dtype} {tuple(features.shape)} {tuple(sizes)}"
    return f"{zlib.crc32(features.numpy(), zlib.crc32(facts.encode())):08x}"
