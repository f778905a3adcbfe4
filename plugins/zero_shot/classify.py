"""``@zs/operators/classify``: zero-shot classification of images, from the App or a script."""

from __future__ import annotations

import fiftyone.operators as foo
import fiftyone.operators.types as types

from zs_operators.errors import InvalidInputError, SamplesError

from . import forms, model_form, outcomes, params, running, vocabulary_form

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
    "batch_size",
    "device",
    "precision",
    "workers",
    "overwrite",
    "resume",
    "on_error",
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
LABEL = "Classify images by text"
ICONS = {"light_icon": "/assets/icon-light.svg", "dark_icon": "/assets/icon-dark.svg"}


class Classify(foo.Operator):
    """Labels images with the class names a person types.

    Called on samples it is a function::

        classify = foo.get_operator("@zs/operators/classify")
        report = classify(view, classes=["cat", "dog"], label_field="pets")
    """

    @property
    def config(self):
        return foo.OperatorConfig(
            name="classify",
            label=LABEL,
            description="Zero-shot classification with CLIP: type class names, get labels",
            **ICONS,
            dynamic=True,
            execute_as_generator=True,
            allow_immediate_execution=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def __call__(self, samples, classes, *, delegate=False, **arguments):
        """Classifies ``samples`` now, or queues the run.

        Works in scripts and in notebooks, where an event loop is already running.

        Args:
            samples: a dataset or view
            classes: see :func:`zs_operators.classify`
            delegate (False): queue the run for ``fiftyone delegated launch`` instead; then every
                argument must be plain JSON
            **arguments: further arguments of :func:`zs_operators.classify`

        Returns:
            a :class:`zs_operators.RunReport`, or the id of the queued operation

        Raises:
            InvalidInputError: if an argument cannot be used
        """
        if not delegate:
            import zs_operators as zs

            return zs.classify(samples, classes, **arguments)
        return running.delegate(self.uri, samples, {"classes": classes, **arguments})

    def resolve_placement(self, ctx):
        return types.Placement(
            types.Places.SAMPLES_GRID_SECONDARY_ACTIONS,
            # The App reads a button's own icons in its JavaScript spelling
            types.Button(
                label=LABEL,
                prompt=True,
                icon=ICONS["dark_icon"],
                darkIcon=ICONS["dark_icon"],
                lightIcon=ICONS["light_icon"],
            ),
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        samples = forms.target(inputs, ctx, "Classify")
        if samples is not None:
            vocabulary_form.class_names(inputs, ctx, samples)
            vocabulary_form.templates(inputs, ctx)
            vocabulary_form.preview(inputs, ctx, samples)
            model_form.model(inputs, ctx)
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
            model_form.performance(inputs)
        return types.Property(inputs, view=types.View(label=LABEL))

    # A coroutine, because FiftyOne gives a plain execute() called from a script ten minutes and
    # then leaves it running in a thread
    async def execute(self, ctx):
        if not running.is_app_request(ctx):
            return running.run_through(ctx, lambda: self._start(ctx))
        return running.stream(
            ctx,
            lambda: self._start(ctx),
            title="Classifying images",
            summarize=lambda report: outcomes.summary(report, forms.targeted(ctx)),
        )

    def resolve_output(self, ctx):
        return None

    def _start(self, ctx):
        import zs_operators as zs

        if ctx.dataset is None:
            raise SamplesError("There is no dataset: open one, or pass a dataset or a view.")
        samples = forms.targeted(ctx)
        arguments = params.arguments(ctx.params, samples, ARGUMENTS)
        return zs.iter_classify(samples, arguments.pop("classes"), **arguments)


def _label_type(ctx) -> str | None:
    from zs_operators.classifier import ClassifyOptions

    values = params.flat(ctx.params)
    try:
        options = ClassifyOptions(**{name: values[name] for name in OPTIONS if name in values})
    except InvalidInputError:
        return None
    return "Classifications" if options.is_list else "Classification"
