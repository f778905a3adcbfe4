"""Zero-shot vision as native FiftyOne labels; names are imported when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zs_operators.version import __version__

if TYPE_CHECKING:
    from zs_operators.analysis import ErrorKind, error_view, save_error_views
    from zs_operators.classification import classify, iter_classify
    from zs_operators.clip import ClipModel, load_clip
    from zs_operators.clip_classifier import ClipClassifier
    from zs_operators.detection import detect, iter_detect
    from zs_operators.embedding_index import register_index, take_over
    from zs_operators.errors import ZeroShotError
    from zs_operators.evaluation.records import load_evaluation
    from zs_operators.evaluation.report import EvaluationReport
    from zs_operators.evaluation.running import evaluate, iter_evaluate
    from zs_operators.evaluation.temperature import apply_temperature
    from zs_operators.fields import check_label_field
    from zs_operators.prompt_lab import PromptLab
    from zs_operators.region_detector import RegionDetector
    from zs_operators.report import Progress, RunReport
    from zs_operators.sam import SamModel, load_sam
    from zs_operators.sam_segmenter import SamSegmenter
    from zs_operators.samples import check_samples, class_names
    from zs_operators.saved_vocabularies import (
        delete_vocabulary,
        list_vocabularies,
        load_vocabulary,
        save_vocabulary,
    )
    from zs_operators.segmentation import iter_segment, segment
    from zs_operators.thresholds import apply_thresholds, sweep_thresholds
    from zs_operators.vocabulary import PromptRow, Vocabulary
    from zs_operators.weights import models, plan_weights

_HOMES = {
    "ClipClassifier": "clip_classifier",
    "ClipModel": "clip",
    "ErrorKind": "analysis",
    "EvaluationReport": "evaluation.report",
    "Progress": "report",
    "PromptLab": "prompt_lab",
    "PromptRow": "vocabulary",
    "RegionDetector": "region_detector",
    "RunReport": "report",
    "SamModel": "sam",
    "SamSegmenter": "sam_segmenter",
    "Vocabulary": "vocabulary",
    "ZeroShotError": "errors",
    "apply_temperature": "evaluation.temperature",
    "apply_thresholds": "thresholds",
    "check_label_field": "fields",
    "check_samples": "samples",
    "class_names": "samples",
    "classify": "classification",
    "delete_vocabulary": "saved_vocabularies",
    "detect": "detection",
    "error_view": "analysis",
    "evaluate": "evaluation.running",
    "iter_detect": "detection",
    "iter_classify": "classification",
    "iter_evaluate": "evaluation.running",
    "iter_segment": "segmentation",
    "list_vocabularies": "saved_vocabularies",
    "load_clip": "clip",
    "load_evaluation": "evaluation.records",
    "load_sam": "sam",
    "load_vocabulary": "saved_vocabularies",
    "models": "weights",
    "plan_weights": "weights",
    "register_index": "embedding_index",
    "save_error_views": "analysis",
    "save_vocabulary": "saved_vocabularies",
    "segment": "segmentation",
    "sweep_thresholds": "thresholds",
    "take_over": "embedding_index",
}

__all__ = [
    "ClipClassifier",
    "ClipModel",
    "ErrorKind",
    "EvaluationReport",
    "Progress",
    "PromptLab",
    "PromptRow",
    "RegionDetector",
    "RunReport",
    "SamModel",
    "SamSegmenter",
    "Vocabulary",
    "ZeroShotError",
    "__version__",
    "apply_temperature",
    "apply_thresholds",
    "check_label_field",
    "check_samples",
    "class_names",
    "classify",
    "delete_vocabulary",
    "detect",
    "error_view",
    "evaluate",
    "iter_classify",
    "iter_detect",
    "iter_evaluate",
    "iter_segment",
    "list_vocabularies",
    "load_clip",
    "load_evaluation",
    "load_sam",
    "load_vocabulary",
    "models",
    "plan_weights",
    "register_index",
    "save_error_views",
    "save_vocabulary",
    "segment",
    "sweep_thresholds",
    "take_over",
]


def __getattr__(name: str) -> Any:
    # Importing torch and FiftyOne takes seconds, which registering the plugin must not pay
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
