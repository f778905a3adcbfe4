"""Checks of everything a vocabulary is made of: names, templates, hierarchy and thresholds."""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from numbers import Integral
from typing import TYPE_CHECKING

from zs_operators.class_files import has_known_suffix, read_lines
from zs_operators.errors import VocabularyError
from zs_operators.templates import TEMPLATE_SETS

if TYPE_CHECKING:
    from zs_operators.vocabulary_entries import Entry

LIMIT_BOUNDS = {
    "min_confidence": (0.0, 1.0),
    "min_margin": (0.0, float("inf")),
    "min_cosine": (-1.0, 1.0),
}
"""Per-class thresholds, and the least and highest value of each."""

MERGES = ("mean", "max")
ROLL_UPS = ("parent", "top")

# Control characters, line separators and lone surrogates: no text encoder or database keeps them.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def check_text(value: object, what: str) -> str:
    """One line of text without surrounding blanks; integers become text."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        value = str(int(value))
    if not isinstance(value, str):
        raise VocabularyError(
            f"{what} is {value!r} ({type(value).__name__}), not text; put it in quotes"
        )
    text = value.strip()
    if not text:
        raise VocabularyError(f"{what} is blank; write a name or remove it")
    if _UNPRINTABLE.search(text):
        raise VocabularyError(
            f"{what}, {text!r}, holds a line break or another control character; write it on one "
            "line without"
        )
    return str(text)


def check_texts(spec: object, what: str, warnings: list[str]) -> tuple[str, ...]:
    """One text, a list of them, or a file of them -> checked and unique."""
    if spec is None:
        return ()
    if isinstance(spec, os.PathLike) or (isinstance(spec, str) and has_known_suffix(spec)):
        spec = read_lines(spec)
    return check_text_list(spec, what, warnings)


def check_text_list(spec: object, what: str, warnings: list[str]) -> tuple[str, ...]:
    """One text, or a list of them -> checked and unique."""
    if isinstance(spec, str):
        spec = [spec]
    if isinstance(spec, bytes | Mapping) or not isinstance(spec, Iterable):
        raise VocabularyError(f"A {what} was given as {type(spec).__name__}; pass a list of texts")
    texts = [check_text(item, f"{what.capitalize()} {n}") for n, item in enumerate(spec, start=1)]
    counts = Counter(texts)
    repeated = [text for text, count in counts.items() if count > 1]
    if repeated:
        warnings.append(f"The same {what} more than once, used once: {listed(repeated)}.")
    return tuple(counts)


def check_names(label: str, given: object, warnings: list[str]) -> tuple[str, ...]:
    """Names to encode for a label; the label itself if ``given`` is None or empty."""
    if given is None:
        given = [label]
    elif isinstance(given, str):
        if "," in given:
            warnings.append(
                f"{label!r} has the one name {given!r}; write a list if these are several names."
            )
        given = [given]
    elif isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise VocabularyError(
            f"The names of {label!r} are {given!r}; write one name, a list of names, or nothing"
        )
    names = [check_text(name, f"A name of {label!r}") for name in given] or [label]
    unique: dict[str, str] = {}
    for name in names:
        in_prompt = prompt_name(name)
        if not in_prompt:
            raise VocabularyError(
                f"{name!r} leaves nothing to put in a prompt; give the class {label!r} a name in "
                "words"
            )
        if in_prompt in unique:
            warnings.append(f"{label!r} has the name {name!r} more than once; encoded once.")
        else:
            unique[in_prompt] = name
    return tuple(unique.values())


def check_classes(
    entries: list[Entry], warnings: list[str]
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Names, and descriptions if any, of each label; the same label twice is merged."""
    if not entries:
        raise VocabularyError("No classes were given; name at least one, better two or more")
    synonyms: dict[str, tuple[str, ...]] = {}
    described: dict[str, tuple[str, ...]] = {}
    repeated: dict[str, None] = {}
    for position, entry in enumerate(entries, start=1):
        label = check_text(entry.label, f"Class {position}")
        texts = check_descriptions(label, entry.descriptions)
        only_described = bool(texts) and isinstance(entry.names, list) and not entry.names
        names = () if only_described else check_names(label, entry.names, warnings)
        if label in synonyms:
            repeated[label] = None
            names = synonyms[label] + names
            names = check_names(label, names, []) if names else ()
        synonyms[label] = names
        if texts:
            described[label] = tuple(dict.fromkeys(described.get(label, ()) + texts))
    if repeated:
        warnings.append(f"Given more than once and merged: {listed(repeated)}.")
    return synonyms, described


