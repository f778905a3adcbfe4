"""Where stores of computed embeddings live on disk, and the keys that say what is in them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zs_operators import remote_media
from zs_operators.errors import MissingMediaError

FOLDER_VARIABLE = "ZS_STORE_DIR"


def store_folder(name: str) -> Path:
    """The folder of one kind of store, not created here.

    Below ``$ZS_STORE_DIR``, else ``$XDG_CACHE_HOME/zs-operators``, else ``~/.cache/zs-operators``.
    """
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen).expanduser() / name
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "zs-operators" / name


def media_key(path: str | os.PathLike) -> str:
    """64 hex digits of a file's absolute path, size and modification time in nanoseconds.

    Of an address, what its store knows of the object: size, and tag or time of its version.

    Raises:
        MissingMediaError: if there is no such file
    """
    address = remote_media.address_of(os.fsdecode(path))
    if address is not None:
        return _digest(remote_media.identity(address))
    absolute = os.path.abspath(os.fspath(path))
    try:
        status = os.stat(absolute)
    except OSError as error:
        raise MissingMediaError(f"{absolute!r} cannot be found: {error.strerror}") from error
    return _digest([absolute, status.st_size, status.st_mtime_ns])


def model_key(identity: Mapping[str, Any]) -> str:
    """64 hex digits of everything that decides an embedding besides the image.

    Args:
        identity: plain JSON: architecture, weights' sha256, preprocessing, precision, library
    """
    return _digest(dict(identity))


def _digest(value: Any) -> str:
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
