"""What an error view works on: checked fields, and an evaluation if there is one."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from zs_operators.analysis.error_kinds import ERROR_KINDS, ErrorKind
from zs_operators.errors import FieldError, InvalidInputError
from zs_operators.fields import error_field
from zs_operators.stored_scores import KINDS, kind_of

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

    from zs_operators.evaluation.report import EvaluationReport

#: How FiftyOne's evaluations call what has no counterpart.
NOTHING = "(none)"
#: Stands for every class but the other one of a pair, and for nothing.
OTHERS = "(others)"


@dataclass(frozen=True)
class ErrorInputs:
    """Arguments of :func:`zs_operators.error_view` that belong together.

    Attributes:
        samples: a dataset or view
        predictions: the field of the labels
        ground_truth: the field of the truth, None if the kind needs none
        eval_key: of a stored evaluation of the two, or None
        other: the field of another run, or None
        truth, label: class of the truth and of the prediction, for ``"confused"``
        threshold: see :data:`~zs_operators.analysis.error_kinds.ERROR_KINDS`
    """

    samples: SampleCollection
    predictions: str
    ground_truth: str | None = None
    eval_key: str | None = None
    other: str | None = None
    truth: str | None = None
    label: str | None = None
    threshold: float | None = None

    @property
    def is_list(self) -> bool:
        """Whether a sample has a list of predicted labels."""
        return KINDS.get(label_type(self.samples, self.predictions)) is not None

    @property
    def has_boxes(self) -> bool:
        return label_type(self.samples, self.predictions) == "Detections"

    def path(self, attribute: str, field: str | None = None) -> str:
        """Where an attribute of the labels is."""
        field = field or self.predictions
        container = KINDS.get(label_type(self.samples, field))
        return ".".join(part for part in (field, container, attribute) if part)

    @cached_property
    def report(self) -> EvaluationReport | None:
        """Of :func:`zs_operators.evaluate`, if it made the evaluation."""
        return None if self.eval_key is None else zs_report(self.samples, self.eval_key)

    def names(self, side: str, name: str) -> list[str | None]:
        """How the labels of a side spell what is evaluated under ``name``.

        Args:
            side: "predictions" or "ground truth"
        """
        if name == NOTHING:
            return [None]
        renamed = () if self.report is None else self.report.names.renamed
        own = [item.name for item in renamed if item.side == side and item.evaluated_as == name]
        return [name, *own]

    def has(self, attribute: str) -> bool:
        """Whether the predictions have this attribute."""
        return self.samples.get_field(self.path(attribute)) is not None


def resolve(
    kind: ErrorKind,
    samples: SampleCollection,
    predictions: str | None,
    ground_truth: str | None,
    eval_key: str | None,
    **more,
) -> ErrorInputs:
    """Checks that all that ``kind`` needs is there, and takes fields from the evaluation.

    Raises:
        FieldError: if a field or evaluation is missing or of the wrong kind
        InvalidInputError: if an argument that the kind needs was not given
    """
    if eval_key is not None:
        predictions, ground_truth = evaluated_fields(samples, eval_key, predictions, ground_truth)
    if predictions is None:
        raise InvalidInputError("Name the field of the labels in predictions=, or give eval_key=.")
    found = ErrorInputs(samples, predictions, ground_truth, eval_key, **more)
    info = ERROR_KINDS[kind]
    given = label_type(samples, predictions)
    if given not in info.label_types:
        raise FieldError(
            f"{kind.value!r} are found in {' or '.join(info.label_types)}; field {predictions!r} "
            f"holds {given}."
        )
    for need in info.needs:
        if getattr(found, need) is None:
            hint = " (or eval_key=)" if need == "ground_truth" else ""
            raise InvalidInputError(f"{kind.value!r} needs {need}={hint}: {info.description}.")
    for field in (found.ground_truth, found.other):
        if field is not None and (kind_of(samples, field) == "Detections") != found.has_boxes:
            raise FieldError(
                f"{predictions!r} holds {given} and {field!r} holds {kind_of(samples, field)}: "
                "boxes are compared with boxes, and classes of images with classes of images."
            )
    if eval_key is not None and "ground_truth" in info.needs:
        # What was not evaluated is neither right nor wrong
        mark = f"{eval_key}_tp" if found.has_boxes else eval_key
        return replace(found, samples=samples.exists(mark))
    return found


def evaluated_fields(
    samples: SampleCollection,
    eval_key: str,
    predictions: str | None = None,
    ground_truth: str | None = None,
) -> tuple[str, str]:
    """Predictions and ground truth of a stored evaluation.

    Raises:
        FieldError: if there is no such evaluation, or it is of other fields than those given
    """
    if not samples.has_evaluation(eval_key):
        known = ", ".join(samples.list_evaluations()) or "none"
        raise FieldError(f"There is no evaluation {eval_key!r}; there is: {known}.")
    # Of lists FiftyOne's own evaluation is of their best labels, in a field made for it
    report = zs_report(samples, eval_key)
    if report is not None:
        own_fields = (report.predictions, report.ground_truth)
    else:
        config = samples.get_evaluation_info(eval_key).config
        own_fields = (config.pred_field, config.gt_field)
    for given, own in zip((predictions, ground_truth), own_fields, strict=True):
        if given is not None and given != own:
            raise FieldError(
                f"Evaluation {eval_key!r} is of {own_fields[0]!r} and {own_fields[1]!r}, not of "
                f"{given!r}."
            )
    return own_fields


def zs_report(samples: SampleCollection, eval_key: str) -> EvaluationReport | None:
    """Of :func:`zs_operators.evaluate`, if it made the evaluation."""
    from zs_operators.evaluation.records import load_evaluation

    with contextlib.suppress(InvalidInputError):
        return load_evaluation(samples, eval_key)
    return None


def label_type(samples: SampleCollection, field: str) -> str:
    """Name of the label class of a field; ``"Segmentation"`` too.

    Raises:
        FieldError: if there is no such field, or it holds other labels
    """
    found = samples.get_field(field)
    document = getattr(found, "document_type", None)
    if document is not None and document.__name__ == "Segmentation":
        return "Segmentation"
    return kind_of(samples, field)


def kinds_for(samples: SampleCollection, predictions: str) -> list[ErrorKind]:
    """Kinds of errors that these labels can have, of those that need at most ground truth."""
    inputs = ErrorInputs(samples, predictions)
    given = label_type(samples, predictions)
    attributes = {
        ErrorKind.CONFIDENT_MISTAKES: inputs.path("confidence"),
        ErrorKind.LOW_MARGIN: inputs.path("margin"),
        ErrorKind.REJECTED: inputs.path("rejected_by")
        if inputs.has_boxes
        else f"{predictions}.rejected_by",
        ErrorKind.POOR_MASKS: inputs.path("predicted_iou"),
        ErrorKind.FAILED: error_field(predictions),
    }
    return [
        kind
        for kind, info in ERROR_KINDS.items()
        if given in info.label_types
        and set(info.needs) <= {"ground_truth"}
        and (kind not in attributes or samples.get_field(attributes[kind]) is not None)
    ]
