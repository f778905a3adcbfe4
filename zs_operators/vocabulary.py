"""Classes, the names they are encoded under, templates and background: the exact prompts.

Light on purpose (no torch, no FiftyOne): a form builds a :class:`Vocabulary` at every keystroke.
"""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from numbers import Integral

from zs_operators.class_files import (
    SUFFIXES,
    has_known_suffix,
    parse_lines,
    read_classes,
    read_lines,
)
from zs_operators.errors import VocabularyError
from zs_operators.templates import TEMPLATE_SETS

__all__ = ["TEMPLATE_SETS", "Prompt", "Vocabulary", "parse_lines"]

# Control characters, line separators and lone surrogates: no text encoder or database keeps them.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One text to encode.

    Attributes:
        text: what is encoded
        label: the class it stands for; None for a background prompt
        name: the name put in the template; the text itself for a background prompt
    """

    text: str
    label: str | None
    name: str


@dataclass(frozen=True)
class Vocabulary:
    """Classes and everything that decides their prompts; made by :meth:`parse`.

    Attributes:
        classes: the labels as typed, in order; unique
        synonyms: for each label the names that are encoded, as typed: the label itself unless
            other names were given
        templates: texts with ``{}`` where a name goes
        background: prompts for "none of these", encoded as typed, without a template
        warnings: what was merged or looks unintended, in sentences
    """

    classes: tuple[str, ...]
    synonyms: Mapping[str, tuple[str, ...]] = field(hash=False)
    templates: tuple[str, ...]
    background: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def parse(
        cls,
        spec: object,
        *,
        templates: object = "simple",
        background: object = None,
    ) -> Vocabulary:
        """Checks classes, templates and background prompts, and puts them together.

        Names: surrounding blanks go. In prompts, not in labels, ``_`` and runs of blanks become
        one space. Integers become text. The same label twice is merged, with a warning. Labels
        that differ only in case are kept, with a warning: CLIP tokenizers lower the case, so they
        get the same vector.

        Args:
            spec: labels in any iterable (a set is sorted); a mapping
                ``{"car": ["car", "sedan"]}`` of each label to exactly the names to encode (one
                name, a list, or None for the label itself); the path of a ``.txt``
                (:func:`parse_lines`), YAML or JSON file of the same; what :func:`parse_lines`
                returns; or a :class:`Vocabulary`, whose own templates and background stay unless
                others than the defaults are given here
            templates ("simple"): the name of a template set, one template, a list of templates
                (text or callables), or a file with one a line
            background (None): one prompt, a list of prompts, or a file with one a line

        Raises:
            VocabularyError: nothing given, a blank or unprintable name, a name that is no text,
                the same name under two classes, a class that is also a background prompt, a
                template without ``{}``, or a file that cannot be read
        """
        if isinstance(spec, Vocabulary):
            if templates == "simple" and background is None:
                return spec
            return cls.parse(
                spec.synonyms,
                templates=spec.templates if templates == "simple" else templates,
                background=spec.background if background is None else background,
            )

        warnings: list[str] = []
        synonyms = _classes(_class_entries(spec), warnings)
        names = _check_ambiguity(synonyms, warnings)
        checked_background = _texts(background, "background prompt", warnings)
        for prompt in checked_background:
            if prompt in synonyms or _fold(prompt) in names:
                raise VocabularyError(
                    f"{prompt!r} is both a class and a background prompt; remove one of them"
                )
        vocabulary = cls(
            classes=tuple(synonyms),
            synonyms=synonyms,
            templates=_templates(templates, warnings),
            background=checked_background,
        )
        if len(synonyms) == 1 and not checked_background:
            warnings.append(_one_class_warning(vocabulary.classes[0]))
        return replace(vocabulary, warnings=tuple(warnings))

    parse_lines = staticmethod(parse_lines)

    @property
    def columns(self) -> tuple[str, ...]:
        """Classes, then background prompts: the columns of every matrix of scores."""
        return self.classes + self.background

    @property
    def num_prompts(self) -> int:
        """How many texts :meth:`prompts` has."""
        names = sum(len(self.synonyms[label]) for label in self.classes)
        return names * len(self.templates) + len(self.background)

    def prompts(self) -> tuple[Prompt, ...]:
        """Exactly what will be encoded: every name in every template, class by class, then the
        background prompts."""
        return tuple(prompt for _, prompt in self._numbered_prompts())

    def prompt_columns(self) -> tuple[int, ...]:
        """The index in :attr:`columns` that each of :meth:`prompts` belongs to."""
        return tuple(column for column, _ in self._numbered_prompts())

    def summary(self, limit: int = 10) -> str:
        """The vocabulary for people: counts, then a line for each of the first ``limit`` columns
        with its first two prompts."""
        lines = [
            f"{_count(len(self.classes), 'class', 'classes')}, "
            f"{_count(len(self.templates), 'template')}, "
            f"{_count(self.num_prompts, 'prompt')}"
            + (f" ({len(self.background)} background)" if self.background else "")
        ]
        for label in self.classes[:limit]:
            texts = list(islice((prompt.text for prompt in self._class_prompts(label)), 2))
            more = len(self.synonyms[label]) * len(self.templates) - len(texts)
            lines.append(f"{label}: {' | '.join(texts)}" + (f" | +{more} more" if more else ""))
        room = max(0, limit - len(self.classes))
        lines += [f"(background): {text}" for text in self.background[:room]]
        hidden = len(self.columns) - (len(lines) - 1)
        return "\n".join(lines + ([f"... and {hidden} more"] if hidden else []))

    def to_dict(self) -> dict:
        """Plain JSON; no class name becomes a key, so it may be stored in MongoDB."""
        return {
            "classes": [
                {"label": label, "names": list(self.synonyms[label])} for label in self.classes
            ],
            "templates": list(self.templates),
            "background": list(self.background),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, content: Mapping) -> Vocabulary:
        """The vocabulary :meth:`to_dict` wrote; ``VocabularyError`` if it did not write this."""
        try:
            spec = [(entry["label"], entry["names"]) for entry in content["classes"]]
            templates, background = content["templates"], content["background"]
            warnings = tuple(content["warnings"])
        except (KeyError, TypeError) as error:
            raise VocabularyError(
                f"Not a stored vocabulary ({type(error).__name__}: {error}); "
                "use what Vocabulary.to_dict() returned"
            ) from None
        return replace(
            cls.parse(spec, templates=templates, background=background), warnings=warnings
        )

    def _numbered_prompts(self) -> Iterator[tuple[int, Prompt]]:
        for column, label in enumerate(self.classes):
            for prompt in self._class_prompts(label):
                yield column, prompt
        for column, text in enumerate(self.background, start=len(self.classes)):
            yield column, Prompt(text, None, text)

    def _class_prompts(self, label: str) -> Iterator[Prompt]:
        for name in map(_prompt_name, self.synonyms[label]):
            for template in self.templates:
                # Not str.format: names and templates may hold braces of their own.
                yield Prompt(template.replace("{}", name), label, name)


def _class_entries(spec: object) -> list:
    if spec is None:
        return []
    if isinstance(spec, Mapping):
        return [label if names is None else (label, names) for label, names in spec.items()]
    if isinstance(spec, os.PathLike) or (isinstance(spec, str) and has_known_suffix(spec)):
        return read_classes(spec)
    if isinstance(spec, str):
        raise VocabularyError(
            f"Classes were given as the text {spec!r}; pass a list such as ['cat', 'dog'], a "
            f"mapping of labels to names, or the path of a {', '.join(SUFFIXES)} file"
        )
    if isinstance(spec, bytes | bytearray) or not isinstance(spec, Iterable):
        raise VocabularyError(
            f"Classes were given as {type(spec).__name__}; pass a list of names, a mapping of "
            "labels to names, or the path of a file"
        )
    return sorted(spec, key=str) if isinstance(spec, set | frozenset) else list(spec)


def _classes(entries: list, warnings: list[str]) -> dict[str, tuple[str, ...]]:
    if not entries:
        raise VocabularyError("No classes were given; name at least one, better two or more")
    synonyms: dict[str, tuple[str, ...]] = {}
    repeated: dict[str, None] = {}
    for position, entry in enumerate(entries, start=1):
        label, given = entry, None
        if isinstance(entry, list | tuple):
            if len(entry) != 2:
                raise VocabularyError(
                    f"Class {position} is {entry!r}; write a name, or (label, [names])"
                )
            label, given = entry
        label = _text(label, f"Class {position}")
        names = _names(label, given, warnings)
        if label in synonyms:
            repeated[label] = None
            names = _names(label, synonyms[label] + names, [])
        synonyms[label] = names
    if repeated:
        warnings.append(f"Given more than once and merged: {_listed(repeated)}.")
    return synonyms


def _names(label: str, given: object, warnings: list[str]) -> tuple[str, ...]:
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
    names = [_text(name, f"A name of {label!r}") for name in given] or [label]
    unique: dict[str, str] = {}
    for name in names:
        in_prompt = _prompt_name(name)
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


def _check_ambiguity(
    synonyms: dict[str, tuple[str, ...]], warnings: list[str]
) -> dict[str, tuple[str, str]]:
    """Folded name -> (label, name as encoded); refuses a name that two classes share."""
    owners: dict[str, tuple[str, str]] = {}
    for label, names in synonyms.items():
        for name in names:
            in_prompt = _prompt_name(name)
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
    return owners


def _templates(spec: object, warnings: list[str]) -> tuple[str, ...]:
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
    templates = _texts(spec, "template", warnings)
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


def _texts(spec: object, what: str, warnings: list[str]) -> tuple[str, ...]:
    """One text, a list of them, or a file of them -> checked and unique."""
    if spec is None:
        return ()
    if isinstance(spec, os.PathLike) or (isinstance(spec, str) and has_known_suffix(spec)):
        spec = read_lines(spec)
    elif isinstance(spec, str):
        spec = [spec]
    if isinstance(spec, bytes | Mapping) or not isinstance(spec, Iterable):
        raise VocabularyError(f"A {what} was given as {type(spec).__name__}; pass a list of texts")
    texts = [_text(item, f"{what.capitalize()} {n}") for n, item in enumerate(spec, start=1)]
    counts = Counter(texts)
    repeated = [text for text, count in counts.items() if count > 1]
    if repeated:
        warnings.append(f"The same {what} more than once, used once: {_listed(repeated)}.")
    return tuple(counts)


def _text(value: object, what: str) -> str:
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


def _prompt_name(name: str) -> str:
    return " ".join(name.replace("_", " ").split())


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", _prompt_name(name)).casefold()


def _one_class_warning(label: str) -> str:
    hint = " Put one class on each line." if "," in label else ""
    return (
        f"Only one class, {label!r}: a softmax over one class is always 1. Add classes or "
        f"background prompts, or use min_cosine.{hint}"
    )


def _listed(names: Iterable[str], limit: int = 5) -> str:
    names = list(names)
    shown = ", ".join(map(repr, names[:limit]))
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
