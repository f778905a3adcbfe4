"""What the stores of embeddings have in common when they are listed and made smaller."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

from zs_operators.errors import InvalidInputError
from zs_operators.option_checks import check_count, check_range

IDENTITY_NAME = "identity.json"

_SECONDS_A_DAY = 86_400


class Pruned(NamedTuple):
    """How many files were removed, and their bytes."""

    files: int
    bytes: int


def check_prune(max_bytes: int | None, unused_days: float | None) -> None:
    """Refuses what says nothing of what may stay.

    Raises:
        InvalidInputError: if neither is given, or one is negative
    """
    if max_bytes is None and unused_days is None:
        raise InvalidInputError("nothing to prune by: give max_bytes or unused_days")
    if max_bytes is not None:
        check_count("max_bytes", max_bytes, 0)
    check_range("unused_days", unused_days, 0, float("inf"), optional=True)


def days_ago_ns(days: float) -> float:
    """The time so many days ago, as files have it."""
    return time.time_ns() - days * _SECONDS_A_DAY * 1e9


def read_identity(folder: Path) -> dict[str, Any]:
    """What a model's folder says it is of; empty if that cannot be read."""
    try:
        identity = json.loads((folder / IDENTITY_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return identity if isinstance(identity, dict) else {}
