"""What the forms and the panel of runs share: choosing a run, and runs as rows and words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import fiftyone.operators.types as types

from zs_operators.errors import InvalidInputError, ZeroShotError

from . import forms

if TYPE_CHECKING:
    from zs_operators.run_history import RunComparison, StoredRun

_SHOWN = 10
COLUMNS = {
    "run": "Run",
    "state": "State",
    "started": "Started",
    "model": "Model",
    "counts": "Counts",
}


def choose(
    inputs: types.Object,
    ctx,
    name: str,
    label: str,
    *,
    only: Callable[[StoredRun], bool] | None = None,
) -> StoredRun | None:
    """Asks for a run of the dataset; None, with the reason shown, where there is none.

    Args:
        inputs: the form
        ctx: the execution context
        name: of the input, whose value is the key of a run or the field that it wrote
        label: of the input
        only (None): which runs are offered; the newest of them is the default
    """
    from zs_operators.run_history import runs

    if ctx.dataset is None:
        forms.refuse(inputs, name, "No dataset is open", "Open a dataset first.")
        return None
    found = {run.key: run for run in runs(ctx.dataset)}
    if not found:
        forms.refuse(inputs, name, "No runs yet", "No zero-shot run has been made here.")
        return None
    if only is not None and not any(map(only, found.values())):
        forms.refuse(inputs, name, "No such run", "No zero-shot run is going on here.")
        return None
    view = types.DropdownView()
    for key, run in found.items():
        if only is None or only(run):
            view.add_choice(key, label=title(run))
    # Not an enum: a script may name the label field instead of the key
    default = None if only is None else next(key for key, run in found.items() if only(run))
    prop = inputs.str(name, label=label, required=True, default=default, view=view)
    if not ctx.params.get(name):
        return None
    try:
        return given(ctx, name)
    except ZeroShotError as error:
        prop.invalid = True
        prop.error_message = str(error)
        return None


def given(ctx, name: str = "run") -> StoredRun:
    """The run that a form or a script names.

    Raises:
        InvalidInputError: if none is named, or there is no such run
    """
    from zs_operators.run_history import load_run

    if ctx.dataset is None:
        raise InvalidInputError("There is no dataset: open one, or pass one.")
    if not ctx.params.get(name):
        raise InvalidInputError(f"{name} is missing: name a run by its key or its label field.")
    return load_run(ctx.dataset, ctx.params[name])


def resolved(dataset, run: Any) -> StoredRun:
    """A run given as itself, or by its key or label field."""
    from zs_operators.run_history import StoredRun, load_run

    return run if isinstance(run, StoredRun) else load_run(dataset, run)


def is_going_on(run: StoredRun) -> bool:
    """Whether its record says that it is running."""
    from zs_operators.provenance import RUNNING

    return run.state == RUNNING


def title(run: StoredRun) -> str:
    """``"classify → pets · 2026-11-25 14:03"``."""
    from zs_operators.run_history.stored_run import day

    return f"{run.task} → {run.label_field} · {day(run)}"


def row(run: StoredRun) -> dict[str, str]:
    """A run as a row of the table with :data:`COLUMNS`."""
    from zs_operators.run_history.stored_run import day

    return {
        "run": f"{run.task} → {run.label_field}",
        "state": run.state,
        "started": day(run)[5:],  # the table is narrow, and the year is in the title
        "model": str(run.model.get("name", "–")),
        "counts": ", ".join(f"{n:,} {name}" for name, n in run.counts.items() if n) or "–",
    }


def details(run: StoredRun) -> str:
    """What is known of a run, in Markdown."""
    rows = {
        "Model": run.model.get("name"),
        "Classes": _names([entry["label"] for entry in _classes(run)]) if _classes(run) else "",
        "Prompts": f"{len(run.prompts):,}" if run.prompts else "",
        "Source": (run.source or {}).get("run_key") or (run.source or {}).get("field"),
        "Labels": _names([f"{name} ({count:,})" for name, count in _most(run.labels)])
        if run.labels
        else "",
        "Seconds": f"{run.seconds['total']:.1f}" if run.seconds.get("total") else "",
        "Settings": ", ".join(f"{name}={value}" for name, value in _settings(run).items()),
        "Versions": ", ".join(f"{name} {value}" for name, value in run.versions.items()),
        "Weights": (run.model.get("weights_sha256") or "")[:16],
    }
    lines = [f"- **{name}**: {forms.escaped(str(value))}" for name, value in rows.items() if value]
    return "\n".join(lines)


def summary(found: RunComparison) -> str:
    """How far two runs agree, in a line of Markdown."""
    agreement = "–" if found.agreement is None else f"{found.agreement:.1%}"
    parts = [f"**{agreement} agreement**", f"{found.compared:,} images compared"]
    parts.append(f"**{len(found.changed_ids):,} changed**")
    if found.mean_iou is not None:
        parts.append(f"mean IoU {found.mean_iou:.2f}")
    return " · ".join(parts)


def differences(found: RunComparison) -> str:
    """In what two runs differ besides their labels, in Markdown; empty if in nothing."""
    shown = list(found.differences.items())
    lines = [f"- **{forms.escaped(name)}**: {_both(pair)}" for name, pair in shown[:_SHOWN]]
    if len(shown) > _SHOWN:
        lines.append(f"- and {len(shown) - _SHOWN:,} more")
    return "\n".join(lines)


def flips(found: RunComparison) -> list[dict[str, str]]:
    """Rows of the table of changes."""
    return [
        {"change": f"{flip.before} → {flip.after}", "count": f"{flip.count:,}"}
        for flip in found.flips
    ]


def table(**arguments: Any) -> types.TableView:
    """A table that is no wider than a panel; the App's own are 650 px at least."""
    return types.TableView(componentsProps={"table": {"sx": {"minWidth": 0}}}, **arguments)


def flips_table(**arguments: Any) -> types.TableView:
    """The table that :func:`flips` fills."""
    found = table(**arguments)
    found.add_column("change", label="Change")
    found.add_column("count", label="Count")
    return found


def _classes(run: StoredRun) -> list[Mapping[str, Any]]:
    return (run.record.get("vocabulary") or {}).get("classes") or []


def _most(labels: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(labels.items(), key=lambda pair: (-pair[1], pair[0]))


def _settings(run: StoredRun) -> dict[str, Any]:
    found = {**(run.record.get("options") or {}), **(run.record.get("masks") or {})}
    return {name: value for name, value in found.items() if value not in (None, False)}


def _both(pair: tuple[Any, Any]) -> str:
    before, after = (_names(one, 3) if isinstance(one, list) else one for one in pair)
    return forms.escaped(f"{before} → {after}")


def _names(names: list, shown: int = _SHOWN) -> str:
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return (", ".join(map(str, names[:shown])) or "–") + more
