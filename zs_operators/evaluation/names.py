"""Bringing the names of predictions and of ground truth together. No FiftyOne, no models.

Ground truth says how a class is called. What differs only in case, blanks, plural, or is a synonym
or a child in the vocabulary of the run, counts as that class, and the report says so. Whatever
stays without a counterpart is listed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from zs_operators.errors import InvalidInputError
from zs_operators.evaluation.report_parts import Names, Renamed
from zs_operators.vocabulary import Vocabulary
from zs_operators.vocabulary_checks import check_roll_up

PREDICTIONS, GROUND_TRUTH = "predictions", "ground truth"

#: How names are brought together: by themselves, or only where they are equal.
AUTO, EXACT = "auto", "exact"

_IRREGULAR = {
    "child": "children",
    "foot": "feet",
    "goose": "geese",
    "mouse": "mice",
    "person": "people",
    "tooth": "teeth",
}


@dataclass(frozen=True)
class NameMatch:
    """What the names of both sides count as.

    Attributes:
        predictions, ground_truth: names that are evaluated under another, and which; None is no
            label
        names: the same for the report, with what has no counterpart
        evaluated: all that names count as
    """

    predictions: Mapping[str, str | None]
    ground_truth: Mapping[str, str]
    names: Names
    evaluated: frozenset[str] = frozenset()

    def of_prediction(self, name: str | None) -> str | None:
        """What a predicted name counts as."""
        return self.predictions.get(name, name)

    def of_truth(self, name: str) -> str:
        """What a name of ground truth counts as."""
        return self.ground_truth.get(name, name)

    def of_any(self, names: Iterable[str]) -> set[str]:
        """What names that a person wrote count as, on whichever side and in whatever spelling."""
        spelled = _Spellings(self.evaluated)
        found = {self.of_truth(self.of_prediction(name) or name) for name in names}
        return {spelled.find(name) or name for name in found}


def parse_names(names: object) -> str | dict[str, str]:
    """The words "auto" and "exact", or a mapping of names, which may come as a list of entries.

    Raises:
        InvalidInputError: if ``names`` is none of these
    """
    if names in (AUTO, EXACT):
        return names
    found = names
    if isinstance(names, (list, tuple)):
        is_entry = [
            isinstance(one, Mapping) and {"name", "evaluated_as"} <= set(one) for one in names
        ]
        found = {one["name"]: one["evaluated_as"] for one in names} if all(is_entry) else None
    is_mapping = isinstance(found, Mapping)
    if not is_mapping or not all(isinstance(x, str) for pair in found.items() for x in pair):
        raise InvalidInputError(
            f"names={names!r} must be {AUTO!r}, {EXACT!r}, or a mapping of predicted names to "
            'those of ground truth, such as {"automobile": "car"}.'
        )
    return dict(found)


def match_names(
    predicted: Collection[str],
    truth: Collection[str],
    *,
    vocabulary: Vocabulary | None = None,
    names: str | Mapping[str, str] = AUTO,
    roll_up: Any = None,
) -> NameMatch:
    """Finds what each name counts as.

    A predicted name that ground truth lacks counts as the one name of ground truth that is equal
    but for case, then for blanks, underscores and hyphens, then for a plural; then as one that is
    a synonym of it, then as its nearest parent. With a vocabulary, a name of ground truth that it
    lacks counts as the class it is a spelling, a synonym or a child of. Two candidates are none.

    Args:
        predicted: names that are predicted
        truth: names of ground truth
        vocabulary (None): of the run; its labels can be predicted, whether they are or not
        names ("auto"): "exact" to compare names as they are, or a mapping of predicted names to
            those of ground truth (or of names of ground truth to others) that goes first
        roll_up (None): compare parents instead: "parent", "top" or a list of labels; see
            :class:`zs_operators.Vocabulary`

    Raises:
        InvalidInputError: if ``names`` or ``roll_up`` cannot be used
    """
    names = parse_names(names)
    possible = set(predicted) | (set() if vocabulary is None else set(vocabulary.labels))
    rolled = _roll_up(possible | set(truth), vocabulary, roll_up)
    given = names if isinstance(names, Mapping) else {}
    mine = {name: rolled[name] for name in possible}
    theirs = {name: rolled[name] for name in truth}
    reasons = {name: "roll-up" for name, other in rolled.items() if name != other}
    reasons_theirs = dict(reasons)
    for name, other in given.items():
        side, why = (mine, reasons) if name in possible else (theirs, reasons_theirs)
        if name in side:
            side[name], why[name] = other, "given"

    if names != EXACT:
        spelled = _Spellings(theirs.values())
        for name in sorted(possible - set(given)):
            found = _counterpart(mine[name], spelled, set(mine.values()), vocabulary)
            if found is not None:
                mine[name], reasons[name] = found
        if vocabulary is not None:
            of_class = {label: mine[label] for label in vocabulary.labels}
            for name in sorted(set(truth) - set(given)):
                found = _class_of(theirs[name], of_class, vocabulary)
                if found is not None and theirs[name] not in mine.values():
                    theirs[name], reasons_theirs[name] = found
    return NameMatch(
        {name: other for name, other in mine.items() if name != other},
        {name: other for name, other in theirs.items() if name != other},
        Names(
            (
                *_renamed(PREDICTIONS, mine, reasons, set(predicted)),
                *_renamed(GROUND_TRUTH, theirs, reasons_theirs, set(truth)),
            ),
            tuple(sorted(n for n in predicted if mine[n] not in theirs.values())),
            tuple(sorted(n for n in truth if theirs[n] not in mine.values())),
        ),
        frozenset({*mine.values(), *theirs.values()}),
    )


def _renamed(side, evaluated, reasons, present) -> list[Renamed]:
    return [
        Renamed(side, name, other, reasons[name])
        for name, other in sorted(evaluated.items())
        if name != other and name in present
    ]


def _roll_up(names: set[str], vocabulary: Vocabulary | None, roll_up: Any) -> dict[str, str]:
    if roll_up is None:
        return {name: name for name in names}
    if vocabulary is None or not vocabulary.parents:
        raise InvalidInputError(
            f"roll_up={roll_up!r} needs parents: give a vocabulary that has them."
        )
    parents, classes = vocabulary.parents, vocabulary.classes
    rolled = replace(vocabulary, roll_up=check_roll_up(roll_up, parents, classes))
    # A name of ground truth is spelled its own way
    spelled = _Spellings({*classes, *parents.values()})
    return {name: rolled.label_of(spelled.find(name) or name) for name in names}


def _spelling(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name.casefold())


def _plurals(name: str) -> set[str]:
    """Simple plurals of a name that :func:`_spelling` folded."""
    if len(name) < 3:
        return set()
    found = {f"{name}es"} if name.endswith(("s", "x", "z", "ch", "sh", "o")) else set()
    if not name.endswith(("s", "x", "z")):
        found.add(f"{name}s")
    for ending, plural in (("y", "ies"), ("fe", "ves"), ("f", "ves"), ("man", "men")):
        if name.endswith(ending):
            found.add(name.removesuffix(ending) + plural)
    found.update(
        name.removesuffix(ending) + plural
        for ending, plural in _IRREGULAR.items()
        if name.endswith(ending)
    )
    return found


class _Spellings:
    """Names that are found in other spellings.

    Args:
        names: to be found
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = set(names)
        self._case: dict[str, set[str]] = {}
        self._spelling: dict[str, set[str]] = {}
        self._plural: dict[str, set[str]] = {}
        for name in self.names:
            folded = _spelling(name)
            self._case.setdefault(name.casefold(), set()).add(name)
            self._spelling.setdefault(folded, set()).add(name)
            for plural in _plurals(folded):
                self._plural.setdefault(plural, set()).add(name)

    def find(self, name: str, others: Collection[str] = ()) -> str | None:
        """See :meth:`find_how`."""
        found = self.find_how(name, others)
        return None if found is None else found[0]

    def find_how(
        self, name: str, others: Collection[str] = (), *, plurals: bool = True
    ) -> tuple[str, str] | None:
        """The one name that this is a spelling of, and in what it differs; itself first.

        Args:
            name: what is looked for
            others: names with a meaning of their own: their plural or singular is another thing
            plurals (True): whether one may be the plural of the other
        """
        if name in self.names:
            return name, "case"
        folded = _spelling(name)
        forms = [
            ("case", self._case.get(name.casefold())),
            ("spelling", self._spelling.get(folded)),
        ]
        if plurals:
            found = set(self._plural.get(folded, ()))
            for plural in _plurals(folded):
                found |= self._spelling.get(plural, set())
            forms.append(("plural", found - set(others)))
        for reason, found in forms:
            if found:
                return (next(iter(found)), reason) if len(found) == 1 else None
        return None


