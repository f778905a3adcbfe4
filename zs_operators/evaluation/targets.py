"""Which fields can be evaluated against each other, and keys and fields of an evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zs_operators.errors import FieldError, InvalidInputError
from zs_operators.evaluation.report_parts import CLASSIFICATION, DETECTION, SEGMENTATION

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

_CLASSES = ("Classification", "Classifications")
_KINDS = {
    "Classification": CLASSIFICATION,
    "Classifications": CLASSIFICATION,
    "Detections": DETECTION,
    "Segmentation": SEGMENTATION,
}
#: Fields of samples that FiftyOne's evaluations write: the key with these endings.
_ENDINGS = {
    CLASSIFICATION: ("", "_top1", "_truth"),
    DETECTION: ("_tp", "_fp", "_fn"),
    SEGMENTATION: ("_accuracy", "_precision", "_recall"),
}
#: FiftyOne's second evaluation of boxes, which matches them whatever their names.
ANY_CLASS = "_any_class"


def label_type(samples: SampleCollection, field: str) -> str:
    """Name of the label class of a field that can be evaluated.

    Raises:
        FieldError: if there is no such field, or it holds something else
    """
    known = evaluable_fields(samples)
    if field not in known:
        shown = ", ".join(f"{name} ({kind})" for name, kind in known.items()) or "none"
        what = "holds no labels that can be evaluated" if samples.has_field(field) else "is missing"
        raise FieldError(f"Field {field!r} {what}. Fields that can be: {shown}.")
    return known[field]


def evaluable_fields(samples: SampleCollection) -> dict[str, str]:
    """Label class of each field that can be evaluated, in schema order."""
    import fiftyone as fo

    schema = samples.get_field_schema(ftype=fo.EmbeddedDocumentField)
    found = {name: field.document_type.__name__ for name, field in schema.items()}
    return {name: kind for name, kind in found.items() if kind in _KINDS}


def counterparts(samples: SampleCollection, field: str) -> list[str]:
    """Fields that ``field`` can be evaluated against, in schema order."""
    known = evaluable_fields(samples)
    kind = _KINDS.get(known.get(field))
    return [name for name, other in known.items() if name != field and _KINDS[other] == kind]


def check_pair(samples: SampleCollection, predictions: str, ground_truth: str) -> str:
    """The kind of evaluation of two fields.

    Raises:
        FieldError: if they cannot be evaluated against each other
    """
    first, second = label_type(samples, predictions), label_type(samples, ground_truth)
    if predictions == ground_truth:
        raise FieldError(f"Field {predictions!r} would be evaluated against itself.")
    if _KINDS[first] != _KINDS[second]:
        fitting = ", ".join(counterparts(samples, predictions)) or "none here"
        raise FieldError(
            f"Field {predictions!r} holds {first} and {ground_truth!r} holds {second}, which do "
            f"not compare. Fields that do with {predictions!r}: {fitting}."
        )
    return _KINDS[first]


def check_eval_key(
    samples: SampleCollection, eval_key: str, kind: str, *, overwrite: bool = False
) -> None:
    """Refuses a key that cannot or must not be used.

    Raises:
        InvalidInputError: with a message that fits under the field of a form
    """
    dataset = samples._root_dataset
    if not isinstance(eval_key, str) or not eval_key.isidentifier():
        raise InvalidInputError(
            f"eval_key={eval_key!r} must be letters, digits and underscores, and not begin with a "
            "digit."
        )
    if eval_key.startswith("_"):
        raise InvalidInputError(f"eval_key={eval_key!r} must not begin with an underscore.")
    existing = [key for key in eval_keys(eval_key) if dataset.has_evaluation(key)]
    if existing and not overwrite:
        raise InvalidInputError(
            f"Evaluation {existing[0]!r} exists: choose another eval_key, or allow overwriting "
            "(overwrite=True)."
        )
    written = owned_fields(samples, eval_key) if existing else set()
    clash = [
        name
        for name in sample_fields(eval_key, kind)
        if dataset.has_field(name) and name not in written
    ]
    if clash:
        raise InvalidInputError(
            f"Field {clash[0]!r}, which evaluation {eval_key!r} would write, exists and is not of "
            "an evaluation: choose another eval_key."
        )


def eval_keys(eval_key: str) -> tuple[str, str]:
    """Keys of FiftyOne's evaluations: by class, and whatever the class."""
    return eval_key, eval_key + ANY_CLASS


def sample_fields(eval_key: str, kind: str) -> list[str]:
    """Fields of samples that an evaluation of a kind may write."""
    keys = eval_keys(eval_key) if kind == DETECTION else (eval_key,)
    return [key + ending for key in keys for ending in _ENDINGS[kind]]


def owned_fields(samples: SampleCollection, eval_key: str) -> set[str]:
    """Fields of samples that the existing evaluations of a key have written."""
    dataset = samples._root_dataset
    owned = set()
    for key in eval_keys(eval_key):
        if dataset.has_evaluation(key):
            kind = dataset.get_evaluation_info(key).config.type
            owned.update(sample_fields(key, kind) if kind in _ENDINGS else ())
    return owned


def delete_evaluations(samples: SampleCollection, eval_key: str) -> None:
    """Removes FiftyOne's evaluations of a key with all that they wrote."""
    dataset = samples._root_dataset
    names = owned_fields(samples, eval_key)
    for key in eval_keys(eval_key):
        if dataset.has_evaluation(key):
            dataset.delete_evaluation(key)
    for name in names:
        if dataset.has_field(name):
            dataset.delete_sample_field(name)
