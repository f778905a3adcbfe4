"""Plain JSON -> :class:`EvaluationReport`, of this version of the package or an older one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from zs_operators.errors import InvalidInputError
from zs_operators.evaluation import report_parts as parts

if TYPE_CHECKING:
    from zs_operators.evaluation.report import EvaluationReport

T = TypeVar("T")


def read_report(kind: type[EvaluationReport], content: Mapping[str, Any]) -> EvaluationReport:
    """See :meth:`EvaluationReport.from_dict`.

    Raises:
        InvalidInputError: if ``content`` is no report
    """
    try:
        found = dict(content)
        found["per_class"] = _each(parts.ClassRow, found.get("per_class"))
        found["confusion"] = _read_confusion(found.get("confusion"))
        found["split"] = _read_split(found.get("split"))
        found["top_k"] = _each(parts.TopK, found.get("top_k"))
        found["localisation"] = _one(parts.Localisation, found.get("localisation"))
        found["calibration"] = _read_calibration(found.get("calibration"))
        found["names"] = _read_names(found.get("names"))
        found["thresholds"] = {
            row["label"]: row["threshold"] for row in found.get("thresholds") or ()
        }
        for name in ("fields", "warnings"):
            found[name] = tuple(found.get(name) or ())
        return _one(kind, found)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"Not a stored evaluation ({type(error).__name__}: {error}); use what "
            "EvaluationReport.to_dict() returned."
        ) from None


def _one(kind: type[T], content: Mapping[str, Any] | None) -> T | None:
    """A dataclass of those entries of ``content`` that it has."""
    if content is None:
        return None
    known = {item.name for item in fields(kind)}
    return kind(**{name: value for name, value in content.items() if name in known})


def _each(kind: type[T], rows: Any) -> tuple[T, ...]:
    return tuple(_one(kind, row) for row in rows or ())


def _tuples(rows: Any) -> tuple[tuple, ...]:
    return tuple(tuple(row) for row in rows or ())


def _read_confusion(content: Mapping[str, Any] | None) -> parts.Confusion | None:
    if content is None:
        return None
    return parts.Confusion(tuple(content["labels"]), _tuples(content["cells"]))


def _read_split(content: Mapping[str, Any] | None) -> parts.Split | None:
    if content is None:
        return None
    found = dict(content)
    for name in ("supported", "unsupported"):
        found[name] = tuple(found[name])
    if found.get("stacking"):
        stacking = dict(found["stacking"])
        stacking["curve"] = _tuples(stacking.get("curve"))
        if stacking.get("given") is not None:
            stacking["given"] = tuple(stacking["given"])
        found["stacking"] = _one(parts.Stacking, stacking)
    return _one(parts.Split, found)


def _read_calibration(content: Mapping[str, Any] | None) -> parts.Calibration | None:
    if content is None:
        return None
    found = dict(content)
    for name in ("reliability", "reliability_fitted"):
        found[name] = _each(parts.ReliabilityBin, found.get(name))
    return _one(parts.Calibration, found)


def _read_names(content: Mapping[str, Any] | None) -> parts.Names:
    found = dict(content or {})
    found["renamed"] = _each(parts.Renamed, found.get("renamed"))
    for name in ("unmatched_predictions", "unmatched_ground_truth"):
        found[name] = tuple(found.get(name) or ())
    return _one(parts.Names, found)
