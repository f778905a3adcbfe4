"""Ending a run after its current chunk: from its progress dialog, or wherever it runs."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from . import forms, run_inputs, running


class StopRun(foo.Operator):
    """``@zs/operators/stop_run``: stops a run of this server, of a queue or of a script.

    Called, it is a function::

        stop_run = foo.get_operator("@zs/operators/stop_run")
        stop_run(dataset, run="pets")
    """

    @property
    def config(self):
        return foo.OperatorConfig(
            name="stop_run",
            label="Stop a zero-shot run",
            description="After its current chunk; its labels so far are kept",
            icon="stop",
            dynamic=True,
            risk_level=types.RiskLevel.LOW,
        )

    def __call__(self, dataset, run: Any) -> bool:
        """See :func:`zs_operators.stop_run`; a run by key, by label field, or as it is."""
        from zs_operators.stopping import stop_run

        return stop_run(run_inputs.resolved(dataset, run))

    def resolve_input(self, ctx):
        inputs = types.Object()
        run = run_inputs.choose(inputs, ctx, "run", "Run", only=run_inputs.is_going_on)
        if run is not None and not run_inputs.is_going_on(run):
            forms.refuse(inputs, "run", "This run is over", f"Its state is {run.state}.")
        return types.Property(inputs, view=types.View(label="Stop a zero-shot run"))

    def execute(self, ctx):
        is_stopping = self(ctx.dataset, run_inputs.given(ctx))
        _notify(ctx, is_stopping)
        return {"stopping": is_stopping}


class StopShownRun(foo.Operator):
    """Behind the button of a progress dialog, which knows its run before there is a record."""

    @property
    def config(self):
        return foo.OperatorConfig(
            name="stop_shown_run",
            label="Stop this zero-shot run",
            unlisted=True,
            risk_level=types.RiskLevel.LOW,
        )

    def execute(self, ctx):
        _notify(ctx, running.request_stop(ctx.params.get("token", "")))


def _notify(ctx, is_stopping: bool) -> None:
    if is_stopping:
        ctx.ops.notify("Stopping after the current batch…")
    else:
        ctx.ops.notify("This run is already over", variant="warning")
