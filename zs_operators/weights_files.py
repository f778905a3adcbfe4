"""Weights files: in a folder, in Hugging Face's cache, from the network, and their checksums."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from zs_operators.errors import OfflineError, WeightsError
from zs_operators.redaction import without_secrets
from zs_operators.weights_places import find_in_hub, hub_folders

if TYPE_CHECKING:
    from zs_operators.weights_plan import WeightsPlan

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
CONFIG_NAME = "open_clip_config.json"
OFFLINE_VARIABLES = ("ZS_OFFLINE", "HF_HUB_OFFLINE")

_TORCH_HUB_NAME = re.compile(r"-([0-9a-f]{8,64})\.")
_FOLDER_FILE_NAMES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
)


def find_weights_file(folder: Path) -> Path:
    """The weights file of a folder in open_clip's layout.

    Raises:
        WeightsError: if there is none, or several and none has a name open_clip gives
    """
    found = sorted(file for file in folder.iterdir() if file.suffix.lower() in WEIGHT_SUFFIXES)
    by_name = {file.name: file for file in found}
    for name in _FOLDER_FILE_NAMES:
        if name in by_name:
            return by_name[name]
    if len(found) == 1:
        return found[0]
    if not found:
        raise WeightsError(
            f"folder {str(folder)!r} has a {CONFIG_NAME} and no weights; put "
            f"{_FOLDER_FILE_NAMES[0]} there"
        )
    raise WeightsError(
        f"folder {str(folder)!r} has several weights files ({', '.join(by_name)}); name one of "
        f"them, or call the right one {_FOLDER_FILE_NAMES[0]}"
    )


def hub_filenames(filename: str) -> tuple[str, ...]:
    """Names of a weights file in a Hugging Face repository, as open_clip looks for them."""
    if not filename:
        return ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    if filename.endswith((".bin", ".pth")):
        return (f"{filename[:-4]}.safetensors", filename)
    return (filename,)


def cached_file(repo: str, filenames: Iterable[str]) -> str | None:
    """The first of these files that is in Hugging Face's cache; never touches the network."""
    path = find_in_hub(repo, filenames)
    return None if path is None else str(path)


def is_offline() -> bool:
    """Whether ``ZS_OFFLINE`` or ``HF_HUB_OFFLINE`` forbids downloads."""
    return any(
        os.environ.get(name, "").strip().lower() in ("1", "on", "yes", "true")
        for name in OFFLINE_VARIABLES
    )


def forbidden_downloads(allow_download: bool = True) -> str | None:
    """Why nothing may be downloaded, or None if it may."""
    if not allow_download:
        return "downloads were not allowed (allow_download=False)"
    if is_offline():
        names = [name for name in OFFLINE_VARIABLES if os.environ.get(name)]
        return f"downloads are switched off by {' and '.join(names)}"
    return None


def refuse_address(weights: str | Path) -> None:
    """Weights are files: what comes from the network is a model somebody has named.

    Raises:
        WeightsError: for a URL; its secrets are left out
    """
    if "://" in str(weights):
        raise WeightsError(
            f"weights {without_secrets(str(weights))!r} is an address: download the file and give "
            "its path"
        )


def fetch_weights(plan: WeightsPlan, *, allow_download: bool = True) -> Path:
    """The weights file of a plan, downloaded into Hugging Face's cache if it has to be.

    Raises:
        OfflineError: if it is not here and cannot or must not be downloaded; the message names
            the file, where it comes from and where to put it
        WeightsError: if the source does not have the file
    """
    if plan.state == "random":
        raise WeightsError(f"model {plan.model!r} was planned with random weights: no file")
    if plan.path is not None:
        path = Path(plan.path)
        return find_weights_file(path) if path.is_dir() else path
    reason = forbidden_downloads(allow_download)
    if reason is not None:
        raise offline_error(plan, reason)
    if str(plan.source).startswith("http"):
        from open_clip.pretrained import download_pretrained_from_url

        try:
            return Path(download_pretrained_from_url(plan.source))
        except OSError as error:
            raise offline_error(
                plan, f"downloading failed: {without_secrets(str(error))}"
            ) from error
    return _fetch_from_hub(plan)


