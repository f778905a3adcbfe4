"""Grouped datasets as collections of single images, which is what all tasks label."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zs_operators.errors import InvalidInputError, SamplesError
from zs_operators.report import Progress, RunReport

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

#: Value of ``group_slice`` that stands for all slices of images.
ALL_SLICES = "all"


def labels_images(
    task: Callable[..., Generator[Progress, None, RunReport]],
) -> Callable[..., Generator[Progress, None, RunReport]]:
    """Decorates a task, which then also takes grouped datasets, and ``group_slice``.

    What it gets is a flat view of images; see :func:`slices_of`. The slices are not among its
    recorded parameters: the view that is recorded has them as a stage.
    """

    @functools.wraps(task)
    def with_slices(
        samples: SampleCollection,
        *args: Any,
        group_slice: str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Generator[Progress, None, RunReport]:
        signature.bind(samples, *args, **kwargs)  # a wrong argument is an error of this call

        def steps() -> Generator[Progress, None, RunReport]:
            return (yield from task(slices_of(samples, group_slice), *args, **kwargs))

        return steps()

    signature = inspect.signature(task)
    new = inspect.signature(with_slices, follow_wrapped=False).parameters["group_slice"]
    *named, last = signature.parameters.values()
    others = [*named, new, last] if last.kind is last.VAR_KEYWORD else [*named, last, new]
    with_slices.__signature__ = signature.replace(parameters=others)
    return with_slices


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
        SamplesError: if there is no such slice, or it does not hold images
    """
    if getattr(samples, "media_type", None) != "group":
        if group_slice is not None:
            raise SamplesError(
                f"group_slice={group_slice!r} chooses slices of grouped datasets, and these "
                "samples are not grouped, or of chosen slices already."
            )
        return samples
    media_types = samples.group_media_types
    images = [name for name, media_type in media_types.items() if media_type == "image"]
    names = _names(samples, group_slice, media_types, images)
    for name in names:
        if name not in images:
            what = f"holds {media_types[name]!r}" if name in media_types else "is not there"
            raise SamplesError(
                f"Slice {name!r} {what}, and only images can be labelled: choose from "
                f"{', '.join(map(repr, images)) or 'no slice of this dataset'} with group_slice=."
            )
    if not names:
        raise SamplesError("No slice of this dataset holds images, and only these can be labelled.")
    return samples.select_group_slices(names[0] if len(names) == 1 else names)


def every_sample(samples: SampleCollection) -> SampleCollection:
    """All samples of the dataset that holds these, whatever the slice."""
    dataset = samples._dataset
    if dataset.media_type != "group":
        return dataset
    return dataset.select_group_slices(_allow_mixed=True)


def _names(
    samples: SampleCollection,
    group_slice: str | Sequence[str] | None,
    media_types: Mapping[str, str],
    images: Sequence[str],
) -> list[str]:
    if group_slice is None:
        return [samples.group_slice]
    if isinstance(group_slice, str):
        is_all = group_slice == ALL_SLICES and group_slice not in media_types
        return list(images) if is_all else [group_slice]
    names = list(group_slice) if isinstance(group_slice, Sequence) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise InvalidInputError(
            f"group_slice={group_slice!r} must be the name of a slice, several, or 'all'."
        )
    return list(dict.fromkeys(names))
