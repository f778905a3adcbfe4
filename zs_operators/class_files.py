"""Classes as people write them down: lines of text; YAML, JSON and CSV files, read and written."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zs_operators.errors import VocabularyError
from zs_operators.templates import TEMPLATE_SETS
from zs_operators.whole_files import write_whole

SUFFIXES = (".txt", ".yaml", ".yml", ".json", ".csv")
WRITTEN_SUFFIXES = (".yaml", ".yml", ".json", ".csv")
_MAX_BYTES = 16 * 2**20
# A hierarchy of 16 levels has each class in a mapping of a list of a mapping
_MAX_DEPTH = 50
# Aliases make a file of a few lines into more than memory holds
_MAX_NODES = 2_000_000

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
    """Whether a path is named like a file of classes: one of :data:`SUFFIXES`."""
    return os.path.splitext(os.fspath(path))[1].lower() in SUFFIXES


def read_classes(path: str | os.PathLike) -> list:
    """What a file of classes holds, every value as text: YAML's ``no`` stays ``no``.

    Returns:
        a list, as in the file; :class:`Pairs` for a mapping. Of a CSV file a mapping a row if its
        first row names the columns (``prompt``, ``label``, ``kind``, ``parent`` and thresholds),
        else a label, or ``(label, [names])``, a row

    Raises:
        VocabularyError: the file is missing, too large, not UTF-8, malformed, or holds neither a
            list nor a mapping
    """
    text = _read_text(path)
    suffix = Path(path).suffix.lower()
    try:
        if suffix == ".txt":
            return parse_lines(text)
        if suffix == ".csv":
            return _from_csv(text)
        content = _from_json(text) if suffix == ".json" else _from_yaml(text)
    except VocabularyError as error:
        raise VocabularyError(f"{str(path)!r}: {error}") from None
    if content is not None and not isinstance(content, list):
        raise VocabularyError(
            f"{str(path)!r}: holds {content!r} alone; write a list of classes, or "
            "'class: [name, name]'"
        )
    return [] if content is None else content


def write_classes(
    document: Mapping[str, Any], path: str | os.PathLike, *, overwrite: bool = False
) -> Path:
    """Write a vocabulary so that :func:`read_classes` gives it back.

    Args:
        document: of ``Vocabulary.to_dict``
        path: of a ``.yaml``, ``.json`` or ``.csv`` file (the table of prompts, a row each)
        overwrite (False): whether a file that is there may be replaced

    Returns:
        the path

    Raises:
        VocabularyError: another kind of file, one that is there, or one that cannot be written
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITTEN_SUFFIXES:
        raise VocabularyError(
            f"{str(path)!r} is not a kind of file a vocabulary is written to; use one of "
            f"{', '.join(WRITTEN_SUFFIXES)}"
        )
    if path.exists() and not overwrite:
        raise VocabularyError(
            f"{str(path)!r} exists; choose another name, or allow overwriting (overwrite=True)"
        )
    content = _compact(document)
    if suffix == ".csv":
        data = _to_csv(content).encode("utf-8-sig")  # or Excel takes it for another encoding
    elif suffix == ".json":
        data = json.dumps(content, indent=2, ensure_ascii=False).encode()
    else:
        import yaml

        data = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1_000).encode()
    try:
        write_whole(path, data)
    except OSError as error:
        raise VocabularyError(f"{str(path)!r} cannot be written: {error}") from error
    return path


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


class Pairs(list):
    """A mapping of a file as ``(key, value)`` pairs, so that a repeated key is not lost."""


def _from_json(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=Pairs, parse_int=str, parse_float=str)
    except (ValueError, RecursionError) as error:
        raise VocabularyError(f"not valid JSON ({error})") from None


def _from_yaml(text: str) -> object:
    import yaml

    nodes = 0

    def plain(node: yaml.Node | None, depth: int = 0) -> object:
        nonlocal nodes
        nodes += 1
        # Nodes still hold the text as written, before YAML makes booleans and numbers of it.
        if node is None or (isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")):
            return None
        if isinstance(node, yaml.ScalarNode):
            return node.value
        if depth >= _MAX_DEPTH or nodes > _MAX_NODES:
            raise VocabularyError(
                f"line {node.start_mark.line + 1} is nested too deeply; "
                "write a list of classes, or 'class: [name, name]'"
            )
        if isinstance(node, yaml.SequenceNode):
            return [plain(item, depth + 1) for item in node.value]
        return Pairs((plain(key, _MAX_DEPTH), plain(value, depth + 1)) for key, value in node.value)

    try:
        return plain(yaml.compose(text, Loader=yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise VocabularyError(f"not valid YAML ({reason})") from None


def _from_csv(text: str) -> list:
    first = text.partition("\n")[0]
    # Spreadsheets of many countries separate by semicolon
    delimiter = max(",;\t", key=first.count)
    try:
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
        )
        lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise VocabularyError(f"not valid CSV ({error})") from None
    lines = [(number, row) for number, row in lines if any(row)]
    header = [cell.lower() for cell in lines[0][1]] if lines else []
    if not {"prompt", "label"} & set(header):
        return [(row[0], [name for name in row[1:] if name] or None) for _, row in lines]
    for number, row in lines[1:]:
        if any(row[len(header) :]):
            raise VocabularyError(
                f"line {number} has {len(row)} cells and the first line names {len(header)} "
                "columns; put text with a separator in double quotes"
            )
    return [
        {"prompt": None, **{key: cell or None for key, cell in zip(header, row, strict=False)}}
        for _, row in lines[1:]
    ]


def _compact(document: Mapping[str, Any]) -> dict[str, Any]:
    """Without what reading assumes anyway: shorter to read and to edit."""
    content = {key: value for key, value in document.items() if value and key != "warnings"}
    content["classes"] = [_compact_class(entry) for entry in document["classes"]]
    for name, texts in TEMPLATE_SETS.items():
        if content["templates"] == list(texts):
            content["templates"] = name
    return content


def _compact_class(entry: Mapping[str, Any]) -> str | dict[str, Any]:
    entry = dict(entry)
    if entry["names"] == [entry["label"]]:
        del entry["names"]
    return entry["label"] if len(entry) == 1 else entry


def _to_csv(content: Mapping[str, Any]) -> str:
    rows = list(_rows(content))
    used = {key for row in rows for key in row}
    columns = ["prompt", "label", "kind", *sorted(used - {"prompt", "label", "kind"})]
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _rows(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for entry in content["classes"]:
        entry = {"label": entry} if isinstance(entry, str) else dict(entry)
        names = entry.pop("names", [entry["label"]])
        texts = [("name", name) for name in names]
        texts += [("description", text) for text in entry.pop("descriptions", ())]
        # A parent and thresholds stand in the first row of their class
        for kind, prompt in texts:
            yield {"prompt": prompt, "kind": kind, **entry}
            entry = {"label": entry["label"]}
    for group in content.get("groups", ()):
        yield {"kind": "group", **group}
    for key, kind in (
        ("templates", "template"),
        ("background", "background"),
        ("concept", "concept"),
        ("merge", "merge"),
        ("roll_up", "roll_up"),
    ):
        value = content.get(key, ())
        for prompt in [value] if isinstance(value, str) else value:
            yield {"prompt": prompt, "kind": kind}
