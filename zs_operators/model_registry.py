"""The models that have a name here, read from ``data/models-*.yaml`` without importing torch."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from zs_operators.errors import InvalidInputError, UnknownModelError
from zs_operators.redaction import without_secrets

DEFAULT_CLIP = "clip-vit-b-32"
KINDS = ("clip", "proposals", "sam")

_PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class ModelEntry:
    """A named model of the registry: its card.

    Attributes:
        name: what to pass as ``model``
        kind: "clip", "proposals" or "sam"
        architecture: open_clip's, torchvision's or segment_anything's name of it, or
            ``"module:function"`` of a builder of ours
        pretrained: tag of the weights, None for bundled ones
        licence: of the weights
        size_mb: about what is downloaded
        sha256: of the weights file, or its beginning; None where not known
        source: Hugging Face repository, address, or "bundled"
        description: one line for people
        page: where all this is published
        folder: of bundled weights, absolute; else None
        file: name of a weights file that has to be fetched by hand
        size_bytes: of the weights file, where it is known exactly
        parameters_m: millions
        embedding_dim, image_px: of the network; None where it has none or takes any
        imagenet_top1: zero-shot accuracy as published, in percent
        coco_box_ap: box AP on COCO as published
        accuracy_page: where that accuracy is published
        tokenizer: Hugging Face repository that the text tower needs besides its weights
        needs: packages it needs besides those that are always installed
    """

    name: str
    kind: str
    architecture: str
    pretrained: str | None = None
    licence: str | None = None
    size_mb: int | None = None
    sha256: str | None = None
    source: str = "bundled"
    description: str = ""
    page: str | None = None
    folder: str | None = None
    file: str | None = None
    size_bytes: int | None = None
    parameters_m: float | None = None
    embedding_dim: int | None = None
    image_px: int | None = None
    imagenet_top1: float | None = None
    coco_box_ap: float | None = None
    accuracy_page: str | None = None
    tokenizer: str | None = None
    needs: tuple[str, ...] = ()

    @property
    def memory_mb(self) -> int | None:
        """Estimate of what it takes to load: the file and the network at once, both in float32."""
        return None if self.parameters_m is None else round(self.parameters_m * 8)


@lru_cache(maxsize=1)
def _registry() -> dict[str, ModelEntry]:
    import yaml

    entries = {}
    for kind in KINDS:
        file = _PACKAGE / "data" / f"models-{kind}.yaml"
        for name, row in yaml.safe_load(file.read_text(encoding="utf-8")).items():
            if row.get("folder"):
                row["folder"] = str(_PACKAGE / row["folder"])
            row["needs"] = tuple(row.get("needs", ()))
            entries[name] = ModelEntry(name=name, **row)
    return entries


def models(kind: str | None = None) -> tuple[ModelEntry, ...]:
    """The registry's models, all or those of one kind, in the order to offer them."""
    if kind is not None:
        check_kind(kind)
    return tuple(entry for entry in _registry().values() if kind in (None, entry.kind))


def find_model(name: str) -> ModelEntry | None:
    """The model of this name, whatever its case, or None."""
    return _registry().get(name) or _registry().get(name.lower())


def require_model(name: str) -> ModelEntry:
    """The model of this name, whatever its case.

    Raises:
        UnknownModelError: if there is none; the message has the nearest names
    """
    entry = find_model(str(name).strip())
    if entry is None:
        nearest = difflib.get_close_matches(str(name).lower(), _registry(), n=3, cutoff=0.4)
        raise UnknownModelError(
            f"no model is called {without_secrets(str(name))!r}; "
            + (f"nearest: {', '.join(nearest)}; " if nearest else "")
            + "`zs models` lists them all"
        )
    return entry


def check_kind(kind: str) -> None:
    """Refuse a kind that no model is of.

    Raises:
        InvalidInputError: naming those there are
    """
    if kind not in KINDS:
        raise InvalidInputError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
