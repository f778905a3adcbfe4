"""CLIP zero-shot classification as a FiftyOne model, for ``apply_model`` and the FiftyOne Brain."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fiftyone.core.labels as fol
import fiftyone.core.models as fom
import fiftyone.utils.torch as fout
import numpy as np

from zs_operators import labels
from zs_operators.classification import Classes, parse_classes, with_neutral_prompts
from zs_operators.classifier import ClassifyOptions, ZeroShotClassifier
from zs_operators.clip import ClipModel, load_clip
from zs_operators.errors import InvalidInputError
from zs_operators.images import read_image
from zs_operators.weights import DEFAULT_CLIP


class Unread:
    """Takes the place of an image that could not be read.

    FiftyOne drops a whole batch when one of its items is an exception; this is not one.
    """

    def __init__(self, error: Exception) -> None:
        self.error = error


class LoadImage(fout.GetItem):
    """Reads and preprocesses one sample's image with the reader of this package."""

    def __init__(self, clip: ClipModel, field_mapping: dict[str, str] | None = None) -> None:
        super().__init__(field_mapping=field_mapping)
        self._clip = clip

    @property
    def required_keys(self) -> list[str]:
        return ["filepath"]

    def __call__(self, d: dict[str, Any]) -> Any:
        try:
            image = read_image(d["filepath"], reduce_to_px=self._clip.reduce_to_px)
            return self._clip.preprocess(image)
        except Exception as error:
            return Unread(error)


class ClipClassifier(
    fom.SupportsGetItem,
    fom.TorchModelMixin,
    fom.LogitsMixin,
    fom.EmbeddingsMixin,
    fom.PromptMixin,
    fom.Model,
):
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
        # Empty: confidence_thresh= and classes= of apply_model are applied by FiftyOne itself
        self.config = SimpleNamespace()
        self._preprocess = True
        self._embeddings: np.ndarray | None = None
        if parsed.store_logits:
            self.store_logits = True

    @property
    def media_type(self) -> str:
        return "image"

    @property
    def ragged_batches(self) -> bool:
        return False

    @property
    def transforms(self) -> Any:
        """Image or patch as PIL image or (H, W, 3) uint8 array -> (3, S, S) uint8 tensor."""
        return self._transform

    @property
    def preprocess(self) -> bool:
        """Whether :meth:`predict` gets images rather than tensors that are ready for the model."""
        return self._preprocess

    @preprocess.setter
    def preprocess(self, value: bool) -> None:
        self._preprocess = value

    @property
    def has_logits(self) -> bool:
        return self.classifier is not None

    @property
    def has_embeddings(self) -> bool:
        return True

    @property
    def can_embed_prompts(self) -> bool:
        return True

    @property
    def has_collate_fn(self) -> bool:
        return True

    @staticmethod
    def collate_fn(batch: Sequence[Any]) -> list[Any]:
        return list(batch)

    def build_get_item(self, field_mapping: dict[str, str] | None = None) -> LoadImage:
        return LoadImage(self.clip, field_mapping=field_mapping)

    def predict(self, arg: Any) -> fol.Label:
        """The label of one image, a (H, W, 3) uint8 array or a PIL image."""
        return self.predict_all([arg])[0]

    def predict_all(self, args: Sequence[Any]) -> list[fol.Label | None]:
        """One label per image, None for an image that could not be read."""
        if self.classifier is None:
            raise InvalidInputError("This ClipClassifier has no classes: pass classes=[...].")
        items = self._prepare(args)
        readable = [i for i, item in enumerate(items) if not isinstance(item, Unread)]
        found: list[fol.Label | None] = [None] * len(items)
        if not readable:
            return found
        embeddings = self.classifier.embed([items[i] for i in readable])
        self._embeddings = embeddings.numpy()
        predictions = self.classifier.predict_embeddings(embeddings, store_logits=self.store_logits)
        for i, prediction in zip(readable, predictions, strict=True):
            if not isinstance(prediction, Exception):
                found[i] = self._label(prediction)
        return found

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
        items = self._prepare(args)
        for item in items:
            if isinstance(item, Unread):
                raise item.error
        self._embeddings = self.clip.encode_images(_stack(items)).numpy()
        return self._embeddings

    def embed_prompt(self, arg: str) -> np.ndarray:
        """(D,) float32 L2-normalised embedding of one text, used as typed."""
        return self.embed_prompts([arg])[0]

    def embed_prompts(self, args: Sequence[str]) -> np.ndarray:
        """(N, D) float32 L2-normalised embeddings of texts, used as typed."""
        return self.clip.encode_texts(list(args)).numpy()

    def _prepare(self, args: Sequence[Any]) -> list[Any]:
        if not self._preprocess:
            return list(args)
        return [arg if isinstance(arg, Unread) else self._transform(arg) for arg in args]

    def _transform(self, image: Any) -> Any:
        if isinstance(image, (str, bytes, Path)):
            image = read_image(image, reduce_to_px=self.clip.reduce_to_px)
        elif not isinstance(image, np.ndarray):
            image = np.asarray(image.convert("RGB"))
        return self.clip.preprocess(image)

    def _label(self, prediction: Any) -> fol.Label:
        is_list = self.classifier.options.is_list
        build = labels.classifications if is_list else labels.classification
        return build(prediction, reject_label=self.reject_label)


def _stack(items: Sequence[Any]) -> Any:
    import torch

    return torch.stack(list(items))
