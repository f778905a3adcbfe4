"""What looks wrong about labels although nobody knows the truth: numbers, and sentences on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zs_operators.analysis.error_kinds import CLOSE_MARGIN

#: Shares from which a person is warned, and how many labels or images that takes
MOSTLY_ONE, MOSTLY_CLOSE, MOSTLY_REJECTED, MOSTLY_EMPTY = 0.9, 0.5, 0.5, 0.9
EVEN_PROBABILITIES = 0.9
TEMPLATES_AGREE = 0.8
ENOUGH = 20


@dataclass
class CertaintyTally:
    """Counts how sure labels are while they are made; costs nothing to speak of.

    Attributes:
        num: labels counted
        sum_confidence: of all
        num_margins: of labels that have a next best class to lead
        num_close: of those that lead it by less than log 3
    """

    num: int = 0
    sum_confidence: float = 0.0
    num_margins: int = 0
    num_close: int = 0

    def add(self, scores: Iterable[Any]) -> None:
        """Counts labels that were not rejected; each has ``confidence`` and ``margin``."""
        for score in scores:
            self.num += 1
            self.sum_confidence += score.confidence
            if score.margin is not None:
                self.num_margins += 1
                self.num_close += score.margin < CLOSE_MARGIN

    def include(self, other: CertaintyTally) -> None:
        """Counts what another tally has counted."""
        self.num += other.num
        self.sum_confidence += other.sum_confidence
        self.num_margins += other.num_margins
        self.num_close += other.num_close


@dataclass(frozen=True)
class Findings:
    """The numbers that a run and a sanity card judge alike; None is not known.

    Attributes:
        histogram: labels by class name
        images: that were processed
        num_classes: that were asked for; None where labels got their names from elsewhere
        mean_confidence: of the labels
        close_share: of labels that lead the next best by less than log 3
        rejected_share, empty_share: of images that were rejected, or show nothing
        label_entropy, class_entropy: see :mod:`zs_operators.analysis.entropy`
        templates: for each template alone, share of images to which it gives the label of all
    """

    histogram: Mapping[str, int]
    images: int
    num_classes: int | None = None
    mean_confidence: float | None = None
    close_share: float | None = None
    rejected_share: float = 0.0
    empty_share: float = 0.0
    label_entropy: float | None = None
    class_entropy: float | None = None
    templates: Mapping[str, float] = field(default_factory=dict)

    @property
    def labels(self) -> int:
        return sum(self.histogram.values())

    @property
    def top(self) -> tuple[str | None, float]:
        """The commonest label, and its share of all."""
        if not self.labels:
            return None, 0.0
        name, count = max(self.histogram.items(), key=lambda item: item[1])
        return name, count / self.labels

    @property
    def template_agreement(self) -> float | None:
        """Mean over the templates; None with fewer than two."""
        if len(self.templates) < 2:
            return None
        return sum(self.templates.values()) / len(self.templates)

    def warnings(self) -> list[str]:
        """A sentence for each thing that a person should look at."""
        found = []
        name, share = self.top
        if self.labels >= ENOUGH and share >= MOSTLY_ONE and (self.num_classes or 1) > 1:
            found.append(
                f"{share:.0%} of the labels are {name!r}: if that is not so, give the other "
                "classes better names, or this one a background to compete with."
            )
        if self.labels >= ENOUGH and (self.close_share or 0.0) >= MOSTLY_CLOSE:
            found.append(
                f"{self.close_share:.0%} of the labels barely lead the next best class: their "
                "names may mean nearly the same, or not fit these images."
            )
        if self.images >= ENOUGH and self.rejected_share >= MOSTLY_REJECTED:
            found.append(
                f"{self.rejected_share:.0%} of the images were rejected: lower the thresholds, "
                "or name the classes that are missing."
            )
        if self.images >= ENOUGH and self.empty_share >= MOSTLY_EMPTY:
            found.append(
                f"On {self.empty_share:.0%} of the images nothing was found: lower "
                "min_confidence, or check that the names are those of things in the images."
            )
        if self.labels >= ENOUGH and (self.class_entropy or 0.0) >= EVEN_PROBABILITIES:
            found.append(
                "Probabilities are almost the same for all classes: the model cannot tell them "
                "apart by these names."
            )
        agreement = self.template_agreement
        if self.labels >= ENOUGH and agreement is not None and agreement < TEMPLATES_AGREE:
            worst = min(self.templates, key=self.templates.__getitem__)
            found.append(
                f"Templates disagree: alone they give the label of all together to "
                f"{agreement:.0%} of the images, {worst!r} to {self.templates[worst]:.0%}."
            )
        return found

    def short(self) -> dict[str, Any]:
        """The numbers a run's report carries, without those that are not known."""
        name, share = self.top
        found = {
            "top_label": name,
            "top_share": share if name is not None else None,
            "mean_confidence": self.mean_confidence,
            "close_share": self.close_share,
            "rejected_share": self.rejected_share,
            "label_entropy": self.label_entropy,
        }
        return {
            key: round(value, 4) if isinstance(value, float) else value
            for key, value in found.items()
            if value is not None
        }


def findings_of_run(
    tally: CertaintyTally,
    labels: Mapping[str, int],
    outcomes: Mapping[str, int],
    num_classes: int | None,
) -> Findings:
    """What a run knows of its own labels from its counters."""
    from zs_operators.analysis.entropy import spread_of_counts
    from zs_operators.report import NOTHING_FOUND, REJECTED, SUCCESSES

    images = sum(outcomes.get(name, 0) for name in SUCCESSES)
    return Findings(
        histogram=labels,
        images=images,
        num_classes=num_classes,
        mean_confidence=tally.sum_confidence / tally.num if tally.num else None,
        close_share=tally.num_close / tally.num_margins if tally.num_margins else None,
        rejected_share=outcomes.get(REJECTED, 0) / images if images else 0.0,
        empty_share=outcomes.get(NOTHING_FOUND, 0) / images if images else 0.0,
        label_entropy=None
        if num_classes is None
        else spread_of_counts(list(labels.values()), num_classes),
    )
