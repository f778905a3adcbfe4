"""The kinds of errors a person looks for, and what each needs to be found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from zs_operators.errors import InvalidInputError


class ErrorKind(str, Enum):
    """What :func:`zs_operators.error_view` can show; a plain string of the same value does too."""

    CONFIDENT_MISTAKES = "confident_mistakes"
    LOW_MARGIN = "low_margin"
    REJECTED = "rejected"
    CONFUSED = "confused"
    MISSED_OBJECTS = "missed_objects"
    MISNAMED_BOXES = "misnamed_boxes"
    POOR_MASKS = "poor_masks"
    FAILED = "failed"
    DISAGREEMENTS = "disagreements"


@dataclass(frozen=True)
class KindOfError:
    """What a kind of error is, for people and for forms.

    Attributes:
        title: a few words
        description: a sentence
        needs: arguments of :func:`zs_operators.error_view` besides ``predictions``;
            ``"ground_truth"`` may be given as ``"eval_key"`` too
        label_types: FiftyOne label classes of the predictions it can be found in
        threshold: what the argument of that name is if not given; None where it means nothing
    """

    title: str
    description: str
    needs: tuple[str, ...]
    label_types: tuple[str, ...]
    threshold: float | None = None


_IMAGES = ("Classification", "Classifications")
_ANY = (*_IMAGES, "Detections")

#: A label is close to another where the second has a third of the odds of the first, or more
CLOSE_MARGIN = 1.0986
#: What each kind is, in the order of interest.
ERROR_KINDS: dict[ErrorKind, KindOfError] = {
    ErrorKind.CONFIDENT_MISTAKES: KindOfError(
        "Confident mistakes",
        "Wrong labels of at least this confidence, the most confident first",
        ("ground_truth",),
        _ANY,
        0.5,
    ),
    ErrorKind.LOW_MARGIN: KindOfError(
        "Close calls",
        "Labels that lead the next best by at most this many logits, the closest first",
        (),
        _ANY,
        CLOSE_MARGIN,
    ),
    ErrorKind.REJECTED: KindOfError(
        "Rejected", "Labels that a rule or the background took", (), _ANY
    ),
    ErrorKind.CONFUSED: KindOfError(
        "One class taken for another",
        "What is of one class and was given the name of another",
        ("ground_truth", "truth", "label"),
        _ANY,
    ),
    ErrorKind.MISSED_OBJECTS: KindOfError(
        "Missed objects",
        "Objects that no box of their class covers",
        ("ground_truth",),
        ("Detections",),
    ),
    ErrorKind.MISNAMED_BOXES: KindOfError(
        "Right box, wrong name",
        "Boxes that fit an object and have the name of another class",
        ("ground_truth",),
        ("Detections",),
    ),
    ErrorKind.POOR_MASKS: KindOfError(
        "Poor masks",
        "Masks whose predicted IoU or stability is below this, the worst first",
        (),
        ("Detections",),
        0.8,
    ),
    ErrorKind.FAILED: KindOfError(
        "Failed", "Images that could not be processed", (), (*_ANY, "Segmentation")
    ),
    ErrorKind.DISAGREEMENTS: KindOfError(
        "Runs that disagree", "What two runs name or place differently", ("other",), _ANY
    ),
}


def parse_kind(kind: ErrorKind | str) -> ErrorKind:
    """The kind of a name.

    Raises:
        InvalidInputError: if there is no such kind
    """
    try:
        return ErrorKind(kind)
    except ValueError:
        known = ", ".join(repr(one.value) for one in ErrorKind)
        raise InvalidInputError(f"kind={kind!r} is none of {known}.") from None
