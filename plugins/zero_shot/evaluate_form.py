"""The form of ``@zs/operators/evaluate``, checked while it is filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import fiftyone.operators.types as types

from zs_operators.errors import InvalidInputError, ZeroShotError

from . import forms

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

    from zs_operators.evaluation.preparing import Comparison

#: Folded section of the form; its inputs arrive nested under this name.
SECTION = "comparison"

#: Arguments of :func:`zs_operators.evaluate` that a form or a script may set.
ARGUMENTS = (
    "predictions",
    "ground_truth",
    "eval_key",
    "seen",
    "names",
    "roll_up",
    "vocabulary",
    "missing",
    "top_k",
    "gamma",
    "iou",
    "iou_threshs",
    "use_masks",
    "compute_mAP",
    "num_bins",
    "overwrite",
)

_SHOWN = 8
#: Samples whose labels tell predictions from ground truth.
_LOOKED_AT = 50
_PREFERRED_TRUTH = ("ground_truth", "truth", "gt")


def fill(inputs: types.Object, ctx, samples: SampleCollection) -> None:
    """Asks for everything, and shows what will be compared."""
    from zs_operators.evaluation.targets import check_pair

    offered = predicted_fields(samples)
    if not offered:
        forms.refuse(
            inputs,
            "fields",
            "There are no two fields to compare",
            "An evaluation needs predictions and ground truth of one kind: classes, boxes or "
            "masks. Label the samples first, or add ground truth.",
        )
        return
    predictions = _choose(inputs, ctx, "predictions", offered, "Labels", "What is evaluated")
    truths = true_fields(samples, predictions)
    ground_truth = _choose(
        inputs, ctx, "ground_truth", truths, "Ground truth", "What they are compared with"
    )
    kind = check_pair(samples, predictions, ground_truth)
    _eval_key(inputs, ctx, samples, kind, default=f"eval_{predictions}")
    _names(inputs)
    _seen(inputs)
    _more(inputs, samples, kind, predictions)
    _preview(inputs, ctx, samples, predictions, ground_truth)


def arguments(params: Mapping[str, Any], samples: SampleCollection) -> dict[str, Any]:
    """Keyword arguments of :func:`zs_operators.evaluate`.

    Raises:
        InvalidInputError: if two fields or lines of names are missing or not usable
    """
    values = flat(params)
    offered = predicted_fields(samples)
    if "predictions" not in values and offered:
        values["predictions"] = offered[0]
    if "ground_truth" not in values and "predictions" in values:
        values["ground_truth"] = next(iter(true_fields(samples, values["predictions"])), None)
    if not values.get("predictions") or not values.get("ground_truth"):
        raise InvalidInputError("Give the two fields to compare: predictions and ground_truth.")
    values.setdefault("eval_key", f"eval_{values['predictions']}")
    found = {name: values[name] for name in ARGUMENTS if name in values}
    # What a script gives under the engine's own names goes before what a form holds
    if "names" not in found and ("matching" in values or "same_names" in values):
        same = renamed(values.get("same_names", ""))
        found["names"] = same or values.get("matching", "auto")
    lines = [line.strip() for line in values.get("supported", "").splitlines() if line.strip()]
    if lines:
        found.setdefault("seen", lines)
    return found


def flat(params: Mapping[str, Any]) -> dict[str, Any]:
    """``params`` with the folded section opened and empty inputs left out."""
    values = {**(params.get(SECTION) or {}), **params}
    return {
        name: value
        for name, value in values.items()
        if name != SECTION and value is not None and value != ""
    }


def renamed(text: str) -> dict[str, str]:
    """Lines such as ``automobile: car`` as a mapping.

    Raises:
        InvalidInputError: with the line that is none
    """
    found = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, colon, other = (part.strip() for part in line.rpartition(":"))
        name, other = (name, other) if colon else ("", "")
        if not (name and other):
            raise InvalidInputError(
                f"{line!r} must be a predicted name, a colon and the true one, as in "
                "automobile: car."
            )
        found[name] = other
    return found


def predicted_fields(samples: SampleCollection) -> list[str]:
    """Fields with a counterpart; what is least likely to be ground truth first."""
    from zs_operators.evaluation.targets import counterparts, evaluable_fields

    fitting = [name for name in evaluable_fields(samples) if counterparts(samples, name)]
    return sorted(fitting, key=lambda name: _is_truth(samples, name))


def true_fields(samples: SampleCollection, predictions: str) -> list[str]:
    """Counterparts of a field; what is most likely to be ground truth first."""
    from zs_operators.evaluation.targets import counterparts

    fitting = counterparts(samples, predictions)
    return sorted(fitting, key=lambda name: not _is_truth(samples, name))


def _is_truth(samples: SampleCollection, field: str) -> bool:
    """Whether a field looks like ground truth: by its name, or no run made it and no label among
    the first has a confidence."""
    from zs_operators.evaluation.sources import find_run
    from zs_operators.evaluation.targets import evaluable_fields

    if field in _PREFERRED_TRUTH:
        return True
    if find_run(samples, field) is not None:
        return False
    kind = evaluable_fields(samples)[field]
    if kind == "Segmentation":
        return True
    inner = {"Classifications": ".classifications", "Detections": ".detections"}.get(kind, "")
    return not samples.limit(_LOOKED_AT).count(f"{field}{inner}.confidence")


def _choose(inputs, ctx, name: str, offered: list[str], label: str, description: str) -> str:
    view = types.DropdownView(space=6)
    for field in offered:
        view.add_choice(field, label=field)
    inputs.enum(name, offered, default=offered[0], label=label, description=description, view=view)
    chosen = ctx.params.get(name)
    return chosen if chosen in offered else offered[0]


def _eval_key(inputs, ctx, samples: SampleCollection, kind: str, *, default: str) -> None:
    from zs_operators.evaluation.targets import check_eval_key, eval_keys

    prop = inputs.str(
        "eval_key",
        default=default,
        label="Evaluation key",
        description="Name under which the App's Model Evaluation panel keeps it",
    )
    name = ctx.params.get("eval_key") or default
    overwrite = bool(ctx.params.get("overwrite", False))
    try:
        check_eval_key(samples, name, kind, overwrite=overwrite)
    except InvalidInputError as error:
        prop.invalid, prop.error_message = True, str(error)
    if any(samples._root_dataset.has_evaluation(key) for key in eval_keys(name)):
        inputs.bool(
            "overwrite",
            default=False,
            label="Overwrite",
            description=f"Replace the evaluation {name}",
            view=types.CheckboxView(),
        )


def _names(inputs: types.Object) -> None:
    view = types.DropdownView(space=6)
    view.add_choice("auto", label="Unite spellings, plurals, synonyms")
    view.add_choice("exact", label="Compare as they are")
    inputs.enum(
        "matching",
        view.values(),
        default="auto",
        label="Names",
        description="Labels keep theirs; only the comparison changes",
        view=view,
    )
    inputs.str(
        "same_names",
        label="Names that mean the same (optional)",
        description="One a line, the predicted one first: automobile: car",
        view=types.TextFieldView(multiline=True, rows=2, space=6),
    )


def _seen(inputs: types.Object) -> None:
    inputs.str(
        "supported",
        label="Classes with labelled examples (optional)",
        description="One a line. These (supported) and all others (unsupported) are reported "
        "apart, with their harmonic mean",
        view=types.TextFieldView(multiline=True, rows=2),
    )


def _more(inputs: types.Object, samples: SampleCollection, kind: str, predictions: str) -> None:
    from zs_operators.evaluation.report_parts import CLASSIFICATION, DETECTION

    group = forms.section(inputs, SECTION, "More")
    view = types.DropdownView(space=6)
    view.add_choice("skip", label="Leave them out")
    view.add_choice("wrong", label="Count them as wrong")
    group.enum(
        "missing",
        view.values(),
        default="skip",
        label="Samples without a label",
        description="Failed, or not processed; they are counted in any case",
        view=view,
    )
    if kind == CLASSIFICATION:
        group.int(
            "top_k",
            min=1,
            label="Top k",
            description="From stored logits or lists; empty: 1 and 5",
            view=types.FieldView(space=6),
        )
    if kind == DETECTION:
        group.float(
            "iou",
            default=0.5,
            min=0.01,
            max=1,
            label="Least IoU of a match",
            view=types.FieldView(space=6),
        )
        group.bool(
            "use_masks",
            default=False,
            label="Match masks",
            description="Instead of boxes",
            view=types.CheckboxView(space=6),
        )
        group.bool(
            "compute_mAP",
            default=True,
            label="Average precision",
            description="Takes most of the time",
            view=types.CheckboxView(space=6),
        )


def _preview(inputs, ctx, samples: SampleCollection, predictions: str, ground_truth: str) -> None:
    """What will be compared, what names count as and which have no counterpart."""
    from zs_operators.evaluation.options import EvaluateOptions
    from zs_operators.evaluation.preparing import prepare

    try:
        given = arguments(ctx.params, samples)
        options = {
            name: value
            for name, value in given.items()
            if name not in ("predictions", "ground_truth", "eval_key", "overwrite")
        }
        comparison = prepare(samples, predictions, ground_truth, EvaluateOptions(**options))
    except ZeroShotError as error:
        forms.refuse(inputs, "comparison", "This cannot be evaluated", str(error))
        return
    inputs.view("what", types.Notice(label=_sentence(comparison), description=_pairs(comparison)))
    for index, warning in enumerate(comparison.warnings):
        inputs.view(f"warning_{index}", types.Warning(label=forms.escaped(warning)))


def _sentence(comparison: Comparison) -> str:
    counts = comparison.counts
    text = (
        f"{counts['evaluated']:,} of {counts['samples']:,} samples, {counts['classes']:,} classes"
    )
    if counts["absent_classes"]:
        text += f"; {counts['absent_classes']:,} more classes without ground truth count nowhere"
    return text


def _pairs(comparison: Comparison) -> str:
    found = comparison.match.names.renamed
    lines = [
        f"- {forms.escaped(item.name)} ({item.side}) counts as {forms.escaped(item.evaluated_as)}: "
        f"{item.reason}"
        for item in found[:_SHOWN]
    ]
    if len(found) > _SHOWN:
        lines.append(f"- and {len(found) - _SHOWN} more")
    return "\n".join(lines)
