"""Boxes or masks of objects against ground truth: where they are, apart from what they are called.

FiftyOne matches twice. Under the key itself a box only matches an object of its class, as COCO
counts; under the key with ``_any_class`` it matches whatever both are called, which shows what is
named wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from zs_operators.evaluation import class_metrics, stacking
from zs_operators.evaluation.calibration import calibrate_confidences
from zs_operators.evaluation.proposals import Candidate, propose_thresholds
from zs_operators.evaluation.report_parts import NONE, Localisation
from zs_operators.evaluation.targets import eval_keys
from zs_operators.evaluation.watching import watched

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

    from zs_operators.evaluation.preparing import Comparison
    from zs_operators.report import Progress

#: What all objects are called where names do not count.
_OBJECT = "object"


def evaluate_objects(
    comparison: Comparison, eval_key: str
) -> Generator[Progress, None, dict[str, Any]]:
    """Attributes of an :class:`zs_operators.EvaluationReport`."""
    from fiftyone import ViewField as F

    field, options = comparison.predictions, comparison.options
    total = comparison.counts["evaluated"]
    view = comparison.mapped()
    num_boxes = view.count(f"{field}.detections")
    named = view.filter_labels(field, F("label") != None, only_matches=False)  # noqa: E711
    num_rejected = num_boxes - named.count(f"{field}.detections")
    if num_rejected:  # boxes without a name predict nothing
        view = named
    confidences = view.values(f"{field}.detections.confidence", unwind=True)
    sweep = options.compute_mAP and None not in confidences
    matching = {"gt_field": comparison.ground_truth, "iou": options.iou}
    matching["use_masks"] = options.use_masks
    sweeping = {"compute_mAP": True, "iou_threshs": list(options.thresholds)} if sweep else {}
    by_class, any_class = eval_keys(eval_key)

    results = yield from watched(
        lambda look: view.evaluate_detections(
            field, eval_key=by_class, progress=look, **matching, **sweeping
        ),
        "matching objects by class",
        total,
    )
    located = yield from watched(
        lambda look: view.evaluate_detections(
            field, eval_key=any_class, classwise=False, progress=look, **matching
        ),
        "matching objects of any class",
        total,
    )
    unnamed = None
    if sweep:
        unnamed = yield from watched(
            lambda look: _without_names(view, comparison).evaluate_detections(
                field, progress=look, **matching, **sweeping
            ),
            "average precision of any class",
            total,
        )
    warnings = []
    if options.compute_mAP and not sweep:
        warnings.append(
            f"Some labels of {field!r} have no confidence: there is no average precision."
        )
    return {
        **_numbers(comparison, results, located, unnamed),
        "counts": {
            "rejected_labels": num_rejected,
            "objects": int((results.ytrue != NONE).sum()),
            "predicted_objects": int((results.ypred != NONE).sum()),
        },
        "any_class_key": any_class,
        "fields": tuple(
            f"{key}_{ending}" for key in (by_class, any_class) for ending in ("tp", "fp", "fn")
        ),
        "warnings": tuple(warnings),
    }


def _numbers(comparison: Comparison, results, located, unnamed) -> dict[str, Any]:
    truth, predicted = results.ytrue.astype(object), results.ypred.astype(object)
    names, matrix = class_metrics.count_pairs(truth, predicted)
    located_names, pairs = class_metrics.count_pairs(
        located.ytrue.astype(object), located.ypred.astype(object)
    )
    more = {"accuracy": _name_accuracy(located_names, pairs)}
    metrics: dict[str, float | None] = {}
    if unnamed is not None:
        metrics = {"mAP": _known(results.mAP()), "mAR": _known(results.mAR())}
        more["average_precision"] = _average_precisions(results, names)
        if (index := _index_of(results, 0.5)) is not None:
            at_50 = results.precision[index].mean(axis=1)
            metrics["AP50"] = class_metrics.mean(at_50[at_50 > -1])
    rows = class_metrics.class_rows(
        names,
        matrix,
        supported=comparison.seen,
        rejected=_rejected_of(comparison),
        more=more,
    )
    split = None
    if comparison.seen is not None:
        measure = "average precision" if unnamed is not None else "recall"
        score = "average_precision" if unnamed is not None else "recall"
        scores = {row.label: getattr(row, score) for row in rows if row.support}
        split = stacking.split_scores(scores, comparison.seen, measure)
    confidences = np.array([np.nan if c is None else c for c in results.confs.tolist()], float)
    scored = (predicted != NONE) & ~np.isnan(confidences)
    calibration = None
    if scored.any():
        calibration = calibrate_confidences(
            confidences[scored], (truth == predicted)[scored], comparison.options.num_bins
        )
    return {
        "per_class": rows,
        "metrics": metrics | class_metrics.overall(rows),
        "confusion": class_metrics.confusion(located_names, pairs),
        "localisation": _localisation(located_names, pairs, located, unnamed),
        "split": split,
        "calibration": calibration,
        "thresholds": _thresholds(comparison, results),
    }


def _without_names(view: SampleCollection, comparison: Comparison) -> SampleCollection:
    from zs_operators.evaluation.sources import names_of

    for field in (comparison.predictions, comparison.ground_truth):
        view = view.map_labels(field, dict.fromkeys(names_of(view, field), _OBJECT))
    return view


def _localisation(names: list[str], pairs: np.ndarray, located, unnamed) -> Localisation:
    both = pairs[:-1, :-1]
    num_located = int(both.sum())
    ious = [iou for iou in located.ious.tolist() if iou is not None]
    precision = precision_50 = None
    if unnamed is not None:
        precision = _known(unnamed.mAP())
        if (index := _index_of(unnamed, 0.5)) is not None:
            precision_50 = _known(unnamed.precision[index].mean())
    return Localisation(
        num_truth=int(pairs[:-1].sum()),
        num_predicted=int(pairs[:, :-1].sum()),
        num_located=num_located,
        recall=class_metrics.ratio(num_located, pairs[:-1].sum()),
        precision=class_metrics.ratio(num_located, pairs[:, :-1].sum()),
        average_precision=precision,
        average_precision_50=precision_50,
        mean_iou=class_metrics.mean(ious),
        name_accuracy=class_metrics.ratio(np.diag(both).sum(), num_located),
        name_accuracy_per_class=class_metrics.mean(_name_accuracy(names, pairs).values()),
    )


def _name_accuracy(names: list[str], pairs: np.ndarray) -> dict[str, float]:
    """Of each class with a located object the share that is named right."""
    both = pairs[:-1, :-1]
    found = both.sum(axis=1)
    return {name: float(both[i, i] / found[i]) for i, name in enumerate(names[:-1]) if found[i]}


def _average_precisions(results, names: list[str]) -> dict[str, float]:
    known = set(results.classes.tolist())
    found = {name: _known(results.mAP(classes=[name])) for name in names if name in known}
    return {name: value for name, value in found.items() if value is not None}


def _index_of(results, threshold: float) -> int | None:
    (found,) = np.nonzero(np.isclose(results.iou_threshs, threshold))
    return int(found[0]) if len(found) else None


def _known(value: Any) -> float | None:
    """FiftyOne says -1 where there is nothing to average."""
    return None if value is None or value < 0 else float(value)


def _thresholds(comparison: Comparison, results) -> dict[str, float]:
    num_true = Counter(results.ytrue[results.ytrue != NONE].tolist())
    candidates = list(_candidates(comparison, results))
    of = comparison.match.of_prediction
    return propose_thresholds(candidates, {name: num_true[of(name)] for name, _, _ in candidates})


def _candidates(comparison: Comparison, results) -> Iterator[Candidate]:
    path = f"{comparison.predictions}.detections"
    ids, names = comparison.view.values([f"{path}.id", f"{path}.label"], unwind=True)
    raw = dict(zip(ids, names, strict=True))
    columns = (results.ytrue, results.ypred, results.confs, results.ypred_ids)
    for truth, predicted, confidence, label_id in zip(*columns, strict=True):
        if label_id is not None:
            value = np.nan if confidence is None else float(confidence)
            yield raw[label_id], value, truth == predicted


def _rejected_of(comparison: Comparison) -> Counter:
    """Objects of each class whose own box was given to a run, which found no name for it."""
    path, truth = f"{comparison.predictions}.detections", f"{comparison.ground_truth}.detections"
    if not comparison.has_attribute(f"{path}.source_id"):
        return Counter()
    view = comparison.view
    names = dict(zip(*view.values([f"{truth}.id", f"{truth}.label"], unwind=True), strict=True))
    sources, rules = view.values([f"{path}.source_id", f"{path}.rejected_by"], unwind=True)
    return Counter(
        comparison.match.of_truth(names[source])
        for source, rule in zip(sources, rules, strict=True)
        if rule is not None and source in names
    )
