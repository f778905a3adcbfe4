"""Panel ``@zs/operators/prompt_lab``: other words for the classes, and what they do, at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import fiftyone.operators as foo
import fiftyone.operators.types as types

from zs_operators.errors import ZeroShotError

from . import lab_inputs, lab_plots, lab_sessions, params, targeting

if TYPE_CHECKING:
    from zs_operators.prompt_lab import PromptLab

_SHOWN = 24
CLASSIFY = "@zs/operators/classify"
DEFAULT_LABEL_FIELD = "zs_classification"
DEFAULT_SCORE = "margin"
LISTS = {"least": "least_certain", "most": "most_certain"}


class PromptLabPanel(foo.Panel):
    """Edits class names and shows, from stored embeddings, what labels they would give."""

    @property
    def config(self):
        return foo.PanelConfig(
            name="prompt_lab", label="Prompt Lab", icon="science", allow_multiple=False
        )

    def on_load(self, ctx):
        if not lab_sessions.put_back(ctx):  # the App opens it twice, and may end late
            self.use_view(ctx)

    def use_view(self, ctx):
        """Works on what the App shows now."""
        from zs_operators.prompt_lab import embedded_models

        state = ctx.panel.state
        lab_sessions.forget(ctx)
        if ctx.dataset is None:
            state.set({"message": "", "models": {}})
            return
        found = embedded_models(ctx.view)
        chosen = state.model
        if chosen not in found and chosen != params.CUSTOM_MODEL:
            chosen = next(iter(found), None)
        state.set(
            {
                "message": "",
                "stages": targeting.stages(ctx.view),
                "models": found,
                "model": chosen,
            }
        )
        if state.words:
            self.update(ctx)

    def on_change_dataset(self, ctx):
        ctx.panel.state.set({"words": "", "kept": None})
        self.use_view(ctx)

    def fold(self, ctx):
        """Shows or hides one of the parts that are hidden at first."""
        state, part = ctx.panel.state, ctx.params["part"]
        state.set(f"is_{part}_open", not state.get(f"is_{part}_open"))

    def redraw(self, ctx):
        """Another input decides what is shown: what the App is told after every call is enough."""

    def update(self, ctx):
        """Scores the words as they are now."""
        self._try(ctx, self._update)

    def change_source(self, ctx):
        """Another model or ground truth: the same words again, without the versions before."""
        lab_sessions.keep_last(ctx)
        ctx.panel.state.message = ""

    def undo(self, ctx):
        self._try(ctx, self._undo)

    def forget(self, ctx):
        """Leaves what lines cannot say of the loaded classes."""
        state = ctx.panel.state
        entry = {**lab_inputs.settings(state), "kept": None}
        entry.pop("roll_up", None)  # without parents there is nothing to roll up to
        state.set(lab_inputs.restore(entry, state))

    def load(self, ctx):
        self._try(ctx, self._load)

    def save(self, ctx):
        self._try(ctx, self._save)

    def write(self, ctx):
        self._try(ctx, self._write)

    def embed(self, ctx):
        """Opens the form of the operator that stores embeddings."""
        words = ctx.panel.state.words or ""
        ctx.prompt(
            CLASSIFY,
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
        version, score = _lab(ctx).version, _score(ctx)
        _, edges = version.distribution(score, lab_plots.BINS)
        low, high = edges[_index(ctx)], edges[_index(ctx) + 1]
        _show_ids(ctx, version.ids_between(score, float(low), float(high)))

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
            ctx.ops.set_view(lab_sessions.base(ctx))
        elif name == "changed":
            _show_ids(ctx, version.changed_ids)
        else:
            _show_ids(ctx, getattr(version, LISTS[name])(_SHOWN))

    def render(self, ctx):
        panel = types.Object()
        dataset, state = lab_sessions.dataset(ctx), ctx.panel.state
        if dataset is None:
            panel.md("Open a dataset first.", name="nothing")
            return _page(panel)
        lab_inputs.source(panel, dataset, state, self.change_source)
        if not state.model:
            self._embedding(panel)
            return _page(panel)
        lab_inputs.words(panel, state, self.forget)
        lab_inputs.folds(panel, state, self.fold)
        lab_inputs.more(panel, state, self.redraw)
        lab_inputs.saved(panel, dataset, state, self.load, self.save)
        versions = lab_sessions.history(ctx)
        row = panel.h_stack("actions", gap=2)
        row.btn("update", label="Update", on_click=self.update, variant="contained")
        row.btn("undo", label="Undo", on_click=self.undo, disabled=len(versions) < 2)
        row.btn("use_view", label="Use the current view", on_click=self.use_view)
        message, lab = state.message, None
        if versions:
            try:
                lab = _lab(ctx)
            except ZeroShotError as error:
                message = str(error)
        if message:
            panel.view("message", types.Error(label=message))
        if lab is not None:
            self._results(panel, ctx, lab)
        return _page(panel)

    def _embedding(self, panel):
        panel.md(
            "No embeddings of these images are stored yet, or none of a model of the list. "
            "Embedding them takes one pass; after that, words change in moments.",
            name="nothing",
        )
        row = panel.h_stack("start", gap=2)
        row.btn("embed", label="Embed this view", on_click=self.embed, variant="contained")
        row.btn("look_again", label="Look again", on_click=self.use_view)

    def _results(self, panel, ctx, lab: PromptLab):
        version, score = lab.version, _score(ctx)
        panel.md(_summary(lab), name="summary")
        row = panel.h_stack("lists", gap=2)
        for name, label in (
            ("least", "Least certain"),
            ("most", "Most certain"),
            ("changed", f"Changed ({len(version.changed_ids):,})"),
            ("all", "All"),
        ):
            row.btn(name, label=label, on_click=self.show_list, params={"list": name})
        # Data as part of the page: what is sent on its own is drawn on its own, and merged by index
        self._plot(panel, "labels", lab_plots.labels(version), self.show_label, "Labels")
        scores = types.DropdownView(space=6)
        for name, label in lab_plots.SCORES.items():
            scores.add_choice(name, label=label)
        panel.enum(
            "score",
            scores.values(),
            label="Score shown",
            default=DEFAULT_SCORE,
            view=scores,
            on_change=self.redraw,
        )
        bars = lab_plots.scores(version, score)
        self._plot(panel, "scores", bars, self.show_scores, lab_plots.SCORES[score])
        if lab.gt_field is not None:
            cells = lab_plots.confusion(version)
            title = "Ground truth and label"
            self._plot(panel, "confusion", cells, self.show_confusion, title, 420)
        if pairs := version.stealing():
            table = types.TableView()
            table.add_column("labels", label="Steal from each other")
            table.add_column("close", label="Close images")
            table.add_column("share", label="Of both")
            table.add_row_action("show", self.show_stealing, label="Show", icon="visibility")
            panel.list("stealing", types.Object(), view=table, default=lab_plots.stealing(pairs))
        if never := lab_plots.never(version):
            panel.md(never, name="never")
        panel.str("label_field", label="Label field", default=DEFAULT_LABEL_FIELD)
        panel.bool("overwrite", label="Replace the labels that are there", default=False)
        panel.btn("write", label="Write labels", on_click=self.write, variant="contained")

    def _plot(self, panel, name, data, on_click, title: str, height: int = 280):
        layout = lab_plots.layout(title, height)
        panel.plot(name, data=data, on_click=on_click, **layout)

    def _update(self, ctx):
        lab_sessions.add(ctx)

    def _undo(self, ctx):
        state = ctx.panel.state
        state.set(lab_inputs.restore(lab_sessions.current(ctx).undo(), state))

    def _load(self, ctx):
        from zs_operators.saved_vocabularies import load_vocabulary

        state = ctx.panel.state
        name = state.get("saved.name") or ""
        entry = lab_inputs.loaded(load_vocabulary(ctx.dataset, name))
        state.set({**lab_inputs.restore(entry, state), "saved.save_as": name})
        self._update(ctx)

    def _save(self, ctx):
        from zs_operators.saved_vocabularies import save_vocabulary

        state = ctx.panel.state
        saved = save_vocabulary(
            ctx.dataset,
            (state.get("saved.save_as") or "").strip(),
            lab_inputs.vocabulary(lab_inputs.settings(state), ctx.dataset),
            overwrite=bool(state.get("saved.replace")),
        )
        count = len(saved.classes)
        ctx.ops.notify(f"{count:,} classes saved with the dataset", variant="success")

    def _write(self, ctx):
        """Runs the operator that writes such labels, with its progress, summary and run."""
        from zs_operators.fields import check_label_field

        state, version = ctx.panel.state, _lab(ctx).version
        label_field = state.label_field or DEFAULT_LABEL_FIELD
        overwrite = bool(state.overwrite)
        view = lab_sessions.base(ctx)
        check_label_field(
            view, label_field, "classify", overwrite=overwrite, label_type="Classification"
        )
        model, weights = lab_sessions.model(state)
        ctx.trigger(
            CLASSIFY,
            {
                "classes": version.vocabulary.to_dict(),
                **version.limits,
                targeting.STAGES: state.stages,
                "model": model,
                "weights": weights,
                "embeddings": "reuse",
                "label_field": label_field,
                "overwrite": overwrite,
            },
        )

    def _try(self, ctx, act: Callable):
        state = ctx.panel.state
        if state.message:
            state.message = ""
        try:
            act(ctx)
        except ZeroShotError as error:
            state.message = str(error)


def _lab(ctx) -> PromptLab:
    return lab_sessions.current(ctx).lab


def _score(ctx) -> str:
    return ctx.panel.state.score or DEFAULT_SCORE


def _show_ids(ctx, ids: list[str]) -> None:
    if not ids:
        ctx.ops.notify("There are no such images", variant="info")
        return
    ctx.ops.set_view(lab_sessions.base(ctx).select(ids, ordered=True))


def _index(ctx) -> int:
    return int(ctx.params["idx"])


def _summary(lab: PromptLab) -> str:
    version, number = lab.version, len(lab.versions)
    parts = [f"**Version {number}**", f"{len(version.ids):,} images"]
    parts.append(f"{len(version.vocabulary.labels):,} classes")
    if lab.gt_field is not None:
        parts.append(f"**{version.confusion().accuracy:.1%} right**")
    if number > 1:
        parts.append(f"{len(version.changed_ids):,} changed")
    if lab.num_missing:
        parts.append(f"{lab.num_missing:,} images without embedding left out")
    return " · ".join(parts)


def _page(panel) -> types.Property:
    return types.Property(panel, view=types.ObjectView())
