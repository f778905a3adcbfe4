"""Panel ``@zs/operators/zs_runs``: the runs of a dataset, what they did, and what changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import fiftyone.operators as foo
import fiftyone.operators.types as types

from zs_operators.errors import ZeroShotError

from . import forms, run_inputs, run_operators
from .panel_memory import PanelMemory

if TYPE_CHECKING:
    from zs_operators.run_history import RunComparison, StoredRun

PARTS = {"changed": "Changed", "only_a": "Only first", "only_b": "Only second"}

#: Keys of the run that is shown and of the one it is compared with
_CHOSEN: PanelMemory[dict[str, str | None]] = PanelMemory(64)
#: By panel and runs
_COMPARISONS: PanelMemory[RunComparison] = PanelMemory(4)


class RunsPanel(foo.Panel):
    """Lists runs; shows, compares, repeats, exports and deletes them."""

    @property
    def config(self):
        return foo.PanelConfig(
            name="zs_runs", label="Zero-shot runs", icon="history", allow_multiple=False
        )

    def on_load(self, ctx):
        self.refresh(ctx)

    def on_change_dataset(self, ctx):
        self.refresh(ctx)

    def refresh(self, ctx):
        """Reads what runs there are."""
        from zs_operators.run_history import runs

        state = ctx.panel.state
        if ctx.dataset is None:
            state.set({"titles": {}, "table": None, "parts": {}})
            return
        ctx.dataset.reload()  # another process may have run something
        found = runs(ctx.dataset)
        keys = [run.key for run in found]
        chosen = _chosen(ctx)
        if chosen["run"] not in keys:
            chosen["run"] = keys[0] if keys else None
        if chosen["other"] not in keys:
            chosen["other"] = None
        state.set(
            {
                "titles": {run.key: run_inputs.title(run) for run in found},
                # The App merges new data into old by index: another size needs another name
                "table": f"runs_{len(found)}",
                "message": "",
            }
        )
        ctx.panel.set_data({state.table: [run_inputs.row(run) for run in found]})
        self._try(ctx, self._show)

    def choose_row(self, ctx):
        """A row of the table was clicked."""
        self._choose(ctx, run=_key(ctx))

    def compare_row(self, ctx):
        """The button of a row was clicked."""
        self._choose(ctx, other=_key(ctx))

    def compare_none(self, ctx):
        self._choose(ctx, other=None)

    def show_samples(self, ctx):
        self._try(ctx, lambda ctx: _show_view(ctx, _run(ctx).samples()))

    def show_failed(self, ctx):
        self._try(ctx, lambda ctx: _show_view(ctx, _run(ctx).failed()))

    def show_all(self, ctx):
        ctx.ops.clear_view()

    def toggle_details(self, ctx):
        ctx.panel.state.is_open = not ctx.panel.state.is_open

    def show_part(self, ctx):
        """One of the buttons below a comparison was clicked."""
        part = ctx.params["part"]
        self._try(ctx, lambda ctx: _show_ids(ctx, _comparison(ctx), part=part))

    def show_flip(self, ctx):
        """A row of the changes was clicked."""
        row = int(ctx.params["row"])
        self._try(ctx, lambda ctx: _show_ids(ctx, found := _comparison(ctx), flip=found.flips[row]))

    def delete(self, ctx):
        """Asks before anything is deleted."""
        self._prompt(ctx, "delete_run")

    def rerun(self, ctx):
        self._prompt(ctx, "rerun")

    def import_run(self, ctx):
        ctx.prompt("@zs/operators/import_run", on_success=self.refresh)

    def stop(self, ctx):
        self._prompt(ctx, "stop_run")

    def export(self, ctx):
        self._try(ctx, lambda ctx: run_operators.download(ctx, _run(ctx)))

    def render(self, ctx):
        panel = types.Object()
        state = ctx.panel.state
        row = panel.h_stack("top", gap=2)
        row.btn("refresh", label="Refresh", on_click=self.refresh, icon="refresh")
        row.btn("import", label="Import…", on_click=self.import_run, icon="upload")
        if state.message:
            panel.view("message", types.Error(label=state.message))
        if not state.titles:
            panel.md("No zero-shot run has been made on this dataset yet.", name="nothing")
            return types.Property(panel, view=types.ObjectView())
        table = run_inputs.table(on_click_row=self.choose_row)
        for name, label in run_inputs.COLUMNS.items():
            table.add_column(name, label=label)
        table.add_row_action("compare", self.compare_row, tooltip="Compare with it", icon="compare")
        panel.list(state.table, types.Object(), view=table)
        self._one(panel, ctx)
        self._two(panel, ctx)
        return types.Property(panel, view=types.ObjectView())

    def _one(self, panel, ctx):
        # No dropdown: the App sends back late what inputs held before a row was clicked
        state = ctx.panel.state
        panel.md(f"**{forms.escaped(state.titles[state.run])}**", name="run_title")
        row = panel.h_stack("actions", gap=1)
        row.btn("samples", label="Samples", on_click=self.show_samples, variant="contained")
        if state.num_failed:
            label = f"Failed ({state.num_failed:,})"
            row.btn("failed", label=label, on_click=self.show_failed)
        row.btn("all", label="All", on_click=self.show_all)
        if state.is_going_on:
            row.btn("stop", label="Stop…", on_click=self.stop)
        row.btn("details", label="Details", on_click=self.toggle_details)
        row.btn("rerun", label="Again…", on_click=self.rerun)
        row.btn("export", label="Export", on_click=self.export)
        row.btn("delete", label="Delete…", on_click=self.delete)
        if state.is_open:
            panel.md(state.details, name="details_text")

    def _two(self, panel, ctx):
        state = ctx.panel.state
        if not state.summary:
            return
        other = forms.escaped(state.titles[state.other])
        panel.md(f"Compared with **{other}**\n\n{state.summary}", name="summary_text")
        row = panel.h_stack("comparison", gap=1)
        for part, label in PARTS.items():
            count = state.parts.get(part, 0)
            if count or part == "changed":
                row.btn(
                    part,
                    label=f"{label} ({count:,})",
                    on_click=self.show_part,
                    params={"part": part},
                )
        row.btn("none", label="Stop comparing", on_click=self.compare_none)
        if state.flips:
            table = run_inputs.flips_table(on_click_row=self.show_flip)
            table.add_row_action("show", self.show_flip, tooltip="Show images", icon="visibility")
            panel.list(state.flips, types.Object(), view=table)
        if state.differing:
            panel.md(f"Settings that differ:\n\n{state.differing}", name="differing_text")

    def _choose(self, ctx, **chosen):
        _chosen(ctx).update(chosen)
        self._try(ctx, self._show)

    def _show(self, ctx):
        chosen = _chosen(ctx)
        shown = {**chosen, "summary": "", "flips": None, "differing": "", "parts": {}}
        if chosen["run"]:
            run = _run(ctx)
            shown |= {
                "details": run_inputs.details(run),
                "num_failed": run.num_failed,
                "is_going_on": run_inputs.is_going_on(run),
            }
        try:
            if chosen["run"] and chosen["other"] not in (None, chosen["run"]):
                shown |= self._compared(ctx)
        finally:
            ctx.panel.state.set(shown)

    def _compared(self, ctx) -> dict:
        found = _comparison(ctx)
        flips = run_inputs.flips(found)
        name = f"flips_{len(flips)}"
        if flips:
            ctx.panel.set_data({name: flips})
        return {
            "summary": run_inputs.summary(found),
            "flips": name if flips else None,
            "differing": run_inputs.differences(found),
            "parts": {part: len(found.ids(part)) for part in PARTS},
        }

    def _prompt(self, ctx, name: str) -> None:
        given = {"run": _chosen(ctx)["run"]}
        ctx.prompt(f"@zs/operators/{name}", params=given, on_success=self.refresh)

    def _try(self, ctx, act: Callable) -> None:
        if ctx.panel.state.message:
            ctx.panel.state.message = ""
        try:
            act(ctx)
        except ZeroShotError as error:
            ctx.panel.state.message = str(error)


def _run(ctx, name: str = "run") -> StoredRun:
    from zs_operators.run_history import load_run

    return load_run(ctx.dataset, _chosen(ctx)[name])


def _chosen(ctx) -> dict[str, str | None]:
    """The run that is shown and the one it is compared with; from the App where they were lost."""
    state = ctx.panel.state
    return _CHOSEN.get(ctx.panel.id, lambda: {"run": state.run, "other": state.other})


def _key(ctx) -> str:
    """The run of the row that was clicked."""
    return list(ctx.panel.state.titles)[int(ctx.params["row"])]


def _comparison(ctx) -> RunComparison:
    """The comparison of the two chosen runs."""
    from zs_operators.run_history import compare_runs

    runs = (_run(ctx), _run(ctx, "other"))
    key = (ctx.panel.id, ctx.dataset.name, *((one.key, one.record.get("started")) for one in runs))
    return _COMPARISONS.get(key, lambda: compare_runs(*runs))


def _show_ids(ctx, found: RunComparison, **which) -> None:
    if not found.ids(**which):
        ctx.ops.notify("There are no such images", variant="info")
        return
    ctx.ops.set_view(found.view(**which))


def _show_view(ctx, view) -> None:
    if not view.limit(1).values("id"):
        ctx.ops.notify("There are no such images", variant="info")
        return
    ctx.ops.set_view(view)
