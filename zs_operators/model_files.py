"""Which files a model of the registry is made of, and which of them are here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zs_operators.model_registry import ModelEntry
from zs_operators.weights_files import hash_in_name, hub_filenames
from zs_operators.weights_places import find_checkpoint, find_in_hub

#: The files of a Hugging Face tokenizer that open_clip's text towers read; the last may be absent
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True)
class ModelFile:
    """One file of a model.

    Attributes:
        names: it goes by at its source, preferred first
        repo: Hugging Face repository, or None
        url: address of a single file, or None; without either it is fetched by hand
        sha256: of the registry, or its beginning; None where not known
        is_weights: whether it is the large one
        optional: whether its source may lack it
    """

    names: tuple[str, ...]
    repo: str | None = None
    url: str | None = None
    sha256: str | None = None
    is_weights: bool = True
    optional: bool = False

    @property
    def place(self) -> str:
        """The folder it belongs into, "hub" or "checkpoints"."""
        return "hub" if self.repo else "checkpoints"

    def find(self, folder: str | Path | None = None) -> Path | None:
        """Where it is on this machine, or None.

        Args:
            folder (None): a folder of weights, which alone counts then
        """
        if self.repo:
            return find_in_hub(self.repo, self.names, folder)
        return find_checkpoint(self.names[0], folder)


def model_files(entry: ModelEntry) -> tuple[ModelFile, ...]:
    """The files of a model, the weights first; none of a bundled one."""
    if entry.folder is not None:
        return ()
    if entry.file is not None:
        return (ModelFile((entry.file,), sha256=entry.sha256),)
    if entry.source.startswith(("http://", "https://")):
        name = entry.source.rsplit("/", 1)[-1]
        return (ModelFile((name,), url=entry.source, sha256=entry.sha256 or hash_in_name(name)),)
    weights = ModelFile(hub_filenames(""), repo=entry.source, sha256=entry.sha256)
    if entry.tokenizer is None:
        return (weights,)
    return (
        weights,
        *(
            ModelFile(
                (name,),
                repo=entry.tokenizer,
                is_weights=False,
                optional=name == TOKENIZER_FILES[-1],
            )
            for name in TOKENIZER_FILES
        ),
    )


def missing_files(entry: ModelEntry, folder: str | Path | None = None) -> list[ModelFile]:
    """What is not on this machine of what the model needs."""
    return [one for one in model_files(entry) if not one.optional and one.find(folder) is None]
