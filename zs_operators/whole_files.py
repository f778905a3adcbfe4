"""Files that are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path


def write_whole(path: Path, data: bytes, *, alone: bool = False) -> None:
    """Write a file under a temporary name beside its own, then rename it.

    Nobody sees a part of it, and of several processes that write the same name one wins.

    Args:
        path: of the file, in a folder that exists; what is there is replaced
        data: all of it
        alone (False): nobody else writes this file; so the temporary name can be one that the next
            try writes over, if this process is killed before it is renamed

    Raises:
        OSError: if it cannot be written; nothing is left behind
    """
    temporary = path.with_name(f".{path.name if alone else uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
