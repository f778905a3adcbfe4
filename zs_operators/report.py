"""What a run tells the person who started it: outcomes, progress and the final report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

LABELED = "labeled"
REJECTED = "rejected"
NOTHING_FOUND = "nothing_found"
NO_PROMPTS = "no_prompts"
OUT_OF_MEMORY = "out_of_memory"
MODEL_ERROR = "model_error"

DELETED = "deleted"
EDITED = "edited"

#: Outcomes of a sample that was processed as asked; besides these and failures there are those
#: that somebody deleted or changed while the run went on, which are not written.
SUCCESSES = (LABELED, REJECTED, NOTHING_FOUND, NO_PROMPTS)
#: Outcomes of a sample that could not be processed; the reason is in the error field.
FAILURES = (
    "missing_media",
    "unreadable_media",
    "unsupported_media",
    "too_large",
    OUT_OF_MEMORY,
    MODEL_ERROR,
)

#: Numbers of a run's judgement of itself that its table shows, in words.
_SANITY = {
    "mean_confidence": "mean confidence",
    "close_share": "close calls, share",
    "label_entropy": "evenness of labels",
}


@dataclass(frozen=True)
class Progress:
    """The state of a run after one flushed chunk.

    Args:
        done: samples whose result is in the database, those resumed from an earlier run included
        total: samples of the run
        stage: what the run is doing, for people
        images_per_second: of this run so far, 0.0 before the first chunk
        counts: number of samples by outcome
        unit: what is counted, in the plural: videos, while their frames are read
    """

    done: int
    total: int
    stage: str
    images_per_second: float = 0.0
    counts: Mapping[str, int] = field(default_factory=dict)
    unit: str = "images"

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until the end, None before the first chunk."""
        if self.images_per_second <= 0:
            return None
        return (self.total - self.done) / self.images_per_second


@dataclass(frozen=True)
class RunReport:
    """The result of a run, printable as a small table and serialisable to JSON.

    Args:
        run_key: key of the FiftyOne custom run that holds the full record
        task: ``"classify"``, ``"detect"`` or ``"segment"``
        label_field: the field written
        error_field: the field with the reason of every failed sample, None if none failed
        counts: number of samples by outcome, resumed samples not included
        labels: number of labels written by class name
        seconds: wall-clock seconds by stage, and of the whole as ``"total"``. Before it: ``"load"``
            the models, ``"text"`` to encode the prompts of :func:`zs_operators.classify`. One
            after the other, and so most of the total: ``"find"`` what is stored, ``"read"`` to
            wait for images, ``"crops"`` of regions, ``"model"``, ``"masks"`` from the decoder's
            logits, ``"score"``, ``"labels"`` as FiftyOne has them, ``"write"``. Beside these, of
            all reader threads together: ``"decode"`` and ``"preprocess"``
        images_per_second: samples processed in this run per second of wall-clock time
        resumed: samples that an earlier, unfinished call had already done
        reused: samples whose embeddings were stored, so that their images were not encoded again
        cancelled: whether the run was stopped before the last sample
        sanity: the run's own judgement of its labels, as far as it needs no truth: their commonest
            one and its share, mean confidence, share of close calls and of rejected images, and
            entropy of the histogram between 0 and 1; see :func:`zs_operators.sanity_check`
        warnings: what the person should know, one sentence each
    """

    run_key: str
    task: str
    label_field: str
    error_field: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    images_per_second: float = 0.0
    resumed: int = 0
    reused: int = 0
    cancelled: bool = False
    sanity: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def num_failed(self) -> int:
        """Samples that ended with a recorded failure."""
        return sum(n for outcome, n in self.counts.items() if outcome in FAILURES)

    def to_dict(self) -> dict:
        """The report as plain dicts, lists, strings and Python numbers."""
        report = asdict(self)
        report["warnings"] = list(self.warnings)
        return report

    def to_json(self, **kwargs) -> str:
        """The report as a JSON string; keyword arguments go to :func:`json.dumps`."""
        return json.dumps(self.to_dict(), **kwargs)

    def __str__(self) -> str:
        title = f"{self.task} -> {self.label_field} ({self.run_key})"
        rows = [(outcome, f"{n:,}") for outcome, n in self.counts.items() if n]
        if self.resumed:
            rows.append(("already done", f"{self.resumed:,}"))
        if self.reused:
            rows.append(("embeddings reused", f"{self.reused:,}"))
        rows.append(("seconds", f"{self.seconds.get('total', 0.0):.1f}"))
        rows.append(("images/s", f"{self.images_per_second:.1f}"))
        for name, words in _SANITY.items():
            if self.sanity.get(name) is not None:
                rows.append((words, f"{self.sanity[name]:.2f}"))
        top = sorted(self.labels.items(), key=lambda item: (-item[1], item[0]))[:10]
        rows += [(f"  {name}", f"{n:,}") for name, n in top]
        if len(self.labels) > len(top):
            rows.append(("  …", f"{len(self.labels) - len(top)} more labels"))
        width = max(len(name) for name, _ in rows)
        lines = [title, "-" * len(title)]
        lines += [f"{name:<{width}}  {value:>12}" for name, value in rows]
        if self.cancelled:
            lines.append("cancelled: run again with the same settings to finish")
        if self.error_field and self.num_failed:
            lines.append(f"why {self.num_failed:,} failed: field {self.error_field!r}")
        lines += [f"warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)


def left_alone_warnings(counts: Mapping[str, int]) -> list[str]:
    """What others did to samples of the run while it went on, one sentence each."""
    found = []
    if counts.get(DELETED):
        found.append(f"{counts[DELETED]:,} samples were deleted while the run went on.")
    if counts.get(EDITED):
        found.append(
            f"{counts[EDITED]:,} samples were labelled or changed by somebody else while the run "
            "went on; theirs is kept."
        )
    return found
