"""The shapes a vocabulary comes in -> one list of entries and its settings, not yet checked; and
the one shape it is kept in.

A list of labels, a mapping of labels to names, a hierarchy as nested mappings, categories of COCO,
a table of prompts, and a whole vocabulary with templates and all.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from zs_operators.class_files import SUFFIXES, Pairs, has_known_suffix, read_classes
from zs_operators.errors import VocabularyError
from zs_operators.vocabulary_checks import LIMIT_BOUNDS

if TYPE_CHECKING:
    from zs_operators.vocabulary import Vocabulary

#: Keys of a mapping that says more of one class than its names.
ENTRY_KEYS = ("label", "names", "descriptions", "parent", "children", *LIMIT_BOUNDS)
#: Keys of a whole vocabulary; ``classes`` makes a mapping one.
DOCUMENT_KEYS = (
    "classes",
    "groups",
    "templates",
    "background",
    "concept",
    "merge",
    "roll_up",
    "warnings",
)
#: Kinds of rows in a table: prompts, then what else a file has to keep.
PROMPT_KINDS = ("name", "description", "background")
SETTING_KINDS = ("template", "concept", "merge", "roll_up", "group")
ROW_KEYS = ("prompt", "label", "kind", "parent", *LIMIT_BOUNDS)
_MAX_DEPTH = 16


class PromptRow(NamedTuple):
    """A row of the prompt table.

    Attributes:
        prompt: a name to put in the templates, or a whole text to encode as typed
        label: the class it stands for; None for background
        kind: ``"name"``, ``"description"`` (encoded as typed) or ``"background"`` (as typed); None
            is a name, without a label background
    """

    prompt: str
    label: str | None
    kind: str | None = None


@dataclass
class Entry:
    """One class as given: names None for the label itself, [] for descriptions only."""

    label: Any
    names: Any = None
    descriptions: Any = ()


@dataclass
class Content:
    """A vocabulary as given; None where nothing was said."""

    entries: list[Entry] = field(default_factory=list)
    parents: dict[Any, Any] = field(default_factory=dict)
    thresholds: dict[Any, dict[str, Any]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    rows: dict[Any, Entry] = field(default_factory=dict)

    def add(self, label: Any, names: Any = None, descriptions: Any = (), parent: Any = None):
        self.entries.append(Entry(label, names, descriptions))
        self.put_below(label, parent)

    def put_below(self, label: Any, parent: Any) -> None:
        if parent is None or parent == "" or parent == label:
            return
        if self.parents.setdefault(label, parent) != parent:
            raise VocabularyError(
                f"{label!r} has two parents, {self.parents[label]!r} and {parent!r}; choose one"
            )

    def limit(self, label: Any, values: Mapping[str, Any]) -> None:
        for name in LIMIT_BOUNDS:
            value = values.get(name)
            if value is None or value == "":
                continue
            own = self.thresholds.setdefault(label, {})
            if own.setdefault(name, value) != value:
                raise VocabularyError(
                    f"{label!r} has two values of {name}, {own[name]!r} and {value!r}; keep one"
                )


def read_content(spec: object) -> Content:
    """What ``Vocabulary.parse`` was given, in one shape.

    Raises:
        VocabularyError: a shape that is none of those, a key that is unknown, a file that cannot
            be read
    """
    content = Content()
    if spec is None:
        return content
    if isinstance(spec, os.PathLike) or (isinstance(spec, str) and has_known_suffix(spec)):
        try:
            _read(read_classes(spec), content)
        except VocabularyError as error:
            raise VocabularyError(_with_path(spec, str(error))) from None
    elif isinstance(spec, str):
        raise VocabularyError(
            f"Classes were given as the text {spec!r}; pass a list such as ['cat', 'dog'], a "
            f"mapping of labels to names, or the path of a {', '.join(SUFFIXES)} file"
        )
    elif isinstance(spec, bytes | bytearray) or not isinstance(spec, Iterable):
        raise VocabularyError(
            f"Classes were given as {type(spec).__name__}; pass a list of names, a mapping of "
            "labels to names, or the path of a file"
        )
    else:
        _read(spec, content)
    return content


def as_document(vocabulary: Vocabulary) -> dict[str, Any]:
    """Plain JSON without class names as keys, with only the settings that are used."""

    def place(label: str) -> dict[str, Any]:
        parent = vocabulary.parents.get(label)
        limits = vocabulary.thresholds.get(label, {})
        return {**({} if parent is None else {"parent": parent}), **limits}

    def entry(label: str) -> dict[str, Any]:
        texts = vocabulary.descriptions.get(label)
        described = {"descriptions": list(texts)} if texts else {}
        return {"label": label, "names": list(vocabulary.synonyms[label]), **described}

    groups = [
        {"label": label, **place(label)}
        for label in dict.fromkeys(vocabulary.parents.values())
        if label not in vocabulary.synonyms and place(label)
    ]
    roll_up = vocabulary.roll_up
    settings = {
        "groups": groups,
        "concept": vocabulary.concept,
        "merge": None if vocabulary.merge == "mean" else vocabulary.merge,
        "roll_up": list(roll_up) if isinstance(roll_up, tuple) else roll_up,
    }
    return {
        "classes": [{**entry(label), **place(label)} for label in vocabulary.classes],
        "templates": list(vocabulary.templates),
        "background": list(vocabulary.background),
        "warnings": list(vocabulary.warnings),
        **{key: value for key, value in settings.items() if value},
    }


def _read(spec: Any, content: Content) -> None:
    if isinstance(spec, Mapping | Pairs):
        keys = [key for key, _ in _pairs(spec)]
        if "classes" in keys and set(keys) <= set(DOCUMENT_KEYS):
            _read_document(dict(_pairs(spec)), content)
        elif isinstance(_value(spec, "categories"), list):
            _read_list(_value(spec, "categories"), None, content)
        else:
            _read_tree(spec, None, content)
    else:
        ordered = sorted(spec, key=str) if isinstance(spec, set | frozenset) else spec
        _read_list(ordered, None, content)
    # Rows of one label may stand anywhere in a table
    content.entries += [
        Entry(row.label, row.names if row.names or not row.descriptions else [], row.descriptions)
        for row in content.rows.values()
    ]


def _read_document(document: dict[str, Any], content: Content) -> None:
    classes = document.pop("classes")
    if isinstance(classes, Mapping | Pairs):
        _read_tree(classes, None, content)
    elif isinstance(classes, list | tuple):
        _read_list(classes, None, content)
    elif classes is not None:
        raise VocabularyError(f"classes is {classes!r}; write a list of classes or a mapping")
    for group in document.pop("groups", None) or ():
        values = dict(_pairs(group))
        _check_keys(values, ("label", "parent", *LIMIT_BOUNDS), "A group")
        content.put_below(values.get("label"), values.get("parent"))
        content.limit(values.get("label"), values)
    content.warnings = tuple(document.pop("warnings", None) or ())
    content.settings.update({k: v for k, v in document.items() if v is not None})


def _read_list(items: Iterable, parent: Any, content: Content, depth: int = 0) -> None:
    for position, item in enumerate(items, start=1):
        if isinstance(item, PromptRow):
            _read_row(item._asdict(), position, content)
        elif isinstance(item, Mapping | Pairs):
            values = dict(_pairs(item))
            if "prompt" in values:
                _read_row(values, position, content)
            elif _is_text(values.get("label")):
                _read_details(values.pop("label"), values, parent, content, depth)
            elif _is_text(values.get("name")) and {"id", "supercategory"} & values.keys():
                content.add(values["name"], parent=values.get("supercategory") or parent)
            else:
                _read_tree(item, parent, content, depth)
        elif isinstance(item, list | tuple):
            if len(item) != 2:
                raise VocabularyError(
                    f"Class {position} is {item!r}; write a name, or (label, [names])"
                )
            _read_entry(*item, parent, content, depth)
        else:
            content.add(item, parent=parent)


def _read_tree(spec: Any, parent: Any, content: Content, depth: int = 0) -> None:
    if depth > _MAX_DEPTH:
        raise VocabularyError(f"The hierarchy below {parent!r} is nested too deeply")
    for label, given in _pairs(spec):
        _read_entry(label, given, parent, content, depth)


def _read_entry(label: Any, given: Any, parent: Any, content: Content, depth: int) -> None:
    if not isinstance(given, Mapping | Pairs):
        content.add(label, given, parent=parent)
        return
    keys = [key for key, _ in _pairs(given)]
    if not keys:
        content.add(label, parent=parent)
    elif set(keys) <= set(ENTRY_KEYS):
        _read_details(label, dict(_pairs(given)), parent, content, depth)
    else:
        content.put_below(label, parent)
        _read_tree(given, label, content, depth + 1)


def _read_details(
    label: Any, values: dict[str, Any], parent: Any, content: Content, depth: int
) -> None:
    _check_keys(values, ENTRY_KEYS, f"Class {label!r}")
    children = values.get("children")
    names = values.get("names")
    descriptions = _as_list(values.get("descriptions"))
    # A parent is a class of its own only where it is given something to encode
    if not children or "names" in values or descriptions:
        names = [] if names == [] and descriptions else names
        content.add(label, names, descriptions)
    content.put_below(label, values.get("parent") or parent)
    content.limit(label, values)
    if isinstance(children, Mapping | Pairs):
        _read_tree(children, label, content, depth + 1)
    elif children:
        _read_list(_as_list(children), label, content, depth + 1)


def _read_row(values: dict[str, Any], position: int, content: Content) -> None:
    values = {key: value for key, value in values.items() if value is not None and value != ""}
    _check_keys(values, ROW_KEYS, f"Row {position}")
    prompt, label = values.get("prompt"), values.get("label")
    kind = values.get("kind") or ("background" if label is None else "name")
    if kind not in PROMPT_KINDS + SETTING_KINDS:
        raise VocabularyError(
            f"Row {position} is of kind {kind!r}; use one of "
            f"{', '.join(PROMPT_KINDS + SETTING_KINDS)}"
        )
    if prompt is None and kind not in ("name", "group"):
        raise VocabularyError(f"Row {position}, a {kind}, has no prompt; write one or remove it")
    if label is None and kind in ("name", "description", "group"):
        raise VocabularyError(f"Row {position}, a {kind}, has no label; write one or remove it")
    if kind in ("template", "background"):
        plural = "templates" if kind == "template" else kind
        content.settings.setdefault(plural, []).append(prompt)
    elif kind == "roll_up":
        # A single level is a word, several labels are a row each
        earlier = content.settings.get("roll_up")
        levels = prompt if prompt in ("parent", "top") and earlier is None else [prompt]
        content.settings["roll_up"] = levels if earlier is None else [*_as_list(earlier), prompt]
    elif kind in ("concept", "merge"):
        if content.settings.setdefault(kind, prompt) != prompt:
            raise VocabularyError(f"Row {position} is a second {kind}; keep one")
    else:
        if kind != "group":
            row = content.rows.setdefault(label, Entry(label, None, []))
            if kind == "description":
                row.descriptions.append(prompt)
            else:
                row.names = [*(row.names or []), label if prompt is None else prompt]
        content.put_below(label, values.get("parent"))
        content.limit(label, values)


def _check_keys(values: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; use {', '.join(known)}"
            raise VocabularyError(f"{what} has the unknown key {key!r}{hint}")


def _pairs(spec: Any) -> Iterator[tuple[Any, Any]]:
    return iter(spec) if isinstance(spec, Pairs) else iter(spec.items())


def _value(spec: Any, key: str) -> Any:
    return next((value for found, value in _pairs(spec) if found == key), None)


def _as_list(value: Any) -> list:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _is_text(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _with_path(path: object, message: str) -> str:
    quoted = repr(str(path))
    return message if message.startswith(quoted) else f"{quoted}: {message}"
