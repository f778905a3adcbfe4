"""What the operators have in common that try their settings on a few samples first."""

from __future__ import annotations

import fiftyone.operators.types as types

from zs_operators.errors import SamplesError

from . import outcomes, running, targeting
from .run_operator import RunOperator

#: A preview runs on at most this many samples.
SAMPLES = 8

#: The App's view before a preview changed it.
VIEW_BEFORE = "view_before"


def offer(inputs: types.Object, total: int, shown: str) -> None:
    """Offers to run on a few samples first, where there are more.

    Args:
        inputs: the form
        total: number of images
        shown: what the preview shows, for people: ``"boxes"``
    """
    if total > SAMPLES:
        inputs.bool(
            "preview",
            default=False,
            label=f"Try on {SAMPLES} samples first",
            description=f"Shows their {shown}; the rest can then be run from the summary",
            view=types.CheckboxView(),
        )


class PreviewOperator(RunOperator):
    """Works on whole images or on labels of a field, all of them or a few samples first.

    Subclasses define :meth:`source` and :meth:`field` besides what their base asks for.

    Attributes:
        source_argument: the engine's argument that says what of an image is worked on
    """

    source_argument: str

    def source(self, ctx, chosen) -> str:
        """Value of :attr:`source_argument` for what the person chose."""
        raise NotImplementedError

    def field(self, ctx, chosen) -> str | None:
        """The field whose labels are worked on; None where whole images are."""
        raise NotImplementedError

    def samples(self, ctx):
        """The images to process, and the same with all of their labels.

        Raises:
            SamplesError: if no dataset is open
        """
        if ctx.dataset is None:
            raise SamplesError("There is no dataset: open one, or pass a dataset or a view.")
        chosen = targeting.chosen(ctx)
        samples = targeting.images(ctx, chosen, self.field(ctx, chosen))
        if ctx.params.get("preview"):
            samples = samples.limit(SAMPLES)
        return samples, targeting.with_all_fields(ctx, chosen)

    def after(self, ctx, report):
        if ctx.params.get("preview"):
            shown = targeting.with_all_fields(ctx, targeting.chosen(ctx))
            yield ctx.ops.set_view(view=shown.limit(SAMPLES))
        elif ctx.params.get(VIEW_BEFORE) is not None:
            yield ctx.ops.set_view(view=targeting.build_view(ctx, ctx.params[VIEW_BEFORE]))

    def summarize(self, ctx, report):
        chosen = targeting.chosen(ctx)
        samples = targeting.with_all_fields(ctx, chosen)
        steps = []
        if ctx.params.get("preview"):
            rest = len(samples) - SAMPLES
            samples = samples.limit(SAMPLES)
            if rest > 0:
                steps.append(self._run_on_the_rest(ctx, chosen, rest, report.images_per_second))
        return outcomes.summary(report, samples, steps=steps)

    def _run_on_the_rest(self, ctx, chosen, rest: int, images_per_second: float) -> types.Button:
        if targeting.patches_field(chosen) is None:
            samples = targeting.images(ctx, chosen, self.field(ctx, chosen))
        else:
            samples = chosen
        description = "The same settings on the samples that are left"
        if images_per_second > 0:
            left = running.duration(rest / images_per_second)
            description += f", about {left} at the speed of this preview"
        return types.Button(
            label=f"Run on the other {rest:,}",
            description=description,
            operator=self.uri,
            params={
                **ctx.params,
                "preview": False,
                self.source_argument: self.source(ctx, chosen),
                targeting.STAGES: targeting.stages(samples),
                VIEW_BEFORE: targeting.stages(ctx.view),
            },
            variant="contained",
            space=4,
        )
