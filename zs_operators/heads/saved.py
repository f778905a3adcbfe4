"""Heads kept with a dataset under a name: the name in ``dataset.info``, the arrays in a file."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zs_operators.errors import InvalidInputError
from zs_operators.heads.files import SUFFIX
from zs_operators.heads.head import Head
from zs_operators.heads.identity import IMAGE
from zs_operators.store_keys import store_folder
from zs_operators.vocabulary import Vocabulary
from zs_operators.vocabulary_checks import check_text

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

INFO_KEY = "zs_heads"
"""Key of ``dataset.info``; holds a list, as names may have dots that keys of MongoDB may not."""

_DIGEST = re.compile("[0-9a-f]{16}")


def list_heads(samples: SampleCollection) -> list[str]:
    """Names of the heads saved with a dataset, in the order they were first saved."""
    return [entry["name"] for entry in _entries(samples)]


def save_head(samples: SampleCollection, name: str, head: Head, *, overwrite: bool = False) -> Head:
    """Keeps a head with the dataset; ``head="<name>"`` then means it.

    Args:
        samples: a dataset or view
        name: what to call it
        head: of :func:`zs_operators.fit_head`, or read from a file
        overwrite (False): allow replacing another head of that name

    Returns:
        the head

    Raises:
        InvalidInputError: if the name cannot be used, or there is another head of that name
    """
    entries = _entries(samples)
    name = check_name(samples, name, overwrite=overwrite or _digest(entries, name) == head.digest)
    path = _path(head.digest)
    if not path.exists():
        head.save(path)
    entry = {
        "name": name,
        "digest": head.digest,
        "method": head.method,
        "columns": list(head.columns),
        "words": head.words,
        "model": dict(head.model),
        "model_name": head.report.model,
        "embedding": head.embedding,
    }
    names = [one["name"] for one in entries]
    if name in names:
        before = entries[names.index(name)]
        entries[names.index(name)] = entry
        _store(samples, entries)
        _remove_unused(before["digest"])
    else:
        _store(samples, [*entries, entry])
    return head


def load_head(samples: SampleCollection | None, name: str | os.PathLike) -> Head:
    """A head that was saved with the dataset, or that is in a ``.safetensors`` file.

    Raises:
        InvalidInputError: if there is none of that name, or its file is gone or damaged
    """
    if Path(name).suffix == SUFFIX:
        return Head.read(name)
    if samples is None:
        raise InvalidInputError(f"Without a dataset a head is a {SUFFIX} file, not {name!r}.")
    digest = _digest(_entries(samples), str(name))
    if digest is None:
        raise InvalidInputError(_unknown(samples, str(name)))
    path = _path(digest)
    if not path.exists():
        raise InvalidInputError(
            f"Head {name!r} is known, but its file {str(path)!r} is not on this machine: copy it "
            "from where it was fitted, or fit it again."
        )
    head = Head.read(path)
    if head.digest != digest:
        raise InvalidInputError(f"{str(path)!r} is another head than {name!r}: fit it again.")
    return head


def delete_head(samples: SampleCollection, name: str) -> None:
    """Forgets a head, and removes its file unless a dataset of this database still has it.

    Raises:
        InvalidInputError: if there is none of that name
    """
    entries = _entries(samples)
    digest = _digest(entries, name)
    if digest is None:
        raise InvalidInputError(_unknown(samples, name))
    _store(samples, [entry for entry in entries if entry["name"] != name])
    _remove_unused(digest)


def check_name(samples: SampleCollection, name: str, *, overwrite: bool = False) -> str:
    """A name that can be used, stripped.

    Raises:
        InvalidInputError: if it is blank, reads like a file, or is taken
    """
    name = check_text(name, "The name of a head")
    if Path(name).suffix == SUFFIX:
        raise InvalidInputError(f"{name!r} reads like the name of a file: choose another.")
    if name in list_heads(samples) and not overwrite:
        raise InvalidInputError(
            f"A head {name!r} is already saved: choose another name, or allow overwriting "
            "(overwrite=True)."
        )
    return name


def heads_for(
    samples: SampleCollection,
    columns: Sequence[str],
    words: str,
    weights_sha256: str | None,
    architecture: str,
) -> list[str]:
    """Names of the saved heads that fit; no file is read.

    Args:
        columns, words: of the vocabulary, see :func:`zs_operators.heads.identity.words_of`
        weights_sha256: of the model, None where it is not known before they are loaded
        architecture: of the model
    """
    return [
        entry["name"]
        for entry in _entries(samples)
        if sorted(entry["columns"]) == sorted(columns)
        and entry["words"] == words
        and weights_sha256 in (None, entry["model"]["weights_sha256"])
        and architecture == entry["model"]["architecture"]
    ]


def resolve(samples: SampleCollection, head: Any) -> Head | None:
    """The head meant by an argument: a :class:`Head`, a name, a file, or None.

    Raises:
        InvalidInputError: if it is something else, or there is none
    """
    if head is None or isinstance(head, Head):
        return head
    if not isinstance(head, (str, os.PathLike)):
        raise InvalidInputError(f"head={head!r} must be a name, a {SUFFIX} file or a Head.")
    return load_head(samples, head)


def classes_for(head: Head | None, classes: Any) -> Any:
    """The classes that are asked for; those of the head where none are."""
    if classes is None and head is not None:
        return Vocabulary.from_dict(head.vocabulary)
    return classes


def decisive(head: Head | None) -> dict[str, str]:
    """What of a head decides labels, for the record of a run; nothing without one."""
    return {} if head is None else {"head": head.digest}


def described(head: Head | None) -> dict[str, Any] | None:
    """What else a record keeps of a head."""
    if head is None:
        return None
    return {"name": head.report.name, "method": head.method, "alpha": head.alpha}


def head_warnings(head: Head | None, embedding: Any) -> list[str]:
    """Says if a head was fitted on embeddings of another kind than it is used on."""
    if head is None or head.embedding == embedding:
        return []
    return [
        f"The head was fitted on {_kind(head.embedding)} and is used on {_kind(embedding)}: look "
        "at what it changes, or fit one on the latter."
    ]


def _kind(embedding: Any) -> str:
    if embedding == IMAGE:
        return "whole images"
    return f"boxes ({', '.join(f'{key} {value}' for key, value in embedding.items())})"


def _path(digest: str) -> Path:
    return store_folder("heads") / f"{digest}{SUFFIX}"


def _entries(samples: SampleCollection) -> list[dict]:
    entries = samples._root_dataset.info.get(INFO_KEY) or ()
    # A dataset may come from anybody, and digests become names of files
    return [entry for entry in entries if _DIGEST.fullmatch(str(entry.get("digest")))]


def _store(samples: SampleCollection, entries: list[dict]) -> None:
    dataset = samples._root_dataset
    dataset.info[INFO_KEY] = entries
    dataset.save()


def _digest(entries: list[dict], name: str) -> str | None:
    return next((entry["digest"] for entry in entries if entry["name"] == name), None)


def _remove_unused(digest: str) -> None:
    """Remove a file that no dataset names: clones of a dataset share the files of its heads."""
    import fiftyone.core.odm as foo

    if not foo.get_db_conn().datasets.count_documents({f"info.{INFO_KEY}.digest": digest}):
        with contextlib.suppress(OSError):
            _path(digest).unlink()


def _unknown(samples: SampleCollection, name: str) -> str:
    names = list_heads(samples)
    near = difflib.get_close_matches(name, names, n=3) or names[:5]
    have = f"There is: {', '.join(map(repr, near))}." if near else "None is saved yet."
    return f"No head {name!r} is saved with {samples._root_dataset.name!r}. {have}"
