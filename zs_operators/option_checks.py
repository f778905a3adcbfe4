"""Checks that the option classes of all tasks share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from zs_operators.errors import InvalidInputError


def check_count(name: str, value: Any, low: int) -> None:
    """Refuses what is no integer of at least ``low``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise InvalidInputError(f"{name}={value!r} must be an integer >= {low}.")


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Refuses what is none of ``choices``."""
    if value not in choices:
        raise InvalidInputError(f"{name}={value!r} must be one of {', '.join(choices)}.")


def check_range(name: str, value: Any, low: float, high: float, *, optional: bool = False) -> None:
    """Refuses what is no number from ``low`` to ``high``, nor None where that is allowed."""
    if optional and value is None:
        return
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        bounds = f"between {low:g} and {high:g}" if high != math.inf else f">= {low:g}"
        none = ", or None" if optional else ""
        raise InvalidInputError(f"{name}={value!r} must be a number {bounds}{none}.")
