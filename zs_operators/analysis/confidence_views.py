"""Views of labels by how confident they are, for a bar of a reliability plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zs_operators.analysis.error_inputs import ErrorInputs
from zs_operators.analysis.label_expressions import best, is_labeled

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection
    from fiftyone.core.view import DatasetView


def confidence_view(
    samples: SampleCollection,
    predictions: str,
    low: float,
    high: float,
    *,
    eval_key: str | None = None,
) -> DatasetView:
    """The samples, and of boxes the labels, with a confidence in (low, high].

    Args:
        samples: a dataset or view
        predictions: the field of the labels
        low, high: edges; ``low=0`` counts too
        eval_key (None): only what this evaluation has evaluated
    """
    from fiftyone import ViewField as F

    inputs = ErrorInputs(samples, predictions)
    if eval_key is not None:
        samples = samples.exists(f"{eval_key}_tp" if inputs.has_boxes else eval_key)

    def is_between(confidence):
        above = confidence >= low if low <= 0 else confidence > low
        return above & (confidence <= high)

    if inputs.has_boxes:
        return samples.filter_labels(predictions, is_between(F("confidence")))
    confidence = best(samples, predictions, "confidence")
    return samples.match(is_labeled(samples, predictions) & is_between(confidence))
