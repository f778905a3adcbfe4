"""Evaluation of labels against ground truth; names are imported when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zs_operators.evaluation.records import load_evaluation
    from zs_operators.evaluation.report import EvaluationReport
    from zs_operators.evaluation.running import evaluate, iter_evaluate
    from zs_operators.evaluation.temperature import apply_temperature

_HOMES = {
    "EvaluationReport": "report",
    "apply_temperature": "temperature",
    "evaluate": "running",
    "iter_evaluate": "running",
    "load_evaluation": "records",
}

__all__ = [
    "EvaluationReport",
    "apply_temperature",
    "evaluate",
    "iter_evaluate",
    "load_evaluation",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
