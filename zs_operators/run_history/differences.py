"""In what two runs differ before any label is looked at: options, models, prompts, versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zs_operators.run_history.stored_run import StoredRun

# Where a record has what decides labels; each option has a place of its own
_OPTIONS = ("options", "masks")
_SINGLE = ("reject_label", "regions", "region_embedding", "head")
_IDENTITIES = ("model", "clip", "proposer")


def differences(a: StoredRun, b: StoredRun) -> dict[str, tuple[Any, Any]]:
    """What differs, as ``{what: (of a, of b)}``; of classes and prompts those only one has."""
    found: dict[str, tuple[Any, Any]] = {}
    of_a, of_b = (_facts(run) for run in (a, b))
    for name in dict.fromkeys((*of_a, *of_b)):
        if of_a.get(name) != of_b.get(name):
            found[name] = (of_a.get(name), of_b.get(name))
    for name, (left, right) in {
        "classes": (_classes(a), _classes(b)),
        "prompts": ([text for text, _ in a.prompts], [text for text, _ in b.prompts]),
    }.items():
        if left != right:
            in_a, in_b = set(left), set(right)
            found[name] = (
                [one for one in left if one not in in_b],
                [one for one in right if one not in in_a],
            )
    return found


def _facts(run: StoredRun) -> dict[str, Any]:
    record = run.record
    facts: dict[str, Any] = {"task": run.task}
    for group in _OPTIONS:
        facts |= record.get(group) or {}
    facts |= {name: record[name] for name in _SINGLE if record.get(name) is not None}
    if run.task == "segment":
        facts["prompted by"] = run.parameters.get("prompts")
    for identity in _IDENTITIES:
        facts |= _flat(identity, record.get(identity) or {})
    return facts | {f"version of {name}": value for name, value in run.versions.items()}


def _flat(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    found: dict[str, Any] = {}
    for inner, one in value.items():
        found |= _flat(f"{name} {inner}", one)
    return found


def _classes(run: StoredRun) -> list[str]:
    stored = run.record.get("vocabulary") or {}
    return [entry["label"] for entry in stored.get("classes", ())]
