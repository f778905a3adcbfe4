"""Media in object stores, by addresses such as ``s3://bucket/key``: read whole, through fsspec.

Only kinds of stores that are listed here are ever reached, because the paths of a dataset come from
whoever made it; ``ZS_REMOTE_MEDIA`` lists others. A kind whose package is not installed gives an
error that names it.
"""

from __future__ import annotations

import os
import re
from typing import Any

from zs_operators.errors import (
    MediaError,
    MediaTooLargeError,
    MissingMediaError,
    UnreadableMediaError,
    UnsupportedMediaError,
)
from zs_operators.redaction import without_secrets

VARIABLE = "ZS_REMOTE_MEDIA"
DEFAULT_KINDS = "s3 s3a gs gcs az abfs abfss hdfs file memory"
MAX_BYTES = 2**30

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://.", re.IGNORECASE | re.DOTALL)
# What FiftyOne makes of an address it takes for a path: an absolute one, with a single slash
_AS_PATH = re.compile(r"(?:.*/)?([a-z][a-z0-9]+):/([^/].*)", re.DOTALL)
#: What changes when an object does, by the names that file systems have for it.
_VERSIONS = (
    *("ETag", "etag", "md5Hash", "md5", "content_md5", "generation", "VersionId", "version_id"),
    *("LastModified", "last_modified", "updated", "mtime", "modified", "created"),
)


def kinds() -> frozenset[str]:
    """Kinds of addresses that are read, such as ``"s3"``."""
    return frozenset(re.split(r"[\s,]+", os.environ.get(VARIABLE, DEFAULT_KINDS).strip().lower()))


def address_of(path: str) -> str | None:
    """The address that a path is, or was before FiftyOne took it for a local path; None if none.

    Only of kinds that are read: any other is left to be refused like a local path.
    """
    if ":/" not in path:
        return None
    known = _ADDRESS.match(path)
    if known:
        return path if known[1].lower() in kinds() else None
    mangled = _AS_PATH.fullmatch(path)
    if mangled is None or mangled[1].lower() not in kinds() or os.path.lexists(path):
        return None
    root = "/" if mangled[1].lower() == "file" else ""
    return f"{mangled[1]}://{root}{mangled[2]}"


def read(address: str) -> bytes:
    """The bytes of an object.

    Raises:
        MissingMediaError: there is none
        UnsupportedMediaError: the package that reads such addresses is not installed
        UnreadableMediaError: it is empty, a folder, or may not be read
        MediaTooLargeError: it has more than 1 GiB
    """
    name = repr(without_secrets(address))
    try:
        system, path = _file_system(address)
        found = system.info(path)
        if found.get("type") == "directory":
            raise UnreadableMediaError(f"{name} is a folder; give the address of one image")
        size = found.get("size")
        if size == 0:
            raise UnreadableMediaError(f"{name} is empty (0 bytes); upload it again")
        if size is not None and size > MAX_BYTES:
            raise MediaTooLargeError(f"{name} has {size:,} bytes; shrink or tile it")
        return system.cat_file(path)
    except Exception as error:
        raise _named(error, name) from error


def identity(address: str) -> list[Any]:
    """The address, size and version of an object, as plain JSON: what a store knows it by.

    Raises:
        MissingMediaError: there is none
        UnsupportedMediaError, UnreadableMediaError: see :func:`read`
    """
    try:
        system, path = _file_system(address)
        found = system.info(path)
    except Exception as error:
        raise _named(error, repr(without_secrets(address))) from error
    version = [str(found[name]) for name in _VERSIONS if found.get(name) is not None]
    return [address, found.get("size"), *version]


def _file_system(address: str) -> tuple[Any, str]:
    """fsspec's file system, one for all addresses of its kind, and the path in it."""
    from fsspec.core import url_to_fs

    return url_to_fs(address)


def _named(error: Exception, name: str) -> MediaError:
    """What a file system says, as an error of ours; each has its own."""
    if isinstance(error, MediaError):
        return error
    said = without_secrets(str(error)).strip() or type(error).__name__
    if isinstance(error, (ImportError, ValueError)) and _needs_package(error):
        return UnsupportedMediaError(
            f"{name} cannot be read without another package ({said}); install it where the images "
            "are read, or copy them to a local folder"
        )
    if isinstance(error, FileNotFoundError):
        return MissingMediaError(f"{name} does not exist; upload it or correct the filepath")
    if isinstance(error, PermissionError):
        return UnreadableMediaError(f"{name} may not be read ({said}); check the credentials")
    return UnreadableMediaError(f"{name} could not be read: {type(error).__name__}: {said[:300]}")


def _needs_package(error: Exception) -> bool:
    return isinstance(error, ImportError) or "protocol not known" in str(error).lower()
