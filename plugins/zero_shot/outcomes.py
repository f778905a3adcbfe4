"""The dialog after a run, and the operators behind the buttons of a run's dialogs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import fiftyone.operators as foo
import fiftyone.operators.types as types
from bson import json_util

from . import forms, running

if TYPE_CHECKING:
    from collections.abc import Sequence

    import fiftyone as fo

    from zs_operators.report import RunReport

SHOW_OPERATOR = "@zs/operators/show_outcomes"
REVIEW_OPERATOR = "@zs/operators/review"

FAILED = "failed"
REJECTED = "rejected"
UNCERTAIN = "uncertain"
FOUND = "found"
NOTHING_FOUND = "nothing_found"

_MAX_LABELS_SHOWN = 12

#: Heading of the summary, and what its labels are of.
_TASKS = {
    "classify": ("Images classified", "Images"),
    "detect": ("Objects detected", "Boxes"),
    "segment": ("Objects segmented", "Masks"),
}

#: Tasks that say where: what they find, for people.
_LOCATED = {"detect": ("detections", "boxes"), "segment": ("masks", "masks")}

_WORDS = {
    "labeled": "Labeled",
    "rejected": "Rejected",
    "nothing_found": "Nothing found",
    "no_prompts": "Without prompts",
    "missing_media": "File missing",
    "unreadable_media": "File unreadable",
    "unsupported_media": "File type not supported",
    "too_large": "Image too large",
    "out_of_memory": "Out of memory",
    "model_error": "Model error",
    "deleted": "Deleted meanwhile",
    "edited": "Changed by somebody else",
}


def summary(
    report: RunReport, samples, *, steps: Sequence[types.Button] = ()
) -> tuple[types.Property, dict]:
    """Schema and data of the dialog that ends a run.

    Args:
        report: what the run did
        samples: the collection that was processed; the buttons show parts of it
        steps: buttons of the operator's own, shown first
    """
    outputs = types.Object()
    _headline(outputs, report, samples)
    results = {}
    if set(report.counts) - {"labeled"}:
        results["outcomes"] = _outcome_rows(report)
        table = types.TableView(label="Outcomes")
        table.add_column("outcome", label="Outcome")
        table.add_column("images", label="Images")
        outputs.list("outcomes", types.Object(), view=table)
    if report.labels:
        results["labels"] = _label_rows(report)
        table = types.TableView(label=f"Labels in {report.label_field}")
        table.add_column("label", label="Label")
        table.add_column("images", label=_TASKS[report.task][1])
        table.add_column("share", label="Share")
        outputs.list("labels", types.Object(), view=table)
    if judgement := _judgement(report):
        outputs.view("sanity", types.Notice(label="Without ground truth", description=judgement))
    for index, warning in enumerate(report.warnings):
        outputs.view(f"warning_{index}", types.Warning(label=forms.escaped(warning)))
    for index, button in enumerate(steps):
        outputs.view(f"step_{index}", button)
    stages = json_util.dumps(samples.view()._serialize())
    for kind, label, description in _next_steps(report):
        outputs.view(
            f"show_{kind}",
            types.Button(
                label=label,
                description=description,
                operator=SHOW_OPERATOR,
                params={"kind": kind, "label_field": report.label_field, "stages": stages},
                variant="outlined",
                space=4,
            ),
        )
    if report.sanity.get("close_share") or report.sanity.get("rejected_share"):
        outputs.view("review", _review_button(report))
    return types.Property(outputs), results


def outcome_view(samples, label_field: str, kind: str) -> fo.DatasetView:
    """The part of ``samples`` with a given outcome.

    Args:
        samples: a dataset or view
        label_field: the field of the run
        kind: ``"failed"`` (has a reason in the error field), ``"rejected"``, ``"uncertain"``
            (labeled, least margin first), ``"found"`` or ``"nothing_found"`` (with or without
            boxes or masks)
    """
    import fiftyone as fo
    from fiftyone import ViewField as F

    from zs_operators.fields import error_field

    if kind == FAILED:
        return samples.exists(error_field(label_field))
    if kind in (FOUND, NOTHING_FOUND):
        return samples.match(_has_boxes(samples, label_field, kind == FOUND))
    if kind == REJECTED:
        return samples.match(F(f"{label_field}.rejected_by") != None)  # noqa: E711
    labeled = samples.match(F(f"{label_field}.rejected_by") == None)  # noqa: E711
    field = samples._dataset.get_field(label_field)
    if issubclass(field.document_type, fo.Classifications):
        margin = F(f"{label_field}.classifications.margin").max()
    else:
        margin = F(f"{label_field}.margin")
    return labeled.exists(label_field).sort_by(margin)


class ShowOutcomes(foo.Operator):
    """Sets the App's view to the failed, rejected or least certain samples of a run."""

    @property
    def config(self):
        return foo.OperatorConfig(
            name="show_outcomes",
            label="Show samples of a zero-shot run by outcome",
            unlisted=True,
            risk_level=types.RiskLevel.LOW,
        )

    def execute(self, ctx):
        import fiftyone.core.view as fov

        from zs_operators.fields import error_field

        kind, label_field = ctx.params["kind"], ctx.params["label_field"]
        stages = json_util.loads(ctx.params.get("stages") or "[]")
        samples = fov.DatasetView._build(ctx.dataset, stages)
        ctx.ops.set_view(outcome_view(samples, label_field, kind))
        shown = error_field(label_field) if kind == FAILED else label_field
        ctx.ops.set_active_fields([*(ctx.active_fields or []), shown])


