"""What is in a bundle of models: written by who makes one, believed by nobody who reads it.

A bundle is an uncompressed tar: ``manifest.json``, then each file under the sha256 of its content.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from zs_operators.errors import WeightsError
from zs_operators.model_files import ModelFile, model_files
from zs_operators.model_registry import ModelEntry, find_model

MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 1_000_000

_FORMAT = "zs-operators models"
_VERSION = 1
_HEX = {40: re.compile("[0-9a-f]{40}"), 64: re.compile("[0-9a-f]{64}")}


@dataclass(frozen=True)
class BundledFile:
    """One file of a bundle.

    Attributes:
        model: name of a model it belongs to
        name: the file's own
        sha256, size: of its content
        repo, commit: of a file of Hugging Face, else None
    """

    model: str
    name: str
    sha256: str
    size: int
    repo: str | None = None
    commit: str | None = None


def manifest(entries: Sequence[ModelEntry], files: Sequence[BundledFile]) -> bytes:
    """The manifest of a bundle, as JSON."""
    models = [
        {"name": one.name, "kind": one.kind, "licence": one.licence, "page": one.page}
        for one in entries
    ]
    content = {"format": _FORMAT, "format_version": _VERSION, "models": models}
    return json.dumps({**content, "files": [asdict(file) for file in files]}, indent=2).encode()


def read_manifest(data: bytes) -> list[tuple[BundledFile, ModelFile]]:
    """The files of a bundle, each with what the registry here says it is.

    Raises:
        WeightsError: if this is no manifest, or names a file that no model of this version has
    """
    try:
        content = json.loads(data)
        if content["format"] != _FORMAT:
            raise ValueError("of another format")
        if content["format_version"] != _VERSION:
            raise WeightsError(
                f"the bundle is of format {content['format_version']!r} and this version of "
                f"zs-operators reads {_VERSION}: update it, or make the bundle again"
            )
        rows = [BundledFile(**row) for row in content["files"]]
    except WeightsError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"this is no bundle of models: {MANIFEST_NAME} is {error}") from error
    found = [(row, _known_file(row)) for row in rows]
    names = [(row.repo, row.name) for row in rows]
    if len(set(names)) < len(names):
        raise WeightsError("this is no bundle of models: it has two files of one name")
    return found


def _known_file(row: BundledFile) -> ModelFile:
    """The registry's file that a row names.

    A bundle from elsewhere could otherwise put files into any repository of the cache.
    """
    if not all(isinstance(one, str) for one in (row.model, row.name, row.sha256)):
        raise _refused(row, "its row is damaged")
    if not _is_hex(row.sha256, 64) or isinstance(row.size, bool) or not isinstance(row.size, int):
        raise _refused(row, "it has no sha256 and size")
    entry = find_model(row.model)
    if entry is None:
        raise _refused(row, "this version of zs-operators has no such model; update it")
    for file in model_files(entry):
        if row.name in file.names and row.repo == file.repo:
            is_commit = _is_hex(row.commit, 40) if row.repo else row.commit is None
            if not is_commit:
                raise _refused(row, "it has no commit")
            if file.sha256 is not None and not row.sha256.startswith(file.sha256):
                raise _refused(row, f"its sha256 is not {file.sha256}, which was published")
            return file
    raise _refused(row, "it is none of the model's files")


def _is_hex(text: Any, digits: int) -> bool:
    return isinstance(text, str) and _HEX[digits].fullmatch(text) is not None


def _refused(row: BundledFile, why: str) -> WeightsError:
    return WeightsError(f"the bundle's {row.name!r} of {row.model!r} is refused: {why}")