def _fetch_from_hub(plan: WeightsPlan) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    if not _is_reachable(ENDPOINT):
        raise offline_error(plan, f"{ENDPOINT} cannot be reached")
    for filename in plan.filenames:
        try:
            # No revision: open_clip's tags have none. What comes cannot run code, is checked
            # against the hash it is stored under, and its sha256 goes into the record of a run.
            cache = hub_folders()[0]
            return Path(hf_hub_download(plan.source, filename, cache_dir=cache))  # nosec B615
        except LocalEntryNotFoundError as error:  # is an EntryNotFoundError, but says "no network"
            raise offline_error(plan, f"{ENDPOINT} cannot be reached") from error
        except EntryNotFoundError:
            continue
        except (GatedRepoError, RepositoryNotFoundError) as error:
            raise WeightsError(
                f"Hugging Face does not give access to {plan.source!r}: accept its licence there "
                "and log in with `hf auth login`, or pass weights=<file or folder>"
            ) from error
        except Exception as error:
            # whatever the HTTP library of the day raises for a lost connection
            raise offline_error(
                plan, f"downloading failed: {without_secrets(str(error))}"
            ) from error
    raise WeightsError(f"{plan.source!r} has none of {', '.join(plan.filenames)}")


def offline_error(plan: WeightsPlan, reason: str) -> OfflineError:
    """The one message for weights or tokenizer files that would have to be downloaded."""
    import open_clip

    names = " or ".join(plan.filenames)
    where = plan.source if str(plan.source).startswith("http") else f"huggingface.co/{plan.source}"
    config = open_clip.get_model_config(plan.architecture) or {}
    tokenizer = config.get("text_cfg", {}).get("hf_tokenizer_name")
    message = (
        f"the weights of {plan.model!r} are not all on this machine and {reason}. On a machine "
        f"with network get {names} from {where}"
    )
    if tokenizer:
        return OfflineError(
            f"{message}, with its {CONFIG_NAME}, and tokenizer.json and tokenizer_config.json from "
            f"huggingface.co/{tokenizer}; copy them into one folder here and pass "
            "weights=<that folder>"
        )
    return OfflineError(
        f"{message}, copy it here and pass model={plan.architecture!r}, weights=<path of that file>"
    )


def _is_reachable(url: str) -> bool:
    """Whether the host's name resolves; asked first because the hub client retries for 30 s."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY")):
        return True  # the proxy resolves names
    try:
        socket.getaddrinfo(urlsplit(url).hostname, 443)
    except OSError:
        return False
    return True


_checksums: dict[tuple[str, int, int], str] = {}


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file in hex; computed once per path, size and modification time."""
    file = Path(path).resolve()
    stat = file.stat()
    key = (str(file), stat.st_size, stat.st_mtime_ns)
    if key not in _checksums:
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        _checksums[key] = digest.hexdigest()
    return _checksums[key]


def hash_in_name(filename: str) -> str | None:
    """The beginning of a file's sha256 that torchvision writes into its name, or None."""
    named = _TORCH_HUB_NAME.search(filename)
    return named[1] if named else None


def verify_weights(plan: WeightsPlan, file: Path) -> str:
    """SHA-256 of the weights file, compared with the one to expect where there is one.

    That is the registry's; of a file in Hugging Face's cache the one that is the name of its blob;
    of one of torchvision's the beginning that is part of its name.

    Raises:
        WeightsError: if they differ
    """
    actual = file_sha256(file)
    expected = plan.sha256
    if expected is None and plan.state in ("cached", "download"):
        blob = file.resolve().name
        expected = blob if re.fullmatch(r"[0-9a-f]{64}", blob) else None
        expected = expected or hash_in_name(file.name)
    if expected is not None and not actual.startswith(expected.lower()):
        raise WeightsError(
            f"weights file {str(file)!r} is damaged or not the one expected: its sha256 is "
            f"{actual}, expected {expected}; delete it and get it again"
        )
    return actual
