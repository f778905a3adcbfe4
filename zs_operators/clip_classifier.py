"""CLIP zero-shot classification as a FiftyOne model, for ``apply_model`` and the FiftyOne Brain."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import fiftyone.core.labels as fol
import fiftyone.core.models as fom
import numpy as np

from zs_operators import labels
from zs_operators.classification import Classes, parse_classes, with_neutral_prompts
from zs_operators.classifier import (
    ClassifyOptions,
    ZeroShotClassifier,
    embed_pixels,
    load_pixels,
)
from zs_operators.clip import ClipModel, load_clip
from zs_operators.errors import InvalidInputError
from zs_operators.fiftyone_models import LoadSample, Unread, ZeroShotModel, as_upright
from zs_operators.weights import DEFAULT_CLIP


class ClipClassifier(ZeroShotModel, fom.LogitsMixin, fom.EmbeddingsMixin, fom.PromptMixin):
    """A zero-shot CLIP classifier that FiftyOne can apply, embed and search with.

    ``dataset.apply_model(model, "field", batch_size=32)`` writes the labels that
    :func:`zs_operators.classify` writes; ``dataset.compute_embeddings(model)`` and
    ``fiftyone.brain.compute_similarity(dataset, model=model)`` use the same embeddings.
    :func:`zs_operators.classify` also records failures, progress and provenance, and resumes.

    Args:
        classes (None): see :func:`zs_operators.classify`; None for embeddings and text search only
        model ("clip-vit-b-32"): a registry name, an open_clip architecture or a loaded model
        weights (None): an open_clip pretrained tag, or a local file or folder
        templates ("simple"), background (None): see :func:`zs_operators.classify`
        reject_label (None): label for rejected images
        device ("auto"), precision ("auto"): where and in what precision the model runs
        **options: ``top_k``, ``multi_label``, ``min_confidence``, ``min_margin``, ``min_cosine``,
            ``temperature``, ``store_logits``

    Raises:
        InvalidInputError: if an argument cannot be used
        WeightsError: if weights are missing or do not fit
    """

    def __init__(
        self,
        classes: Classes | None = None,
        *,
        model: str | ClipModel = DEFAULT_CLIP,
        weights: str | os.PathLike | None = None,
        templates: str | Sequence[str] = "simple",
        background: Sequence[str] | None = None,
        reject_label: str | None = None,
        device: str = "auto",
        precision: str = "auto",
        **options: Any,
    ) -> None:
        ZeroShotModel.__init__(self)
        fom.LogitsMixin.__init__(self)
        try:
            parsed = ClassifyOptions(**options)
        except TypeError as error:
            raise InvalidInputError(f"ClipClassifier got an unknown option: {error}") from error
        vocabulary = None
        if classes is not None:
            vocabulary = parse_classes(None, classes, templates=templates, background=background)
        self.clip = load_clip(model, weights, device=device, precision=precision)
        self.classifier = None
        if vocabulary is not None:
            vocabulary = with_neutral_prompts(vocabulary, self.clip, parsed)
            self.classifier = ZeroShotClassifier(self.clip, vocabulary, parsed)
        self.reject_label = reject_label
        self._embeddings: np.ndarray | None = None
        if parsed.store_logits:
            self.store_logits = True

    @property
    def transforms(self) -> Any:
        """Image or patch as PIL image or (H, W, 3) uint8 array -> (3, S, S) uint8 tensor."""
        return self._transform

    @property
    def has_logits(self) -> bool:
        return self.classifier is not None

    @property
    def has_embeddings(self) -> bool:
        return True

    @property
    def can_embed_prompts(self) -> bool:
        return True

    def build_get_item(self, field_mapping: dict[str, str] | None = None) -> LoadSample:
        return LoadSample(self._load, field_mapping=field_mapping)

    def get_embeddings(self) -> np.ndarray:
        """(N, D) float32 L2-normalised embeddings of the last batch."""
        return self._embeddings

    def embed(self, arg: Any) -> np.ndarray:
        """(D,) float32 L2-normalised embedding of one image."""
        return self.embed_all([arg])[0]

    def embed_all(self, args: Sequence[Any]) -> np.ndarray:
        """(N, D) float32 L2-normalised embeddings.

        Raises:
            MediaError: if an image could not be read; FiftyOne then skips the batch
        """
        items = [self._prepare(arg) for arg in args]
        for item in items:
            if isinstance(item, Unread):
                raise item.error
        self._embeddings = self._embed(items).numpy()
        return self._embeddings

    def embed_prompt(self, arg: str) -> np.ndarray:
        """(D,) float32 L2-normalised embedding of one text, used as typed."""
        return self.embed_prompts([arg])[0]

    def embed_prompts(self, args: Sequence[str]) -> np.ndarray:
        """(N, D) float32 L2-normalised embeddings of texts, used as typed."""
        return self.clip.encode_texts(list(args)).numpy()

    def _load(self, d: dict[str, Any]) -> Any:
        return load_pixels(self.clip, d["filepath"])

    def _transform(self, image: Any) -> Any:
        return self.clip.preprocess(as_upright(image))

    def _embed(self, items: Sequence[Any]) -> Any:
        return embed_pixels(self.clip, items)

    def _predict(self, items: Sequence[Any]) -> list[fol.Label | None]:
        if self.classifier is None:
            raise InvalidInputError("This ClipClassifier has no classes: pass classes=[...].")
        embeddings = self._embed(items)
        self._embeddings = embeddings.numpy()
        predictions = self.classifier.predict_embeddings(embeddings, store_logits=self.store_logits)
        build = labels.classifications if self.classifier.options.is_list else labels.classification
        return [
            None if isinstance(one, Exception) else build(one, reject_label=self.reject_label)
            for one in predictions
        ]
