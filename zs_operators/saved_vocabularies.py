"""Vocabularies kept with a dataset under a name, in ``dataset.info``."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from zs_operators.class_files import has_known_suffix
from zs_operators.errors import VocabularyError
from zs_operators.vocabulary import Vocabulary
from zs_operators.vocabulary_checks import check_text

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

INFO_KEY = "zs_vocabularies"
"""Key of ``dataset.info``; holds a list, as names may have dots that keys of MongoDB may not."""


def list_vocabularies(samples: SampleCollection) -> list[str]:
    """Names of the vocabularies saved with a dataset, in the order they were first saved."""
    return [entry["name"] for entry in _entries(samples)]


def save_vocabulary(
    samples: SampleCollection, name: str, vocabulary: object, *, overwrite: bool = False
) -> Vocabulary:
    """Keeps a vocabulary with the dataset; ``classes="<name>"`` then means it.

    Args:
        samples: a dataset or view
        name: what to call it
        vocabulary: a :class:`Vocabulary`, or what ``Vocabulary.parse`` takes
        overwrite (False): allow replacing another vocabulary of that name

    Returns:
        the vocabulary

    Raises:
        VocabularyError: if it or its name cannot be used, or there is another one of that name
    """
    name = check_name(samples, name)
    vocabulary = Vocabulary.parse(vocabulary)
    entries = _entries(samples)
    names = [entry["name"] for entry in entries]
    entry = {"name": name, "vocabulary": vocabulary.to_dict()}
    if name not in names:
        entries.append(entry)
    elif overwrite or load_vocabulary(samples, name) == vocabulary:
        entries[names.index(name)] = entry
    else:
        raise VocabularyError(
            f"A vocabulary {name!r} is already saved: choose another name, or allow overwriting "
            "(overwrite=True)."
        )
    _store(samples, entries)
    return vocabulary


def load_vocabulary(samples: SampleCollection, name: str) -> Vocabulary:
    """A vocabulary that was saved with the dataset.

    Raises:
        VocabularyError: if there is none of that name; the message has the nearest ones
    """
    for entry in _entries(samples):
        if entry["name"] == name:
            return Vocabulary.from_dict(entry["vocabulary"])
    raise VocabularyError(_unknown(samples, name))


def delete_vocabulary(samples: SampleCollection, name: str) -> None:
    """Forgets a vocabulary that was saved with the dataset.

    Raises:
        VocabularyError: if there is none of that name
    """
    entries = _entries(samples)
    left = [entry for entry in entries if entry["name"] != name]
    if len(left) == len(entries):
        raise VocabularyError(_unknown(samples, name))
    _store(samples, left)


def check_name(samples: SampleCollection, name: str) -> str:
    """A name that means nothing else where classes are named.

    Raises:
        VocabularyError: if it is blank, or a file, a field or ``default_classes`` is called so
    """
    name = check_text(name, "The name of a vocabulary")
    if has_known_suffix(name):
        raise VocabularyError(f"{name!r} reads like the name of a file: choose another.")
    if name == "default_classes" or samples._root_dataset.has_field(name):
        raise VocabularyError(f"{name!r} is the name of a field: choose another.")
    return name


def _entries(samples: SampleCollection) -> list[dict]:
    return list(samples._root_dataset.info.get(INFO_KEY) or ())


def _store(samples: SampleCollection, entries: list[dict]) -> None:
    dataset = samples._root_dataset
    dataset.info[INFO_KEY] = entries
    dataset.save()


def _unknown(samples: SampleCollection, name: str) -> str:
    names = list_vocabularies(samples)
    near = difflib.get_close_matches(str(name), names, n=3) or names[:5]
    have = f"There is: {', '.join(map(repr, near))}." if near else "None is saved yet."
    return f"No vocabulary {name!r} is saved with {samples._root_dataset.name!r}. {have}"
