"""Operators on runs that are there: compare two, delete, export and import one."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from zs_operators.errors import InvalidInputError

from . import forms, run_inputs, running

if TYPE_CHECKING:
    from pathlib import Path

    from zs_operators.run_history import DeletedRun, RunComparison, StoredRun


class CompareRuns(foo.Operator):
    """Sets two runs side by side and shows what changed.

    Called, it is a function::

        compare = foo.get_operator("@zs/operators/compare_runs")
        comparison = compare(dataset, run_a="pets", run_b="pets_2")
    """

    @property
    def config(self):
        return foo.OperatorConfig(
            name="compare_runs",
            label="Compare two zero-shot runs",
            description="Which images changed between two runs, and from which class to which",
            icon="compare",
            dynamic=True,
            risk_level=types.RiskLevel.LOW,
        )

    def __call__(self, dataset, run_a: Any, run_b: Any, *, iou: float = 0.5) -> RunComparison:
        """See :func:`zs_operators.compare_runs`; runs by key, by label field, or as they are."""
        from zs_operators.run_history import compare_runs

        run_a, run_b = (run_inputs.resolved(dataset, run) for run in (run_a, run_b))
        return compare_runs(run_a, run_b, iou=iou)

    def resolve_input(self, ctx):
        inputs = types.Object()
        if run_inputs.choose(inputs, ctx, "run_a", "Run") or ctx.dataset is not None:
            run_inputs.choose(inputs, ctx, "run_b", "Compared with")
        inputs.float(
            "iou",
            default=0.5,
            min=0.01,
            max=1,
            label="Least overlap",
            description="Of boxes and masks that are the same object",
        )
        return types.Property(inputs, view=types.View(label="Compare two zero-shot runs"))

    def execute(self, ctx):
        names = ("run_a", "run_b")
        found = self(ctx.dataset, *(run_inputs.given(ctx, one) for one in names), iou=_iou(ctx))
        if running.is_app_request(ctx):
            if found.changed_ids:
                ctx.ops.set_view(found.view())
            else:
                ctx.ops.notify("No label has changed", variant="info")
        return {
            **found.to_dict(),
            "summary": run_inputs.summary(found),
            "differing": run_inputs.differences(found),
            "table": run_inputs.flips(found),
        }

    def resolve_output(self, ctx):
        outputs = types.Object()
        outputs.md(ctx.results.get("summary", ""), name="summary_text")
        if ctx.results.get("table"):
            outputs.list("table", types.Object(), view=run_inputs.flips_table())
        if ctx.results.get("differing"):
            outputs.md(ctx.results["differing"], name="differing_text")
        return types.Property(outputs, view=types.View(label="What changed"))


class DeleteRun(foo.Operator):
    """Forgets a run, and if asked what it wrote."""

    @property
    def config(self):
        return foo.OperatorConfig(
            name="delete_run",
            label="Delete a zero-shot run",
            description="Forget a run, and its labels if you wish",
            icon="delete",
            dynamic=True,
            risk_level=types.RiskLevel.HIGH,
        )

    def __call__(self, dataset, run: Any, *, fields: bool = False) -> DeletedRun:
        """See :func:`zs_operators.delete_run`; a run by key, by label field, or as it is."""
        from zs_operators.run_history import delete_run

        return delete_run(run_inputs.resolved(dataset, run), fields=fields)

    def resolve_input(self, ctx):
        inputs = types.Object()
        run = run_inputs.choose(inputs, ctx, "run", "Run")
        if run is not None:
            inputs.bool(
                "fields",
                default=False,
                label="Delete what it wrote too",
                description=_written(run),
                view=types.CheckboxView(),
            )
            inputs.view("warning", types.Warning(label="This cannot be undone"))
        prompt = types.PromptView(label="Delete a zero-shot run", submit_button_label="Delete")
        return types.Property(inputs, view=prompt)

    def execute(self, ctx):
        done = self(ctx.dataset, run_inputs.given(ctx), fields=bool(ctx.params.get("fields")))
        if running.is_app_request(ctx):
            ctx.ops.reload_dataset()
            ctx.ops.notify(str(done), variant="success")
        return {**vars(done), "fields": list(done.fields), "kept": list(done.kept)}


class ExportRun(foo.Operator):
    """Writes the record of a run to a JSON file, or hands it to the browser."""

    @property
    def config(self):
        return foo.OperatorConfig(
            name="export_run",
            label="Export a zero-shot run",
            description="The record of a run as JSON, to repeat it elsewhere",
            icon="download",
            dynamic=True,
            risk_level=types.RiskLevel.LOW,
        )

    def __call__(self, dataset, run: Any, path: Any, *, overwrite: bool = False) -> Path:
        """See :func:`zs_operators.export_run`; a run by key, by label field, or as it is."""
        from zs_operators.run_history import export_run

        return export_run(run_inputs.resolved(dataset, run), path, overwrite=overwrite)

    def resolve_input(self, ctx):
        inputs = types.Object()
        if run_inputs.choose(inputs, ctx, "run", "Run") is not None or ctx.dataset is not None:
            inputs.str(
                "path",
                label="File",
                description="On the machine of the App's server; empty: download it",
            )
        if ctx.params.get("path"):
            inputs.bool("overwrite", default=False, label="Replace the file if it exists")
        return types.Property(inputs, view=types.View(label="Export a zero-shot run"))

    def execute(self, ctx):
        run = run_inputs.given(ctx)
        path = ctx.params.get("path")
        if path:
            overwrite = bool(ctx.params.get("overwrite"))
            path = str(self(ctx.dataset, run, path, overwrite=overwrite))
            if running.is_app_request(ctx):
                ctx.ops.notify(f"Written to {path}", variant="success")
            return {"path": path}
        if not running.is_app_request(ctx):
            raise InvalidInputError("path is missing: name the file to write.")
        download(ctx, run)
        return {"path": None}


class ImportRun(foo.Operator):
    """Registers the record of a run that was exported."""

    @property
    def config(self):
        return foo.OperatorConfig(
            name="import_run",
            label="Import a zero-shot run",
            description="Register the record of a run that was exported, to repeat it here",
            icon="upload",
            dynamic=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def __call__(self, dataset, path: Any, *, overwrite: bool = False) -> StoredRun:
        """See :func:`zs_operators.import_run`."""
        from zs_operators.run_history import import_run

        return import_run(dataset, path, overwrite=overwrite)

    def resolve_input(self, ctx):
        inputs = types.Object()
        if ctx.dataset is None:
            forms.refuse(inputs, "file", "No dataset is open", "Open a dataset first.")
        inputs.define_property(
            "file",
            types.UploadedFile(),
            label="A .json of an exported run",
            view=types.FileView(max_size=16 * 2**20, types=".json"),
        )
        inputs.str("path", label="Or its path on the machine of the App's server")
        inputs.bool("overwrite", default=False, label="Replace a run of the same key")
        return types.Property(inputs, view=types.View(label="Import a zero-shot run"))

    def execute(self, ctx):
        if ctx.dataset is None:
            raise InvalidInputError("There is no dataset: open one, or pass one.")
        overwrite = bool(ctx.params.get("overwrite"))
        run = self(ctx.dataset, _import_source(ctx), overwrite=overwrite)
        if running.is_app_request(ctx):
            ctx.ops.notify(f"Imported {run.key}", variant="success")
        return {"run": run.key}


def download(ctx, run: StoredRun) -> None:
    """Hands the record of a run to the browser as a file."""
    from zs_operators.run_history import exported

    content = json.dumps(exported(run), indent=2, ensure_ascii=False).encode()
    encoded = base64.b64encode(content).decode()
    ctx.ops.browser_download(f"data:application/json;base64,{encoded}", f"{run.key}.json")


def _import_source(ctx) -> Any:
    if ctx.params.get("path"):
        return ctx.params["path"]
    uploaded = ctx.params.get("file") or {}
    if not uploaded.get("content"):
        raise InvalidInputError("Choose the .json of an exported run, or name its path.")
    try:
        return json.loads(base64.b64decode(uploaded["content"], validate=True))
    except ValueError as error:
        raise InvalidInputError(f"{uploaded.get('name', 'The file')} is not JSON.") from error


def _iou(ctx) -> float:
    value = ctx.params.get("iou")
    return 0.5 if value is None else float(value)


def _written(run: StoredRun) -> str:
    if run.task == "evaluate":
        return "FiftyOne's evaluation of that key is deleted in any case"
    where = f"Labels of {len(run.samples()):,} images in {run.label_field}"
    files = ", and their mask files" if run.record.get("output_dir") else ""
    return f"{where}{files}; labels that other runs or people wrote stay"
