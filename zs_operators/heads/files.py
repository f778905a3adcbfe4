"""Arrays with plain facts in one ``.safetensors`` file: nothing in it can run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zs_operators.errors import InvalidInputError
from zs_operators.whole_files import write_whole

SUFFIX = ".safetensors"
_VERSION = 1


def write_arrays(
    path: Path,
    kind: str,
    arrays: Mapping[str, np.ndarray],
    facts: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> Path:
    """Writes a whole file, or nothing.

    Args:
        path: ends in ``.safetensors``; its folder is made
        kind: what the file is
        arrays: by name
        facts: plain JSON
        overwrite (False): allow replacing a file

    Raises:
        InvalidInputError: if it exists, is called otherwise, or cannot be written
    """
    from safetensors.numpy import save

    path = path.expanduser()
    if path.suffix != SUFFIX:
        raise InvalidInputError(f"{str(path)!r} must end in {SUFFIX}.")
    if path.exists() and not overwrite:
        raise InvalidInputError(
            f"{str(path)!r} exists: choose another name, or allow overwriting (overwrite=True)."
        )
    content = {"version": _VERSION, **facts}
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, save(whole, metadata={kind: json.dumps(content)}))
    except OSError as error:
        raise InvalidInputError(f"{str(path)!r} cannot be written: {error}.") from error
    return path


def read_arrays(path: Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and facts of a file of :func:`write_arrays`.

    Raises:
        InvalidInputError: if there is no such file, or it is something else
    """
    from safetensors import SafetensorError, safe_open

    path = path.expanduser()
    try:
        with safe_open(path, framework="numpy") as file:
            facts = json.loads((file.metadata() or {})[kind])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise InvalidInputError(f"There is no file {str(path)!r}.") from None
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InvalidInputError(
            f"{str(path)!r} is not a file of this kind ({kind}): {error}."
        ) from error
    if facts.pop("version", None) != _VERSION:
        raise InvalidInputError(f"{str(path)!r} is of another version of zs-operators.")
    return arrays, facts
