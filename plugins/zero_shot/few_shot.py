"""``@zs/operators/few_shot``: labelled samples sharpen the classes; a head that runs can take."""

from __future__ import annotations

from types import MappingProxyType

import fiftyone.operators.types as types

from zs_operators.errors import SamplesError

from . import few_shot_form, model_form, params, targeting, vocabulary_form
from .run_operator import RunOperator

#: Arguments of :func:`zs_operators.fit_head` that are passed on as they are.
ARGUMENTS = (
    "ground_truth",
    "name",
    "method",
    "region_embedding",
    "embeddings",
    "batch_size",
    "device",
    "precision",
    "workers",
    "overwrite",
)


class FewShot(RunOperator):
    """Fits a head on labelled samples and saves it with the dataset.

    Called on samples it is a function::

        few_shot = foo.get_operator("@zs/operators/few_shot")
        head = few_shot(view, ["cat", "dog"], "ground_truth", name="pets")
    """

    task = "few_shot"
    label = "Sharpen with labelled samples"
    description = "Learn from a few labelled images or boxes what class names alone do not say"
    title = "Learning from labelled samples"
    icons = MappingProxyType(
        {"light_icon": "/assets/few-shot-light.svg", "dark_icon": "/assets/few-shot-dark.svg"}
    )
    kept = "Embeddings that were computed are kept; the head is not."

    def __call__(self, samples, classes, ground_truth, *, delegate: bool = False, **arguments):
        """Fits now, or queues it.

        Args:
            samples, classes, ground_truth: see :func:`zs_operators.fit_head`
            delegate (False): queue it for ``fiftyone delegated launch`` instead; then every
                argument must be plain JSON
            **arguments: further arguments of :func:`zs_operators.fit_head`

        Returns:
            a :class:`zs_operators.Head`, or the id of the queued operation

        Raises:
            InvalidInputError: if an argument cannot be used
        """
        if delegate:
            named = {"classes": classes, "ground_truth": ground_truth}
            return self.call(samples, delegate=True, **named, **arguments)
        import zs_operators as zs

        return zs.fit_head(samples, classes, ground_truth, **arguments)

    def resolve_input(self, ctx):
        inputs = types.Object()
        samples = targeting.ask(
            inputs,
            ctx,
            "Learn from",
            labels_description="Learn from the selected boxes, or the samples that hold them",
        )
        if samples is not None and few_shot_form.ground_truth(inputs, ctx, samples):
            vocabulary_form.class_names(inputs, ctx, samples)
            vocabulary_form.templates(inputs, ctx)
            vocabulary_form.details(inputs)
            words = vocabulary_form.preview(inputs, ctx, samples)
            few_shot_form.background(inputs)
            few_shot_form.shots(inputs, ctx, targeting.chosen(ctx), words)
            model_form.model(inputs, ctx)
            few_shot_form.method(inputs)
            few_shot_form.name(inputs, ctx, samples)
            model_form.performance(inputs)
        return types.Property(inputs, view=types.View(label=self.label))

    def start(self, ctx):
        import zs_operators as zs

        if ctx.dataset is None:
            raise SamplesError("There is no dataset: open one, or pass a dataset or a view.")
        chosen = targeting.chosen(ctx)
        found = params.arguments(
            {**few_shot_form.defaults(chosen), **ctx.params},
            targeting.with_all_fields(ctx, chosen),
            ARGUMENTS,
        )
        samples = targeting.images(ctx, chosen, found["ground_truth"])
        return _report(zs.iter_fit_head(samples, found.pop("classes"), **found))

    def summarize(self, ctx, report):
        return few_shot_form.summary(report)


def _report(steps):
    """The same steps, with the report of the head for a result."""
    head = yield from steps
    return head.report
