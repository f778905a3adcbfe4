"""``zs.evaluate``: labels against ground truth, kept with the dataset as a run of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from zs_operators.evaluation.classification import evaluate_classes
from zs_operators.evaluation.detection import evaluate_objects
from zs_operators.evaluation.options import EvaluateOptions
from zs_operators.evaluation.preparing import prepare
from zs_operators.evaluation.records import TASK, save_evaluation
from zs_operators.evaluation.report import EvaluationReport
from zs_operators.evaluation.report_parts import (
    CLASSIFICATION,
    DETECTION,
    SEGMENTATION,
    SPLIT_CAVEAT,
)
from zs_operators.evaluation.segmentation import evaluate_masks
from zs_operators.evaluation.targets import (
    check_eval_key,
    check_pair,
    delete_evaluations,
    sample_fields,
)
from zs_operators.progress import show_progress
from zs_operators.provenance import run_key
from zs_operators.report import Progress
from zs_operators.samples import check_samples

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

_EVALUATE = {
    CLASSIFICATION: evaluate_classes,
    DETECTION: evaluate_objects,
    SEGMENTATION: evaluate_masks,
}


def evaluate(
    samples: SampleCollection,
    predictions: str,
    ground_truth: str,
    *,
    progress: bool | Callable | None = None,
    **kwargs: Any,
) -> EvaluationReport:
    """Compares the labels of a field with ground truth, by FiftyOne's evaluation and beyond it.

    FiftyOne's evaluation is stored under ``eval_key``, so the App's Model Evaluation panel opens
    on it; of boxes a second one, ``<eval_key>_any_class``, matches them whatever their names. The
    whole report is stored with the dataset: :func:`zs_operators.load_evaluation` reads it back.
    No label is changed.

    Args:
        samples: a dataset or view; samples without ground truth are left out and counted
        predictions: a field of ``Classification``, ``Classifications``, ``Detections`` or
            ``Segmentation``
        ground_truth: a field of the same kind; single and several classes an image compare too
        eval_key: name of the evaluation, letters, digits and underscores
        seen (None): the classes with labelled examples; reports supported and unsupported classes
            apart, with their harmonic mean, and from stored logits the whole trade-off
        names ("auto"): how names are brought together: "auto" (case, blanks, plurals, synonyms and
            parents of the vocabulary), "exact", or a mapping of predicted names to those of ground
            truth that goes first
        roll_up (None): compare parents instead: "parent", "top" or a list of labels
        vocabulary (None): whose synonyms and parents count; None for that of the run that made
            the predictions
        missing ("skip"): samples with ground truth that have no prediction: "skip" leaves them
            out, "wrong" counts them as wrong; both are counted
        top_k ((1, 5)): report how often the truth is among so many best, where logits or lists
            are stored
        gamma (None): also report calibrated stacking at this gamma
        iou (0.5): least IoU of a match
        iou_threshs (None): of average precision; None for 0.5, 0.55 … 0.95
        use_masks (False): match the masks of ``Detections`` instead of their boxes
        compute_mAP (True): average precision, which takes most of the time
        num_bins (15): of the reliability table
        overwrite (False): allow replacing an evaluation of the same key
        progress (None): True, False, None for FiftyOne's default, or a callback that gets the
            progress bar

    Returns:
        an :class:`EvaluationReport`

    Raises:
        FieldError: if the two fields cannot be compared
        SamplesError: if there is nothing to compare
        InvalidInputError: if another argument cannot be used, before anything is written
    """
    return show_progress(iter_evaluate(samples, predictions, ground_truth, **kwargs), progress)


def iter_evaluate(
    samples: SampleCollection,
    predictions: str,
    ground_truth: str,
    *,
    eval_key: str,
    overwrite: bool = False,
    **options: Any,
) -> Generator[Progress, None, EvaluationReport]:
    """Like :func:`evaluate`, as a generator that yields :class:`Progress` while it works.

    Closing the generator removes what was written. The generator's return value is the report.
    """
    begun = time.perf_counter()
    check_samples(samples)
    chosen = EvaluateOptions(**options)
    kind = check_pair(samples, predictions, ground_truth)
    check_eval_key(samples, eval_key, kind, overwrite=overwrite)
    comparison = prepare(samples, predictions, ground_truth, chosen)
    yield Progress(0, comparison.counts["evaluated"], "comparing names")
    delete_evaluations(samples, eval_key)
    is_done = False
    try:
        with _quiet():
            found = yield from _EVALUATE[kind](comparison, eval_key)
        report = EvaluationReport(
            eval_key,
            run_key(TASK, eval_key),
            kind,
            predictions,
            ground_truth,
            counts=comparison.counts | found.pop("counts", {}),
            names=comparison.match.names,
            parameters={
                "predictions": predictions,
                "ground_truth": ground_truth,
                "eval_key": eval_key,
                **chosen.record(),
            },
            seconds=round(time.perf_counter() - begun, 3),
            warnings=(
                *comparison.warnings,
                *found.pop("warnings", ()),
                *((f"In this report {SPLIT_CAVEAT}",) if comparison.seen is not None else ()),
            ),
            **found,
        )
        save_evaluation(samples, report)
        is_done = True
    finally:
        if not is_done:
            _remove(samples, eval_key, kind)
    return report


def _remove(samples: SampleCollection, eval_key: str, kind: str) -> None:
    """What an evaluation that did not end has written."""
    delete_evaluations(samples, eval_key)
    dataset = samples._root_dataset
    for name in sample_fields(eval_key, kind):
        if dataset.has_field(name):
            dataset.delete_sample_field(name)


@contextmanager
def _quiet():
    """FiftyOne logs every step of an evaluation; the report and the progress say the same."""
    logger = logging.getLogger("fiftyone")
    level = logger.level
    logger.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(level)
