"""The models that have a name here, read from ``data/models.yaml`` without importing torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from zs_operators.errors import InvalidInputError

DEFAULT_CLIP = "clip-vit-b-32"
KINDS = ("clip", "proposals", "sam")

_PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class ModelEntry:
    """A named model of the registry.

    Attributes:
        name: what to pass as ``model``
        kind: "clip", "proposals" or "sam"
        architecture: open_clip's name of it
        pretrained: open_clip's tag of the weights, None for bundled ones
        licence: of the weights
        size_mb: about what is downloaded
        sha256: of the weights file, None where not known
        source: Hugging Face repository, or "bundled"
        description: one line for people
        folder: of bundled weights, absolute; else None
    """

    name: str
    kind: str
    architecture: str
    pretrained: str | None
    licence: str | None
    size_mb: int | None
    sha256: str | None
    source: str
    description: str
    folder: str | None = None


@lru_cache(maxsize=1)
def _registry() -> dict[str, ModelEntry]:
    import yaml

    table = yaml.safe_load((_PACKAGE / "data" / "models.yaml").read_text(encoding="utf-8"))
    entries = {}
    for name, row in table.items():
        if row.get("folder"):
            row["folder"] = str(_PACKAGE / row["folder"])
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


def check_kind(kind: str) -> None:
    """Refuse a kind that no model is of.

    Raises:
        InvalidInputError: naming those there are
    """
    if kind not in KINDS:
        raise InvalidInputError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
