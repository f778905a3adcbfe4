"""Which samples are evaluated, and what became of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zs_operators.errors import SamplesError
from zs_operators.evaluation.options import SKIP
from zs_operators.evaluation.targets import label_type
from zs_operators.fields import error_field

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection


@dataclass(frozen=True)
class Selection:
    """Samples to evaluate.

    Attributes:
        view: they, with the labels as they are
        counts: of samples; see :class:`zs_operators.EvaluationReport`
        warnings: what of it a person should know
    """

    view: SampleCollection
    counts: dict[str, int]
    warnings: tuple[str, ...]


def select(
    samples: SampleCollection, predictions: str, ground_truth: str, missing: str = SKIP
) -> Selection:
    """Samples with ground truth and a prediction, which may be rejected or empty.

    A sample without ground truth cannot be evaluated. One without a prediction was not processed,
    or could not be: with ``missing="skip"`` it is left out, with "wrong" it counts as predicted
    nothing.

    Raises:
        SamplesError: if none is left
    """
    truth_path = presence_path(samples, ground_truth)
    total = samples.count()
    with_truth = samples.exists(truth_path)
    num_truth = with_truth.count()
    predicted = with_truth.exists(predictions)
    num_predicted = predicted.count()
    without = with_truth.exists(predictions, False)
    reasons = error_field(predictions)
    num_failed = without.exists(reasons).count() if samples.has_field(reasons) else 0
    num_missing = num_truth - num_predicted - num_failed
    kept = num_predicted if missing == SKIP else num_truth
    if not kept:
        raise SamplesError(
            f"There is nothing to evaluate: of {total:,} samples {num_truth:,} have ground truth "
            f"in {ground_truth!r}, and {num_predicted:,} of those have a label in {predictions!r}."
        )
    view = samples
    if num_truth < total:
        view = view.exists(truth_path)
    if missing == SKIP and num_predicted < num_truth:
        view = view.exists(predictions)
    what = "left out" if missing == SKIP else "counted as wrong"
    warnings = [
        f"{number:,} samples with ground truth {why}: {what}."
        for number, why in (
            (num_failed, f"could not be processed (field {reasons!r} says why)"),
            (num_missing, f"have no label in {predictions!r}"),
        )
        if number
    ]
    return Selection(
        view,
        {
            "samples": total,
            "evaluated": kept,
            "no_ground_truth": total - num_truth,
            "failed": num_failed,
            "not_predicted": num_missing,
        },
        tuple(warnings),
    )


def presence_path(samples: SampleCollection, ground_truth: str) -> str:
    """What a sample has if it has ground truth: an empty list of boxes is one, a class without a
    name is none."""
    is_single = label_type(samples, ground_truth) == "Classification"
    return f"{ground_truth}.label" if is_single else ground_truth
