"""A card that says whether labels make sense, without ground truth."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from zs_operators import provenance
from zs_operators.analysis.entropy import spread_of_counts, spread_of_probabilities
from zs_operators.analysis.error_inputs import ErrorInputs, label_type
from zs_operators.analysis.error_kinds import CLOSE_MARGIN
from zs_operators.analysis.label_expressions import is_labeled
from zs_operators.analysis.suspicions import Findings
from zs_operators.analysis.template_agreement import template_agreement
from zs_operators.errors import FieldError, ZeroShotError
from zs_operators.fields import error_field

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection
    from fiftyone.core.expressions import ViewExpression
    from fiftyone.core.view import DatasetView

_MAX_LOGITS = 5_000
_SHOWN = 10
_BAR = 24


@dataclass(frozen=True)
class SanityCard:
    """What :func:`sanity_check` found; prints as a card.

    Attributes:
        label_field: the field
        run_key: of the run that wrote it, None if none did
        samples: in the collection
        counts: of them by what became of them: "labeled", "rejected", "failed", "nothing_found",
            "not_run"
        findings: the numbers, see :class:`zs_operators.analysis.suspicions.Findings`
        unused: classes of the run that no label has
        missing: numbers that are not there, and why
        warnings: what a person should look at, one sentence each
    """

    label_field: str
    run_key: str | None
    samples: int
    counts: Mapping[str, int]
    findings: Findings
    unused: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def histogram(self) -> dict[str, int]:
        """Labels by class name, the commonest first."""
        return dict(self.findings.histogram)

    def to_dict(self) -> dict[str, Any]:
        """The card as plain dicts, lists, strings and Python numbers; no key is a class name."""
        found = self.findings
        return {
            "label_field": self.label_field,
            "run_key": self.run_key,
            "samples": self.samples,
            "counts": dict(self.counts),
            "histogram": [{"label": k, "count": v} for k, v in found.histogram.items()],
            "unused": list(self.unused),
            "top_label": found.top[0],
            "top_share": found.top[1],
            "mean_confidence": found.mean_confidence,
            "close_share": found.close_share,
            "rejected_share": found.rejected_share,
            "empty_share": found.empty_share,
            "label_entropy": found.label_entropy,
            "class_entropy": found.class_entropy,
            "template_agreement": found.template_agreement,
            "templates": [{"template": k, "share": v} for k, v in found.templates.items()],
            "missing": dict(self.missing),
            "warnings": list(self.warnings),
        }

    def to_json(self, **kwargs: Any) -> str:
        """The card as a JSON string; keyword arguments go to :func:`json.dumps`."""
        return json.dumps(self.to_dict(), **kwargs)

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def sanity_check(
    samples: SampleCollection, label_field: str, *, templates: bool | None = None
) -> SanityCard:
    """Whether labels make sense, as far as that shows without ground truth.

    Args:
        samples: a dataset or view
        label_field: of ``Classification``, ``Classifications`` or ``Detections``
        templates (None): whether each template of the run is also tried alone, on stored
            embeddings; None does so where that can be done, True says why it cannot

    Returns:
        a :class:`SanityCard`

    Raises:
        FieldError: if there is no such field, or it holds something else
        InvalidInputError, WeightsError: with ``templates=True``, if templates cannot be tried
    """
    if label_type(samples, label_field) == "Segmentation":
        raise FieldError(f"{label_field!r} holds one mask an image, which has no labels to judge.")
    record = _record(samples, label_field)
    counts = _counts(samples, label_field)
    histogram, confidence, close = _certainty(samples, label_field)
    names = tuple(_class_names(record)) or None
    missing: dict[str, str] = {}
    tried: dict[str, float] = {}
    if templates is not False:
        try:
            tried = _templates(samples, record)
        except ZeroShotError as error:
            if templates:
                raise
            missing["template_agreement"] = str(error)
    class_entropy = _class_entropy(samples, label_field, record)
    if class_entropy is None:
        missing["class_entropy"] = "needs logits: store_logits=True"
    processed = counts["labeled"] + counts["rejected"] + counts["nothing_found"]
    findings = Findings(
        histogram=histogram,
        images=processed,
        num_classes=_num_classes(record, names, histogram),
        mean_confidence=confidence,
        close_share=close,
        rejected_share=counts["rejected"] / processed if processed else 0.0,
        empty_share=counts["nothing_found"] / processed if processed else 0.0,
        label_entropy=spread_of_counts(list(histogram.values()), len(names or ())),
        class_entropy=class_entropy,
        templates=tried,
    )
    return SanityCard(
        label_field=label_field,
        run_key=None if record is None else provenance.run_key(record["task"], label_field),
        samples=len(samples),
        counts=counts,
        findings=findings,
        unused=tuple(name for name in names or () if name not in histogram),
        missing=missing,
        warnings=tuple(findings.warnings()),
    )


def _record(samples: SampleCollection, label_field: str) -> dict[str, Any] | None:
    for task in ("classify", "detect", "segment"):
        record = provenance.find(samples, task, label_field)
        if record is not None:
            return {**record, "task": task}
    return None


def _class_names(record: Mapping[str, Any] | None) -> tuple[str, ...]:
    from zs_operators.vocabulary import Vocabulary

    if record is None or not record.get("vocabulary"):
        return ()
    with contextlib.suppress(ZeroShotError):  # written by another version
        return Vocabulary.parse(record["vocabulary"]).labels
    return ()


def _num_classes(
    record: Mapping[str, Any] | None, names: tuple[str, ...] | None, histogram: Mapping[str, int]
) -> int | None:
    if names is not None:
        return len(names)
    # Labels of other origin were not asked for one class alone; masks of boxes have their names
    return max(2, len(histogram)) if record is None else None


def _counts(samples: SampleCollection, label_field: str) -> dict[str, int]:
    """Samples by what became of them, counted in one go."""
    import fiftyone as fo
    from fiftyone import ViewField as F

    has_error = samples.get_field(error_field(label_field)) is not None
    failed = F(error_field(label_field)).exists() if has_error else F.literal(False)
    processed = F(label_field).exists() & ~failed
    if label_type(samples, label_field) == "Detections":
        rejected = F.literal(False)  # boxes are rejected, not images
        labeled = processed & (F(f"{label_field}.detections").length() > 0)
    else:
        path = f"{label_field}.rejected_by"
        known = samples.get_field(path) is not None
        rejected = processed & F(path).exists() if known else F.literal(False)
        labeled = processed & is_labeled(samples, label_field) & ~rejected
    numbers = samples.aggregate(
        [fo.Sum(expression.if_else(1, 0)) for expression in (labeled, rejected, failed, processed)]
    )
    num_labeled, num_rejected, num_failed, num_processed = map(int, numbers)
    return {
        "labeled": num_labeled,
        "rejected": num_rejected,
        "nothing_found": num_processed - num_labeled - num_rejected,
        "failed": num_failed,
        "not_run": len(samples) - num_processed - num_failed,
    }


def _kept(samples: SampleCollection, label_field: str) -> SampleCollection:
    """Samples and boxes without those that were rejected."""
    from fiftyone import ViewField as F

    inputs = ErrorInputs(samples, label_field)
    if not inputs.has_boxes:
        return samples.match(is_labeled(samples, label_field))
    if not inputs.has("rejected_by"):
        return samples
    return samples.filter_labels(label_field, ~F("rejected_by").exists())


def _certainty(
    samples: SampleCollection, label_field: str
) -> tuple[dict[str, int], float | None, float | None]:
    """Histogram, mean confidence and share of close calls,"""
    import fiftyone as fo

    inputs = ErrorInputs(samples, label_field)
    kept = _kept(samples, label_field)
    names = kept.aggregate(fo.CountValues(inputs.path("label")))
    # Of a list the best label speaks for the image, the others are known to be less likely
    speaking = (
        kept.limit_labels(label_field, 1) if inputs.is_list and not inputs.has_boxes else kept
    )
    known = [name for name in ("confidence", "margin") if inputs.has(name)]
    judged = {"confidence": inputs.path("confidence"), "margin": _is_close(inputs)}
    numbers = speaking.aggregate([fo.Mean(judged[name]) for name in known])
    found = dict(zip(known, numbers, strict=True))
    ranked = sorted(names.items(), key=lambda item: (-item[1], str(item[0])))
    histogram = {str(name): int(count) for name, count in ranked if name is not None}
    if not histogram:
        return {}, None, None
    confidence, close = (found.get(name) for name in ("confidence", "margin"))
    return (
        histogram,
        None if confidence is None else float(confidence),
        None if close is None else float(close),
    )


def _is_close(inputs: ErrorInputs) -> ViewExpression:
    """1 for each label with a close second, 0 for others, nothing where there is no second."""
    from fiftyone import ViewField as F

    def judged(margin: ViewExpression) -> ViewExpression:
        # Nothing is less than a number, says MongoDB
        return margin.exists().if_else((margin < CLOSE_MARGIN).if_else(1.0, 0.0), None)

    if inputs.is_list:
        return F(f"{inputs.path('')}[]").apply(judged(F("margin")))
    return judged(F(inputs.path("margin")))


def _class_entropy(
    samples: SampleCollection, label_field: str, record: Mapping[str, Any] | None
) -> float | None:
    path = f"{label_field}.logits"
    is_softmax = record is None or (record.get("model") or {}).get("logit_bias") is None
    if label_type(samples, label_field) != "Classification" or not is_softmax:
        return None
    if samples.get_field(path) is None:
        return None
    view: DatasetView = samples.exists(path)
    found = view.take(_MAX_LOGITS, seed=0).values(path) if len(view) > _MAX_LOGITS else None
    rows = found or view.values(path)
    if not rows or len({len(row) for row in rows}) > 1:
        return None
    return spread_of_probabilities(np.array(rows, dtype=float))


def _templates(samples: SampleCollection, record: Mapping[str, Any] | None) -> dict[str, float]:
    from zs_operators.errors import InvalidInputError

    if record is None or record["task"] != "classify" or not record.get("vocabulary"):
        raise InvalidInputError("no run of zs.classify wrote these labels")
    return template_agreement(samples, record)


def _lines(card: SanityCard) -> list[str]:
    found = card.findings
    title = f"{card.label_field}: {found.labels:,} labels on {card.samples:,} images"
    lines = [title, "-" * len(title)]
    words = {name: name.replace("_", " ") for name in card.counts}
    shown = [f"{count:,} {words[name]}" for name, count in card.counts.items() if count]
    lines.append(", ".join(shown))
    for name, value in (
        ("mean confidence", found.mean_confidence),
        ("close calls, share", found.close_share),
        ("evenness of labels", found.label_entropy),
        ("evenness of probabilities", found.class_entropy),
        ("agreement of templates", found.template_agreement),
    ):
        if value is not None:
            lines.append(f"{name:<26}{value:>6.2f}")
    most = max(found.histogram.values(), default=1)
    width = max((len(name) for name in found.histogram), default=0)
    ranked = list(found.histogram.items())
    lines += [
        f"  {name:<{width}}  {count:>7,}  {'#' * max(1, round(_BAR * count / most))}"
        for name, count in ranked[:_SHOWN]
    ]
    if len(ranked) > _SHOWN:
        lines.append(f"  … {len(ranked) - _SHOWN} more labels")
    if card.unused:
        names = ", ".join(card.unused[:_SHOWN])
        more = f" and {len(card.unused) - _SHOWN} more" if len(card.unused) > _SHOWN else ""
        lines.append(f"never used: {names}{more}")
    return lines + [f"warning: {warning}" for warning in card.warnings]
