"""Unit embeddings and class vectors -> logits, probabilities, top-k and rejection. No models.

Columns are the classes of a vocabulary followed by its background prompts. Everything is computed
in float32, whatever precision the embeddings were made in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zs_operators.errors import InvalidInputError

if TYPE_CHECKING:
    import torch

    from zs_operators.heads.head import Head

    Array = np.ndarray | torch.Tensor

NEUTRAL_PROMPTS = ("a photo.", "a photo of something.", "a picture.")
"""Background prompts that say nothing, for multi-label scores of models trained with softmax."""

_UNIT_NORM_TOLERANCE = 0.01  # half-precision stores keep a unit vector's norm well within this


@dataclass(frozen=True)
class Scores:
    """Scores of N images against K columns.

    Attributes:
        logits: (N, K) float32, ``logit_scale * cosine + logit_bias``, without temperature
        probabilities: (N, K) float32 in [0, 1]
        cosines: (N, K) float32 in [-1, 1]
        finite: (N,) bool; False where an embedding had NaN, infinity or no length. The scores of
            such a row are 0 and mean nothing: record the sample as failed
    """

    logits: np.ndarray
    probabilities: np.ndarray
    cosines: np.ndarray
    finite: np.ndarray


@dataclass(frozen=True)
class Decisions:
    """What to write for N images, T candidates each.

    Attributes:
        order: (N, T) int64 columns of classes, best first; never a background column
        kept: (N, T) bool, whether that candidate passes every rule
        confidence: (N, T) float32 probability
        cosine: (N, T) float32
        margin: (N, T) float32, the candidate's logit minus the highest logit of any other column,
            background included; NaN where there is only one column
        rejected_by: (N,) object, None where something was kept, else the rule that removed the
            best candidate: "background", "confidence", "margin", "cosine", or "non_finite"
    """

    order: np.ndarray
    kept: np.ndarray
    confidence: np.ndarray
    cosine: np.ndarray
    margin: np.ndarray
    rejected_by: np.ndarray


def class_vectors(
    prompt_embeddings: torch.Tensor,
    columns: Sequence[int],
    num_columns: int,
    weights: Sequence[float] | None = None,
) -> torch.Tensor:
    """Average prompts into one unit vector a column: normalise, mean, normalise.

    That is the classifier of Radford et al. 2021 (CLIP), section 3.1.4, and of
    ``open_clip.build_zero_shot_classifier``. The mean is taken over normalised embeddings and
    normalised again, so a column does not score higher for having fewer or more alike prompts.

    Args:
        prompt_embeddings: (P, D) float tensor; the encoder's output, normalised or not
        columns: P column indices, one a prompt
        num_columns: K
        weights (None): P positive numbers, what each prompt adds to its mean; None for all alike

    Returns:
        (K, D) float32 tensor, rows of unit length

    Raises:
        InvalidInputError: if shapes disagree, a column has no prompt, or a vector is not finite
            or has no length
    """
    import torch
    import torch.nn.functional as F

    embeddings = torch.as_tensor(prompt_embeddings).float()
    if embeddings.ndim != 2 or len(columns) != embeddings.shape[0]:
        raise InvalidInputError(
            f"expected (P, D) prompt embeddings and P columns, got shape "
            f"{tuple(embeddings.shape)} and {len(columns)} columns"
        )
    rows: list[list[int]] = [[] for _ in range(num_columns)]
    for row, column in enumerate(columns):
        if not 0 <= column < num_columns:
            raise InvalidInputError(f"prompt {row} is of column {column}, outside 0..{num_columns}")
        rows[column].append(row)
    empty = [column for column, members in enumerate(rows) if not members]
    if empty:
        raise InvalidInputError(f"columns {empty} have no prompt")

    unit = _unit_rows(embeddings, F)
    if weights is not None:
        unit = unit * torch.tensor(weights, dtype=torch.float32)[:, None]
    # columns with equally many prompts are averaged in one call, as open_clip does it
    vectors = embeddings.new_empty(num_columns, embeddings.shape[1])
    for count in sorted({len(members) for members in rows}):
        group = [column for column, members in enumerate(rows) if len(members) == count]
        index = torch.tensor([rows[column] for column in group])
        means = unit[index].mean(dim=1)
        vectors[group] = means / means.norm(dim=1, keepdim=True)
    bad = (~torch.isfinite(vectors).all(dim=1)).nonzero().flatten().tolist()
    if bad:
        raise InvalidInputError(
            f"the class vectors of columns {bad} are not finite: the prompts' embeddings are "
            "not finite or cancel out"
        )
    return vectors


def _unit_rows(embeddings: torch.Tensor, functional) -> torch.Tensor:
    """Rows of unit length; rows that already are stay as they are, to the last bit."""
    norms = embeddings.norm(dim=1, keepdim=True)
    return functional.normalize(embeddings, dim=-1).where((norms - 1).abs() > 1e-6, embeddings)


def score(
    embeddings: Array,
    vectors: Array,
    *,
    logit_scale: float,
    logit_bias: float | None = None,
    temperature: float | None = None,
    multi_label: bool = False,
    num_background: int = 0,
    columns: Sequence[int] | None = None,
    head: Head | None = None,
) -> Scores:
    """Score N images against K columns.

    ``logit = logit_scale * cosine (+ logit_bias)``, both as trained. Probabilities are

    - of a model with a logit bias (SigLIP): ``sigmoid(logit)``, independent of the other columns;
    - of a model trained with softmax: softmax over all columns. One column alone has
      probability 1 whatever the image shows: give background prompts, or use the cosine;
    - of such a model with ``multi_label``: a two-way softmax of each class against the strongest
      background prompt, ``sigmoid(logit - max(background logits))``, because a softmax across
      classes makes those that appear together suppress each other.

    Args:
        embeddings: (N, D) unit vectors
        vectors: (K, D) unit vectors, classes first and then ``num_background`` background rows
        logit_scale: the checkpoint's ``exp(logit_scale)``, around 100 for trained models
        logit_bias (None): the checkpoint's; not None marks a model trained with a sigmoid loss
        temperature (None): divides the logits before they turn into probabilities; logits,
            margins and the ranking do not change with it
        multi_label (False): whether several classes may be right at once
        num_background (0): how many of the last rows of ``vectors`` are background
        columns (None): the column of each row of ``vectors``, if several share one: the vector
            nearest to the image gives a column its cosine and logit. None for one row a column
        head (None): adds to the logits what labelled samples taught it; cosines stay as they are

    Raises:
        InvalidInputError: if shapes or numbers are unusable, or ``multi_label`` is asked of a
            softmax model without background
    """
    import torch

    images = torch.as_tensor(embeddings).detach().cpu().float()
    classes = torch.as_tensor(vectors).detach().cpu().float()
    if images.ndim != 2 or classes.ndim != 2 or images.shape[1] != classes.shape[1]:
        raise InvalidInputError(
            f"expected (N, D) embeddings and (K, D) vectors, got {tuple(images.shape)} and "
            f"{tuple(classes.shape)}"
        )
    if columns is not None and len(columns) != classes.shape[0]:
        raise InvalidInputError(f"{len(columns)} columns were given for {classes.shape[0]} vectors")
    num_columns = classes.shape[0] if columns is None else max(columns) + 1
    _check_background(num_background, num_columns)
    if not (math.isfinite(logit_scale) and logit_scale > 0):
        raise InvalidInputError(f"logit_scale must be a positive number, not {logit_scale!r}")
    if logit_bias is not None and not math.isfinite(logit_bias):
        raise InvalidInputError(f"logit_bias must be finite, not {logit_bias!r}")
    if temperature is not None and not (math.isfinite(temperature) and temperature > 0):
        raise InvalidInputError(f"temperature must be a positive number, not {temperature!r}")
    if not torch.isfinite(classes).all():
        raise InvalidInputError("the class vectors contain NaN or infinity")
    if multi_label and logit_bias is None and not num_background:
        raise InvalidInputError(
            "multi_label with a model trained with softmax needs background prompts to compare "
            f"each class with; add some, for example background={list(NEUTRAL_PROMPTS)!r}"
        )

    norms = images.norm(dim=1)
    finite = torch.isfinite(norms) & (norms > 0)
    far = finite & ((norms - 1).abs() > _UNIT_NORM_TOLERANCE)
    if far.any():
        row = int(far.nonzero()[0])
        raise InvalidInputError(
            f"embeddings must have unit length; row {row} has length {float(norms[row]):.3g}"
        )
    images = torch.where(finite[:, None], images, torch.zeros_like(images))

    cosines = images @ classes.T
    if columns is not None:
        index = torch.as_tensor(columns).expand(len(cosines), -1)
        lowest = cosines.new_full((len(cosines), num_columns), -math.inf)
        cosines = lowest.scatter_reduce(1, index, cosines, "amax")
    logits = cosines * logit_scale
    if logit_bias is not None:
        logits = logits + logit_bias
    offsets = None if head is None else head.offsets(images.numpy())
    if offsets is not None:
        logits = logits + torch.from_numpy(offsets)
    scaled = logits if temperature is None else logits / temperature
    if logit_bias is not None:
        probabilities = torch.sigmoid(scaled)
    elif multi_label:
        background = scaled[:, num_columns - num_background :].amax(dim=1, keepdim=True)
        probabilities = torch.sigmoid(scaled - background)
    else:
        probabilities = torch.softmax(scaled, dim=1)
    unusable = ~finite[:, None]
    return Scores(
        logits=logits.masked_fill(unusable, 0).numpy(),
        probabilities=probabilities.masked_fill(unusable, 0).numpy(),
        cosines=cosines.clamp(-1, 1).numpy(),
        finite=finite.numpy(),
    )


def decide(
    scores: Scores,
    *,
    num_background: int = 0,
    top_k: int | None = None,
    multi_label: bool = False,
    min_confidence: float | Sequence[float] | None = None,
    min_margin: float | Sequence[float] | None = None,
    min_cosine: float | Sequence[float] | None = None,
) -> Decisions:
    """Rank the classes of each image and apply the rejection rules, all off by default.

    Rules: "background", a background column's logit is higher than the candidate's (always on
    where there is background); "confidence", "margin" and "cosine", the candidate's value is
    below the threshold. With one label an image, an image whose best class is rejected keeps
    nothing, and only the best class has a margin worth testing. With ``multi_label`` each
    candidate stands for itself.

    Args:
        scores: of N images
        num_background (0): how many of the last columns are background
        top_k (None): candidates an image, at most; None is 1, or all classes for ``multi_label``
        multi_label (False): whether several classes may be right at once
        min_confidence (None), min_margin (None), min_cosine (None): thresholds, one number or one
            a class, -inf for none; a value equal to its threshold passes

    Raises:
        InvalidInputError: for unusable thresholds or ``top_k``; for ``min_margin`` where classes
            do not compete (``multi_label``, or a single column)
    """
    num_images, num_columns = scores.logits.shape
    _check_background(num_background, num_columns)
    num_classes = num_columns - num_background
    min_confidence = _check_limit("min_confidence", min_confidence, num_classes)
    min_margin = _check_limit("min_margin", min_margin, num_classes)
    min_cosine = _check_limit("min_cosine", min_cosine, num_classes)
    if min_margin is not None and (multi_label or num_columns == 1):
        raise InvalidInputError(
            "min_margin compares a class with its competitors, and there are none "
            + ("when multi_label is on" if multi_label else "with a single class")
            + "; use min_confidence or min_cosine"
        )
    if top_k is None:
        count = num_classes if multi_label else 1
    elif isinstance(top_k, bool) or not hasattr(top_k, "__index__") or int(top_k) < 1:
        raise InvalidInputError(f"top_k must be a whole number of at least 1, not {top_k!r}")
    else:
        count = min(int(top_k), num_classes)

    class_logits = scores.logits[:, :num_classes]
    # by logit: probabilities saturate at 0 and 1 and would tie
    if count == 1:  # sorting a hundred classes takes longer than all the rest
        order = class_logits.argmax(axis=1)[:, None]
    else:
        order = np.argsort(-class_logits, axis=1, kind="stable")[:, :count]
    confidence = np.take_along_axis(scores.probabilities, order, axis=1)
    cosine = np.take_along_axis(scores.cosines, order, axis=1)
    logit = np.take_along_axis(scores.logits, order, axis=1)
    margin = np.take_along_axis(margins(scores.logits), order, axis=1)

    failed: dict[str, np.ndarray] = {}
    if num_background:
        background = scores.logits[:, num_classes:].max(axis=1, keepdims=True)
        failed["background"] = background > logit
    if min_confidence is not None:
        failed["confidence"] = confidence < _of(min_confidence, order)
    if min_margin is not None:
        below = margin < _of(min_margin, order)
        below[:, 1:] = False
        failed["margin"] = below
    if min_cosine is not None:
        failed["cosine"] = cosine < _of(min_cosine, order)
    failed["non_finite"] = np.repeat(~scores.finite[:, None], count, axis=1)

    kept = ~np.logical_or.reduce(list(failed.values()))
    if not multi_label:
        kept &= kept[:, :1]
    rejected_by = np.full(num_images, None, dtype=object)
    nothing = ~kept.any(axis=1)
    for rule in ("cosine", "margin", "confidence", "background", "non_finite"):
        if rule in failed:  # in rising order of precedence: the last one written stays
            rejected_by[nothing & failed[rule][:, 0]] = rule
    return Decisions(
        order=order.astype(np.int64),
        kept=kept,
        confidence=confidence,
        cosine=cosine,
        margin=margin,
        rejected_by=rejected_by,
    )


def margins(logits: np.ndarray) -> np.ndarray:
    """Each column's logit minus the highest logit of any other column.

    Args:
        logits: (N, K) float32

    Returns:
        (N, K) float32; NaN where K is 1
    """
    num_images, num_columns = logits.shape
    if num_columns == 1:
        return np.full_like(logits, np.nan)
    top_two = np.partition(logits, num_columns - 2, axis=1)[:, -2:]
    best_other = np.repeat(top_two[:, 1:], num_columns, axis=1)
    best_other[np.arange(num_images), logits.argmax(axis=1)] = top_two[:, 0]
    return logits - best_other


def _check_limit(
    name: str, limit: float | Sequence[float] | None, num_classes: int
) -> float | np.ndarray | None:
    """A finite number, or (num_classes,) float32 below infinity."""
    if limit is None or np.ndim(limit) == 0:
        if limit is not None and not math.isfinite(limit):
            raise InvalidInputError(f"{name} must be a number, not {limit!r}")
        return limit
    limits = np.asarray(limit, dtype=np.float32)
    if limits.shape != (num_classes,) or not (limits < math.inf).all():
        raise InvalidInputError(f"{name} must be {num_classes} numbers, one a class, not {limit!r}")
    return limits


def _of(limit: float | np.ndarray, order: np.ndarray) -> float | np.ndarray:
    """The threshold of each candidate."""
    return limit[order] if isinstance(limit, np.ndarray) else limit


def _check_background(num_background: int, num_columns: int) -> None:
    if not 0 <= num_background < num_columns:
        raise InvalidInputError(
            f"{num_background} of {num_columns} columns are background; at least one class is "
            "needed"
        )