def _headline(outputs: types.Object, report: RunReport, samples) -> None:
    total = sum(report.counts.values())
    labeled = report.counts.get("labeled", 0)
    outputs.view("title", types.Header(label=_TASKS[report.task][0], divider=True))
    field = forms.escaped(report.label_field)
    label = f"{labeled:,} of {total:,} images have a label in {field}"
    if report.task == "detect":
        boxes = sum(report.labels.values())
        label = f"{boxes:,} boxes on {labeled:,} of {total:,} images, written to {field}"
    if report.task == "segment":
        label = f"{labeled:,} of {total:,} images have masks, written to {field}"
    if report.resumed and not total:
        label = f"Nothing left to do: an earlier run has labeled all of them in {field}"
    seconds = running.duration(report.seconds.get("total", 0.0))
    detail = f"{seconds} · {report.images_per_second:.1f} images/s"
    if report.task == "segment" and samples.has_field(report.label_field):
        # Masks need no names, so the report does not count them
        masks = samples.count(f"{report.label_field}.detections")
        detail = f"{masks:,} masks on these images · {detail}"
    if report.resumed:
        detail += f" · {report.resumed:,} were done by an earlier run and kept"
    if report.reused:
        images = "1 image" if report.reused == 1 else f"{report.reused:,} images"
        detail += f" · embeddings of {images} were reused"
    if report.num_failed:
        detail += f" · reasons of failures are in {forms.escaped(report.error_field)}"
    is_complete = not report.num_failed and labeled if report.task in _LOCATED else labeled == total
    view = types.Success if is_complete else types.Warning
    outputs.view("headline", view(label=label, description=detail))


def _judgement(report: RunReport) -> str:
    """The run's own judgement of its labels, in a line."""
    found = report.sanity
    parts = []
    if found.get("mean_confidence") is not None:
        parts.append(f"mean confidence {found['mean_confidence']:.2f}")
    if found.get("close_share") is not None:
        parts.append(f"{found['close_share']:.0%} close calls")
    if found.get("rejected_share"):
        parts.append(f"{found['rejected_share']:.0%} rejected")
    if found.get("label_entropy") is not None:
        parts.append(f"evenness of labels {found['label_entropy']:.2f}")
    return " · ".join(parts)


def _review_button(report: RunReport) -> types.Button:
    return types.Button(
        label="Tag for review",
        description="Tag close calls and rejected labels, to look at them",
        operator=REVIEW_OPERATOR,
        params={"action": "tag", "label_field": report.label_field},
        prompt=True,
        variant="outlined",
        space=4,
    )


def _has_boxes(samples, label_field: str, wanted: bool) -> fo.ViewExpression:
    """Whether there is a box in the field; with ``wanted=False``, whether it is there and empty."""
    import fiftyone as fo
    from fiftyone import ViewField as F

    # match_labels() says the same, but the App shows no samples for it
    field = F(label_field)
    if issubclass(samples._dataset.get_field(label_field).document_type, fo.Detections):
        count = F(f"{label_field}.detections").length()
        return field.exists() & (count > 0 if wanted else count == 0)
    return field.exists() if wanted else ~field.exists()


def _outcome_rows(report: RunReport) -> list[dict]:
    return [
        {"outcome": _WORDS.get(outcome, outcome), "images": f"{int(count):,}"}
        for outcome, count in report.counts.items()
        if count
    ]


def _label_rows(report: RunReport) -> list[dict]:
    ranked = sorted(report.labels.items(), key=lambda item: (-item[1], item[0]))
    total = sum(report.labels.values())
    rows = [
        {"label": str(name), "images": f"{int(count):,}", "share": f"{count / total:.0%}"}
        for name, count in ranked[:_MAX_LABELS_SHOWN]
    ]
    rest = ranked[_MAX_LABELS_SHOWN:]
    if rest:
        count = sum(count for _, count in rest)
        rows.append(
            {
                "label": f"{len(rest)} other labels",
                "images": f"{int(count):,}",
                "share": f"{count / total:.0%}",
            }
        )
    return rows


def _next_steps(report: RunReport) -> list[tuple[str, str, str]]:
    steps = []
    if report.num_failed:
        steps.append(
            (FAILED, f"Show {report.num_failed:,} failed", "Show the images that got no label")
        )
    if report.counts.get("rejected"):
        steps.append(
            (
                REJECTED,
                f"Show {report.counts['rejected']:,} rejected",
                "Show the images no class was certain enough for",
            )
        )
    if report.task in _LOCATED:
        return [*steps, *_located_steps(report)]
    if report.counts.get("labeled"):
        steps.append(
            (UNCERTAIN, "Show least certain first", "Sort the labeled images by their margin")
        )
    return steps


def _located_steps(report: RunReport) -> list[tuple[str, str, str]]:
    steps = []
    found, noun = _LOCATED[report.task]
    if report.counts.get("labeled") or report.resumed:
        steps.append((FOUND, f"Show {found}", f"Show the images that have {noun}"))
    number = report.counts.get("nothing_found", 0) + report.counts.get("no_prompts", 0)
    if number:
        steps.append((NOTHING_FOUND, f"Show {number:,} without", f"Show the images without {noun}"))
    return steps
