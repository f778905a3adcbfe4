"""Classes as people write them down: lines of text, YAML and JSON files."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

from zs_operators.errors import VocabularyError

SUFFIXES = (".txt", ".yaml", ".yml", ".json")
_MAX_BYTES = 16 * 2**20

# A quoted or plain label, then perhaps a colon and the rest of the line.
_LINE = re.compile(r'(?:"(?P<quoted>(?:[^"]|"")*)"|(?P<plain>[^":][^:]*))\s*(?P<names>:.*)?')

ClassEntry = str | tuple[str, list[str]]


def parse_lines(text: str) -> list[ClassEntry]:
    """What a person types in a box or a ``.txt`` file, one class a line.

    ======================  ===========================================================
    ``fire truck``          the class, encoded under its own name
    ``crane, bird``         one class too: without a colon, commas belong to the name
    ``car: car, sedan``     the class ``car``, encoded as exactly the names after the colon
    ``"ratio 4:3": "a, b"`` double quotes keep colons and commas (``""`` is one quote)
    ``# note``              a comment, as is an empty line
    ======================  ===========================================================

    Returns:
        a label, or ``(label, [names])``, for each line: what ``Vocabulary.parse`` takes

    Raises:
        VocabularyError: a line with nothing before its colon, or with unbalanced quotes
    """
    entries: list[ClassEntry] = []
    for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith(":"):
            raise VocabularyError(
                f"Line {number} ({line!r}) has no class before its colon; write 'class: name, name'"
            )
        match = _LINE.fullmatch(line)
        if match is None:
            raise VocabularyError(
                f"Line {number} ({line!r}) has unbalanced quotes; close them, or double a quote "
                "that is part of the name"
            )
        quoted = match["quoted"]
        label = match["plain"].strip() if quoted is None else quoted.replace('""', '"')
        try:
            rest = (match["names"] or ":")[1:].strip()
            row = next(csv.reader([rest], skipinitialspace=True, strict=True), [])
        except csv.Error as error:
            raise VocabularyError(
                f"Line {number} ({line!r}) cannot be split into names ({error}); check its quotes"
            ) from None
        names = [name.strip() for name in row if name.strip()]
        entries.append((label, names) if names else label)
    return entries


def has_known_suffix(path: str | os.PathLike) -> bool:
    """Whether a path is named like a file of classes (``.txt``, ``.yaml``, ``.yml``, ``.json``)."""
    return os.path.splitext(os.fspath(path))[1].lower() in SUFFIXES


def read_classes(path: str | os.PathLike) -> list:
    """The entries of a file of classes, every name as text: YAML's ``no`` stays ``no``.

    YAML and JSON hold a list of labels, or a mapping of a label to one name, a list of names, or
    nothing. A key that is there twice gives two entries.

    Raises:
        VocabularyError: the file is missing, too large, not UTF-8, malformed, or holds anything
            else
    """
    text = _read_text(path)
    suffix = Path(path).suffix.lower()
    try:
        if suffix == ".json":
            return _entries(_from_json(text))
        if suffix == ".txt":
            return parse_lines(text)
        return _entries(_from_yaml(text))
    except VocabularyError as error:
        raise VocabularyError(f"{str(path)!r}: {error}") from None


def read_lines(path: str | os.PathLike) -> list:
    """The texts of a file that is a plain list (templates, background prompts): no colon rule."""
    if Path(path).suffix.lower() != ".txt":
        return read_classes(path)
    lines = (line.strip() for line in _read_text(path).splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _read_text(path: str | os.PathLike) -> str:
    if not has_known_suffix(path):
        raise VocabularyError(
            f"{str(path)!r} is not a kind of file classes can be read from; "
            f"use one of {', '.join(SUFFIXES)}"
        )
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise VocabularyError(f"{str(path)!r} is not a file; give the path of one file")
        if os.path.getsize(path) > _MAX_BYTES:
            raise VocabularyError(
                f"{str(path)!r} is larger than {_MAX_BYTES // 2**20} MB; is it a list of classes?"
            )
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise VocabularyError(f"{str(path)!r} does not exist; check the path") from None
    except UnicodeDecodeError:
        raise VocabularyError(f"{str(path)!r} is not UTF-8 text; save it as UTF-8") from None
    except (OSError, ValueError) as error:
        if isinstance(error, VocabularyError):
            raise
        raise VocabularyError(f"{str(path)!r} cannot be read: {error}") from None


class _Pairs(list):
    """A mapping as ``(key, value)`` pairs, so that a repeated key is not lost."""


def _from_json(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_Pairs, parse_int=str, parse_float=str)
    except (ValueError, RecursionError) as error:
        raise VocabularyError(f"not valid JSON ({error})") from None


def _from_yaml(text: str) -> object:
    import yaml

    def plain(node: yaml.Node | None, depth: int = 0) -> object:
        # Nodes still hold the text as written, before YAML makes booleans and numbers of it.
        if node is None or (isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")):
            return None
        if isinstance(node, yaml.ScalarNode):
            return node.value
        if depth == 3:
            raise VocabularyError(
                f"line {node.start_mark.line + 1} is nested too deeply; "
                "write a list of classes, or 'class: [name, name]'"
            )
        if isinstance(node, yaml.SequenceNode):
            return [plain(item, depth + 1) for item in node.value]
        return _Pairs((plain(key, 3), plain(value, depth + 1)) for key, value in node.value)

    try:
        return plain(yaml.compose(text, Loader=yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise VocabularyError(f"not valid YAML ({reason})") from None


def _entries(content: object) -> list:
    if content is None:
        return []
    if not isinstance(content, list):
        raise VocabularyError(
            f"holds {content!r} alone; write a list of classes, or 'class: [name, name]'"
        )
    if isinstance(content, _Pairs):
        content = [
            (label, dict(names) if isinstance(names, _Pairs) else names) for label, names in content
        ]
        return [label if names is None else (label, names) for label, names in content]
    # "- car: [sedan]" is a list whose items are mappings of one key
    return [
        entry
        for item in content
        for entry in (_entries(item) if isinstance(item, _Pairs) else [item])
    ]
