"""``zs.fit_head``: labelled samples of a dataset -> a head for its zero-shot classes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zs_operators.classification import Classes, parse_classes
from zs_operators.classifier import ZeroShotClassifier
from zs_operators.embeddings import MODES
from zs_operators.errors import InvalidInputError
from zs_operators.heads import saved
from zs_operators.heads.gathering import Gathered, gather_boxes, gather_images, label_kind
from zs_operators.heads.head import Head, build
from zs_operators.heads.identity import IMAGE
from zs_operators.heads.report import HeadReport
from zs_operators.heads.selection import METHODS, Choice, choose
from zs_operators.heads.support import Support
from zs_operators.model_stores import with_stored_texts
from zs_operators.option_checks import check_choice
from zs_operators.progress import show_progress
from zs_operators.reading import validate_workers
from zs_operators.region_fields import images_of
from zs_operators.report import Progress
from zs_operators.samples import check_samples
from zs_operators.weights import DEFAULT_CLIP

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

    from zs_operators.clip import ClipModel
    from zs_operators.heads.gda import Moments
    from zs_operators.heads.statistics import Statistics
    from zs_operators.vocabulary import Vocabulary

_SHOWN = 5


def fit_head(
    samples: SampleCollection,
    classes: Classes,
    ground_truth: str,
    *,
    progress: bool | Callable | None = None,
    **kwargs: Any,
) -> Head:
    """Learns from labelled samples what to add to the zero-shot scores of classes.

    Zero-shot stays the prior: classes without samples keep their chances. Constants are chosen by
    scoring each sample, and each class, with a head fitted without it; no labels are set aside.

    Args:
        samples: the labelled samples: a dataset, or a view of those that were reviewed, by a tag,
            a saved view or any other stage; labels that name no class are left out and counted
        classes: see :func:`zs_operators.classify`; all classes, also those without samples
        ground_truth: field of ``Classification`` labels, or of ``Detections``, whose boxes are
            then the samples. A label that is a background prompt is a sample of none of the classes
        name (None): save the head with the dataset under this name; None does not save it
        method ("auto"): ``"kernel_ridge"``, ``"gda"``, ``"logistic_regression"``, or the best one
            left-one-out among those that the number of samples a class allows
        statistics (None): of :func:`zs_operators.merge_statistics`, which these samples are part
            of: the head is GDA on all of them, and its weight is chosen on these samples
        model ("clip-vit-b-32"), weights (None), templates ("simple"), background (None): see
            :func:`zs_operators.classify`
        region_embedding ("auto"): see :func:`zs_operators.detect`; of boxes only
        embeddings ("reuse"): take embeddings from the store and add what is missing, as
            :func:`zs_operators.classify` does
        batch_size ("auto"), device ("auto"), precision ("auto"), workers (None): see
            :func:`zs_operators.classify`
        overwrite (False): allow replacing another head of that name
        progress (None): see :func:`zs_operators.classify`

    Returns:
        a :class:`Head`; its ``report`` says how it does

    Raises:
        InvalidInputError: if an argument cannot be used, or no label is one of the classes
        WeightsError: if weights are missing or do not fit
    """
    return show_progress(iter_fit_head(samples, classes, ground_truth, **kwargs), progress)


def iter_fit_head(
    samples: SampleCollection,
    classes: Classes,
    ground_truth: str,
    *,
    name: str | None = None,
    method: str = "auto",
    statistics: Statistics | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Generator[Progress, None, Head]:
    """Like :func:`fit_head`, as a generator that yields :class:`Progress`; it returns the head."""
    begun = time.perf_counter()
    check_choice("method", method, ("auto", *METHODS))
    if name is not None:
        saved.check_name(samples, name, overwrite=overwrite)
    labelled = yield from gather(samples, classes, ground_truth, **checked(options))
    clip, vocabulary, gathered = labelled.clip, labelled.vocabulary, labelled.gathered
    total = len(gathered.columns)
    yield Progress(total, total, "fitting the head")
    support = labelled.support()
    moments = None
    if statistics is not None:
        moments, kept = statistics.moments_for(clip, vocabulary, labelled.embedding, support)
        gathered.skipped["the statistics lack its class"] += len(support) - len(kept)
        support = kept
        method = "gda"
    choice = choose(support, method, moments)
    report = HeadReport(
        name=name,
        model=clip.name,
        ground_truth=ground_truth,
        seconds=round(time.perf_counter() - begun, 3),
        embedded=gathered.embedded,
        reused=gathered.reused,
        skipped=dict((+gathered.skipped).most_common(_SHOWN)),
        **describe(choice, support, vocabulary, moments),
    )
    head = build(
        choice,
        support,
        moments,
        clip=clip,
        vocabulary=vocabulary,
        embedding=labelled.embedding,
        report=report,
    )
    if name is not None:
        saved.save_head(samples, name, head, overwrite=overwrite)
    return head


def checked(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Arguments of :func:`gather`; an unknown name is an error that says which.

    Raises:
        InvalidInputError: if there is one
    """
    known = gather.__kwdefaults__
    unknown = [name for name in options if name not in known]
    if unknown:
        raise InvalidInputError(
            f"There is no argument {unknown[0]!r}; there are {', '.join(sorted(known))}."
        )
    return options


