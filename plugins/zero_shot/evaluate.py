"""``@zs/operators/evaluate``: labels against ground truth, from the App or a script."""

from __future__ import annotations

from types import MappingProxyType

import fiftyone.operators as foo
import fiftyone.operators.types as types

from zs_operators.errors import SamplesError

from . import evaluate_form, evaluate_summary, forms
from .run_operator import RunOperator

MODEL_EVALUATION = "model_evaluation_panel_builtin"


class Evaluate(RunOperator):
    """Compares the labels of a field with ground truth.

    Called on samples it is a function::

        evaluate = foo.get_operator("@zs/operators/evaluate")
        report = evaluate(view, "zs_classification", "ground_truth", eval_key="first")
    """

    task = "evaluate"
    label = "Evaluate labels"
    description = "Compare labels with ground truth: accuracy, confusions, calibration, names"
    title = "Evaluating labels"
    icons = MappingProxyType(
        {"light_icon": "/assets/evaluate-light.svg", "dark_icon": "/assets/evaluate-dark.svg"}
    )
    preparing = "comparing names…"
    kept = "Nothing of an evaluation that is stopped is kept."

    def __call__(
        self, samples, predictions, ground_truth, *, eval_key, delegate: bool = False, **arguments
    ):
        """Evaluates now, or queues the evaluation.

        Args:
            samples, predictions, ground_truth, eval_key: see :func:`zs_operators.evaluate`
            delegate (False): queue it for ``fiftyone delegated launch`` instead; then every
                argument must be plain JSON
            **arguments: further arguments of :func:`zs_operators.evaluate`

        Returns:
            a :class:`zs_operators.EvaluationReport`, or the id of the queued operation

        Raises:
            InvalidInputError: if an argument cannot be used
        """
        named = {"predictions": predictions, "ground_truth": ground_truth, "eval_key": eval_key}
        return self.call(samples, delegate=delegate, **named, **arguments)

    def resolve_input(self, ctx):
        inputs = types.Object()
        samples = forms.target(
            inputs,
            ctx,
            "Evaluate",
            labels_description="Evaluate the samples that hold the selected labels",
        )
        if samples is not None:
            evaluate_form.fill(inputs, ctx, samples)
        return types.Property(inputs, view=types.View(label=self.label))

    def start(self, ctx):
        import zs_operators as zs

        if ctx.dataset is None:
            raise SamplesError("There is no dataset: open one, or pass a dataset or a view.")
        samples = forms.targeted(ctx)
        return zs.iter_evaluate(samples, **evaluate_form.arguments(ctx.params, samples))

    def summarize(self, ctx, report):
        return evaluate_summary.summary(report)


class OpenEvaluation(foo.Operator):
    """Opens the App's Model Evaluation panel on an evaluation."""

    @property
    def config(self):
        return foo.OperatorConfig(
            name="open_evaluation",
            label="Open an evaluation",
            unlisted=True,
            risk_level=types.RiskLevel.LOW,
        )

    def execute(self, ctx):
        eval_key = ctx.params["eval_key"]
        if not ctx.dataset.has_evaluation(eval_key):
            ctx.ops.notify(f"Evaluation {eval_key} is no longer there", variant="warning")
            return
        # A panel that is open already would only come to the front, with what it shows
        ctx.ops.open_panel(
            MODEL_EVALUATION,
            layout="horizontal",
            force=True,
            force_duplicate=True,
            state={"state": panel_state(ctx, eval_key)},
        )


def panel_state(ctx, eval_key: str) -> dict:
    """State in which the panel shows one evaluation, instead of the list of all."""
    eval_id = str(ctx.dataset._doc.evaluations[eval_key].id)
    return {"view": {"init": True, "page": "evaluation", "key": eval_key, "id": eval_id}}
