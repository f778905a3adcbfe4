"""Grouped datasets and videos as collections of single images, which is what all tasks label."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from zs_operators.errors import InvalidInputError, SamplesError
from zs_operators.report import Progress, RunReport

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

#: Value of ``group_slice`` that stands for all slices of images.
ALL_SLICES = "all"

FRAMES = "frames."
_SLICE_MEDIA = ("image", "video")
# These may name a field of frames as datasets of videos do, with "frames." before it
_FIELDS = ("label_field", "regions", "prompts", "semantic_field", "classes")


def labels_images(
    task: Callable[..., Generator[Progress, None, RunReport]],
) -> Callable[..., Generator[Progress, None, RunReport]]:
    """Decorates a task, which then also takes grouped datasets and videos.

    What it gets is a flat view of images. Its new arguments are ``group_slice``,
    ``frames_per_second`` and ``frames_dir``; see :func:`slices_of` and
    :func:`zs_operators.video_frames.frames_of`. They are not among its recorded parameters: the
    view that is recorded has them as its stages.
    """

    @functools.wraps(task)
    def with_media(
        samples: SampleCollection,
        *args: Any,
        group_slice: str | Sequence[str] | None = None,
        frames_per_second: float | None = None,
        frames_dir: str | os.PathLike | None = None,
        **kwargs: Any,
    ) -> Generator[Progress, None, RunReport]:
        # A wrong argument is an error of this call
        bound = signature.bind(samples, *args, **kwargs)

        def steps() -> Generator[Progress, None, RunReport]:
            from zs_operators.video_frames import frames_of

            slices = slices_of(samples, group_slice)
            images, warnings = yield from frames_of(slices, frames_per_second, frames_dir)
            bound.arguments[first] = images
            if is_frames(images):
                bound.arguments.update(without_prefix(bound.arguments))
            report = yield from task(*bound.args, **bound.kwargs)
            return _with_warnings(images, report, warnings) if warnings else report

        return steps()

    signature = inspect.signature(task)
    first, *_ = signature.parameters
    own = inspect.signature(with_media, follow_wrapped=False).parameters
    new = [own[name] for name in ("group_slice", "frames_per_second", "frames_dir")]
    *named, last = signature.parameters.values()
    others = [*named, *new, last] if last.kind is last.VAR_KEYWORD else [*named, last, *new]
    with_media.__signature__ = signature.replace(parameters=others)
    return with_media


def is_frames(samples: SampleCollection) -> bool:
    """Whether these are frames of videos, as FiftyOne's views of frames have them."""
    return bool(getattr(samples, "_is_frames", False))


def without_prefix(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those arguments that name a field of frames, as views of frames call it."""
    return {
        name: value.removeprefix(FRAMES)
        for name, value in arguments.items()
        if name in _FIELDS and isinstance(value, str)
    }


def slices_of(
    samples: SampleCollection, group_slice: str | Sequence[str] | None = None
) -> SampleCollection:
    """The samples of some slices of a grouped dataset or view; other collections unchanged.

    Args:
        samples: a dataset or view; its stages are kept
        group_slice (None): a slice, several, or ``"all"`` for all slices of images; None is the
            active slice

    Raises:
        InvalidInputError: if it is not a name or names
        SamplesError: if there is no such slice, or it holds neither images nor videos, or
            slices of both are asked for
    """
    if getattr(samples, "media_type", None) != "group":
        if group_slice is not None:
            raise SamplesError(
                f"group_slice={group_slice!r} chooses slices of grouped datasets, and these "
                "samples are not grouped, or of chosen slices already."
            )
        return samples
    media_types = samples.group_media_types
    usable = usable_slices(samples)
    names = _names(samples, group_slice, media_types)
    for name in names:
        if name not in usable:
            what = f"holds {media_types[name]!r}" if name in media_types else "is not there"
            raise SamplesError(
                f"Slice {name!r} {what}, and only images and videos can be labelled: choose from "
                f"{', '.join(map(repr, usable)) or 'no slice of this dataset'} with group_slice=."
            )
    if not names:
        raise SamplesError("No slice of this dataset holds images: name one with group_slice=.")
    if len({media_types[name] for name in names}) > 1:
        raise SamplesError(
            f"Slices {', '.join(map(repr, names))} hold images and videos: label them in two runs."
        )
    return samples.select_group_slices(names[0] if len(names) == 1 else names)


def every_sample(samples: SampleCollection) -> SampleCollection:
    """All samples of the dataset that holds these, whatever the slice."""
    dataset = samples._dataset
    if dataset.media_type != "group":
        return dataset
    return dataset.select_group_slices(_allow_mixed=True)


def usable_slices(samples: SampleCollection) -> list[str]:
    """Names of the slices that hold images or videos."""
    media_types = samples.group_media_types
    return [name for name, media_type in media_types.items() if media_type in _SLICE_MEDIA]


def _names(
    samples: SampleCollection,
    group_slice: str | Sequence[str] | None,
    media_types: Mapping[str, str],
) -> list[str]:
    if group_slice is None:
        return [samples.group_slice]
    if isinstance(group_slice, str):
        if group_slice == ALL_SLICES and group_slice not in media_types:
            return [name for name, media_type in media_types.items() if media_type == "image"]
        return [group_slice]
    names = list(group_slice) if isinstance(group_slice, Sequence) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise InvalidInputError(
            f"group_slice={group_slice!r} must be the name of a slice, several, or 'all'."
        )
    return list(dict.fromkeys(names))


def _with_warnings(
    samples: SampleCollection, report: RunReport, warnings: Sequence[str]
) -> RunReport:
    """The report with warnings before its own, also as the run's record has it."""
    from zs_operators import provenance

    report = replace(report, warnings=(*warnings, *report.warnings))
    provenance.update_report(samples, report.run_key, report.to_dict())
    return report
