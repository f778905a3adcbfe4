"""What will be loaded and where it comes from: the answer of every planner."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class WeightsPlan:
    """What will be loaded and where it comes from.

    Attributes:
        kind: as asked for
        model: as asked for; of a folder without a model named, the folder's name
        architecture: open_clip's name, the variant with the activation the weights were trained
            with; of a folder, the folder's name
        pretrained: open_clip's tag, None for local, bundled and random weights
        path: weights file, or folder with ``open_clip_config.json``; None if not here yet
        state: "bundled", "local", "cached", "download" (not here yet) or "random"
        size_mb, licence: None where not known
        sha256: before loading the one to expect, after loading the one of the file
        source: Hugging Face repository or URL, "bundled", "local" or "random"
        filenames: names the file goes by at the source, preferred first
    """

    kind: str
    model: str
    architecture: str
    pretrained: str | None
    path: str | None
    state: str
    size_mb: int | None = None
    licence: str | None = None
    sha256: str | None = None
    source: str | None = None
    filenames: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            field.name: list(value) if isinstance(value, tuple) else value
            for field in fields(self)
            for value in (getattr(self, field.name),)
        }
