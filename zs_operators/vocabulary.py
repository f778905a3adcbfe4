"""Classes, the names they are encoded under, templates and background: the exact prompts.

Light on purpose (no torch, no FiftyOne): a form builds a :class:`Vocabulary` at every keystroke.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from zs_operators.class_files import parse_lines, write_classes
from zs_operators.errors import VocabularyError
from zs_operators.templates import TEMPLATE_SETS, with_concept
from zs_operators.vocabulary_checks import (
    LIMIT_BOUNDS,
    check_ambiguity,
    check_classes,
    check_descriptions,
    check_limits,
    check_merge,
    check_parents,
    check_roll_up,
    check_templates,
    check_text,
    check_texts,
    listed,
    prompt_name,
    suggestion,
)
from zs_operators.vocabulary_entries import PromptRow, as_document, read_content

__all__ = ["TEMPLATE_SETS", "Prompt", "PromptRow", "Vocabulary", "parse_lines"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One text to encode.

    Attributes:
        text: what is encoded
        label: the class it stands for; None for a background prompt
        name: the name put in the template; the text itself for a description or the background
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
            other names were given; none where a class has only descriptions
        templates: texts with ``{}`` where a name goes
        background: prompts for "none of these", encoded as typed, without a template
        warnings: what was merged or looks unintended, in sentences
        descriptions: for some labels whole prompts, encoded as typed, without a template
        concept: what all names are, such as "a type of food"; ends every template
        parents: the parent of each class or parent that has one
        thresholds: for some labels ``min_confidence``, ``min_margin`` and ``min_cosine``; those of
            a parent hold for all below it that have none of their own
        merge: "mean", one vector a class, to which each name and each description adds the same;
            or "max", a vector each, of which the one nearest to the image counts
        roll_up: which label is written: None for the class, "parent", "top", or the labels that
            stand for all below them; the best class below a label gives its score
    """

    classes: tuple[str, ...]
    synonyms: Mapping[str, tuple[str, ...]] = field(hash=False)
    templates: tuple[str, ...]
    background: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=(), compare=False)
    descriptions: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    concept: str | None = None
    parents: Mapping[str, str] = field(default_factory=dict, hash=False)
    thresholds: Mapping[str, Mapping[str, float]] = field(default_factory=dict, hash=False)
    merge: str = "mean"
    roll_up: str | tuple[str, ...] | None = None

    @classmethod
    def parse(
        cls,
        spec: object,
        *,
        templates: object = "simple",
        background: object = None,
        descriptions: Mapping | None = None,
        concept: str | None = None,
        parents: Mapping | None = None,
        thresholds: Mapping | None = None,
        merge: str | None = None,
        roll_up: object = None,
    ) -> Vocabulary:
        """Checks classes, templates and background prompts, and puts them together.

        Names: surrounding blanks go. In prompts, not in labels, ``_`` and runs of blanks become
        one space. Integers become text. The same label twice is merged, with a warning. Labels
        that differ only in case are kept, with a warning: CLIP tokenizers lower the case, so they
        get the same vector.

        Args:
            spec: labels in any iterable (a set is sorted); a mapping
                ``{"car": ["car", "sedan"]}`` of each label to exactly the names to encode (one
                name, a list, or None for the label itself), or to a mapping of what is below it,
                or to more of one class (``names``, ``descriptions``, ``parent``, ``children``,
                ``min_confidence``, ``min_margin``, ``min_cosine``); the rows of a prompt table
                (:class:`PromptRow`, or mappings with ``prompt`` and ``label``); a mapping with
                ``classes`` and settings named as here; the path of a ``.txt``
                (:func:`parse_lines`), YAML, JSON or CSV file of the same; what :func:`parse_lines`
                returns; or a :class:`Vocabulary`. Its own settings stay unless others than the
                defaults are given here
            templates ("simple"): the name of a template set, one template, a list of templates
                (text or callables), or a file with one a line
            background (None): one prompt, a list of prompts, or a file with one a line
            descriptions (None): for some labels a whole prompt, or a list of them
            concept (None): what all names are, such as "a type of food"
            parents (None): the parent of each class that has one
            thresholds (None): ``{"car": 0.4}`` for a ``min_confidence``, or
                ``{"car": {"min_cosine": 0.2}}``
            merge (None): "mean" or "max"; None is "mean"
            roll_up (None): "parent", "top", or a list of labels; None writes classes

        Raises:
            VocabularyError: nothing given, a blank or unprintable name, a name that is no text,
                the same name under two classes, a class that is also a background prompt, a
                template without ``{}``, a hierarchy that is none, thresholds out of range or of
                no class, or a file that cannot be read
        """
        more = (background, descriptions, concept, parents, thresholds, merge, roll_up)
        own_templates = isinstance(templates, str) and templates == "simple"
        if isinstance(spec, Vocabulary):
            if own_templates and all(value is None for value in more):
                return spec
            spec = {**spec.to_dict(), "warnings": []}
        content = read_content(spec)
        own = content.settings

        warnings: list[str] = []
        synonyms, described = check_classes(content.entries, warnings)
        for label, texts in (descriptions or {}).items():
            if label not in synonyms:
                near = suggestion(str(label), synonyms)
                raise VocabularyError(f"descriptions name {label!r}, which is no class{near}")
            described[label] = check_descriptions(label, texts)
        if own_templates and "templates" in own:
            templates = _own_templates(own["templates"])
        if background is None and "background" in own:
            background = own["background"]
            background = [background] if isinstance(background, str) else background
        checked_background = check_texts(background, "background prompt", warnings)
        check_ambiguity(synonyms, described, checked_background, warnings)
        concept = own.get("concept") if concept is None else concept
        tree = check_parents({**content.parents, **(parents or {})}, synonyms)
        known = {*synonyms, *tree.values()}
        limits = check_limits(content.thresholds, known) | check_limits(thresholds or {}, known)
        roll_up = own.get("roll_up") if roll_up is None else roll_up
        vocabulary = cls(
            classes=tuple(synonyms),
            synonyms=synonyms,
            templates=check_templates(templates, warnings),
            background=checked_background,
            descriptions=described,
            concept=None if concept is None else check_text(concept, "concept"),
            parents=tree,
            thresholds=limits,
            merge=check_merge(merge or own.get("merge") or "mean"),
            roll_up=check_roll_up(roll_up, tree, synonyms),
        )
        warnings += vocabulary._late_warnings()
        return replace(vocabulary, warnings=tuple(dict.fromkeys([*warnings, *content.warnings])))

    parse_lines = staticmethod(parse_lines)

    @property
    def labels(self) -> tuple[str, ...]:
        """What may be written: the classes, or the labels they are rolled up to."""
        if self.roll_up is None:
            return self.classes
        return tuple(dict.fromkeys(map(self.label_of, self.classes)))

    @property
    def columns(self) -> tuple[str, ...]:
        """Labels, then background prompts: the columns of every matrix of scores."""
        return self.labels + self.background

    @property
    def num_prompts(self) -> int:
        """How many texts :meth:`prompts` has."""
        return sum(map(self._num_class_prompts, self.classes)) + len(self.background)

    def label_of(self, name: str) -> str:
        """The label a class is written as."""
        line = [name]
        while line[-1] in self.parents:
            line.append(self.parents[line[-1]])
        if self.roll_up is None:
            return name
        if self.roll_up == "parent":
            return line[:2][-1]
        if self.roll_up == "top":
            return line[-1]
        return next((label for label in line if label in self.roll_up), name)

    def prompts(self) -> tuple[Prompt, ...]:
        """Exactly what will be encoded: every name in every template, then its descriptions, class
        by class; then the background prompts."""
        return tuple(prompt for _, row in self._rows() for prompt in row)

    def prompt_columns(self) -> tuple[int, ...]:
        """The index in :attr:`columns` that each of :meth:`prompts` belongs to."""
        columns = self.vector_columns()
        vectors = self.prompt_vectors()
        return vectors if columns is None else tuple(columns[vector] for vector in vectors)

    def prompt_vectors(self) -> tuple[int, ...]:
        """The index of the vector each of :meth:`prompts` is averaged into: one a class, or for
        ``merge="max"`` one a name and one a description; then one a background prompt."""
        vectors: list[int] = []
        last, before = -1, None
        for label, row in self._rows():
            if label is None or label != before or self.merge == "max":
                last += 1
            vectors += [last] * len(row)
            before = label
        return tuple(vectors)

    def prompt_weights(self) -> tuple[float, ...] | None:
        """What each of :meth:`prompts` weighs in its vector; None where all weigh the same.

        A name in 80 templates weighs what one description weighs.
        """
        if self.merge == "max" or not self.descriptions or len(self.templates) == 1:
            return None
        return tuple(1 / len(row) for _, row in self._rows() for _ in row)

    def vector_columns(self) -> tuple[int, ...] | None:
        """The index in :attr:`columns` of each vector; None where each has its own."""
        if self.merge == "mean" and self.roll_up is None:
            return None
        numbers = {label: number for number, label in enumerate(self.labels)}
        columns = []
        for label in self.classes:
            rows = len(self.synonyms[label]) + len(self.descriptions.get(label, ()))
            columns += [numbers[self.label_of(label)]] * (rows if self.merge == "max" else 1)
        return (*columns, *range(len(numbers), len(numbers) + len(self.background)))

    def limits(self, name: str, default: float | None = None) -> float | list[float] | None:
        """A threshold of all labels: ``default``, or one number a label where some have their own.

        Args:
            name: "min_confidence", "min_margin" or "min_cosine"
            default (None): of labels without their own; None for no limit, -inf in the list
        """
        if not any(name in values for values in self.thresholds.values()):
            return default
        default = float("-inf") if default is None else default
        return [self._limit(label, name, default) for label in self.labels]

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
            first = (prompt.text for row in self._class_rows(label) for prompt in row)
            texts = list(islice(first, 2))
            more = self._num_class_prompts(label) - len(texts)
            lines.append(f"{label}: {' | '.join(texts)}" + (f" | +{more} more" if more else ""))
        room = max(0, limit - len(self.classes))
        lines += [f"(background): {text}" for text in self.background[:room]]
        hidden = len(self.classes) + len(self.background) - (len(lines) - 1)
        return "\n".join(lines + ([f"... and {hidden} more"] if hidden else []))

    def save(self, path: str | os.PathLike, *, overwrite: bool = False) -> Path:
        """Writes a ``.yaml``, ``.json`` or ``.csv`` file that :meth:`parse` reads as the same
        vocabulary; see :func:`zs_operators.class_files.write_classes`."""
        return write_classes(self.to_dict(), path, overwrite=overwrite)

    def to_dict(self) -> dict:
        """Plain JSON; no class name becomes a key, so it may be stored in MongoDB."""
        return as_document(self)

    @classmethod
    def from_dict(cls, content: Mapping) -> Vocabulary:
        """The vocabulary :meth:`to_dict` wrote; ``VocabularyError`` if it did not write this."""
        try:
            for entry in content["classes"]:
                entry["label"], entry["names"]
            content["templates"], content["background"]
            warnings = tuple(content["warnings"])
        except (KeyError, TypeError) as error:
            raise VocabularyError(
                f"Not a stored vocabulary ({type(error).__name__}: {error}); "
                "use what Vocabulary.to_dict() returned"
            ) from None
        return replace(cls.parse({**content, "warnings": []}), warnings=warnings)

    def scoring_settings(self) -> dict[str, Any]:
        """What decides labels besides :meth:`prompts` and :attr:`columns`; empty if nothing does.

        Plain JSON, as :meth:`to_dict`.
        """
        found = {
            "vector_columns": self.vector_columns(),
            "prompt_vectors": self.prompt_vectors() if self.merge == "max" else None,
            "prompt_weights": self.prompt_weights(),
            "thresholds": {
                name: self.limits(name) for name in LIMIT_BOUNDS if self.limits(name) is not None
            },
        }
        return {key: value for key, value in found.items() if value}

    def _rows(self) -> Iterator[tuple[str | None, list[Prompt]]]:
        """Prompts of each name, each description and each background prompt, with their class."""
        for label in self.classes:
            for row in self._class_rows(label):
                yield label, row
        for text in self.background:
            yield None, [Prompt(text, None, text)]

    def _class_rows(self, label: str) -> Iterator[list[Prompt]]:
        for name in map(prompt_name, self.synonyms[label]):
            # Not str.format: names and templates may hold braces of their own.
            yield [
                Prompt(with_concept(template, self.concept).replace("{}", name), label, name)
                for template in self.templates
            ]
        for text in self.descriptions.get(label, ()):
            yield [Prompt(text, label, text)]

    def _num_class_prompts(self, label: str) -> int:
        described = len(self.descriptions.get(label, ()))
        return len(self.synonyms[label]) * len(self.templates) + described

    def _limit(self, label: str, name: str, default: float) -> float:
        while name not in self.thresholds.get(label, {}):
            if label not in self.parents:
                return default
            label = self.parents[label]
        return self.thresholds[label][name]

    def _late_warnings(self) -> Iterator[str]:
        if len(self.labels) == 1 and not self.background:
            yield _one_class_warning(self.labels[0])
        hidden = [label for label in self.thresholds if self.label_of(label) != label]
        if hidden:
            yield (f"Thresholds without effect, because roll_up writes a parent: {listed(hidden)}.")


def _own_templates(given: object) -> object:
    """Templates of a document: a set or texts, never a file, which may be another's."""
    texts = [given] if isinstance(given, str) else given
    if isinstance(texts, list) and len(texts) == 1 and texts[0] in TEMPLATE_SETS:
        return texts[0]
    return texts


def _one_class_warning(label: str) -> str:
    hint = " Put one class on each line." if "," in label else ""
    return (
        f"Only one class, {label!r}: a softmax over one class is always 1. Add classes or "
        f"background prompts, or use min_cosine.{hint}"
    )


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
