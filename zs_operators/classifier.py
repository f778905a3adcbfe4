"""Zero-shot image classification without FiftyOne: images and a vocabulary in, predictions out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Any

from zs_operators.errors import InvalidInputError, ZeroShotError
from zs_operators.images import read_image
from zs_operators.option_checks import check_range
from zs_operators.stage_times import stage

if TYPE_CHECKING:
    import torch

    from zs_operators.clip import ClipModel
    from zs_operators.device import BatchBudget
    from zs_operators.heads.head import Head
    from zs_operators.scoring import Decisions, Scores
    from zs_operators.vocabulary import Vocabulary


@dataclass(frozen=True)
class ClassScore:
    """One class of one image.

    Args:
        label: class name
        confidence: probability in [0, 1]
        cosine: cosine between the image and the class vector, in [-1, 1]
        margin: logit minus the highest logit of any other class or background prompt; None where
            there is no other
    """

    label: str
    confidence: float
    cosine: float
    margin: float | None


@dataclass(frozen=True)
class ClassPrediction:
    """What a classifier says about one image.

    Args:
        best: the class with the highest logit, even if it is rejected
        kept: classes that passed every rule, best first; empty if the image is rejected
        rejected_by: ``"background"``, ``"confidence"``, ``"margin"`` or ``"cosine"``, else None
        logits: one per class in the order of the vocabulary, None unless asked for
    """

    best: ClassScore
    kept: tuple[ClassScore, ...]
    rejected_by: str | None
    logits: list[float] | None = None


@dataclass(frozen=True)
class ClassifyOptions:
    """Options that decide labels; checked on construction.

    Args:
        top_k (None): keep the best k classes; None keeps one
        multi_label (False): score each class on its own and keep all that pass
        min_confidence (None): reject below this probability, in [0, 1]
        min_margin (None): reject below this margin in logits, >= 0
        min_cosine (None): reject below this cosine, in [-1, 1]
        temperature (None): divide logits by this before they become probabilities, > 0
        store_logits (False): keep the logits of all classes

    Raises:
        InvalidInputError: if a value is out of its range
    """

    top_k: int | None = None
    multi_label: bool = False
    min_confidence: float | None = None
    min_margin: float | None = None
    min_cosine: float | None = None
    temperature: float | None = None
    store_logits: bool = False

    def __post_init__(self) -> None:
        if self.top_k is not None and (
            isinstance(self.top_k, bool) or not isinstance(self.top_k, int) or self.top_k < 1
        ):
            raise InvalidInputError(f"top_k={self.top_k!r} must be an integer >= 1 or None.")
        check_range("min_confidence", self.min_confidence, 0.0, 1.0, optional=True)
        check_range("min_margin", self.min_margin, 0.0, math.inf, optional=True)
        check_range("min_cosine", self.min_cosine, -1.0, 1.0, optional=True)
        if self.temperature is not None and not (
            isinstance(self.temperature, (int, float)) and 0 < self.temperature < float("inf")
        ):
            raise InvalidInputError(f"temperature={self.temperature!r} must be a number > 0.")

    @property
    def is_list(self) -> bool:
        """Whether an image can have more than one label."""
        return self.multi_label or self.top_k is not None


def load_pixels(clip: ClipModel, source: str | bytes) -> torch.Tensor:
    """Reads and preprocesses one image; (3, S, S) uint8. Safe to call from many threads."""
    with stage("decode"):
        image = read_image(source, reduce_to_px=clip.reduce_to_px)
    with stage("preprocess"):
        return clip.preprocess(image)


def embed_pixels(clip: ClipModel, items: Sequence[torch.Tensor]) -> torch.Tensor:
    """(N, D) float32 L2-normalised embeddings of loaded images."""
    import torch

    return clip.encode_images(torch.stack(list(items)))


class ZeroShotClassifier:
    """A CLIP model with the class vectors of one vocabulary.

    Args:
        clip: a loaded model
        vocabulary: classes, templates and background prompts; encoded once, here. Thresholds of
            its classes go before those of the options
        options: how logits become labels
        head (None): adds to the logits what labelled samples taught it

    Raises:
        InvalidInputError: if options or the head do not fit the vocabulary or the model
    """

    def __init__(
        self,
        clip: ClipModel,
        vocabulary: Vocabulary,
        options: ClassifyOptions | None = None,
        *,
        head: Head | None = None,
    ) -> None:
        self.clip = clip
        self.vocabulary = vocabulary
        self.options = options or ClassifyOptions()
        self.head = None if head is None else head.fitted_to(clip, vocabulary)
        self._text_budget = clip.text_budget()
        self.vectors = clip.class_vectors(vocabulary, budget=self._text_budget)
        # Options that do not fit the vocabulary or the model are refused now, not mid-run
        self.predict_embeddings(self.vectors[:1])

    @property
    def budgets(self) -> list[BatchBudget]:
        """Of what is done in parts besides images, each of which may run out of memory."""
        return [self._text_budget]

    def load(self, source: str | bytes) -> torch.Tensor:
        """Reads and preprocesses one image; (3, S, S) uint8. Safe to call from many threads."""
        return load_pixels(self.clip, source)

    def embed(self, items: Sequence[torch.Tensor]) -> torch.Tensor:
        """(N, D) float32 L2-normalised embeddings of loaded images."""
        return embed_pixels(self.clip, items)

    def predict(self, items: Sequence[torch.Tensor]) -> list[ClassPrediction | Exception]:
        """One prediction per loaded image."""
        return self.predict_embeddings(self.embed(items))

    def predict_embeddings(
        self, embeddings: Any, *, store_logits: bool | None = None
    ) -> list[ClassPrediction | Exception]:
        """One prediction per embedding, an exception where an embedding is not finite.

        Args:
            embeddings: (N, D) float32, L2-normalised
            store_logits (None): overrides the option of that name
        """
        keep_logits = self.options.store_logits if store_logits is None else store_logits
        classes = self.vocabulary.labels
        with stage("score"):
            scores, decisions = self.decide(embeddings)
            logits = scores.logits[:, : len(classes)].tolist() if keep_logits else None
            return [
                _prediction(classes, decisions, row, logits[row] if logits else None)
                if scores.finite[row]
                else ZeroShotError("the model returned an embedding that is not finite")
                for row in range(len(scores.finite))
            ]

    def decide(self, embeddings: Any) -> tuple[Scores, Decisions]:
        """The same as arrays, for many images at once: their scores, and what is written.

        Args:
            embeddings: (N, D) float32, L2-normalised
        """
        from zs_operators import scoring

        options, background = self.options, len(self.vocabulary.background)
        scores = scoring.score(
            embeddings,
            self.vectors,
            logit_scale=self.clip.logit_scale,
            logit_bias=self.clip.logit_bias,
            temperature=options.temperature,
            multi_label=options.multi_label,
            num_background=background,
            columns=self.vocabulary.vector_columns(),
            head=self.head,
        )
        limits = self.vocabulary.limits
        decisions = scoring.decide(
            scores,
            num_background=background,
            top_k=options.top_k,
            multi_label=options.multi_label,
            min_confidence=limits("min_confidence", options.min_confidence),
            min_margin=limits("min_margin", options.min_margin),
            min_cosine=limits("min_cosine", options.min_cosine),
        )
        return scores, decisions


def _prediction(
    classes: Sequence[str], decisions: Decisions, row: int, logits: list[float] | None
) -> ClassPrediction:
    ranked = [
        ClassScore(classes[column], confidence, cosine, None if math.isnan(margin) else margin)
        for column, confidence, cosine, margin in zip(
            decisions.order[row].tolist(),
            decisions.confidence[row].tolist(),
            decisions.cosine[row].tolist(),
            decisions.margin[row].tolist(),
            strict=True,
        )
    ]
    kept = tuple(compress(ranked, decisions.kept[row]))
    return ClassPrediction(ranked[0], kept, decisions.rejected_by[row], logits)
