"""``@zs/operators/detect``: open-vocabulary detection, or names for boxes that exist."""

from __future__ import annotations

from types import MappingProxyType

import fiftyone.operators.types as types

from . import (
    detect_form,
    detect_target,
    detector_form,
    executor_form,
    head_form,
    model_form,
    params,
    preview,
    targeting,
    torch_model_form,
    vocabulary_form,
)
from .preview import PreviewOperator

#: Arguments of :func:`zs_operators.detect` that are passed on as they are.
ARGUMENTS = (
    *detect_form.OPTIONS,
    "label_field",
    "update_source",
    "region_embedding",
    "proposal_mode",
    "reject_label",
    "head",
    "embeddings",
    "executor",
    "batch_size",
    "device",
    "precision",
    "workers",
    "overwrite",
    "resume",
    "on_error",
)
DEFAULT_LABEL_FIELD = "zs_detections"


class Detect(PreviewOperator):
    """Finds objects by the class names a person types, or names boxes that exist.

    Called on samples it is a function::

        detect = foo.get_operator("@zs/operators/detect")
        report = detect(view, classes=["cat", "dog"], label_field="pets")

    Executed with ``preview=True`` it stops after a few samples; the same call without it goes on
    with the rest.
    """

    task = "detect"
    source_argument = "regions"
    label = "Detect objects by text"
    description = "Zero-shot detection: type class names, get boxes; or name boxes you have"
    title = "Detecting objects"
    icons = MappingProxyType(
        {"light_icon": "/assets/detect-light.svg", "dark_icon": "/assets/detect-dark.svg"}
    )

    def resolve_input(self, ctx):
        inputs = types.Object()
        samples = targeting.ask(
            inputs,
            ctx,
            "Detect objects in",
            labels_description="Name the selected boxes, or look in the samples that hold them",
        )
        if samples is not None:
            chosen = targeting.chosen(ctx)
            regions = detect_form.where_to_look(inputs, ctx, chosen)
            vocabulary_form.class_names(inputs, ctx, samples)
            vocabulary_form.templates(inputs, ctx)
            vocabulary_form.details(inputs)
            own = detector_form.own_templates(ctx)
            words = vocabulary_form.preview(inputs, ctx, samples, own_templates=own)
            vocabulary_form.save_as(inputs, ctx, samples, words)
            is_find = regions == detect_target.PROPOSALS
            plan = model_form.model(inputs, ctx, more=detector_form.CHOICE if is_find else None)
            is_other = is_find and detector_form.is_chosen(ctx)
            if is_other:
                detector_form.detector(inputs, ctx)
            else:
                head_form.head(inputs, ctx, samples, words, plan)
            if is_find and not is_other:
                torch_model_form.proposer(inputs, ctx)
            detect_form.output(
                inputs,
                ctx,
                samples,
                regions,
                default=DEFAULT_LABEL_FIELD,
                is_restricted=targeting.is_restricted(ctx, chosen),
            )
            detect_form.boxes(inputs, ctx, regions)
            performance = model_form.performance(inputs)
            executor_form.executor(performance)
            if not is_other:
                model_form.embeddings(performance, "About 1 kB a box that is scored")
            total = len(samples)
            detect_form.cost(inputs, ctx, chosen, regions, total)
            preview.offer(inputs, total, "boxes")
        return types.Property(inputs, view=types.View(label=self.label))

    def source(self, ctx, chosen):
        return detect_target.regions(ctx, chosen)

    def field(self, ctx, chosen):
        return detect_target.field(ctx, chosen)

    def start(self, ctx):
        import zs_operators as zs

        samples, names_from = self.samples(ctx)
        arguments = head_form.argument(params.arguments(ctx.params, names_from, ARGUMENTS))
        params.keep_vocabulary(ctx.params, names_from)
        arguments["regions"] = self.source(ctx, targeting.chosen(ctx))
        is_find = arguments["regions"] == detect_target.PROPOSALS
        other = detector_form.arguments(ctx.params) if is_find else {}
        arguments.update(
            other or torch_model_form.arguments(params.flat(ctx.params), torch_model_form.PROPOSER)
        )
        if ctx.params.get("model") == params.OTHER_DETECTOR:
            for hidden in ("embeddings", "head"):  # what was chosen for a CLIP before
                arguments.pop(hidden, None)
        return zs.iter_detect(samples, arguments.pop("classes"), **arguments)
