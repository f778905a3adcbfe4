"""``@zs/operators/classify``: zero-shot classification of images, from the App or a script."""

from __future__ import annotations

from types import MappingProxyType

import fiftyone.operators.types as types

from zs_operators.errors import InvalidInputError, SamplesError

from . import (
    executor_form,
    forms,
    head_form,
    model_form,
    outcomes,
    params,
    targeting,
    vocabulary_form,
)
from .run_operator import RunOperator

#: Arguments of :func:`zs_operators.classify` that a form or a script may set besides the classes.
ARGUMENTS = (
    "label_field",
    "top_k",
    "multi_label",
    "min_confidence",
    "min_margin",
    "min_cosine",
    "reject_label",
    "temperature",
    "store_logits",
    "head",
    "batch_size",
    "device",
    "precision",
    "workers",
    "overwrite",
    "resume",
    "on_error",
    "embeddings",
    "executor",
)
OPTIONS = (
    "top_k",
    "multi_label",
    "min_confidence",
    "min_margin",
    "min_cosine",
    "temperature",
    "store_logits",
)
DEFAULT_LABEL_FIELD = "zs_classification"


class Classify(RunOperator):
    """Labels images with the class names a person types.

    Called on samples it is a function::

        classify = foo.get_operator("@zs/operators/classify")
        report = classify(view, classes=["cat", "dog"], label_field="pets")
    """

    task = "classify"
    label = "Classify images by text"
    description = "Zero-shot classification with CLIP: type class names, get labels"
    title = "Classifying images"
    icons = MappingProxyType(
        {"light_icon": "/assets/icon-light.svg", "dark_icon": "/assets/icon-dark.svg"}
    )

    def resolve_input(self, ctx):
        inputs = types.Object()
        samples = forms.target(inputs, ctx, "Classify")
        if samples is not None:
            vocabulary_form.class_names(inputs, ctx, samples)
            vocabulary_form.templates(inputs, ctx)
            vocabulary_form.details(inputs)
            words = vocabulary_form.preview(inputs, ctx, samples)
            vocabulary_form.save_as(inputs, ctx, samples, words)
            plan = model_form.model(inputs, ctx)
            head_form.head(inputs, ctx, samples, words, plan)
            forms.label_field(
                inputs,
                ctx,
                samples,
                task="classify",
                default=DEFAULT_LABEL_FIELD,
                label_type=_label_type(ctx),
            )
            forms.rejection(inputs)
            forms.classification_output(inputs)
            performance = model_form.performance(inputs)
            executor_form.executor(performance)
            model_form.embeddings(performance, "About 1 kB an image")
        return types.Property(inputs, view=types.View(label=self.label))

    def start(self, ctx):
        import zs_operators as zs

        if ctx.dataset is None:
            raise SamplesError("There is no dataset: open one, or pass a dataset or a view.")
        samples = targeting.chosen(ctx)
        arguments = head_form.argument(params.arguments(ctx.params, samples, ARGUMENTS))
        params.keep_vocabulary(ctx.params, samples)
        return zs.iter_classify(samples, arguments.pop("classes"), **arguments)

    def summarize(self, ctx, report):
        return outcomes.summary(report, targeting.chosen(ctx))


def _label_type(ctx) -> str | None:
    from zs_operators.classifier import ClassifyOptions

    values = params.flat(ctx.params)
    try:
        options = ClassifyOptions(**{name: values[name] for name in OPTIONS if name in values})
    except InvalidInputError:
        return None
    return "Classifications" if options.is_list else "Classification"