class Labelled:
    """Labelled embeddings with the model and the words they are for.

    Attributes:
        clip, vocabulary: loaded and parsed
        vectors: (V, D) of the vocabulary
        embedding: what the embeddings are of, see :class:`Head`
        gathered: the embeddings
    """

    def __init__(
        self, clip: ClipModel, vocabulary: Vocabulary, vectors: Any, embedding: Any, found: Gathered
    ) -> None:
        self.clip = clip
        self.vocabulary = vocabulary
        self.vectors = vectors
        self.embedding = embedding
        self.gathered = found

    def support(self) -> Support:
        """The embeddings with their zero-shot logits.

        Raises:
            InvalidInputError: if there is no labelled sample
        """
        found = self.gathered
        if not len(found.columns):
            why = "; ".join(f"{count} × {why}" for why, count in found.skipped.most_common(_SHOWN))
            raise InvalidInputError(
                "There is no labelled sample to learn from"
                + (f" ({why})." if why else ": no sample has a label.")
            )
        return make_support(self.clip, self.vocabulary, self.vectors, found)


def gather(
    samples: SampleCollection,
    classes: Classes,
    ground_truth: str,
    *,
    model: str | ClipModel = DEFAULT_CLIP,
    weights: str | os.PathLike | None = None,
    templates: str | Sequence[str] = "simple",
    background: Sequence[str] | None = None,
    region_embedding: str = "auto",
    embeddings: str = "reuse",
    batch_size: int | str = "auto",
    device: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
) -> Generator[Progress, None, Labelled]:
    """Loads the model, and embeds the labelled images or boxes; arguments of :func:`fit_head`."""
    from zs_operators.clip import load_clip
    from zs_operators.detector import ZeroShotDetector
    from zs_operators.device import resolve_batch_size
    from zs_operators.regions import RegionEncoder

    check_choice("embeddings", embeddings, MODES)
    workers = validate_workers(workers)
    is_boxes = samples is not None and label_kind(samples, ground_truth) == "Detections"
    if is_boxes:
        samples = images_of(samples, ground_truth, argument="ground_truth")
    check_samples(samples)
    vocabulary = parse_classes(samples, classes, templates=templates, background=background)
    resolve_batch_size(batch_size)
    clip = load_clip(model, weights, device=device, precision=precision)
    texts = with_stored_texts(clip, embeddings)
    options = {"embeddings": embeddings, "workers": workers}
    if is_boxes:
        encoder = RegionEncoder(clip, region_embedding)
        detector = ZeroShotDetector(texts, vocabulary, encoder=encoder)
        size = detector.batch_size if batch_size == "auto" else resolve_batch_size(batch_size)
        found = yield from gather_boxes(samples, ground_truth, detector, batch_size=size, **options)
        return Labelled(clip, vocabulary, detector.vectors, encoder.describe(), found)
    classifier = ZeroShotClassifier(texts, vocabulary)
    size = resolve_batch_size(batch_size, clip.device, clip.precision)
    found = yield from gather_images(samples, ground_truth, classifier, batch_size=size, **options)
    return Labelled(clip, vocabulary, classifier.vectors, IMAGE, found)


