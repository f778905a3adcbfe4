"""Panel ``@zs/operators/zs_evaluation``: what an evaluation found, with everything it counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from zs_operators.errors import ZeroShotError

from . import evaluation_plots, forms
from .panel_memory import PanelMemory

if TYPE_CHECKING:
    from zs_operators.evaluation.report import EvaluationReport

EVALUATE = "@zs/operators/evaluate"
MODEL_EVALUATION = "model_evaluation_panel_builtin"

#: Keys of the evaluations that are shown
_CHOSEN: PanelMemory[str | None] = PanelMemory(64)


class EvaluationPanel(foo.Panel):
    """Confusion matrix, reliability and classes of an evaluation; what is clicked is shown."""

    @property
    def config(self):
        return foo.PanelConfig(
            name="zs_evaluation",
            label="Zero-shot evaluation",
            icon="fact_check",
            allow_multiple=False,
        )

    def on_load(self, ctx):
        self.look_again(ctx)

    def on_change_dataset(self, ctx):
        self.look_again(ctx)

    def look_again(self, ctx):
        """Lists the evaluations there are and shows the chosen one, or the latest."""
        from zs_operators.evaluation.records import list_evaluations

        state = ctx.panel.state
        state.message = ""
        keys = list_evaluations(ctx.dataset) if ctx.dataset is not None else []
        state.keys = keys
        chosen = _CHOSEN.get(ctx.panel.id, lambda: state.eval_key)
        if chosen not in keys:
            chosen = _CHOSEN.put(ctx.panel.id, keys[-1] if keys else None)
        state.eval_key = chosen
        if keys:
            self._try(ctx, self._choose)

    def choose(self, ctx):
        """Another evaluation was chosen."""
        _CHOSEN.put(ctx.panel.id, ctx.panel.state.eval_key)
        self._try(ctx, self._choose)

    def show_confusion(self, ctx):
        """A cell of the confusion was clicked."""
        pair = {"truth": ctx.params["y"], "label": ctx.params["x"]}
        self._try(ctx, lambda ctx: _show(ctx, "confused", **pair))

    def show_reliability(self, ctx):
        """A bar of the reliability plot was clicked."""
        self._try(ctx, self._show_reliability)

    def show_missed(self, ctx):
        """Of a class: what is of it and was not named so."""
        label = self._clicked_class(ctx)
        self._try(ctx, lambda ctx: _show(ctx, "confused", truth=label, label=_others()))

    def show_taken(self, ctx):
        """Of a class: what was given its name and is not of it."""
        label = self._clicked_class(ctx)
        self._try(ctx, lambda ctx: _show(ctx, "confused", truth=_others(), label=label))

    def show_kind(self, ctx):
        """One of the buttons of kinds of errors was clicked."""
        self._try(ctx, lambda ctx: _show(ctx, ctx.params["kind"]))

    def show_all(self, ctx):
        ctx.ops.clear_view()

    def save_views(self, ctx):
        """Keeps the error views with the dataset."""
        self._try(ctx, self._save_views)

    def evaluate(self, ctx):
        """Opens the form of the operator that evaluates."""
        ctx.prompt(EVALUATE, on_success=self.look_again)

    def open_model_evaluation(self, ctx):
        """Opens FiftyOne's own panel on the same evaluation."""
        key = ctx.panel.state.eval_key
        document = ctx.dataset._doc.evaluations[key]
        page = {"init": True, "page": "evaluation", "key": key, "id": str(document.id)}
        ctx.ops.open_panel(MODEL_EVALUATION, state={"view": page})

    def render(self, ctx):
        panel = types.Object()
        state = ctx.panel.state
        if not state.keys:
            panel.md(
                "Nothing was evaluated here yet. An evaluation compares a field of predictions "
                "with ground truth; without ground truth, tag what looks suspicious with the "
                "operator *Review zero-shot labels*.",
                name="nothing",
            )
        row = panel.h_stack("actions", gap=2, align_y="end")
        if state.keys:
            keys = types.DropdownView()
            for key in state.keys:
                keys.add_choice(key, label=key)
            row.enum(
                "eval_key",
                state.keys,
                label="Evaluation",
                default=state.eval_key,
                view=keys,
                on_change=self.choose,
            )
        row.btn("evaluate", label="Evaluate", on_click=self.evaluate, variant="contained")
        row.btn("look_again", label="Look again", on_click=self.look_again)
        if state.message:
            panel.view("message", types.Error(label=state.message))
        if state.keys and state.summary:
            self._results(panel, ctx)
        return types.Property(panel, view=types.ObjectView())

    def _results(self, panel, ctx):
        state = ctx.panel.state
        panel.md(state.summary, name="summary_text")
        row = panel.h_stack("kinds", gap=2)
        for kind, title in state.kinds:
            row.btn(f"kind_{kind}", label=title, on_click=self.show_kind, params={"kind": kind})
        row.btn("all", label="All", on_click=self.show_all)
        more = panel.h_stack("more", gap=2)
        more.btn("save_views", label="Save as views", on_click=self.save_views)
        more.btn("model_evaluation", label="Model evaluation", on_click=self.open_model_evaluation)
        parts = state.parts
        if "confusion" in parts:
            panel.plot(
                parts["confusion"],
                on_click=self.show_confusion,
                **evaluation_plots.layout(
                    "Confusion: click a cell to see its images",
                    420,
                    x="Prediction",
                    y="Ground truth",
                ),
            )
        if "reliability" in parts:
            panel.plot(
                parts["reliability"],
                on_click=self.show_reliability,
                **evaluation_plots.layout(
                    "Reliability: right labels by confidence",
                    280,
                    x="Confidence",
                    y="Right",
                ),
            )
        table = types.TableView()
        for name, label in (
            ("label", "Class"),
            ("support", "Truth"),
            ("predicted", "Said"),
            ("precision", "Precision"),
            ("recall", "Recall"),
            ("f1", "F1"),
        ):
            table.add_column(name, label=label)
        table.add_row_action(
            "missed", self.show_missed, label="Of this class, not named so", icon="visibility_off"
        )
        table.add_row_action(
            "taken", self.show_taken, label="Named so, not of this class", icon="visibility"
        )
        panel.list(parts["classes"], types.Object(), view=table)
        for index, warning in enumerate(state.warnings):
            panel.view(f"warning_{index}", types.Warning(label=forms.escaped(warning)))

    def _choose(self, ctx):
        report = _report(ctx)
        state = ctx.panel.state
        data = {"classes": evaluation_plots.rows(report)}
        if report.confusion is not None and report.kind != "segmentation":
            data["confusion"] = evaluation_plots.confusion(report)
        if report.reliability:
            data["reliability"] = evaluation_plots.reliability(report)
        # The App merges new data into old by index: another evaluation needs other names
        parts = {
            name: f"{name}_{evaluation_plots.size(part)}_{report.eval_key}"
            for name, part in data.items()
        }
        ctx.panel.set_data({parts[name]: part for name, part in data.items()})
        state.set(
            {
                "parts": parts,
                "summary": evaluation_plots.summary(report),
                "kinds": _kinds(ctx, report),
                "warnings": list(report.warnings),
            }
        )

    def _show_reliability(self, ctx):
        from zs_operators.analysis.confidence_views import confidence_view

        report = _report(ctx)
        chosen = report.reliability[int(ctx.params["idx"])]
        view = confidence_view(
            ctx.dataset,
            report.predictions,
            chosen.low,
            chosen.high,
            eval_key=report.eval_key,
        )
        _set_view(ctx, view)

    def _save_views(self, ctx):
        import zs_operators as zs

        saved = zs.save_error_views(ctx.dataset, eval_key=ctx.panel.state.eval_key, overwrite=True)
        ctx.ops.reload_dataset()
        ctx.ops.notify(f"Saved {len(saved.names)} views of errors", variant="success")

    def _clicked_class(self, ctx) -> str:
        return evaluation_plots.ranked(_report(ctx))[int(ctx.params["row"])].label

    def _try(self, ctx, act: Callable):
        if ctx.panel.state.message:
            ctx.panel.state.message = ""
        try:
            act(ctx)
        except ZeroShotError as error:
            ctx.panel.state.message = str(error)


def _report(ctx) -> EvaluationReport:
    from zs_operators.evaluation.records import load_evaluation

    return load_evaluation(ctx.dataset, ctx.panel.state.eval_key)


def _kinds(ctx, report: EvaluationReport) -> list[list[str]]:
    """Kinds of errors that can be found in these labels, with their titles."""
    from zs_operators.analysis.error_inputs import kinds_for
    from zs_operators.analysis.error_kinds import ERROR_KINDS

    found = kinds_for(ctx.dataset, report.predictions)
    return [[kind.value, ERROR_KINDS[kind].title] for kind in found]


def _others() -> str:
    from zs_operators.analysis.error_inputs import OTHERS

    return OTHERS


def _show(ctx, kind: str, **arguments: Any) -> None:
    import zs_operators as zs

    view = zs.error_view(ctx.dataset, kind, eval_key=ctx.panel.state.eval_key, **arguments)
    _set_view(ctx, view)


def _set_view(ctx, view) -> None:
    if not view.limit(1).values("id"):
        ctx.ops.notify("There are no such images", variant="info")
        return
    ctx.ops.set_view(view)
