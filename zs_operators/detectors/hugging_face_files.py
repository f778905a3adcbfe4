"""Zero-shot detectors of Hugging Face's ``transformers``: folders, the hub's cache, downloads."""

from __future__ import annotations

import hashlib
import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zs_operators.errors import MissingDependencyError, OfflineError, WeightsError
from zs_operators.redaction import without_secrets
from zs_operators.weights_files import file_sha256, forbidden_downloads

CONFIG_NAME = "config.json"
#: ``model_type`` of a config -> the templates its model was made for.
FAMILIES: dict[str, tuple[str, ...]] = {
    "owlvit": ("a photo of a {}",),
    "owlv2": ("a photo of a {}",),
    "grounding-dino": ("{}",),
    "mm-grounding-dino": ("{}",),
    "sam3": ("{}",),
    "sam3_video": ("{}",),
}

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# All that is read: no pickles, and no Python
_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")


def is_hub_name(text: str) -> bool:
    """Whether a text has the form ``owner/name``."""
    return _HUB_NAME.fullmatch(text) is not None


def is_installed() -> bool:
    """Whether there is a ``transformers`` to import; it is not imported."""
    return find_spec("transformers") is not None


def require_transformers(name: str) -> None:
    """Refuses a model where ``transformers`` is missing.

    Raises:
        MissingDependencyError: saying what to install
    """
    if not is_installed():
        raise MissingDependencyError(
            f"{name!r} is a model of Hugging Face's transformers, which is not installed: "
            "pip install 'zs-operators[hf]'"
        )


def read_model_type(folder: Path) -> str:
    """The family of a folder's model.

    Raises:
        WeightsError: if there is no readable config, or it is of no zero-shot detector
    """
    file = folder / CONFIG_NAME
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        found = config.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"{str(file)!r} cannot be read as JSON: {error}") from error
    if found not in FAMILIES:
        raise WeightsError(
            f"{str(file)!r} is of model type {found!r}, which is no zero-shot detector that can "
            f"be used here; those are {', '.join(FAMILIES)}. Others may be in FiftyOne's zoo"
        )
    return found


def weights_of(folder: Path) -> list[Path]:
    """The weights files of a folder: safetensors only.

    Raises:
        WeightsError: if there is none
    """
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        others = sorted(f.name for f in folder.glob("*") if f.suffix in (".bin", ".pt", ".pth"))
        why = f"; {', '.join(others)} could run code and is not read" if others else ""
        raise WeightsError(f"folder {str(folder)!r} has no weights as .safetensors{why}")
    return found


def weights_digest(files: list[Path]) -> str:
    """sha256 of a weights file; of several that of their names and sha256s."""
    if len(files) == 1:
        return file_sha256(files[0])
    lines = "".join(f"{file.name} {file_sha256(file)}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def cached_folder(name: str) -> Path | None:
    """The snapshot of a hub's model that is on this machine, whole; never touches the network."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, CONFIG_NAME)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    index = folder / "model.safetensors.index.json"
    wanted = {"model.safetensors"}
    if index.is_file():
        wanted = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return folder if all((folder / file).is_file() for file in wanted) else None


def revision_of(folder: Path) -> str | None:
    """The commit of a snapshot in Hugging Face's cache; None for any other folder."""
    is_snapshot = folder.parent.name == "snapshots"
    return folder.name if is_snapshot and re.fullmatch(r"[0-9a-f]{40}", folder.name) else None


def fetch_folder(name: str, *, allow_download: bool = True) -> Path:
    """The folder of a model of the hub, downloaded if it is not here yet.

    Raises:
        OfflineError: if it is not here and cannot or must not be downloaded
        WeightsError: if the hub does not give it
    """
    folder = cached_folder(name)
    if folder is not None:
        return folder
    reason = forbidden_downloads(allow_download)
    if reason is not None:
        raise _offline(name, reason)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        # No revision: a person has named the model, not a commit; that which came is recorded
        folder = snapshot_download(name, allow_patterns=list(_FILES))  # nosec B615
    except (GatedRepoError, RepositoryNotFoundError) as error:
        raise WeightsError(
            f"Hugging Face does not give access to {name!r}: look there whether it is called so, "
            "accept its licence and log in with `hf auth login`, or give a local folder"
        ) from error
    except Exception as error:  # whatever the HTTP library of the day raises
        why = without_secrets(f"downloading failed: {error}")
        raise _offline(name, why) from error
    return Path(folder)


def _offline(name: str, reason: str) -> OfflineError:
    return OfflineError(
        f"the detector {name!r} is not on this machine and {reason}. On a machine with network "
        f"run `hf download {name}`, copy the folder here and give its path"
    )


def describe_folder(folder: Path, name: str) -> dict[str, Any]:
    """Plain JSON that says which weights are read: for records."""
    return {
        "model": name,
        "path": str(folder),
        "state": "cached" if revision_of(folder) else "local",
        "revision": revision_of(folder),
        "sha256": weights_digest(weights_of(folder)),
    }
