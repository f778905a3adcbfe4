"""``@zs/operators/segment``: masks from boxes, keypoints, class names or nothing."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import fiftyone.operators.types as types

from . import (
    detect_form,
    executor_form,
    model_form,
    params,
    preview,
    segment_form,
    segment_target,
    targeting,
    torch_model_form,
)
from .preview import PreviewOperator

#: Arguments of :func:`zs_operators.segment` that are passed on as they are.
ARGUMENTS = (
    *segment_form.OPTIONS,
    *detect_form.OPTIONS,
    "label_field",
    "region_embedding",
    "proposal_mode",
    "output_dir",
    "semantic_field",
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
DEFAULT_LABEL_FIELD = "zs_masks"


class Segment(PreviewOperator):
    """Turns boxes, keypoints, class names or a grid of points into masks.

    Called on samples it is a function::

        segment = foo.get_operator("@zs/operators/segment")
        report = segment(view, prompts="ground_truth", label_field="masks")

    Executed with ``preview=True`` it stops after a few samples; the same call without it goes on
    with the rest.
    """

    task = "segment"
    source_argument = "prompts"
    label = "Segment objects"
    description = "Masks with SAM: from boxes, keypoints, class names, or everything there is"
    title = "Segmenting objects"
    icons = MappingProxyType(
        {"light_icon": "/assets/segment-light.svg", "dark_icon": "/assets/segment-dark.svg"}
    )

    def __call__(self, samples, classes=None, *, delegate: bool = False, **arguments: Any):
        """Runs on ``samples`` now, or queues the run.

        Args:
            samples: a dataset or view
            classes (None): see :func:`zs_operators.segment`
            delegate (False): queue the run; then every argument must be plain JSON
            **arguments: further arguments of :func:`zs_operators.segment`

        Returns:
            a :class:`zs_operators.RunReport`, or the id of the queued operation

        Raises:
            InvalidInputError: if an argument cannot be used
        """
        if classes is not None:
            arguments["classes"] = classes
        return self.call(samples, delegate=delegate, **arguments)

    def resolve_input(self, ctx):
        inputs = types.Object()
        samples = targeting.ask(
            inputs,
            ctx,
            "Segment objects in",
            labels_description="Segment the selected labels, or the samples that hold them",
        )
        if samples is not None:
            chosen = targeting.chosen(ctx)
            total = len(samples)
            prompts = segment_form.prompts(inputs, ctx, chosen)
            is_naming = segment_form.names(inputs, ctx, samples, prompts)
            segment_form.models(inputs, ctx, prompts, is_naming=is_naming)
            segment_form.output(
                inputs,
                ctx,
                samples,
                prompts,
                default=DEFAULT_LABEL_FIELD,
                is_restricted=targeting.is_restricted(ctx, chosen),
            )
            segment_form.naming(inputs, ctx, prompts, is_naming=is_naming)
            segment_form.masks(inputs, ctx, prompts)
            segment_form.storage(
                inputs, ctx, samples, prompts, default=DEFAULT_LABEL_FIELD, is_naming=is_naming
            )
            executor_form.executor(model_form.performance(inputs))
            segment_form.cost(inputs, ctx, chosen, prompts, total, is_naming=is_naming)
            preview.offer(inputs, total, "masks")
        return types.Property(inputs, view=types.View(label=self.label))

    def source(self, ctx, chosen):
        return segment_target.prompts(ctx, chosen)

    def field(self, ctx, chosen):
        return segment_target.field(ctx, chosen)

    def start(self, ctx):
        import zs_operators as zs
        from zs_operators.region_fields import images_of

        samples, names_from = self.samples(ctx)
        chosen = targeting.chosen(ctx)
        prompts = self.source(ctx, chosen)
        images_of(chosen, prompts, argument="prompts")  # refuses patches of another field
        values = segment_target.values(ctx.params, prompts)
        arguments = {name: values[name] for name in ARGUMENTS if name in values}
        arguments.update(torch_model_form.arguments(values, torch_model_form.SAM))
        if segment_target.is_naming(ctx.params, prompts):
            found = params.vocabulary_arguments(values, names_from, params.CLIP_INPUTS)
            arguments.update({name: value for name, value in found.items() if value is not None})
            arguments.update(torch_model_form.arguments(values, torch_model_form.PROPOSER))
            params.keep_vocabulary(values, names_from)
        return zs.iter_segment(samples, prompts=prompts, **arguments)
