"""Embeddings to and from FiftyOne: taken over from a dataset, and offered to the App's search."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from fiftyone.brain.internal.core.sklearn import (
    SklearnSimilarity,
    SklearnSimilarityConfig,
    SklearnSimilarityIndex,
)

from zs_operators.classifier import embed_pixels, load_pixels
from zs_operators.embeddings import image_key
from zs_operators.errors import FieldError, InvalidInputError, MediaError
from zs_operators.model_stores import image_store
from zs_operators.rescoring import image_keys

if TYPE_CHECKING:
    import fiftyone.core.models as fom
    from fiftyone.core.collections import SampleCollection

    from zs_operators.clip import ClipModel

#: Cosine that a taken embedding must have with ours; other ways to resize stay above it
MIN_AGREEMENT = 0.995
NUM_CHECKED = 8


class ZeroShotSimilarityConfig(SklearnSimilarityConfig):
    """An index whose text search loads a model of this package, in any session and in the App."""

    @property
    def method(self) -> str:
        return "zs"


class ZeroShotSimilarity(SklearnSimilarity):
    """Makes the indexes of :func:`register_index`."""

    def initialize(self, samples: SampleCollection, brain_key: str) -> SklearnSimilarityIndex:
        return ZeroShotSimilarityIndex(samples, self.config, brain_key, backend=self)


class ZeroShotSimilarityIndex(SklearnSimilarityIndex):
    """FiftyOne's own index, but for where its model comes from."""

    def get_model(self) -> fom.Model:
        """The CLIP that made the embeddings, as FiftyOne model."""
        if self._model is None:
            from zs_operators.clip_classifier import ClipClassifier

            self._model = ClipClassifier(model=self.config.model, **self.config.model_kwargs)
        return self._model


def register_index(
    samples: SampleCollection,
    clip: ClipModel,
    brain_key: str = "zs_similarity",
    *,
    weights: str | os.PathLike | None = None,
) -> int:
    """Offer stored embeddings as a similarity index: sorting by similarity and by text.

    Args:
        samples: a dataset or view; samples without a stored embedding are left out
        clip: the model they were made with
        brain_key ("zs_similarity"): name of the new index
        weights (None): what ``load_clip`` was given, so that the text search finds them again

    Returns:
        the number of samples in the index

    Raises:
        InvalidInputError: if the name is taken, or no sample has a stored embedding
    """
    dataset = samples._root_dataset
    if dataset.has_brain_run(brain_key):
        raise InvalidInputError(
            f"brain_key={brain_key!r} is taken: choose another, or delete_brain_run({brain_key!r})."
        )
    ids, paths = samples.values(["id", "filepath"])
    store = image_store(clip)
    vectors, there = store.vectors(store.find(image_keys(paths)))
    if not there.any():
        raise InvalidInputError(
            f"No embedding of these samples by {clip.name!r} is stored: run zs.classify with "
            "embeddings='reuse' first."
        )
    kwargs = {
        "weights": None if weights is None else os.fspath(weights),
        "precision": clip.precision,
    }
    config = ZeroShotSimilarityConfig(model=clip.name, model_kwargs=kwargs, supports_prompts=True)
    method = config.build()
    method.register_run(dataset, brain_key, overwrite=False)
    index = method.initialize(dataset, brain_key)
    index.add_to_index(vectors[there], np.array(ids)[there])
    method.save_run_results(dataset, brain_key, index)
    return int(there.sum())


def take_over(samples: SampleCollection, clip: ClipModel, source: str) -> int:
    """Store embeddings that a dataset has already, after checking some against the model.

    Args:
        samples: a dataset or view of images
        clip: the model that is said to have made them
        source: a field of vectors on the samples, or the key of a similarity index

    Returns:
        the number of embeddings stored; samples whose file is gone are left out

    Raises:
        FieldError: if there are no embeddings by that name, or of another length
        InvalidInputError: if those checked are not the model's
    """
    paths, vectors = _read_source(samples, source)
    if not len(vectors):
        raise FieldError(f"{source!r} holds no embeddings of these samples.")
    if vectors.ndim != 2 or vectors.shape[1] != clip.dim:
        raise FieldError(
            f"{source!r} holds embeddings of shape {vectors.shape[1:]}, and {clip.name!r} makes "
            f"({clip.dim},)."
        )
    # As ours: stored with unit length
    with np.errstate(invalid="ignore", divide="ignore"):
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    keys, rows = [], []
    for row, path in enumerate(paths):
        try:
            keys.append(image_key(path))
            rows.append(row)
        except MediaError:
            continue
    checked = np.unique(np.linspace(0, len(rows) - 1, NUM_CHECKED).astype(int)) if rows else []
    _check_agreement(
        [paths[rows[i]] for i in checked], vectors[[rows[i] for i in checked]], clip, source
    )
    with image_store(clip) as store:
        store.put(keys, vectors[rows])
        store.flush()
        if store.warnings:
            raise InvalidInputError(store.warnings[0])
    return int(np.isfinite(vectors[rows]).all(axis=1).sum())


def _read_source(samples: SampleCollection, source: str) -> tuple[list[str], np.ndarray]:
    dataset = samples._root_dataset
    if dataset.has_brain_run(source):
        index: Any = samples.load_brain_results(source)
        if not hasattr(index, "get_embeddings") or index.config.patches_field is not None:
            raise FieldError(f"Brain run {source!r} is not a similarity index of whole images.")
        vectors, ids, _ = index.get_embeddings()
        path_of = dict(zip(*samples.values(["id", "filepath"]), strict=True))
        rows = [row for row, one in enumerate(ids) if one in path_of]
        return [path_of[ids[row]] for row in rows], np.asarray(vectors, np.float32)[rows]
    if samples.get_field(source) is None:
        raise FieldError(f"{source!r} is neither a field nor a brain run of {dataset.name!r}.")
    pairs = zip(*samples.values(["filepath", source]), strict=True)
    found = [(path, vector) for path, vector in pairs if vector is not None]
    try:
        vectors = np.array([vector for _, vector in found], np.float32)
    except (TypeError, ValueError) as error:
        raise FieldError(f"Field {source!r} does not hold vectors of one length.") from error
    return [path for path, _ in found], vectors


def _check_agreement(paths: list[str], vectors: np.ndarray, clip: ClipModel, source: str) -> None:
    if not paths:
        raise InvalidInputError(f"None of the files that {source!r} has embeddings of is there.")
    ours = embed_pixels(clip, [load_pixels(clip, path) for path in paths]).numpy()
    cosines = (ours * vectors).sum(axis=1)
    worst = int(np.argmin(np.nan_to_num(cosines, nan=-1.0)))
    if not cosines[worst] >= MIN_AGREEMENT:
        raise InvalidInputError(
            f"The embeddings in {source!r} are not those of {clip.name!r}: {paths[worst]!r} has a "
            f"cosine of {cosines[worst]:.3f} with them, below {MIN_AGREEMENT}. Choose the model "
            "that made them."
        )