def check_ambiguity(
    synonyms: Mapping[str, tuple[str, ...]],
    descriptions: Mapping[str, tuple[str, ...]],
    background: Collection[str],
    warnings: list[str],
) -> None:
    """Refuses a name or a description that two classes, or a class and the background, share."""
    owners: dict[str, tuple[str, str]] = {}
    for label, names in synonyms.items():
        for name in names:
            in_prompt = prompt_name(name)
            other, encoded = owners.setdefault(_fold(name), (label, in_prompt))
            if other == label:
                continue
            if encoded == in_prompt:
                raise VocabularyError(
                    f"{other!r} and {label!r} would both be encoded as {in_prompt!r}; merge them "
                    "or give one of them another name"
                )
            warnings.append(
                f"{other!r} and {label!r} are encoded as {encoded!r} and {in_prompt!r}, which "
                "most models cannot tell apart."
            )
    described: dict[str, str] = {}
    for label, texts in descriptions.items():
        for text in texts:
            other = described.setdefault(text, label)
            if other != label:
                raise VocabularyError(
                    f"{other!r} and {label!r} have the same description {text!r}; describe what "
                    "sets them apart"
                )
    for text in background:
        if text in synonyms or text in described or _fold(text) in owners:
            raise VocabularyError(
                f"{text!r} is both a class and a background prompt; remove one of them"
            )


def check_templates(spec: object, warnings: list[str]) -> tuple[str, ...]:
    """Texts with ``{}``, from the name of a set, a text, a list or a file."""
    if isinstance(spec, str) and spec in TEMPLATE_SETS:
        return TEMPLATE_SETS[spec]
    if isinstance(spec, str) and "{}" not in spec and not has_known_suffix(spec):
        near = difflib.get_close_matches(spec, TEMPLATE_SETS, n=1)
        raise VocabularyError(
            f"{spec!r} is neither a template set ({', '.join(TEMPLATE_SETS)}) nor a template with "
            f"{{}} where the class name goes" + (f"; did you mean {near[0]!r}?" if near else "")
        )
    if isinstance(spec, Iterable) and not isinstance(spec, str | os.PathLike | bytes | Mapping):
        # open_clip's own templates are functions of the name
        spec = [item("{}") if isinstance(item, Callable) else item for item in spec]
    templates = check_texts(spec, "template", warnings)
    if not templates:
        raise VocabularyError(
            'No templates were given; use templates="none" for the bare class names'
        )
    for template in templates:
        if "{}" not in template:
            raise VocabularyError(
                f"The template {template!r} has no {{}}; write {{}} where the class name goes"
            )
    return templates


def check_parents(given: Mapping, classes: Collection[str]) -> dict[str, str]:
    """Parent of each class or group that has one; refuses cycles and parents of nothing."""
    parents: dict[str, str] = {}
    for child, parent in given.items():
        child, parent = (
            check_text(child, "A child in parents"),
            check_text(parent, f"The parent of {child!r}"),
        )
        if parents.setdefault(child, parent) != parent:
            raise VocabularyError(
                f"{child!r} has two parents, {parents[child]!r} and {parent!r}; choose one"
            )
    known = {*classes, *parents.values()}
    for child in parents:
        if child not in known:
            raise VocabularyError(
                f"parents names {child!r}, which is no class{suggestion(child, known)}"
            )
        line = [child]
        while line[-1] in parents:
            line.append(parents[line[-1]])
            if line[-1] in line[:-1]:
                raise VocabularyError(
                    f"The hierarchy goes in a circle: {' -> '.join(line)}; remove one step"
                )
    return parents


