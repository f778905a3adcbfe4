"""Panel ``@zs/operators/getting_started``: what is here, what can run, and where to begin."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import fiftyone.operators as foo
import fiftyone.operators.types as types

from zs_operators.checks import OK, Check

from . import forms, model_form
from .panel_memory import PanelMemory

#: What can be done, in the order of a first hour: operator, button, what for
STEPS = (
    ("classify", "Classify…", "one label an image, from class names you type"),
    ("detect", "Detect…", "boxes around what you name, or names for boxes you have"),
    ("segment", "Segment…", "masks: of what you name, of your boxes, or of everything"),
    ("review", "Review…", "tag the labels that are least sure, and look at them"),
    ("evaluate", "Evaluate…", "how right labels are, where there is ground truth"),
    ("few_shot", "Learn from a few…", "better labels from a handful of corrected ones"),
)
PANELS = MappingProxyType(
    {
        "prompt_lab": "Prompt Lab",
        "zs_runs": "Zero-shot runs",
        "zs_evaluation": "Zero-shot evaluation",
    }
)
KINDS = MappingProxyType({"clip": "Text and images", "proposals": "Boxes", "sam": "Masks"})
_NAMES_SHOWN = 8

#: By panel, so that an opening that ends late hides nothing
_CHECKS: PanelMemory[Sequence[Check]] = PanelMemory(64)


class GettingStarted(foo.Panel):
    """Opens the forms, and says what they could run with."""

    @property
    def config(self):
        return foo.PanelConfig(
            name="getting_started",
            label="Zero-shot: getting started",
            icon="rocket_launch",
            allow_multiple=False,
        )

    def on_load(self, ctx):
        """There is nothing to prepare."""

    def on_change_dataset(self, ctx):
        """What is written about the dataset changes: what the App is told after the call does."""

    def open_form(self, ctx):
        ctx.prompt(f"@zs/operators/{ctx.params['operator']}")

    def open_panel(self, ctx):
        ctx.ops.open_panel(ctx.params["panel"], is_active=True, layout="horizontal")

    def check(self, ctx):
        """Looks at all that ``zs doctor`` looks at, which takes some seconds."""
        from zs_operators.checks import check_all

        _CHECKS.put(ctx.panel.id, check_all())

    def render(self, ctx):
        panel = types.Object()
        panel.md(_dataset_line(ctx.dataset), name="about")
        if ctx.dataset is not None:
            self._steps(panel)
        panel.md(_models_text(), name="models")
        panel.md(f"**This machine** · {_machine_line()}", name="machine")
        panel.btn("check", label="Check the installation", on_click=self.check, icon="checklist")
        if checks := _CHECKS.find(ctx.panel.id):
            panel.md(_checks_text(checks), name="checks_text")
        return types.Property(panel, view=types.ObjectView())

    def _steps(self, panel):
        for name, label, what in STEPS:
            row = panel.h_stack(f"step_{name}", gap=2, align_y="center")
            params = {"operator": name}
            variant = "contained" if name == STEPS[0][0] else "outlined"
            row.btn(name, label=label, on_click=self.open_form, params=params, variant=variant)
            row.md(what, name=f"{name}_what")
        row = panel.h_stack("panels", gap=2)
        for name, label in PANELS.items():
            row.btn(name, label=label, on_click=self.open_panel, params={"panel": name})


def _dataset_line(dataset) -> str:
    if dataset is None:
        return (
            "Open a dataset first. To try it without one of your own, `zs demo` makes one of "
            "drawn shapes and labels it."
        )
    from zs_operators.samples import label_fields

    text = f"**{forms.escaped(dataset.name)}** · {len(dataset):,} samples"
    fields = label_fields(dataset)
    if not fields:
        return f"{text} · no labels yet: begin with *Classify…*, or look closer with *Detect…*"
    return f"{text} · labels in {forms.escaped(', '.join(fields))}"


def _models_text() -> str:
    """A line for each kind of model: those that are here, how many can be had, how many not."""
    from zs_operators.model_registry import models
    from zs_operators.model_state import model_state

    lines = ["**Models that are here**"]
    for kind, label in KINDS.items():
        found = [(entry.name, model_state(entry)) for entry in models(kind)]
        able = [(name, state.weights) for name, state in found if state.can_run]
        here = [name for name, weights in able if weights != "missing"]
        shown = ", ".join(here[:_NAMES_SHOWN]) or "none"
        if len(here) > _NAMES_SHOWN:
            shown += f" and {len(here) - _NAMES_SHOWN} more"
        if len(able) > len(here):
            shown += f"; downloaded when chosen: {len(able) - len(here)} more"
        if len(found) > len(able):
            shown += f"; need something first: {len(found) - len(able)}"
        lines.append(f"- {label}: {shown}")
    return "\n".join(lines) + "\n\n`zs models` lists all, with what they need."


def _machine_line() -> str:
    import fiftyone as fo

    from zs_operators.version import __version__

    names = {"cpu": "CPU", "cuda": "CUDA", "mps": "Apple GPU"}
    devices = [names[name] for name in model_form.devices() if name in names]
    return f"zs-operators {__version__} · FiftyOne {fo.__version__} · {', '.join(devices)}"


def _checks_text(checks: Sequence[Check]) -> str:
    """What is not as it should be, and what mends it; or that all is."""
    wrong = [check for check in checks if check.state != OK]
    if not wrong:
        return f"All {len(checks)} checks passed."
    lines = [f"{len(checks) - len(wrong)} of {len(checks)} checks passed."]
    for check in wrong:
        text = f"- **{check.name}** ({check.state}): {forms.escaped(check.detail)}"
        lines.append(f"{text}\n  `{check.remedy}`" if check.remedy else text)
    return "\n".join(lines)
