"""``zs.export_statistics`` and ``zs.head_from_statistics``: samples to statistics to a head."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from zs_operators.classification import Classes
from zs_operators.errors import InvalidInputError
from zs_operators.heads import gda
from zs_operators.heads.fitting import Labelled, checked, describe, gather
from zs_operators.heads.gathering import Gathered
from zs_operators.heads.head import Head, build
from zs_operators.heads.identity import check_fits
from zs_operators.heads.report import HeadReport
from zs_operators.heads.selection import choose_weight
from zs_operators.heads.statistics import Statistics, statistics_of
from zs_operators.option_checks import check_count
from zs_operators.progress import show_progress
from zs_operators.report import Progress
from zs_operators.vocabulary import Vocabulary
from zs_operators.weights import DEFAULT_CLIP

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

    from zs_operators.clip import ClipModel

DEFAULT_MIN_COUNT = 8
_DRAWS = 20
_SEED = 0


def export_statistics(
    samples: SampleCollection,
    classes: Classes,
    ground_truth: str,
    path: str | os.PathLike | None = None,
    *,
    progress: bool | Callable | None = None,
    **kwargs: Any,
) -> Statistics:
    """Counts, sums and second moments of labelled embeddings, to be merged with other sites'.

    No image and no embedding of one is written, only sums over at least ``min_count`` samples of
    a class. That is no proof of privacy.

    Args:
        samples, classes, ground_truth: see :func:`zs_operators.fit_head`
        path (None): write a ``.safetensors`` file
        site (the dataset's name): who this is, for people
        min_count (8): leave out classes with fewer samples; at least 2
        overwrite (False): allow replacing the file
        model ("clip-vit-b-32"), weights (None), templates ("simple"), background (None),
        region_embedding ("auto"), embeddings ("reuse"), batch_size ("auto"), device ("auto"),
        precision ("auto"), workers (None), progress (None): see :func:`zs_operators.fit_head`

    Returns:
        :class:`Statistics`; ``left_out`` says which classes have too few samples

    Raises:
        InvalidInputError: if an argument cannot be used, or no class has enough samples
        WeightsError: if weights are missing or do not fit
    """
    steps = iter_export_statistics(samples, classes, ground_truth, path, **kwargs)
    return show_progress(steps, progress)


def iter_export_statistics(
    samples: SampleCollection,
    classes: Classes,
    ground_truth: str,
    path: str | os.PathLike | None = None,
    *,
    site: str | None = None,
    min_count: int = DEFAULT_MIN_COUNT,
    overwrite: bool = False,
    **options: Any,
) -> Generator[Progress, None, Statistics]:
    """Like :func:`export_statistics`, as a generator that yields :class:`Progress`."""
    check_count("min_count", min_count, 2)  # the mean of one is that one
    labelled = yield from gather(samples, classes, ground_truth, **checked(options))
    found = statistics_of(
        labelled.clip,
        labelled.vocabulary,
        labelled.support(),
        labelled.embedding,
        site=site or samples._root_dataset.name,
        min_count=min_count,
    )
    if path is not None:
        found.save(path, overwrite=overwrite)
    return found


def head_from_statistics(
    statistics: Statistics,
    *,
    model: str | ClipModel = DEFAULT_CLIP,
    weights: str | os.PathLike | None = None,
    alpha: float | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> Head:
    """A GDA head where no labelled samples are at hand, such as at a server.

    Its weight cannot be chosen by leaving samples out. Instead 20 embeddings a class are drawn from
    the Gaussians that the statistics describe, and stand in for them: an optimistic estimate, so
    with labelled samples at hand rather use ``zs.fit_head(…, statistics=)``.

    Args:
        statistics: of :func:`zs_operators.merge_statistics`
        model ("clip-vit-b-32"), weights (None), device ("auto"), precision ("auto"): see
            :func:`zs_operators.classify`
        alpha (None): the weight; None to choose it

    Raises:
        InvalidInputError: if the statistics are of another model, or show no spread
        WeightsError: if weights are missing or do not fit
    """
    from zs_operators.clip import load_clip

    begun = time.perf_counter()
    if alpha is not None and not 0 <= alpha < float("inf"):
        raise InvalidInputError(f"alpha={alpha!r} must be a number >= 0, or None.")
    clip = load_clip(model, weights, device=device, precision=precision)
    vocabulary = Vocabulary.from_dict(statistics.vocabulary)
    check_fits(
        "These statistics", statistics.model, statistics.words, statistics.columns, clip, vocabulary
    )
    moments = statistics.moments
    embeddings, columns = _drawn(moments)
    gathered = Gathered(embeddings, columns)
    labelled = Labelled(
        clip, vocabulary, clip.class_vectors(vocabulary), statistics.embedding, gathered
    )
    support = labelled.support()
    scale = gda.scale_of(moments, support.texts)
    weight, bias = gda.fit(moments, support.texts, scale)
    group = None if support.supported.all() else gda.leave_classes_out(support, scale, moments)
    one = support.embeddings @ weight.T + bias
    choice = choose_weight(support, {"text_scale": scale}, one, group)
    if alpha is not None:
        choice = replace(choice, alpha=float(alpha))
    described = describe(choice, support, vocabulary, moments)
    report = HeadReport(
        name=None,
        model=clip.name,
        ground_truth=f"statistics of {statistics.site}",
        seconds=round(time.perf_counter() - begun, 3),
        **{
            **described,
            "warnings": (
                "Accuracies are of embeddings drawn from the statistics: measure on labelled "
                "samples before relying on them.",
                *(f"Suspicious: {one}." for one in statistics.suspicious),
                *described["warnings"],
            ),
        },
    )
    return build(
        choice,
        support,
        moments,
        clip=clip,
        vocabulary=vocabulary,
        embedding=statistics.embedding,
        report=report,
    )


def _drawn(moments: gda.Moments) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings like those that were summed up, the same ones every time.

    Raises:
        InvalidInputError: if the statistics have no spread
    """
    means = moments.means
    freedom = int(moments.counts.sum()) - len(means)
    values, vectors = np.linalg.eigh(moments.scatter)
    if freedom < 1 or values.sum() <= 1e-12:
        raise InvalidInputError(
            "These statistics have no spread to draw from: they are of one sample a class."
        )
    spread = np.sqrt(np.maximum(values, 0) / freedom)
    noise = np.random.default_rng(_SEED).normal(size=(len(means), _DRAWS, len(values)))
    drawn = (means[:, None] + (noise * spread) @ vectors.T).reshape(-1, len(values))
    columns = np.repeat(np.flatnonzero(moments.supported), _DRAWS)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn.astype(np.float32), columns
