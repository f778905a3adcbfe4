"""One file from an address to a place: what came before a cut is kept, what is wrong is not.

The only part that reads the network itself; it asks for addresses of the registry alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from zs_operators.errors import OfflineError, WeightsError
from zs_operators.redaction import without_secrets

#: Called with the bytes that are here and all there will be, None where that is not known
Progress = Callable[[int, "int | None"], None]

_BLOCK = 1 << 20
_TIMEOUT_S = 30
_TRIES = 5  # without a byte in between
_WAIT_S = 0.5  # before the second try; doubled before each further one
_SPARE = 1.02  # a disk must not be filled to the last byte


@dataclass
class _Partial:
    """A file that is not whole yet, and what the server called it."""

    path: Path
    note: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def tag(self) -> str | None:
        try:
            return json.loads(self.note.read_text(encoding="utf-8"))["etag"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def remove(self) -> None:
        for path in (self.path, self.note):
            with contextlib.suppress(OSError):
                path.unlink()


def download(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    headers: Mapping[str, str] | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Get a file, going on with what an earlier call has left.

    Args:
        url: http or https
        target: where it goes, whole or not at all
        sha256 (None): in hex, or the beginning of it; None where it is not known
        headers (None): to send
        on_progress (None): called after each part

    Raises:
        OfflineError: if the server cannot be reached, or goes away again and again; what came is
            kept for the next call
        WeightsError: if the server has no such file, the disk is full, or the file is not the one
            expected, which is then removed
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise WeightsError(f"{without_secrets(url)!r} is no address of the web")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _Partial(
        target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.part.json")
    )
    with _locked(partial.path, url):
        _receive(url, partial, sha256, dict(headers or {}), on_progress)
        actual = _sha256(partial.path)
        if sha256 is not None and not actual.startswith(sha256.lower()):
            partial.remove()
            raise WeightsError(
                f"what came from {without_secrets(url)} is damaged or not what was published: its "
                f"sha256 is {actual}, expected {sha256}; it was removed, try again"
            )
        partial.path.replace(target)
        partial.remove()
    return target


def check_space(folder: Path, wanted: int) -> None:
    """Refuse to begin what would fill the disk.

    Args:
        folder: where it would go; need not exist
        wanted: bytes

    Raises:
        WeightsError: naming how much is missing
    """
    existing = next(one for one in (folder, *folder.parents) if one.exists())
    free = shutil.disk_usage(existing).free
    if wanted * _SPARE > free:
        raise WeightsError(
            f"{str(folder)!r} has {free / 1e9:,.1f} GB free and {wanted / 1e9:,.1f} GB are needed: "
            "make room, or name another disk with --weights-dir or ZS_WEIGHTS_DIR"
        )


def _receive(
    url: str,
    partial: _Partial,
    sha256: str | None,
    headers: dict[str, str],
    on_progress: Progress | None,
) -> None:
    """Make the partial file whole, whatever it takes."""
    failures = 0
    while True:
        before = partial.size
        try:
            if _receive_once(url, partial, sha256, headers, on_progress):
                return
            error: Exception = OSError("the connection was cut")
        except urllib.error.HTTPError as problem:
            if problem.code == 416 and before:  # longer than the file is now: another file
                partial.remove()
                error = problem
            elif problem.code < 500 and problem.code not in (408, 429):
                raise WeightsError(
                    f"{without_secrets(url)} answers {problem.code} {problem.reason}: the file is "
                    "not there, or not for everybody"
                ) from problem
            else:
                error = problem
        except OSError as problem:
            if _is_of_disk(problem):
                raise WeightsError(
                    f"{str(partial.path)!r} cannot be written: {problem.strerror}; what came is "
                    "kept, make room and run it again, or name another disk with --weights-dir"
                ) from problem
            error = problem
        except http.client.HTTPException as problem:
            error = problem
        failures = 1 if partial.size > before else failures + 1
        if failures >= _TRIES:
            kept = f"; {partial.size:,} bytes are kept, run it again to go on" * bool(partial.size)
            raise OfflineError(
                f"downloading {without_secrets(url)} failed: {without_secrets(str(error))}{kept}"
            ) from error
        time.sleep(_WAIT_S * 2 ** (failures - 1))


def _receive_once(
    url: str,
    partial: _Partial,
    sha256: str | None,
    headers: dict[str, str],
    on_progress: Progress | None,
) -> bool:
    """One request; whether the file is whole now."""
    tag = partial.tag()
    # without a name or a checksum nothing says that what follows is of the same file
    if partial.size and tag is None and sha256 is None:
        partial.remove()
    start = partial.size
    asked = {"Accept-Encoding": "identity", **headers}
    if start:
        asked["Range"] = f"bytes={start}-"
        if tag is not None:
            asked["If-Range"] = tag
    request = urllib.request.Request(url, headers=asked)
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # nosec B310
        if answer.status != 206 or _start_of(answer.headers) != start:
            start = 0  # no ranges here, or another file than before: from the beginning
        total = _total_of(answer.headers, start)
        etag = answer.headers.get("ETag", "")
        if total is not None:
            check_space(partial.path.parent, total - start)
        # a weak tag does not say that the bytes are the same
        strong = etag if etag and not etag.startswith("W/") else None
        partial.note.write_text(json.dumps({"etag": strong}), encoding="utf-8")
        with partial.path.open("ab" if start else "wb") as file:
            _copy(answer, file, start, total, on_progress)
    return total is None or partial.size == total


def _copy(
    answer: Any, file: BinaryIO, done: int, total: int | None, on_progress: Progress | None
) -> None:
    while block := answer.read1(_BLOCK):
        file.write(block)
        done += len(block)
        if on_progress is not None:
            on_progress(done, total)


def _start_of(headers: Mapping[str, str]) -> int | None:
    """First byte of a part, of ``Content-Range: bytes 5-9/10``."""
    with contextlib.suppress(IndexError, ValueError):
        return int(headers.get("Content-Range", "").split()[1].split("-")[0])
    return None


def _total_of(headers: Mapping[str, str], start: int) -> int | None:
    """Size of the whole file, or None."""
    length = headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() else None


def _is_of_disk(error: OSError) -> bool:
    import errno

    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def _locked(path: Path, url: str) -> Iterator[None]:
    """Two that append to one file would spoil it.

    Raises:
        WeightsError: if somebody else is at it
    """
    try:
        import fcntl
    except ImportError:  # Windows refuses the second to replace the file
        yield
        return
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise WeightsError(
                f"another process is downloading {without_secrets(url)}: wait for it"
            ) from error
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                Path(lock.name).unlink()
