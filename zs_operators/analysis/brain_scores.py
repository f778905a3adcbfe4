"""FiftyOne brain's mistakenness, hardness and uniqueness, where their inputs exist."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from zs_operators.analysis.error_inputs import ErrorInputs, label_type
from zs_operators.analysis.label_expressions import best, is_labeled
from zs_operators.errors import FieldError, InvalidInputError

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection
    from fiftyone.core.view import DatasetView

    from zs_operators.clip import ClipModel


def score_mistakenness(
    samples: SampleCollection,
    predictions: str,
    ground_truth: str,
    *,
    field: str = "mistakenness",
    overwrite: bool = False,
    progress: bool | None = None,
) -> int:
    """How likely a label of the ground truth is a mistake, judged by confident predictions.

    From logits where all predictions have them, else from confidences. For boxes FiftyOne also
    writes ``possible_missing`` and ``possible_spurious``.

    Args:
        samples: a dataset or view
        predictions, ground_truth: two fields of ``Classification`` or of ``Detections``
        field ("mistakenness"): a number of each sample, and of boxes also of each label
        overwrite (False): replace what the field holds
        progress (None): True, False, or None for FiftyOne's default

    Returns:
        the number of samples scored: rejected and failed ones, and those without truth, have none

    Raises:
        FieldError: if a field is missing or lacks what is needed, or ``field`` is taken
    """
    import fiftyone.brain as fob

    kind = label_type(samples, predictions)
    if kind not in ("Classification", "Detections") or label_type(samples, ground_truth) != kind:
        raise FieldError(
            "Mistakenness is of two fields that both hold Classification, or both Detections: "
            f"{predictions!r} holds {kind}, {ground_truth!r} {label_type(samples, ground_truth)}."
        )
    _check_field(samples, field, overwrite)
    view = _with_confidence(samples, predictions)
    if kind == "Classification":
        view = view.match(best(samples, ground_truth, "label").exists())
    else:
        view = view.exists(ground_truth)
    _check_any(view, f"{predictions!r} and {ground_truth!r}")
    fob.compute_mistakenness(
        view,
        predictions,
        ground_truth,
        mistakenness_field=field,
        use_logits=kind == "Classification" and _have_logits(view, predictions),
        progress=progress,
    )
    return len(view)


def score_hardness(
    samples: SampleCollection,
    predictions: str,
    *,
    field: str = "hardness",
    overwrite: bool = False,
    progress: bool | None = None,
) -> int:
    """How undecided the model is about an image: the entropy of its class probabilities.

    Args:
        samples: a dataset or view
        predictions: a field of ``Classification`` labels with logits
        field ("hardness"), overwrite (False), progress (None): see :func:`score_mistakenness`

    Returns:
        the number of samples scored

    Raises:
        FieldError: if the labels have no logits, or ``field`` is taken
    """
    import fiftyone.brain as fob

    if label_type(samples, predictions) != "Classification":
        raise FieldError(f"Hardness is of Classification labels, which {predictions!r} lacks.")
    _check_field(samples, field, overwrite)
    view = samples.match(is_labeled(samples, predictions))
    _check_any(view, repr(predictions))
    if not _have_logits(view, predictions):
        raise FieldError(
            f"Not all labels of {predictions!r} have logits, which hardness needs: classify with "
            "store_logits=True."
        )
    fob.compute_hardness(view, predictions, hardness_field=field, progress=progress)
    return len(view)


def score_uniqueness(
    samples: SampleCollection,
    *,
    model: str | ClipModel | None = None,
    weights: str | os.PathLike | None = None,
    device: str = "auto",
    precision: str = "auto",
    field: str = "uniqueness",
    overwrite: bool = False,
    progress: bool | None = None,
) -> int:
    """How far each image is from all others, from stored embeddings: no image is read.

    Args:
        samples: a dataset or view of images
        model (None), weights (None), device ("auto"), precision ("auto"): those of the run that
            stored the embeddings; None is the model with most of them
        field ("uniqueness"), overwrite (False), progress (None): see :func:`score_mistakenness`

    Returns:
        the number of samples scored: those whose embedding is not stored have none

    Raises:
        FieldError: if ``field`` is taken
        InvalidInputError: if fewer than two samples have a stored embedding
    """
    import fiftyone.brain as fob

    from zs_operators.clip import load_clip
    from zs_operators.model_stores import image_store
    from zs_operators.prompt_lab import embedded_models
    from zs_operators.rescoring import image_keys

    _check_field(samples, field, overwrite)
    if model is None:
        model = next(iter(embedded_models(samples)), None)
    if model is None:
        raise InvalidInputError(_NO_EMBEDDINGS)
    clip = load_clip(model, weights, device=device, precision=precision)
    ids, paths = samples.values(["id", "filepath"])
    store = image_store(clip)
    vectors, there = store.vectors(store.find(image_keys(paths)))
    if there.sum() < 2:
        raise InvalidInputError(_NO_EMBEDDINGS)
    known = [one for one, found in zip(ids, there, strict=True) if found]
    view = samples.select(known, ordered=True)
    fob.compute_uniqueness(
        view, uniqueness_field=field, embeddings=vectors[there], progress=progress
    )
    return len(known)


_NO_EMBEDDINGS = (
    "Embeddings of fewer than two of these images are stored: run zs.classify with "
    "embeddings='reuse' first."
)


def _with_confidence(samples: SampleCollection, predictions: str) -> DatasetView:
    """The samples whose predictions can be judged."""
    from fiftyone import ViewField as F

    path = ErrorInputs(samples, predictions).path("confidence")
    if samples.get_field(path) is None or not samples.count(path):
        raise FieldError(
            f"The labels of {predictions!r} have no confidence, which mistakenness needs."
        )
    if label_type(samples, predictions) == "Detections":
        return samples.exists(predictions)
    return samples.match(is_labeled(samples, predictions) & F(path).exists())


def _have_logits(view: DatasetView, predictions: str) -> bool:
    # A count of arrays does not read them
    path = f"{predictions}.logits"
    return view.get_field(path) is not None and view.count(path) == len(view)


def _check_any(view: DatasetView, what: str) -> None:
    if not view.limit(1).values("id"):
        raise FieldError(f"No sample has labels of {what} that can be judged.")


def _check_field(samples: SampleCollection, field: str, overwrite: bool) -> None:
    taken = samples._dataset.get_field(field) is not None
    if taken and not overwrite and samples._dataset.exists(field).limit(1).values("id"):
        raise FieldError(
            f"Field {field!r} holds values: choose another name, or allow overwriting "
            "(overwrite=True)."
        )
