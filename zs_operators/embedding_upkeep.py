"""What a store of embeddings holds, and how to make it smaller."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zs_operators.embedding_files import Layout, Shard, remove_shard
from zs_operators.embeddings import StoredFile, store_root, stored_files
from zs_operators.errors import InvalidInputError
from zs_operators.store_upkeep import IDENTITY_NAME, Pruned, check_prune, days_ago_ns, read_identity


@dataclass(frozen=True)
class StoredModel:
    """What a store has of one model.

    Attributes:
        key: 16 hex digits, the name of its folder
        identity: what decides these embeddings; empty if that cannot be read
        records: images, or prompts
        vectors: all of them, regions too
        bytes: of its files
        used: seconds since the epoch when one of them was last opened or written
    """

    key: str
    identity: dict[str, Any]
    records: int
    vectors: int
    bytes: int
    used: float


def stored_models(folder: str | os.PathLike | None = None) -> list[StoredModel]:
    """The models that have files in a store, last used first.

    Args:
        folder (None): of the store; None is ``store_folder("embeddings")``
    """
    root = store_root(folder)
    by_model: dict[str, list[StoredFile]] = {}
    for file in stored_files(root):
        by_model.setdefault(file.path.parent.name, []).append(file)
    found = []
    for key, files in by_model.items():
        identity = read_identity(root / key)
        records, vectors = _count(identity, files)
        found.append(
            StoredModel(
                key,
                identity,
                records,
                vectors,
                sum(file.bytes for file in files),
                max(file.used_ns for file in files) / 1e9,
            )
        )
    return sorted(found, key=lambda model: model.used, reverse=True)


def prune(
    folder: str | os.PathLike | None = None,
    *,
    max_bytes: int | None = None,
    unused_days: float | None = None,
    model: str | None = None,
) -> Pruned:
    """Remove files of embeddings, the least recently used first; never one being written.

    Args:
        folder (None): of the store; None is ``store_folder("embeddings")``
        max_bytes (None): how much may stay; 0 removes everything
        unused_days (None): remove what was not used for so many days
        model (None): key of :func:`stored_models`: only its files

    Raises:
        InvalidInputError: if there is nothing to prune by, or a value has no meaning
    """
    check_prune(max_bytes, unused_days)
    root = store_root(folder)
    files = [f for f in stored_files(root) if model is None or f.path.parent.name == model]
    if model is not None and not files:
        raise InvalidInputError(f"no model {model!r} in {str(root)!r}: see zs embeddings list")
    last_ns = days_ago_ns(unused_days or 0)
    left = sum(file.bytes for file in files)
    count = freed = 0
    for file in files:
        old = unused_days is not None and file.used_ns < last_ns
        if not old and (max_bytes is None or left <= max_bytes):
            continue
        if remove_shard(file.path):
            count, freed, left = count + 1, freed + file.bytes, left - file.bytes
    _remove_empty(root)
    return Pruned(count, freed)


def _count(identity: dict[str, Any], files: list[StoredFile]) -> tuple[int, int]:
    """Records and vectors, replaced ones included."""
    try:
        dim, dtype, extras, facts = identity["vectors"]
    except (KeyError, ValueError):
        return 0, 0
    layout = Layout(dim, 2 if dtype == "float16" else 4, extras, facts)
    records = vectors = 0
    for file in files:
        with contextlib.suppress(OSError):
            for block in Shard(file.path, layout).blocks:
                records += len(block.keys)
                vectors += len(block.vectors)
    return records, vectors


def _remove_empty(root: Path) -> None:
    """Remove the folders that hold no embedding any more."""
    for folder in root.glob("[0-9a-f]*"):
        if not re.fullmatch("[0-9a-f]{16}", folder.name):
            continue
        with contextlib.suppress(OSError):
            if {path.name for path in folder.iterdir()} <= {IDENTITY_NAME}:
                (folder / IDENTITY_NAME).unlink(missing_ok=True)
                folder.rmdir()
