"""What fitting a head found out, for people: before and after, with and without examples."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

_SHOWN = 12


@dataclass(frozen=True)
class HeadReport:
    """How a head was fitted, and how it does on samples and classes it was fitted without.

    Accuracies are means over classes, in [0, 1], and estimates: constants were chosen by them.

    Attributes:
        name: of the saved head, None if it is not saved
        model: name of the CLIP model
        ground_truth: the field with the labels
        method, alpha, constants: what was chosen; alpha 0 is zero-shot
        shots: samples of each class or background prompt that has some
        unsupported: classes without samples
        supported_before, supported_after: S, each sample scored by a head without it
        unsupported_before, unsupported_after: U, each class scored by a head without its samples;
            None where all columns have samples
        harmonic_before, harmonic_after: H = 2SU / (S + U)
        classes: for each class with samples: shots, and its share right before and after
        embedded, reused: embeddings that were computed, and that were stored
        skipped: why samples took no part: reason -> how many
        warnings: what the person should know, one sentence each
        seconds: of the whole
    """

    name: str | None
    model: str
    ground_truth: str
    method: str
    alpha: float
    constants: Mapping[str, float]
    shots: Mapping[str, int]
    unsupported: tuple[str, ...]
    supported_before: float
    supported_after: float
    unsupported_before: float | None = None
    unsupported_after: float | None = None
    harmonic_before: float | None = None
    harmonic_after: float | None = None
    classes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    embedded: int = 0
    reused: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> HeadReport:
        """What :meth:`to_dict` made a dict of; what this version does not know is left out."""
        known = {one.name for one in fields(cls)}
        found = {name: value for name, value in content.items() if name in known}
        for name in ("unsupported", "warnings"):
            found[name] = tuple(found.get(name, ()))
        return cls(**found)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain dicts, lists, strings and Python numbers."""
        return json.loads(json.dumps(asdict(self)))

    def __str__(self) -> str:
        shots = sorted(self.shots.values())
        range_ = f"{shots[0]}" if shots[0] == shots[-1] else f"{shots[0]} to {shots[-1]}"
        constants = ", ".join(f"{name} {value:.3g}" for name, value in self.constants.items())
        title = f"head {self.name or '(not saved)'} on {self.ground_truth} ({self.model})"
        lines = [
            title,
            "-" * len(title),
            f"method       {self.method}, alpha {self.alpha:.3g}"
            + (f", {constants}" if constants else ""),
            f"samples      {sum(shots):,} of {len(shots):,} classes, {range_} each; "
            f"{len(self.unsupported):,} classes without",
            f"{'':<24}{'zero-shot':>10}{'head':>10}",
        ]
        for name, before, after in self.rows():
            lines.append(f"{name:<24}{_share(before):>10}{_share(after):>10}")
        lines += [f"not used     {count:,}: {why}" for why, count in self.skipped.items()]
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])

    def rows(self) -> list[tuple[str, float | None, float | None]]:
        """Name, before and after of the accuracies."""
        return [
            ("with examples (S)", self.supported_before, self.supported_after),
            ("without examples (U)", self.unsupported_before, self.unsupported_after),
            ("harmonic mean (H)", self.harmonic_before, self.harmonic_after),
        ]

    def worst_first(self) -> list[tuple[str, Mapping[str, float]]]:
        """Classes with samples, the ones that lose most first; at most 12."""
        ranked = sorted(self.classes.items(), key=lambda one: one[1]["after"] - one[1]["before"])
        return ranked[:_SHOWN]


def _share(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"
