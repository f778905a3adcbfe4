"""The versions of open Prompt Labs, kept by the server.

What the App holds of a panel is drawn anew, stored with the page's layout and sent back whenever
any of it changes, and it may be older than what the server knows. So versions are not part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import lab_inputs, params, targeting
from .panel_memory import PanelMemory

if TYPE_CHECKING:
    import fiftyone as fo

    from zs_operators.prompt_lab import PromptLab

#: By panel; a lab holds some columns of all images
_SESSIONS: PanelMemory[Session] = PanelMemory(4)
#: By panel: settings of every version so far, from which a lab that was let go is scored again
_HISTORIES: PanelMemory[list[dict[str, Any]]] = PanelMemory(256)
#: By panel: the dataset of its versions, and what was chosen for them
_CHOSEN: PanelMemory[tuple[str, dict[str, Any]]] = PanelMemory(256)
CHOICES = ("stages", "models", *params.MODEL_INPUTS, "gt_field", "score")


@dataclass
class Session:
    """What a panel works on: the lab has a version for each of the settings in ``history``."""

    source: tuple
    lab: PromptLab
    history: list[dict[str, Any]]

    def add(self, entry: dict[str, Any]) -> None:
        """Scores these settings as a new version."""
        _score(self.lab, entry)
        self.history.append(entry)

    def undo(self) -> dict[str, Any]:
        """Forgets a version and returns the settings of the one before it."""
        self.lab.undo()
        self.history.pop()
        return self.history[-1]


def forget(ctx) -> None:
    """The panel starts without a version."""
    _HISTORIES.put(ctx.panel.id, [])
    _SESSIONS.pop(ctx.panel.id)


def keep_last(ctx) -> None:
    """Forgets the versions before the current one."""
    _HISTORIES.put(ctx.panel.id, history(ctx)[-1:])
    _SESSIONS.pop(ctx.panel.id)


def put_back(ctx) -> bool:
    """Shows what the panel showed before it was opened once more; False if it has no version."""
    name, chosen = _CHOSEN.find(ctx.panel.id) or (None, {})
    if name != ctx.dataset_name or not _HISTORIES.find(ctx.panel.id):
        return False
    ctx.panel.state.set(chosen)
    return True


def history(ctx) -> list[dict[str, Any]]:
    """Settings of every version; of a panel that an earlier server knew, those it shows."""
    found = _HISTORIES.find(ctx.panel.id)
    if found is not None:
        return found
    state = ctx.panel.state
    return [lab_inputs.settings(state)] if state.words else []


def current(ctx) -> Session:
    """The session of this panel; a new one for another source, with the last version only.

    Raises:
        ZeroShotError: if its images or settings cannot be used
    """
    state, source = ctx.panel.state, _source(ctx)
    session = _SESSIONS.get(ctx.panel.id, lambda: _start(ctx, history(ctx)))
    if session.source != source:
        session = _SESSIONS.put(ctx.panel.id, _start(ctx, history(ctx)[-1:]))
    _HISTORIES.put(ctx.panel.id, session.history)
    chosen = {name: state.get(name) for name in CHOICES if state.get(name) is not None}
    _CHOSEN.put(ctx.panel.id, (ctx.dataset_name, chosen))
    return session


def add(ctx) -> None:
    """Scores the settings as they are now as a new version.

    Raises:
        ZeroShotError: if the images or settings cannot be used; versions stay as they were
    """
    if _HISTORIES.find(ctx.panel.id) is None:
        _HISTORIES.put(ctx.panel.id, [])  # not what is shown, which becomes the first version
    current(ctx).add(lab_inputs.settings(ctx.panel.state))


def dataset(ctx) -> fo.Dataset | None:
    """The dataset of a session as it was last read, else as it is: reading it takes a while."""
    session = _SESSIONS.find(ctx.panel.id)
    if session is not None and session.source[0] == ctx.dataset_name:
        return session.lab.samples._dataset
    return ctx.dataset


def model(state) -> tuple[str | None, str | None]:
    """Model and weights, as ``zs.classify`` takes them."""
    given = {name: state.get(name) or None for name in params.MODEL_INPUTS}
    return params.model_and_weights(given)


def base(ctx):
    """The samples of the panel."""
    return targeting.build_view(ctx, ctx.panel.state.stages)


def _start(ctx, entries: list[dict[str, Any]]) -> Session:
    from zs_operators.prompt_lab import PromptLab

    source = _source(ctx)
    *_, name, weights, gt_field = source
    lab = PromptLab(base(ctx), model=name, weights=weights, gt_field=gt_field)
    for entry in entries:
        _score(lab, entry)
    return Session(source, lab, entries)


def _source(ctx) -> tuple:
    state = ctx.panel.state
    gt_field = None if state.gt_field in (None, lab_inputs.NO_FIELD) else state.gt_field
    return (ctx.dataset_name, state.stages, *model(state), gt_field)


def _score(lab: PromptLab, entry: dict[str, Any]) -> None:
    words = lab_inputs.vocabulary(entry, lab.samples)
    lab.score(words, **lab_inputs.limits(entry))
