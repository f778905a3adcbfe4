"""Whether the models of a run can be had again, and are the same."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zs_operators.detectors import loading
from zs_operators.errors import InvalidInputError, WeightsError, ZeroShotError
from zs_operators.run_history.old_records import model_arguments
from zs_operators.run_parameters import OBJECT
from zs_operators.weights import file_sha256, find_weights_file, plan_weights

if TYPE_CHECKING:
    from zs_operators.run_history.stored_run import StoredRun


class _Part(NamedTuple):
    """A model of a task: its arguments, and what a record calls it."""

    name: str
    weights: str
    kind: str
    identity: str
    details: str


_CLIP = _Part("model", "weights", "clip", "model", "model_details")
_PROPOSER = _Part("proposals", "proposal_weights", "proposals", "proposer", "proposer_details")
_PARTS = {
    "classify": (_CLIP,),
    "detect": (_CLIP, _PROPOSER),
    "segment": (
        _Part("model", "weights", "sam", "model", "model_details"),
        _Part("clip", "clip_weights", "clip", "clip", "clip_details"),
        _PROPOSER,
    ),
}


def model_parameters(run: StoredRun, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that load the models of a run again; those that are changed left out.

    Raises:
        WeightsError: if weights are gone, are other ones now, or never were in a file
        InvalidInputError: if a model was passed in that no file stands for
    """
    found: dict[str, Any] = {}
    parameters = run.parameters
    if parameters.get("detector") is not None:
        if "detector" not in changes:
            return _same_detector(run, parameters["detector"])
        # The record knows nothing of the CLIP that takes its place
        unused = [name for part in _PARTS[run.task] for name in (part.name, part.weights)]
        return {name: parameters[name] for name in unused if parameters.get(name) is not None}
    for part in _PARTS.get(run.task, ()):
        given = {name: parameters.get(name) for name in (part.name, part.weights)}
        if part.name in changes:
            continue  # the weights were those of the other model
        if part.weights in changes:
            found[part.name] = given[part.name]
        elif run.record.get(part.identity):  # else the run had no use for it
            found |= _same(run, part, given)
        else:
            found |= given
    return {name: value for name, value in found.items() if value is not None}


def check_head(run: StoredRun, changes: Mapping[str, Any]) -> None:
    """Refuses a head that is gone or another one now.

    Raises:
        InvalidInputError: saying what to pass
    """
    expected, given = run.record.get("head"), run.parameters.get("head")
    if expected is None or "head" in changes or not isinstance(given, str):
        return
    from zs_operators.heads.saved import resolve

    try:
        found = resolve(run.dataset, given).digest
    except ZeroShotError as error:
        raise InvalidInputError(
            f"Run {run.key!r} cannot be repeated: {error} Pass head= to use another."
        ) from error
    if found != expected:
        raise InvalidInputError(
            f"Run {run.key!r} cannot be repeated: head {given!r} is another one now. Pass head= to "
            "use it."
        )


def _same(run: StoredRun, part: _Part, given: dict[str, Any]) -> dict[str, Any]:
    plan = (run.record.get(part.details) or {}).get("weights") or {}
    if plan.get("state") == "random":
        raise WeightsError(
            f"The {part.kind} model of run {run.key!r} had random weights, which are gone: pass "
            f"{part.name}= (and {part.weights}=) to use others."
        )
    if isinstance(given[part.name], Mapping):
        if plan.get("architecture") is None:
            kind = given[part.name].get(OBJECT, "model")
            raise InvalidInputError(
                f"Run {run.key!r} was given a {kind} object, and no file is known for it: pass "
                f"{part.name}=."
            )
        given = model_arguments(plan, part.name, part.weights)
    _check(run, part, given)
    return given


def _same_detector(run: StoredRun, given: Any) -> dict[str, Any]:
    """The detector of a run that had no CLIP."""
    if isinstance(given, Mapping):
        raise InvalidInputError(
            f"Run {run.key!r} was given a {given.get(OBJECT, 'detector')} object as its detector, "
            "and nothing says how to make one: pass detector=."
        )
    expected = run.record["model"].get("weights_sha256")
    advice = "Pass detector= to repeat it with another."
    try:
        found = loading.weights_sha256(given)
    except (ZeroShotError, OSError) as error:
        raise WeightsError(f"Run {run.key!r} cannot be repeated: {error}. {advice}") from error
    if None not in (found, expected) and found != expected:
        raise WeightsError(
            f"Run {run.key!r} cannot be repeated: {given!r} holds other weights now (sha256 "
            f"{found[:12]}…, then {expected[:12]}…). {advice}"
        )
    return {"detector": given}


def _check(run: StoredRun, part: _Part, given: Mapping[str, Any]) -> None:
    """Refuses weights that are not those of the run, before anything is loaded or written."""
    name, weights = given[part.name], given[part.weights]
    expected = run.record[part.identity].get("weights_sha256")
    advice = f"Pass {part.weights}= (or {part.name}=) to repeat it with others."
    try:
        path, found = _files_now(part, name, weights)
        if found is None or expected is None:
            return  # loading fetches the file and compares it with the registry's
    except (WeightsError, OSError) as error:
        raise WeightsError(f"Run {run.key!r} cannot be repeated: {error} {advice}") from error
    if found != expected:
        raise WeightsError(
            f"Run {run.key!r} cannot be repeated: {str(path)!r} holds other weights now (sha256 "
            f"{found[:12]}…, then {expected[:12]}…). {advice}"
        )


def _files_now(part: _Part, name: str | None, weights: str | None) -> tuple[Path, str | None]:
    """Where the weights are that are meant now, and their sha256; None if they are not here."""
    if part is _PROPOSER and weights is None and name and loading.names_a_detector(name):
        return Path(name), loading.weights_sha256(name)
    named = {} if name is None else {"model": name}
    plan = plan_weights(part.kind, weights=weights, **named)
    if plan.path is None:
        return Path(), None
    path = Path(plan.path)
    return path, _sha256(find_weights_file(path) if path.is_dir() else path)


def _sha256(file: Path) -> str:
    """Of a file; read once, as a form asks at every keystroke."""
    stat = file.stat()
    return _sha256_of(str(file), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _sha256_of(path: str, size: int, changed: int) -> str:
    return file_sha256(path)
