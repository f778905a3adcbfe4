"""``@zs/operators/rerun``: a run again from its record, live in the App, delegated or called."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from zs_operators.errors import ZeroShotError

from . import forms, outcomes, run_inputs, running, targeting
from .run_operator import RunOperator

#: What is no argument of the run's function; a script may pass any that is.
_NO_ARGUMENTS = ("run", "samples", "progress", "delegation_target", targeting.STAGES)


class Rerun(RunOperator):
    """Does again what a run did.

    Called, it is a function::

        rerun = foo.get_operator("@zs/operators/rerun")
        report = rerun(dataset, run="pets", label_field="pets_2", min_margin=0.5)
    """

    task = "rerun"
    label = "Run a zero-shot run again"
    description = "From its record alone: the samples that came since, or all of them anew"
    title = "Running again"
    remembers = False  # all it does is what a run did

    @property
    def config(self):
        return foo.OperatorConfig(
            name=self.task,
            label=self.label,
            description=self.description,
            icon="replay",
            dynamic=True,
            execute_as_generator=True,
            allow_immediate_execution=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def __call__(self, samples, run: Any, *, delegate: bool = False, **changes: Any):
        """See :func:`zs_operators.rerun`.

        Args:
            samples: a view to process, or the dataset for what the run was given
            run: by key, by label field, or as it is
            delegate (False): queue it for ``fiftyone delegated launch`` instead
            **changes: other arguments than those of the run

        Returns:
            the report, or the id of the queued operation
        """
        from zs_operators.run_history import rerun

        found = run_inputs.resolved(samples, run)
        if delegate:
            chosen = _samples(samples)
            stages = {} if chosen is None else {targeting.STAGES: targeting.stages(chosen)}
            return running.delegate(self.uri, samples, {"run": found.key, **stages, **changes})
        return rerun(found, _samples(samples), **changes)

    def resolve_placement(self, ctx):
        return None

    def resolve_input(self, ctx):
        inputs = types.Object()
        run = run_inputs.choose(inputs, ctx, "run", "Run")
        if run is not None:
            inputs.md(run_inputs.details(run), name="details_text")
            is_evaluation = run.task == "evaluate"
            inputs.str(
                _target(run),
                label="Evaluation key" if is_evaluation else "Label field",
                default=run.label_field,
                description=""
                if is_evaluation
                else "The same one does only images that it has not done yet",
            )
            inputs.bool(
                "overwrite",
                default=False,
                label="Evaluate anew" if is_evaluation else "Compute all labels anew",
                description="Replaces what is there"
                if is_evaluation
                else "Replaces those in the field, corrected ones too",
                view=types.CheckboxView(),
            )
            self._check(inputs, ctx, run)
        return types.Property(inputs, view=types.View(label=self.label))

    def start(self, ctx):
        from zs_operators.run_history import iter_rerun

        changes = {name: value for name, value in ctx.params.items() if name not in _NO_ARGUMENTS}
        run = run_inputs.given(ctx)
        return iter_rerun(run, _view_of(ctx), **_changes(run, changes))

    def summarize(self, ctx, report):
        if not hasattr(report, "num_failed"):
            outputs = types.Object()
            outputs.str("report", default=str(report), view=types.CodeView(read_only=True))
            return types.Property(outputs), {}
        from zs_operators.run_history.repetition import samples_of

        return outcomes.summary(report, _view_of(ctx) or samples_of(run_inputs.given(ctx)))

    def _check(self, inputs, ctx, run) -> None:
        """Says before anything is loaded why a run cannot be repeated."""
        from zs_operators.run_history.repetition import check_repeatable

        try:
            check_repeatable(run)
        except ZeroShotError as error:
            forms.refuse(inputs, "run", "This run cannot be repeated", str(error))


def _changes(run, given: dict[str, Any]) -> dict[str, Any]:
    """Arguments for the engine of what a form or a script gave."""
    changes = {name: value for name, value in given.items() if value is not None and value != ""}
    if changes.get(_target(run)) == run.label_field:
        del changes[_target(run)]
    if changes.get("overwrite"):
        if run.task != "evaluate":
            changes.setdefault("resume", False)
    else:
        changes.pop("overwrite", None)
    return changes


def _view_of(ctx):
    """The view a script has passed, if any; what the App shows is not meant."""
    if ctx.params.get(targeting.STAGES) is not None:
        return targeting.build_view(ctx, ctx.params[targeting.STAGES])
    return None if running.is_app_request(ctx) or ctx.delegated else _samples(ctx.view)


def _target(run) -> str:
    """The argument that names what is written."""
    return "eval_key" if run.task == "evaluate" else "label_field"


def _samples(samples):
    """None for a whole dataset: then the run's own samples are meant."""
    import fiftyone as fo

    if samples is None or isinstance(samples, fo.Dataset):
        return None
    return samples if samples._stages else None
