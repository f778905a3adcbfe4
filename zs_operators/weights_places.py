"""Where weights lie on this machine: the folder of ``ZS_WEIGHTS_DIR``, then the libraries' caches.

A folder of weights has the caches' own layout, so that a whole folder can be copied or mounted:
``hub/`` is a cache of Hugging Face, ``checkpoints/`` one of torch.hub.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

FOLDER_VARIABLE = "ZS_WEIGHTS_DIR"


def weights_folder() -> Path | None:
    """The folder that ``ZS_WEIGHTS_DIR`` names, or None."""
    named = os.environ.get(FOLDER_VARIABLE, "").strip()
    return Path(named).expanduser().absolute() if named else None


def hub_folders(folder: str | Path | None = None) -> list[Path]:
    """Hugging Face caches to look into, in order; new files go into the first.

    Args:
        folder (None): a folder of weights, which alone counts then
    """
    from huggingface_hub import constants

    if folder is not None:
        return [Path(folder).expanduser().absolute() / "hub"]
    own = weights_folder()
    return [*([own / "hub"] if own else []), Path(constants.HF_HUB_CACHE)]


def checkpoint_folders(folder: str | Path | None = None) -> list[Path]:
    """Folders of single weights files to look into, in order; new files go into the first.

    Args:
        folder (None): a folder of weights, which alone counts then
    """
    if folder is not None:
        return [Path(folder).expanduser().absolute() / "checkpoints"]
    own = weights_folder()
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "torch"
    home = Path(os.environ.get("TORCH_HOME", cache)).expanduser()
    return [*([own / "checkpoints"] if own else []), home / "hub" / "checkpoints"]


def find_in_hub(
    repo: str, filenames: Iterable[str], folder: str | Path | None = None
) -> Path | None:
    """The first of these files of a repository that is here; never touches the network."""
    from huggingface_hub import try_to_load_from_cache

    filenames = tuple(filenames)
    for cache in hub_folders(folder):
        for filename in filenames:
            path = try_to_load_from_cache(repo, filename, cache_dir=cache)
            if isinstance(path, str):
                return Path(path)
    return None


def find_checkpoint(filename: str, folder: str | Path | None = None) -> Path | None:
    """The weights file of this name that is here, or None."""
    for checkpoints in checkpoint_folders(folder):
        if (checkpoints / filename).is_file():
            return checkpoints / filename
    return None