def make_support(
    clip: ClipModel, vocabulary: Vocabulary, vectors: Any, gathered: Gathered
) -> Support:
    """Embeddings with their zero-shot logits, and the text of each column.

    A column of several vectors, such as synonyms merged by ``"max"``, has their mean for its text.
    """
    from zs_operators import scoring

    columns = vocabulary.vector_columns()
    embeddings = gathered.embeddings.astype(np.float64)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    scores = scoring.score(
        gathered.embeddings,
        vectors,
        logit_scale=clip.logit_scale,
        logit_bias=clip.logit_bias,
        columns=columns,
    )
    texts = np.asarray(vectors, np.float64)
    if columns is not None:
        sums = np.zeros((len(vocabulary.columns), texts.shape[1]))
        np.add.at(sums, np.asarray(columns), texts)
        texts = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return Support(embeddings, gathered.columns, scores.logits.astype(np.float64), texts)


def describe(
    choice: Choice, support: Support, vocabulary: Vocabulary, moments: Moments | None = None
) -> dict[str, Any]:
    """What a report says of a choice.

    Args:
        choice, support, vocabulary: what was chosen, on which samples, for which classes
        moments (None): what the head is fitted on, if that is more than the support
    """
    columns, measured = vocabulary.columns, support.counts
    counts = measured if moments is None else moments.counts
    before, after = choice.before, choice.after
    classes = {
        label: {
            "shots": int(counts[i]),
            "before": round(float(before.by_class[i]), 6),
            "after": round(float(after.by_class[i]), 6),
        }
        for i, label in enumerate(columns)
        if measured[i]
    }
    return {
        "method": choice.method,
        "alpha": float(choice.alpha),
        "constants": choice.constants,
        "shots": {label: int(counts[i]) for i, label in enumerate(columns) if counts[i]},
        "unsupported": tuple(label for i, label in enumerate(vocabulary.labels) if not counts[i]),
        "supported_before": before.supported,
        "supported_after": after.supported,
        "unsupported_before": before.unsupported,
        "unsupported_after": after.unsupported,
        "harmonic_before": before.harmonic,
        "harmonic_after": after.harmonic,
        "classes": classes,
        "warnings": tuple(_warnings(choice, support, classes)),
    }


def _warnings(
    choice: Choice, support: Support, classes: dict[str, dict[str, float]]
) -> Generator[str, None, None]:
    if not choice.alpha:
        yield (
            "No head did better than zero-shot on samples it was fitted without: this one changes "
            "nothing. Label more samples, above all of classes that are confused."
        )
    elif support.counts.max() == 1:
        yield (
            "With one sample a class, what a head gains cannot be measured on its own samples, "
            "only that it does no harm: label a second one of each class."
        )
    if support.supported.sum() == 1:
        yield (
            "Only one class has samples, so how classes without fare could not be estimated: look "
            "at what this class takes from others."
        )
    elif choice.after.unsupported is not None and (
        choice.after.unsupported < choice.before.unsupported
    ):
        yield (
            f"Classes without samples do worse than zero-shot: {choice.after.unsupported:.3f} "
            f"instead of {choice.before.unsupported:.3f}, estimated on classes left out."
        )
    worse = [name for name, row in classes.items() if row["after"] < row["before"]]
    if worse:
        more = f" and {len(worse) - _SHOWN} more" if len(worse) > _SHOWN else ""
        yield f"Worse than zero-shot: {', '.join(worse[:_SHOWN])}{more}."
