"""Error views kept with the dataset under names that say what they show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zs_operators.analysis.error_inputs import evaluated_fields, kinds_for
from zs_operators.analysis.error_kinds import ERROR_KINDS, ErrorKind, parse_kind
from zs_operators.analysis.error_views import error_view
from zs_operators.errors import FieldError, InvalidInputError

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection


@dataclass(frozen=True)
class SavedErrorViews:
    """What :func:`save_error_views` did.

    Attributes:
        names: of the saved views, with the samples each shows now
        left_out: kinds that these labels can have and that were not saved, and why
    """

    names: Mapping[str, int]
    left_out: Mapping[str, str]

    def __str__(self) -> str:
        lines = [f"{name}: {count:,} samples" for name, count in self.names.items()]
        return "\n".join(lines + [f"not {kind}: {why}" for kind, why in self.left_out.items()])


def save_error_views(
    samples: SampleCollection,
    predictions: str | None = None,
    eval_key: str | None = None,
    *,
    ground_truth: str | None = None,
    kinds: Iterable[ErrorKind | str] | None = None,
    prefix: str | None = None,
    overwrite: bool = False,
    **arguments: Any,
) -> SavedErrorViews:
    """Saves views of errors with the dataset; the App lists them as saved views.

    Views that rest on an evaluation or on attributes of labels follow later changes; those of boxes
    that are compared here, without ``eval_key``, are of the labels as they are now.

    Args:
        samples: a dataset or view
        predictions (None), eval_key (None), ground_truth (None): see :func:`error_view`
        kinds (None): which; None is all that these labels can have and that show at least one
            sample, but for those that need names or another run
        prefix (None): how names begin; None is the field of the predictions
        overwrite (False): replace saved views of the same names
        **arguments: ``other``, ``truth``, ``label``, ``threshold``, ``limit`` of
            :func:`error_view`

    Raises:
        FieldError: if a name is taken, or a field or an evaluation is missing
        InvalidInputError: if one of ``kinds`` lacks an argument, or none can be found
    """
    if eval_key is not None:
        predictions, ground_truth = evaluated_fields(samples, eval_key, predictions, ground_truth)
    if predictions is None:
        raise InvalidInputError("Name the field of the labels in predictions=, or give eval_key=.")
    if kinds is None:
        wanted = kinds_for(samples, predictions)
    else:
        wanted = list(dict.fromkeys(parse_kind(kind) for kind in kinds))
    views, left_out = {}, {}
    for kind in wanted:
        try:
            view = error_view(
                samples,
                kind,
                predictions=predictions,
                ground_truth=ground_truth,
                eval_key=eval_key,
                **arguments,
            )
        except InvalidInputError as error:
            if kinds is not None:
                raise
            left_out[kind.value] = str(error)
            continue
        count = len(view)
        if not count and kinds is None:
            left_out[kind.value] = "there are none"
            continue
        views[_name(prefix or predictions, kind, arguments)] = (kind, view, count)
    if not views:
        raise InvalidInputError(f"No kind of error can be found in {predictions!r}: {left_out}.")
    _check_names(samples, views, overwrite)
    dataset = samples._root_dataset
    for name, (kind, view, _) in views.items():
        dataset.save_view(
            name, view, description=ERROR_KINDS[kind].description, overwrite=overwrite
        )
    return SavedErrorViews({name: count for name, (_, _, count) in views.items()}, left_out)


def _name(prefix: str, kind: ErrorKind, arguments: Mapping[str, Any]) -> str:
    title = ERROR_KINDS[kind].title.lower()
    if kind is ErrorKind.CONFUSED:
        title = f"{arguments['truth']} taken for {arguments['label']}"
    if kind is ErrorKind.DISAGREEMENTS:
        title = f"disagrees with {arguments['other']}"
    return f"{prefix}: {title}"


def _check_names(samples: SampleCollection, names: Iterable[str], overwrite: bool) -> None:
    taken = [name for name in names if samples._root_dataset.has_saved_view(name)]
    if taken and not overwrite:
        raise FieldError(
            f"There are saved views {', '.join(map(repr, taken))}: choose another prefix, or allow "
            "overwriting (overwrite=True)."
        )
