"""Panel ``@zs/operators/prompt_lab``: other words for the classes, and what they do, at once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

import fiftyone.operators as foo
import fiftyone.operators.types as types

from zs_operators.errors import ZeroShotError

from . import lab_plots, params, targeting

if TYPE_CHECKING:
    from zs_operators.prompt_lab import PromptLab
    from zs_operators.prompt_versions import LabVersion

#: Sessions by panel and by what they work on; they start again from the panel's own history
_LABS: OrderedDict[tuple, PromptLab] = OrderedDict()
_MAX_LABS = 4
_SHOWN = 24
NO_FIELD = "(none)"
DEFAULT_LABEL_FIELD = "zs_classification"
LISTS = {"least": "least_certain", "most": "most_certain"}


class PromptLabPanel(foo.Panel):
    """Edits class names and shows, from stored embeddings, what labels they would give."""

    @property
    def config(self):
        return foo.PanelConfig(
            name="prompt_lab", label="Prompt Lab", icon="science", allow_multiple=False
        )

    def on_load(self, ctx):
        self.use_view(ctx)

    def use_view(self, ctx):
        """Works on what the App shows now."""
        from zs_operators.prompt_lab import embedded_models

        state = ctx.panel.state
        state.history = []
        state.message = ""
        if ctx.dataset is None:
            state.models = {}
            return
        state.stages = targeting.stages(ctx.view)
        found = embedded_models(ctx.view)
        state.models = found
        if found and state.model not in found:
            state.model = next(iter(found))
        if state.words:
            self.update(ctx)

    def on_change_dataset(self, ctx):
        ctx.panel.state.words = ""
        self.use_view(ctx)

    def update(self, ctx):
        """Scores the words as they are now."""
        self._try(ctx, self._update)

    def change_source(self, ctx):
        """Another model or ground truth: the same words again, without the versions before."""
        state = ctx.panel.state
        state.history = state.history[-1:] if state.history else []
        if state.history:
            self._try(ctx, lambda ctx: self._show(ctx, _lab(ctx), state.history))

    def undo(self, ctx):
        self._try(ctx, self._undo)

    def write(self, ctx):
        self._try(ctx, self._write)

    def embed(self, ctx):
        """Opens the form of the operator that stores embeddings."""
        words = ctx.panel.state.words or ""
        ctx.prompt(
            "@zs/operators/classify",
            params={"class_names": words, "embeddings": "reuse"},
            on_success=self.use_view,
        )

    def show_label(self, ctx):
        """A bar of labels was clicked."""
        version = _lab(ctx).version
        label = (*version.vocabulary.labels, None)[_index(ctx)]
        _show_ids(ctx, version.ids_of(label))

    def show_scores(self, ctx):
        """A bar of the distribution was clicked."""
        version = _lab(ctx).version
        _, edges = version.distribution("margin", lab_plots.BINS)
        low, high = edges[_index(ctx)], edges[_index(ctx) + 1]
        _show_ids(ctx, version.ids_between("margin", float(low), float(high)))

    def show_confusion(self, ctx):
        """A cell of the confusion was clicked."""
        version = _lab(ctx).version
        labels = {lab_plots.name_of(label): label for label in (*version.vocabulary.labels, None)}
        label = labels[ctx.params["x"]]
        _show_ids(ctx, version.ids_of(label, truth=ctx.params["y"]))

    def show_stealing(self, ctx):
        """A row of the suggestions was clicked."""
        version = _lab(ctx).version
        pair = version.stealing()[int(ctx.params["row"])]
        _show_ids(ctx, version.ids_between_labels(*pair.labels))

    def show_list(self, ctx):
        """One of the buttons that show images was clicked."""
        version, name = _lab(ctx).version, ctx.params["list"]
        if name == "all":
            ctx.ops.set_view(_base(ctx))
        elif name == "changed":
            _show_ids(ctx, version.changed_ids)
        else:
            _show_ids(ctx, getattr(version, LISTS[name])(_SHOWN))

    def render(self, ctx):
        panel = types.Object()
        state = ctx.panel.state
        if not state.models:
            panel.md(
                "No embeddings of these images are stored yet, or none of a model of the list. "
                "Embedding them takes one pass; after that, words change in moments.",
                name="nothing",
            )
            row = panel.h_stack("start", gap=2)
            row.btn("embed", label="Embed this view", on_click=self.embed, variant="contained")
            row.btn("look_again", label="Look again", on_click=self.use_view)
            return _page(panel)
        self._inputs(panel, ctx)
        if state.message:
            panel.view("message", types.Error(label=state.message))
        if state.summary and state.history:
            self._results(panel, ctx)
        return _page(panel)

    def _inputs(self, panel, ctx):
        from zs_operators.samples import label_fields

        state = ctx.panel.state
        schema = ctx.dataset.get_field_schema()
        truths = [
            name
            for name in label_fields(ctx.dataset)
            if schema[name].document_type.__name__ == "Classification"
        ]
        models = types.DropdownView()
        for name, count in state.models.items():
            models.add_choice(name, label=f"{name} · {count:,} images")
        _choice(panel, "model", models, "Model", self.change_source, state.model)
        fields = types.DropdownView()
        for name in (NO_FIELD, *truths):
            fields.add_choice(name, label=name)
        _choice(panel, "gt_field", fields, "Ground truth", self.change_source, NO_FIELD)
        panel.str(
            "words",
            label="Class names",
            description="One class a line. Other names to encode follow a colon: car: car, sedan",
            view=types.TextFieldView(multiline=True, rows=8),
        )
        row = panel.h_stack("actions", gap=2)
        row.btn("update", label="Update", on_click=self.update, variant="contained")
        row.btn("undo", label="Undo", on_click=self.undo, disabled=len(state.history or ()) < 2)
        row.btn("use_view", label="Use the current view", on_click=self.use_view)

    def _results(self, panel, ctx):
        state = ctx.panel.state
        panel.md(state.summary, name="summary_text")
        row = panel.h_stack("lists", gap=2)
        for name, label in (
            ("least", "Least certain"),
            ("most", "Most certain"),
            ("changed", f"Changed ({state.changed:,})"),
            ("all", "All"),
        ):
            row.btn(name, label=label, on_click=self.show_list, params={"list": name})
        for name, on_click, layout in (
            ("labels", self.show_label, lab_plots.layout("Labels")),
            ("margins", self.show_scores, lab_plots.layout("Lead of the label (logits)")),
            ("confusion", self.show_confusion, lab_plots.layout("Ground truth and label", 420)),
        ):
            if name in state.parts:
                panel.plot(state.parts[name], on_click=on_click, **layout)
        if "stealing" in state.parts:
            table = types.TableView()
            table.add_column("labels", label="Steal from each other")
            table.add_column("close", label="Close images")
            table.add_column("share", label="Of both")
            table.add_row_action("show", self.show_stealing, label="Show", icon="visibility")
            panel.list(state.parts["stealing"], types.Object(), view=table)
        if state.never:
            panel.md(state.never, name="never_text")
        panel.str("label_field", label="Label field", default=DEFAULT_LABEL_FIELD)
        panel.bool("overwrite", label="Replace the labels that are there", default=False)
        panel.btn("write", label="Write labels", on_click=self.write, variant="contained")

    def _update(self, ctx):
        state = ctx.panel.state
        lab = _lab(ctx)
        lab.score(params.classes({"class_names": state.words or ""}, lab.samples))
        self._show(ctx, lab, [*(state.history or []), state.words])

    def _undo(self, ctx):
        state = ctx.panel.state
        lab = _lab(ctx)
        lab.undo()
        history = state.history[:-1]
        state.words = history[-1]
        self._show(ctx, lab, history)

    def _write(self, ctx):
        state = ctx.panel.state
        report = _lab(ctx).write(
            state.label_field or DEFAULT_LABEL_FIELD,
            overwrite=bool(state.overwrite),
            progress=False,
        )
        ctx.ops.reload_dataset()
        labelled = report.counts.get("labeled", 0) + report.counts.get("rejected", 0)
        ctx.ops.notify(f"{labelled:,} labels written to {report.label_field}", variant="success")

    def _show(self, ctx, lab: PromptLab, history: list[str]):
        """Puts the current version into the panel, and the words of all versions."""
        version, state = lab.version, ctx.panel.state
        data = {"labels": lab_plots.labels(version), "margins": lab_plots.margins(version)}
        if lab.gt_field is not None:
            data["confusion"] = lab_plots.confusion(version)
        if stealing := version.stealing():
            data["stealing"] = lab_plots.stealing(stealing)
        # The App merges new data into old by index: another size needs another name
        parts = {name: f"{name}_{lab_plots.size(part)}" for name, part in data.items()}
        # The App draws the panel again after each message, so one for all
        ctx.panel.set_data({parts[name]: part for name, part in data.items()})
        state.set(
            {
                "history": history,
                "parts": parts,
                "changed": len(version.changed_ids),
                "never": lab_plots.never(version),
                "summary": _summary(lab, version, len(history)),
            }
        )

    def _try(self, ctx, act: Callable):
        if ctx.panel.state.message:
            ctx.panel.state.message = ""
        try:
            act(ctx)
        except ZeroShotError as error:
            ctx.panel.state.message = str(error)


def _lab(ctx) -> PromptLab:
    """The session of this panel, which has a version for each entry of its history."""
    from zs_operators.prompt_lab import PromptLab

    state = ctx.panel.state
    gt_field = None if state.gt_field in (None, NO_FIELD) else state.gt_field
    key = (ctx.panel.id, ctx.dataset.name, state.stages, state.model, gt_field)
    history = state.history or []
    lab = _LABS.pop(key, None)
    if lab is None or len(lab.versions) != len(history):
        if lab is None:
            lab = PromptLab(_base(ctx), model=state.model, gt_field=gt_field)
        lab.versions.clear()
        for words in history:
            lab.score(params.classes({"class_names": words}, lab.samples))
    _LABS[key] = lab
    while len(_LABS) > _MAX_LABS:
        _LABS.popitem(last=False)
    return lab


def _base(ctx):
    return targeting.build_view(ctx, ctx.panel.state.stages)


def _show_ids(ctx, ids: list[str]) -> None:
    if not ids:
        ctx.ops.notify("There are no such images", variant="info")
        return
    ctx.ops.set_view(_base(ctx).select(ids, ordered=True))


def _index(ctx) -> int:
    return int(ctx.params["idx"])


def _summary(lab: PromptLab, version: LabVersion, number: int) -> str:
    parts = [f"**Version {number}**", f"{len(version.ids):,} images"]
    parts.append(f"{len(version.vocabulary.labels):,} classes")
    if lab.gt_field is not None:
        parts.append(f"**{version.confusion().accuracy:.1%} right**")
    if number > 1:
        parts.append(f"{len(version.changed_ids):,} changed")
    if lab.num_missing:
        parts.append(f"{lab.num_missing:,} images without embedding left out")
    return " · ".join(parts)


def _choice(panel, name: str, view, label: str, on_change: Callable, default: str | None) -> None:
    panel.enum(name, view.values(), label=label, default=default, view=view, on_change=on_change)


def _page(panel) -> types.Property:
    return types.Property(panel, view=types.ObjectView())
