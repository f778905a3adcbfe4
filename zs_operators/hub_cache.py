"""Files in a Hugging Face cache: fetched so that a cut download goes on, placed as the hub does."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from zs_operators.downloads import Progress, download
from zs_operators.errors import OfflineError, WeightsError
from zs_operators.redaction import without_secrets

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def fetch_hub_file(
    repo: str,
    filename: str,
    cache: Path,
    *,
    on_progress: Progress | None = None,
) -> Path | None:
    """A file of a repository, downloaded into a cache if it is not in it.

    huggingface_hub begins a cut download anew, which hurts with gigabytes.

    Returns:
        where it is, or None if the repository has no such file

    Raises:
        OfflineError: if the hub cannot be reached
        WeightsError: if the repository is not for everybody, or as :func:`download` says
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
    )
    from huggingface_hub.utils import build_hf_headers

    endpoint = constants.ENDPOINT
    url = hf_hub_url(repo, filename, endpoint=endpoint)
    headers = build_hf_headers(library_name="zs-operators")
    try:
        about = get_hf_file_metadata(url, headers=headers, endpoint=endpoint)
    except EntryNotFoundError:
        return None
    except (GatedRepoError, RepositoryNotFoundError) as error:
        raise WeightsError(
            f"Hugging Face does not give access to {repo!r}: accept its licence there and log in "
            "with `hf auth login`"
        ) from error
    except Exception as error:
        # whatever the HTTP library of the day raises
        raise OfflineError(
            f"{endpoint} cannot be asked for {filename} of {repo}: {without_secrets(str(error))}"
        ) from error
    if not about.etag or not about.commit_hash:
        raise OfflineError(f"{endpoint} does not answer as Hugging Face does for {repo!r}")
    blob = cache / folder_name(repo) / "blobs" / _checked(_NAME, about.etag)
    if not blob.is_file():
        if urlsplit(about.location).netloc != urlsplit(endpoint).netloc:
            headers = {}  # a storage host gets no token; its address carries what it wants
        sha256 = about.etag if _SHA256.fullmatch(about.etag) else None
        download(about.location, blob, sha256=sha256, headers=headers, on_progress=on_progress)
    return place_in_hub(cache, repo, about.commit_hash, filename, blob)


def place_in_hub(cache: Path, repo: str, commit: str, filename: str, blob: Path) -> Path:
    """Make a blob the file of this name, as the hub's own client does.

    Args:
        cache: a Hugging Face cache
        repo, commit, filename: what the file is
        blob: in ``blobs`` of the repository's folder

    Returns:
        the file's path in a snapshot; that of the branch "main", if there is one already
    """
    folder = cache / folder_name(repo)
    reference = folder / "refs" / "main"
    if reference.is_file():
        commit = reference.read_text(encoding="utf-8").strip()
    snapshot = folder / "snapshots" / _checked(_COMMIT, commit)
    path = snapshot / _checked(_NAME, filename)
    snapshot.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with contextlib.suppress(FileNotFoundError):
            path.unlink()  # a link to nowhere
        try:
            path.symlink_to(os.path.relpath(blob, snapshot))
        except OSError:  # a file system without links
            shutil.copyfile(blob, path)
    if not reference.is_file():
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(commit, encoding="utf-8")
    return path


def folder_name(repo: str) -> str:
    """Name of a repository's folder in a cache."""
    return f"models--{_checked(_REPO, repo).replace('/', '--')}"


def commit_of(path: Path) -> str | None:
    """The commit of a file in a snapshot, or None."""
    return path.parent.name if _COMMIT.fullmatch(path.parent.name) else None


def _checked(pattern: re.Pattern[str], text: str) -> str:
    """Names become folders: what could lead elsewhere is refused."""
    if not pattern.fullmatch(text) or ".." in text:
        raise WeightsError(f"{without_secrets(text)!r} is no name of a repository or file of one")
    return text
