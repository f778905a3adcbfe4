"""``@zs/operators/detect``: open-vocabulary detection, or names for boxes that exist."""

from __future__ import annotations

from types import MappingProxyType

import fiftyone.operators.types as types

from zs_operators.errors import SamplesError

from . import detect_form, detect_target, forms, model_form, outcomes, params, vocabulary_form
from .run_operator import RunOperator

#: Arguments of :func:`zs_operators.detect` that are passed on as they are.
ARGUMENTS = (
    *detect_form.OPTIONS,
    "label_field",
    "update_source",
    "region_embedding",
    "proposal_mode",
    "reject_label",
    "batch_size",
    "device",
    "precision",
    "workers",
    "overwrite",
    "resume",
    "on_error",
)
DEFAULT_LABEL_FIELD = "zs_detections"


class Detect(RunOperator):
    """Finds objects by the class names a person types, or names boxes that exist.

    Called on samples it is a function::

        detect = foo.get_operator("@zs/operators/detect")
        report = detect(view, classes=["cat", "dog"], label_field="pets")

    Executed with ``preview=True`` it stops after a few samples; the same call without it goes on
    with the rest.
    """

    task = "detect"
    label = "Detect objects by text"
    description = "Zero-shot detection: type class names, get boxes; or name boxes you have"
    title = "Detecting objects"
    icons = MappingProxyType(
        {"light_icon": "/assets/detect-light.svg", "dark_icon": "/assets/detect-dark.svg"}
    )

    def resolve_input(self, ctx):
        inputs = types.Object()
        samples = _target(inputs, ctx)
        if samples is not None:
            chosen = detect_target.chosen(ctx)
            regions = detect_form.where_to_look(inputs, ctx, chosen)
            vocabulary_form.class_names(inputs, ctx, samples)
            vocabulary_form.templates(inputs, ctx)
            vocabulary_form.preview(inputs, ctx, samples)
            model_form.model(inputs, ctx)
            if regions == detect_target.PROPOSALS:
                detect_form.proposer(inputs, ctx)
            detect_form.output(
                inputs,
                ctx,
                samples,
                regions,
                default=DEFAULT_LABEL_FIELD,
                is_restricted=detect_target.is_restricted(ctx, chosen),
            )
            detect_form.boxes(inputs, ctx, regions)
            model_form.performance(inputs)
            total = len(samples)
            detect_form.cost(inputs, ctx, chosen, regions, total)
            detect_form.preview(inputs, total)
        return types.Property(inputs, view=types.View(label=self.label))

    def start(self, ctx):
        import zs_operators as zs

        if ctx.dataset is None:
            raise SamplesError("There is no dataset: open one, or pass a dataset or a view.")
        chosen = detect_target.chosen(ctx)
        samples = detect_target.images(ctx, chosen)
        names_from = detect_target.with_all_fields(ctx, chosen)
        arguments = params.arguments(ctx.params, names_from, ARGUMENTS)
        values = params.flat(ctx.params)
        arguments["regions"] = detect_target.regions(ctx, chosen)
        proposals, weights = detect_form.proposals_and_weights(values)
        arguments.update({"proposals": proposals} if proposals else {})
        arguments.update({"proposal_weights": weights} if weights else {})
        if values.get("preview"):
            samples = samples.limit(detect_target.PREVIEW_SAMPLES)
        return zs.iter_detect(samples, arguments.pop("classes"), **arguments)

    def after(self, ctx):
        if ctx.params.get("preview"):
            shown = detect_target.with_all_fields(ctx, detect_target.chosen(ctx))
            yield ctx.ops.set_view(view=shown.limit(detect_target.PREVIEW_SAMPLES))
        elif ctx.params.get(detect_target.VIEW_BEFORE) is not None:
            before = detect_target.build_view(ctx, ctx.params[detect_target.VIEW_BEFORE])
            yield ctx.ops.set_view(view=before)

    def summarize(self, ctx, report):
        chosen = detect_target.chosen(ctx)
        samples = detect_target.with_all_fields(ctx, chosen)
        steps = []
        if ctx.params.get("preview"):
            rest = len(samples) - detect_target.PREVIEW_SAMPLES
            samples = samples.limit(detect_target.PREVIEW_SAMPLES)
            if rest > 0:
                steps.append(self._run_on_the_rest(ctx, chosen, rest))
        return outcomes.summary(report, samples, steps=steps)

    def _run_on_the_rest(self, ctx, chosen, rest: int) -> types.Button:
        regions = detect_target.regions(ctx, chosen)
        is_view_of_patches = detect_target.patches_field(chosen) is not None
        samples = chosen if is_view_of_patches else detect_target.images(ctx, chosen)
        return types.Button(
            label=f"Run on the other {rest:,}",
            description="The same settings on the samples that are left",
            operator=self.uri,
            params={
                **ctx.params,
                "preview": False,
                "regions": regions,
                detect_target.STAGES: detect_target.stages(samples),
                detect_target.VIEW_BEFORE: detect_target.stages(ctx.view),
            },
            variant="contained",
            space=4,
        )


def _target(inputs, ctx):
    if ctx.dataset is not None and ctx.params.get(detect_target.STAGES) is not None:
        return detect_target.with_all_fields(ctx, detect_target.chosen(ctx))
    return forms.target(
        inputs,
        ctx,
        "Detect objects in",
        labels_description="Name the selected boxes, or look in the samples that hold them",
        images=lambda samples: detect_target.with_all_fields(ctx, samples),
    )
