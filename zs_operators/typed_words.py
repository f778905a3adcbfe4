"""A vocabulary as lines that a person edits: names are typed, what lines cannot say is kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from zs_operators.class_files import parse_lines
from zs_operators.vocabulary_entries import as_document

if TYPE_CHECKING:
    from zs_operators.vocabulary import Vocabulary


def as_lines(vocabulary: Vocabulary) -> str:
    """The classes and their names as ``Vocabulary.parse_lines`` reads them.

    A class that has only descriptions is a line of its own; :func:`with_lines` knows it.
    """
    lines = []
    for label in vocabulary.classes:
        names = vocabulary.synonyms[label]
        line = _quoted(label, ':"')
        if names and names != (label,):
            line += ": " + ", ".join(_quoted(name, ',"') for name in names)
        lines.append(line)
    return "\n".join(lines)


def with_lines(text: str, kept: Vocabulary | None = None) -> Any:
    """What lines say, with the descriptions, parents and thresholds of the same labels elsewhere.

    Args:
        text: what was typed, a class a line
        kept (None): where to take from what lines cannot say

    Returns:
        what ``Vocabulary.parse`` takes

    Raises:
        VocabularyError: a line that cannot be read
    """
    entries = parse_lines(text)
    if kept is None:
        return entries
    document = as_document(kept)
    known = {entry["label"]: entry for entry in document["classes"]}
    classes = []
    for entry in entries:
        label, names = (entry, None) if isinstance(entry, str) else entry
        old = known.get(label, {})
        described_only = names is None and old.get("names") == []
        named = {} if names is None and not described_only else {"names": names or []}
        classes.append({**old, "names": [label], **named, "label": label})
    used = set(_ancestors((entry["label"] for entry in classes), kept))
    groups = [group for group in document.get("groups", ()) if group["label"] in used]
    return {"classes": classes, "groups": groups}


def says_more(vocabulary: Vocabulary) -> bool:
    """Whether classes have descriptions, parents or thresholds, which lines cannot say."""
    return bool(vocabulary.descriptions or vocabulary.parents or vocabulary.thresholds)


def _ancestors(labels: Iterable[str], vocabulary: Vocabulary) -> Iterable[str]:
    for label in labels:
        while label in vocabulary.parents:
            label = vocabulary.parents[label]
            yield label


def _quoted(text: str, special: str) -> str:
    """A text as it stands in a line, in double quotes where it has to be."""
    if not any(mark in text for mark in special) and not text.startswith("#"):
        return text
    return '"' + text.replace('"', '""') + '"'
