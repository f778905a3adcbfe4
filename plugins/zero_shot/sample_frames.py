"""``@zs/operators/sample_frames``: frames of videos as images, for all other operators."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import fiftyone.operators.types as types

from zs_operators.errors import SamplesError

from . import forms
from .run_operator import RunOperator

DEFAULT_RATE = 1.0


class SampleFrames(RunOperator):
    """Reads frames of videos, and shows them.

    Called on videos it is a function::

        sample_frames = foo.get_operator("@zs/operators/sample_frames")
        frames = sample_frames(videos, frames_per_second=1)
    """

    task = "sample_frames"
    label = "Sample frames of videos"
    description = "Frames of videos as images that can be labelled"
    title = "Reading videos"
    icons = MappingProxyType({"icon": "video_library"})
    preparing = "opening the videos…"
    kept = "Frames that were read stay; run again with the same settings to go on"
    remembers = False

    def __call__(
        self,
        samples,
        frames_per_second: float = DEFAULT_RATE,
        *,
        delegate: bool = False,
        **more: Any,
    ):
        """See :func:`zs_operators.sample_frames`; with ``delegate=True`` the id of a queued run."""
        return self.call(samples, delegate=delegate, frames_per_second=frames_per_second, **more)

    def resolve_placement(self, ctx):
        return None

    def resolve_input(self, ctx):
        inputs = types.Object()
        if ctx.dataset is None:
            forms.refuse(inputs, "target", "No dataset is open", "Open a dataset first.")
        else:
            inputs.view_target(ctx, action_description="Sample frames of")
            videos = _videos(ctx)
            if videos.media_type == "video":
                self._ask(inputs, ctx, videos)
            else:
                forms.refuse(
                    inputs, "target", "These samples are no videos", "Only videos have frames."
                )
        return types.Property(inputs, view=types.View(label=self.label))

    def _ask(self, inputs: types.Object, ctx, videos) -> None:
        inputs.float(
            "frames_per_second",
            default=DEFAULT_RATE,
            min=0.001,
            label="Frames per second",
            description="How many frames of a second of video to take; 0.2 is one in five seconds",
        )
        inputs.str(
            "frames_dir",
            label="Folder for their images",
            description="On the machine that runs this. Empty: <video>_frames beside each video",
        )
        count = _expected(videos, ctx.params.get("frames_per_second") or DEFAULT_RATE)
        if count:
            inputs.view("count", types.Notice(label=f"About {count:,} frames"))

    def start(self, ctx):
        from zs_operators.video_frames import iter_sample_frames

        if ctx.dataset is None:
            raise SamplesError("There is no dataset: open one, or pass a dataset or a view.")
        rate = ctx.params.get("frames_per_second")
        folder = ctx.params.get("frames_dir")
        rate = DEFAULT_RATE if rate is None else rate
        return iter_sample_frames(_videos(ctx), rate, folder or None)

    def after(self, ctx, report):
        yield ctx.ops.set_view(view=report.view)

    def summarize(self, ctx, report):
        outputs = types.Object()
        found = report.to_dict()
        view = types.Warning if found["warnings"] else types.Success
        outputs.view(
            "headline",
            view(
                label=f"{found['frames']:,} frames",
                description="The view shows them: classify, detect or segment them as images.",
            ),
        )
        for index, warning in enumerate(found["warnings"]):
            outputs.view(f"warning_{index}", types.Warning(label=forms.escaped(warning)))
        return types.Property(outputs), {}


def _videos(ctx):
    """The samples the person chose; of a grouped dataset those of the slice that is shown."""
    samples = ctx.target_view()
    if samples.media_type == "group":
        return samples.select_group_slices(ctx.group_slice or samples.group_slice)
    return samples


def _expected(videos, frames_per_second: float) -> int:
    """How many frames there will be; 0 where not all videos say how long they are."""
    lengths = videos.values("metadata.duration")
    if not lengths or None in lengths or not frames_per_second > 0:
        return 0
    return sum(max(1, round(length * frames_per_second)) for length in lengths)