def _counterpart(
    name: str, spelled: _Spellings, predicted: set[str], vocabulary: Vocabulary | None
) -> tuple[str, str] | None:
    """The name of ground truth that a predicted name stands for, and why; None for itself."""
    found = spelled.find_how(name, predicted)
    if found is not None:
        return None if found[0] == name else found
    if vocabulary is None:
        return None
    synonyms = {spelled.find(text, predicted) for text in vocabulary.synonyms.get(name, ())}
    synonyms.discard(None)
    if len(synonyms) == 1:
        return next(iter(synonyms)), "synonym"
    for parent in _line(name, vocabulary):
        if (found := spelled.find(parent)) is not None:
            return found, "parent"
    return None


def _class_of(
    name: str, of_class: Mapping[str, str], vocabulary: Vocabulary
) -> tuple[str, str] | None:
    """What the class that a name of ground truth belongs to counts as, and why."""
    if name in of_class.values():
        return None
    # A plural beside its singular may mean something else, so ground truth keeps both
    found = _Spellings(of_class).find_how(name, plurals=False)
    if found is not None:
        return of_class[found[0]], found[1]
    synonyms = {
        label
        for label in of_class
        if name != label and _spelling(name) in map(_spelling, vocabulary.synonyms.get(label, ()))
    }
    if len(synonyms) == 1:
        return of_class[next(iter(synonyms))], "synonym"
    for parent in _line(_Spellings(vocabulary.parents).find(name) or name, vocabulary):
        if parent in of_class:
            return of_class[parent], "parent"
    return None


def _line(name: str, vocabulary: Vocabulary) -> list[str]:
    """Parents from the nearest to the top."""
    line = []
    while name in vocabulary.parents:
        name = vocabulary.parents[name]
        line.append(name)
    return line
