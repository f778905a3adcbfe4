"""Views of what went wrong, made on request; the labels that matter are all they show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from zs_operators.analysis.error_inputs import NOTHING, OTHERS, ErrorInputs, resolve
from zs_operators.analysis.error_kinds import ERROR_KINDS, ErrorKind, parse_kind
from zs_operators.analysis.label_expressions import best, has_name, is_labeled, is_one_of
from zs_operators.analysis.matched_boxes import BoxPair, box_pairs, select_boxes
from zs_operators.errors import FieldError, InvalidInputError
from zs_operators.fields import error_field

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection
    from fiftyone.core.expressions import ViewExpression
    from fiftyone.core.view import DatasetView


def error_view(
    samples: SampleCollection,
    kind: ErrorKind | str,
    *,
    predictions: str | None = None,
    ground_truth: str | None = None,
    eval_key: str | None = None,
    other: str | None = None,
    truth: str | None = None,
    label: str | None = None,
    threshold: float | None = None,
    limit: int | None = None,
) -> DatasetView:
    """The samples, and of lists the labels, with one kind of error.

    ======================  =====================================================================
    ``kind``                what it shows, and what it needs besides ``predictions``
    ======================  =====================================================================
    "confident_mistakes"    wrong labels, most confident first; ``ground_truth`` or ``eval_key``
    "low_margin"            labels that barely lead, closest first; margins, which every run keeps
    "rejected"              what a threshold or the background took
    "confused"              ``truth`` taken for ``label``; ``ground_truth`` or ``eval_key``.
                            ``"(none)"`` stands for no label or no object, ``"(others)"`` for
                            every other class and for none
    "missed_objects"        objects without a box of their class; ``ground_truth`` or ``eval_key``
    "misnamed_boxes"        boxes in the right place with another name; the same
    "poor_masks"            masks of low predicted IoU or stability, worst first
    "failed"                images that could not be processed
    "disagreements"         what two runs say differently; ``other``
    ======================  =====================================================================

    Args:
        samples: a dataset or view
        kind: an :class:`ErrorKind` or its value
        predictions (None): the field of the labels; None takes it from the evaluation
        ground_truth (None): the field of the truth; None takes it from the evaluation
        eval_key (None): a stored evaluation of the two; without one they are compared here, and
            nothing is written
        other (None): the field of another run
        truth (None), label (None): two class names, for "confused"
        threshold (None): least confidence, most margin or least quality; None is 0.5 for
            "confident_mistakes", log 3 for "low_margin", 0.8 for "poor_masks"
        limit (None): show at most so many samples

    Raises:
        FieldError: if a field or evaluation is missing, or holds nothing the kind can be found in
        InvalidInputError: if an argument that the kind needs was not given
    """
    kind = parse_kind(kind)
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise InvalidInputError(f"limit={limit!r} must be an integer >= 1 or None.")
    inputs = resolve(
        kind,
        samples,
        predictions,
        ground_truth,
        eval_key,
        other=other,
        truth=truth,
        label=label,
        threshold=ERROR_KINDS[kind].threshold if threshold is None else threshold,
    )
    view = _VIEWS[kind](inputs)
    return view if limit is None else view.limit(limit)


def _confident_mistakes(inputs: ErrorInputs) -> DatasetView:
    _require(inputs, "confidence")
    if inputs.has_boxes:
        return _confident_boxes(inputs)
    confidence = best(inputs.samples, inputs.predictions, "confidence")
    labeled = is_labeled(inputs.samples, inputs.predictions)
    wrong = labeled & _is_wrong(inputs) & (confidence >= inputs.threshold)
    return inputs.samples.match(wrong).sort_by(confidence, reverse=True)


def _confident_boxes(inputs: ErrorInputs) -> DatasetView:
    from fiftyone import ViewField as F

    sure = F("confidence") >= inputs.threshold
    if inputs.eval_key is not None:
        view = inputs.samples.filter_labels(inputs.predictions, sure & (F(inputs.eval_key) == "fp"))
    else:
        pairs = box_pairs(inputs.samples, inputs.predictions, inputs.ground_truth, by_class=True)
        wrong = [pair for pair in pairs if pair.truth_id is None or pair.truth != pair.label]
        ids = [pair.label_id for pair in wrong if pair.label_id is not None]
        view = inputs.samples.select_labels(ids=ids, fields=inputs.predictions)
        view = view.filter_labels(inputs.predictions, sure)
    return view.sort_by(F(inputs.path("confidence")).max(), reverse=True)


def _low_margin(inputs: ErrorInputs) -> DatasetView:
    from fiftyone import ViewField as F

    _require(inputs, "margin")
    if not inputs.has_boxes:
        margin = best(inputs.samples, inputs.predictions, "margin")
        labeled = is_labeled(inputs.samples, inputs.predictions)
        close = labeled & margin.exists() & (margin <= inputs.threshold)
        return inputs.samples.match(close).sort_by(margin)
    close = F("margin").exists() & (F("margin") <= inputs.threshold)
    if inputs.has("rejected_by"):
        close = close & ~F("rejected_by").exists()
    view = inputs.samples.filter_labels(inputs.predictions, close)
    return view.sort_by(F(inputs.path("margin")).min())


def _rejected(inputs: ErrorInputs) -> DatasetView:
    from fiftyone import ViewField as F

    if inputs.has_boxes:
        _require(inputs, "rejected_by")
        return inputs.samples.filter_labels(inputs.predictions, F("rejected_by").exists())
    path = f"{inputs.predictions}.rejected_by"
    if inputs.samples.get_field(path) is None:
        raise _lacks(inputs, "rejected_by")
    return inputs.samples.match(F(path).exists())


def _confused(inputs: ErrorInputs) -> DatasetView:
    samples, truth, label = inputs.samples, inputs.truth, inputs.label
    if truth == label == OTHERS:
        raise InvalidInputError("Name at least one of the two classes in truth= and label=.")
    if inputs.has_boxes:
        # A pair of two names is found only where boxes are matched whatever their names
        found = [pair for pair in _by_place(inputs) if _is_pair(inputs, pair)]
        return select_boxes(samples, found, (inputs.ground_truth, inputs.predictions))
    labeled = is_labeled(samples, inputs.predictions)
    name = best(samples, inputs.predictions, "label")

    def is_true(truth: str) -> ViewExpression:
        if truth == NOTHING:
            return ~best(samples, inputs.ground_truth, "label").exists()
        return has_name(samples, inputs.ground_truth, inputs.names("ground truth", truth))

    def is_said(label: str) -> ViewExpression:
        if label == NOTHING:
            return ~labeled
        return labeled & is_one_of(name, inputs.names("predictions", label))

    if truth == OTHERS:
        return samples.match(is_said(label) & ~is_true(label))
    if label == OTHERS:
        return samples.match(is_true(truth) & ~is_said(truth))
    return samples.match(is_true(truth) & is_said(label))


def _is_pair(inputs: ErrorInputs, pair: BoxPair) -> bool:
    truth, label = inputs.truth, inputs.label
    is_true = pair.truth in inputs.names("ground truth", label if truth == OTHERS else truth)
    is_said = pair.label in inputs.names("predictions", truth if label == OTHERS else label)
    return is_true is (truth != OTHERS) and is_said is (label != OTHERS)


def _missed_objects(inputs: ErrorInputs) -> DatasetView:
    from fiftyone import ViewField as F

    if inputs.eval_key is not None:
        return inputs.samples.filter_labels(inputs.ground_truth, F(inputs.eval_key) == "fn")
    pairs = box_pairs(inputs.samples, inputs.predictions, inputs.ground_truth, by_class=True)
    missed = [pair for pair in pairs if pair.label_id is None]
    return select_boxes(inputs.samples, missed, (inputs.ground_truth,))


def _misnamed_boxes(inputs: ErrorInputs) -> DatasetView:
    wrong = [pair for pair in _by_place(inputs) if pair.is_matched and pair.truth != pair.label]
    return select_boxes(inputs.samples, wrong, (inputs.ground_truth, inputs.predictions))


def _poor_masks(inputs: ErrorInputs) -> DatasetView:
    from fiftyone import ViewField as F

    known = [name for name in ("predicted_iou", "stability") if inputs.has(name)]
    if not known:
        raise _lacks(inputs, "predicted_iou or stability, which zs.segment writes")
    is_poor = F(known[0]) < inputs.threshold
    for name in known[1:]:
        is_poor = is_poor | (F(name) < inputs.threshold)
    view = inputs.samples.filter_labels(inputs.predictions, is_poor)
    worst = F(inputs.path(known[0])).min()
    for name in known[1:]:
        worst = F.min([worst, F(inputs.path(name)).min()])
    return view.sort_by(worst)


def _failed(inputs: ErrorInputs) -> DatasetView:
    field = error_field(inputs.predictions)
    if inputs.samples.get_field(field) is None:
        return inputs.samples.limit(0)  # the field comes with the first failure
    return inputs.samples.exists(field)


def _disagreements(inputs: ErrorInputs) -> DatasetView:
    from fiftyone import ViewField as F

    if inputs.has_boxes:
        pairs = box_pairs(inputs.samples, inputs.predictions, inputs.other)
        differ = [pair for pair in pairs if not pair.is_matched or pair.truth != pair.label]
        return select_boxes(inputs.samples, differ, (inputs.predictions, inputs.other))
    both = F(inputs.predictions).exists() & F(inputs.other).exists()
    one, two = (
        best(inputs.samples, field, "label") for field in (inputs.predictions, inputs.other)
    )
    either = one.exists() | two.exists()
    return inputs.samples.match(both & either & (one != two))


_VIEWS: Mapping[ErrorKind, Callable[[ErrorInputs], DatasetView]] = {
    ErrorKind.CONFIDENT_MISTAKES: _confident_mistakes,
    ErrorKind.LOW_MARGIN: _low_margin,
    ErrorKind.REJECTED: _rejected,
    ErrorKind.CONFUSED: _confused,
    ErrorKind.MISSED_OBJECTS: _missed_objects,
    ErrorKind.MISNAMED_BOXES: _misnamed_boxes,
    ErrorKind.POOR_MASKS: _poor_masks,
    ErrorKind.FAILED: _failed,
    ErrorKind.DISAGREEMENTS: _disagreements,
}


def _by_place(inputs: ErrorInputs) -> list[BoxPair]:
    report = inputs.report
    key = inputs.eval_key if report is None else report.any_class_key
    return box_pairs(inputs.samples, inputs.predictions, inputs.ground_truth, eval_key=key)


def _is_wrong(inputs: ErrorInputs) -> ViewExpression:
    from fiftyone import ViewField as F

    samples, truth = inputs.samples, inputs.ground_truth
    has_truth = best(samples, truth, "label").exists()
    if inputs.eval_key is not None:
        return has_truth & (F(inputs.eval_key) == False)  # noqa: E712
    return has_truth & ~has_name(samples, truth, [best(samples, inputs.predictions, "label")])


def _require(inputs: ErrorInputs, attribute: str) -> None:
    if not inputs.has(attribute):
        raise _lacks(inputs, attribute)


def _lacks(inputs: ErrorInputs, what: str) -> FieldError:
    return FieldError(
        f"The labels of {inputs.predictions!r} have no {what}: choose a field that zs-operators "
        "wrote, or another kind of error."
    )
