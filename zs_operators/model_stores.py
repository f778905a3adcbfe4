"""The stores of a CLIP model's embeddings: of images, of regions, of prompts."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zs_operators.embeddings import EmbeddingStore, derived_key

if TYPE_CHECKING:
    import torch

    from zs_operators.clip import ClipModel

#: What is kept with a region: its box ``x1, y1, x2, y2`` in pixels, objectness, position
REGION_EXTRAS = 6
#: What is kept with an image's regions: width and height in pixels, lowest objectness embedded
REGION_FACTS = 3


def image_store(clip: ClipModel, **options: Any) -> EmbeddingStore:
    """Where the embeddings of whole images are; keys are of ``image_key``.

    Args:
        **options: ``dtype``, ``folder``, ``max_bytes`` of :class:`EmbeddingStore`
    """
    identity = {"kind": "image", **_identity(clip), "preprocessing": clip.preprocessing}
    return EmbeddingStore(identity, clip.dim, **options)


def region_store(
    clip: ClipModel, embedding: Mapping[str, Any], proposer: Any = None, **options: Any
) -> EmbeddingStore:
    """Where the boxes of images and their embeddings are.

    Args:
        embedding: :meth:`RegionEncoder.describe`
        proposer (None): plain JSON of all that decides the boxes; None for existing boxes
        **options: see :func:`image_store`
    """
    identity = {
        "kind": "region",
        **_identity(clip),
        "preprocessing": clip.preprocessing,
        "region_embedding": dict(embedding),
        "proposer": proposer,
    }
    return EmbeddingStore(identity, clip.dim, extras=REGION_EXTRAS, facts=REGION_FACTS, **options)


def text_store(clip: ClipModel, **options: Any) -> EmbeddingStore:
    """Where the embeddings of prompts are, in float32 like the text tower."""
    identity = {"kind": "text", **_identity(clip), "context_length": clip.context_length}
    return EmbeddingStore(identity, clip.dim, dtype="float32", **options)


def with_stored_texts(clip: ClipModel, embeddings: str, **options: Any) -> ClipModel:
    """The same model, with prompts encoded once and for all: a prompt that is stored is read.

    Args:
        clip: a loaded model, not changed
        embeddings: "off" returns the model itself, "refresh" stores all prompts again
        **options: see :func:`image_store`
    """
    if embeddings == "off":
        return clip
    remembering = copy.copy(clip)
    remembering.encode_texts = _StoredTexts(clip, embeddings == "refresh", options)
    return remembering


class _StoredTexts:
    """Takes the place of :meth:`ClipModel.encode_texts`."""

    def __init__(self, clip: ClipModel, refresh: bool, options: Mapping[str, Any]) -> None:
        self._encode = clip.encode_texts
        self._clip = clip
        self._refresh = refresh
        self._options = options

    def __call__(
        self, texts: Sequence[str], *args: Any, slice_padding: bool = True, **kwargs: Any
    ) -> torch.Tensor:
        import torch

        if not slice_padding or not len(texts):
            return self._encode(texts, *args, slice_padding=slice_padding, **kwargs)
        with text_store(self._clip, **self._options) as store:
            keys = [derived_key(text) for text in texts]
            vectors, there = store.vectors(store.find(keys))
            if self._refresh:
                there[:] = False
            missing = list(
                dict.fromkeys(t for t, found in zip(texts, there, strict=True) if not found)
            )
            if missing:
                encoded = self._encode(missing, *args, **kwargs).numpy()
                store.put([derived_key(text) for text in missing], encoded)
                row_of = {text: row for row, text in enumerate(missing)}
                for row in (~there).nonzero()[0]:
                    vectors[row] = encoded[row_of[texts[row]]]
        return torch.from_numpy(vectors)


def _identity(clip: ClipModel) -> dict[str, Any]:
    import open_clip

    return {
        "architecture": clip.architecture,
        "weights_sha256": clip.plan.sha256 or weights_digest(clip),
        "precision": clip.precision,
        "open_clip": open_clip.__version__,
    }


def weights_digest(model: Any) -> str:
    """Of weights that came from no file; computed once a model."""
    found = getattr(model.module, "_zs_weights_digest", None)
    if found is None:
        import torch

        digest = hashlib.sha256()
        for name, tensor in sorted(model.module.state_dict().items()):
            digest.update(name.encode())
            flat = tensor.detach().cpu().contiguous().flatten()
            digest.update(flat.view(torch.uint8).numpy())
        found = model.module._zs_weights_digest = digest.hexdigest()
    return found
