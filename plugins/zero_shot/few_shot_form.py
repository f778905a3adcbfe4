"""The form of ``@zs/operators/few_shot``, and the dialog after it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import fiftyone.operators.types as types

from zs_operators.errors import InvalidInputError

from . import forms

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

    from zs_operators.heads.report import HeadReport
    from zs_operators.vocabulary import Vocabulary

DEFAULT_NAME = "few_shot"
_PREFERRED = ("ground_truth", "truth", "gt")
_SHOWN = 6

_METHODS = {
    "auto": "Automatic: what does best on samples left out",
    "kernel_ridge": "Kernel ridge: from one sample a class",
    "gda": "Gaussian discriminant analysis: from two samples a class",
    "logistic_regression": "Logistic regression: from 16 samples a class",
}


def ground_truth(inputs: types.Object, ctx, samples: SampleCollection) -> str | None:
    """Asks for the field with the labels; None, with the reason shown, where there is none."""
    fields = truth_fields(samples)
    if not fields:
        forms.refuse(
            inputs,
            "ground_truth",
            "There are no labels to learn from",
            "Label some images or boxes first: a field of Classification or Detections.",
        )
        return None
    view = types.DropdownView()
    for field in fields:
        view.add_choice(field, label=field)
    inputs.enum(
        "ground_truth",
        fields,
        default=fields[0],
        label="Labels to learn from",
        description="Right ones: ground truth, or labels that were reviewed. Of boxes, the boxes "
        "are the samples",
        view=view,
    )
    return _chosen(ctx, fields)


def defaults(samples: SampleCollection) -> dict[str, Any]:
    """What the form begins with, for runs that did not show it."""
    fields = truth_fields(samples)
    return {"ground_truth": fields[0] if fields else None, "name": DEFAULT_NAME}


def truth_fields(samples: SampleCollection) -> list[str]:
    """Fields of classes or boxes, those called like ground truth first."""
    import fiftyone as fo

    schema = samples.get_field_schema(ftype=fo.EmbeddedDocumentField)
    kinds = (fo.Classification, fo.Detection, fo.Detections)
    found = [name for name, field in schema.items() if issubclass(field.document_type, kinds)]
    return sorted(found, key=lambda name: name not in _PREFERRED)


def background(inputs: types.Object) -> None:
    """Asks for background prompts, which runs with the head must have too."""
    inputs.str(
        "background",
        label="Background prompts (optional)",
        description="One a line. Samples labelled with one of them are none of the classes. Runs "
        "that take the head need the same ones",
        view=types.TextFieldView(multiline=True, rows=1),
    )


def shots(
    inputs: types.Object, ctx, samples: SampleCollection, vocabulary: Vocabulary | None
) -> None:
    """Says how many samples each class has, or that there are none."""
    if vocabulary is None:
        return
    field = _chosen(ctx, truth_fields(samples))
    if field is None:
        return
    _, path = samples._get_label_field_path(field, "label")
    known = {*vocabulary.classes, *vocabulary.columns}
    counts = Counter(samples.count_values(path))
    unknown = {name: n for name, n in counts.items() if name is not None and name not in known}
    found: Counter[str] = Counter()
    for name in known & set(counts):
        found[vocabulary.label_of(name)] += counts[name]
    if not found:
        forms.refuse(
            inputs,
            "shots",
            f"No label in {field} is one of these classes",
            f"It has: {_listed(sorted(unknown))}." if unknown else "It holds no labels.",
        )
        return
    lacking = [label for label in vocabulary.labels if label not in found]
    fewest, most = min(found.values()), max(found.values())
    each = f"{fewest} each" if fewest == most else f"{fewest} to {most} each"
    description = f"Without samples: {_listed(lacking)}." if lacking else ""
    if unknown:
        total = sum(unknown.values())
        description += f" Not used: {total:,} labels of other classes ({_listed(sorted(unknown))})."
    inputs.view(
        "shots",
        types.Notice(
            label=f"{found.total():,} labelled samples of {len(found)} of "
            f"{len(vocabulary.columns)} classes, {each}",
            description=forms.escaped(description.strip()),
        ),
    )


def method(inputs: types.Object) -> None:
    """Asks how to learn."""
    view = types.DropdownView()
    for value, label in _METHODS.items():
        view.add_choice(value, label=label)
    inputs.enum("method", view.values(), default="auto", label="Method", view=view)


def name(inputs: types.Object, ctx, samples: SampleCollection) -> None:
    """Asks what to call the head."""
    from zs_operators.heads.saved import check_name, list_heads

    prop = inputs.str(
        "name",
        default=DEFAULT_NAME,
        required=True,
        label="Name of the head",
        description="Kept with the dataset; other forms offer it under this name",
    )
    given = ctx.params.get("name") or DEFAULT_NAME
    overwrite = bool(ctx.params.get("overwrite"))
    if given in list_heads(samples):
        inputs.bool("overwrite", default=False, label=f"Replace the saved {given!r}")
    try:
        check_name(samples, given, overwrite=overwrite)
    except InvalidInputError as error:
        prop.invalid, prop.error_message = True, str(error)


def summary(report: HeadReport) -> tuple[types.Property, dict]:
    """Schema and data of the dialog that ends a run."""
    outputs = types.Object()
    outputs.view("title", types.Header(label="Learned from labelled samples", divider=True))
    before, after = report.supported_before, report.supported_after
    view = types.Success if report.alpha and after > before else types.Warning
    outputs.view(
        "headline",
        view(
            label=f"{after:.0%} right instead of {before:.0%}, on samples left out one by one",
            description=f"{sum(report.shots.values()):,} samples of {len(report.shots)} classes · "
            f"{report.method.replace('_', ' ')} · saved as {forms.escaped(report.name or '-')}: "
            "choose it under Head in the forms that classify and detect",
        ),
    )
    results = {
        "accuracy": [
            {"of": row, "before": _share(one), "after": _share(other)}
            for row, one, other in report.rows()
            if one is not None
        ],
        "classes": [
            {
                "label": label,
                "shots": f"{row['shots']:,}",
                "before": _share(row["before"]),
                "after": _share(row["after"]),
            }
            for label, row in report.worst_first()
        ],
    }
    table = types.TableView(label="Mean accuracy of classes, estimated by leaving out")
    for column, label in (("of", "Classes"), ("before", "Zero-shot"), ("after", "With the head")):
        table.add_column(column, label=label)
    outputs.list("accuracy", types.Object(), view=table)
    table = types.TableView(label="Classes with samples, the ones that gain least first")
    for column, label in (
        ("label", "Class"),
        ("shots", "Samples"),
        ("before", "Zero-shot"),
        ("after", "With the head"),
    ):
        table.add_column(column, label=label)
    outputs.list("classes", types.Object(), view=table)
    for index, text in enumerate(report.warnings):
        outputs.view(f"warning_{index}", types.Warning(label=forms.escaped(text)))
    return types.Property(outputs), results


def _chosen(ctx, fields: list[str]) -> str | None:
    given = ctx.params.get("ground_truth")
    return given if given in fields else next(iter(fields), None)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