def check_limits(given: Mapping, known: Collection[str]) -> dict[str, dict[str, float]]:
    """Thresholds by label: ``{"car": 0.4}`` is short for ``{"car": {"min_confidence": 0.4}}``."""
    if not isinstance(given, Mapping):
        raise VocabularyError(
            f"thresholds were given as {type(given).__name__}; pass a mapping of labels to "
            "numbers, or to {'min_confidence': number}"
        )
    limits: dict[str, dict[str, float]] = {}
    for label, values in given.items():
        label = check_text(label, "A label in thresholds")
        if label not in known:
            raise VocabularyError(
                f"thresholds name {label!r}, which is no class{suggestion(label, known)}"
            )
        if not isinstance(values, Mapping):
            values = {"min_confidence": values}
        checked = {
            name: _limit(label, name, value) for name, value in values.items() if value is not None
        }
        if checked:
            limits[label] = checked
    return limits


def check_descriptions(label: str, given: object) -> tuple[str, ...]:
    """Whole prompts of a label, encoded as typed; unique."""
    if isinstance(given, str):
        given = [given]
    if isinstance(given, bytes | Mapping) or not isinstance(given, Iterable):
        raise VocabularyError(
            f"The descriptions of {label!r} are {given!r}; write one text or a list of texts"
        )
    return tuple(dict.fromkeys(check_text(text, f"A description of {label!r}") for text in given))


def check_merge(value: object) -> str:
    """How several vectors of a class become one score."""
    if value not in MERGES:
        raise VocabularyError(f"merge={value!r} must be one of {', '.join(MERGES)}.")
    return value


def check_roll_up(
    value: object, parents: Mapping[str, str], classes: Collection[str]
) -> str | tuple[str, ...] | None:
    """None, "parent", "top", or the labels to roll up to."""
    if value is None or value == "" or value == []:
        return None
    if not parents:
        raise VocabularyError(
            f"roll_up={value!r} needs a hierarchy, and no class has a parent; give parents"
        )
    if value in ROLL_UPS:
        return value
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise VocabularyError(
            f"roll_up={value!r} must be 'parent', 'top', or a list of labels to roll up to"
        )
    known = {*classes, *parents.values()}
    wanted = tuple(dict.fromkeys(check_text(item, "A label in roll_up") for item in value))
    for label in wanted:
        if label not in known:
            raise VocabularyError(
                f"roll_up names {label!r}, which is neither a class nor a parent"
                f"{suggestion(label, known)}"
            )
    return wanted


def prompt_name(name: str) -> str:
    """A name as it stands in a prompt."""
    return " ".join(name.replace("_", " ").split())


def listed(names: Iterable[str], limit: int = 5) -> str:
    """The first names, quoted, and how many more there are."""
    names = list(names)
    shown = ", ".join(map(repr, names[:limit]))
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _limit(label: str, name: str, value: object) -> float:
    if name not in LIMIT_BOUNDS:
        raise VocabularyError(
            f"The thresholds of {label!r} have {name!r}; they may be {', '.join(LIMIT_BOUNDS)}"
        )
    low, high = LIMIT_BOUNDS[name]
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not low <= number <= high or number == float("inf"):
        bounds = f"between {low:g} and {high:g}" if high != float("inf") else f">= {low:g}"
        raise VocabularyError(f"{name}={value!r} of {label!r} must be a number {bounds}")
    return number


def suggestion(name: str, known: Collection[str]) -> str:
    """The nearest known name as the end of a sentence, if there is one."""
    near = difflib.get_close_matches(name, [item for item in known if isinstance(item, str)], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", prompt_name(name)).casefold()
