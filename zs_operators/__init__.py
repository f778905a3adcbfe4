"""Zero-shot vision as native FiftyOne labels; names are imported when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zs_operators.version import __version__

if TYPE_CHECKING:
    from zs_operators.analysis import (
        ErrorKind,
        Reviewed,
        ReviewQueue,
        SanityCard,
        error_view,
        export_reviewed,
        mark_reviewed,
        reviewed_view,
        sanity_check,
        save_error_views,
        score_hardness,
        score_mistakenness,
        score_uniqueness,
        tag_for_review,
    )
    from zs_operators.classification import classify, iter_classify
    from zs_operators.clip import ClipModel, load_clip
    from zs_operators.clip_classifier import ClipClassifier
    from zs_operators.detection import detect, iter_detect
    from zs_operators.detectors.text_detector import FoundBoxes, TextDetector
    from zs_operators.embedding_index import register_index, take_over
    from zs_operators.errors import ZeroShotError
    from zs_operators.evaluation.records import load_evaluation
    from zs_operators.evaluation.report import EvaluationReport
    from zs_operators.evaluation.running import evaluate, iter_evaluate
    from zs_operators.evaluation.temperature import apply_temperature
    from zs_operators.executors.options import RayExecutor
    from zs_operators.fields import check_label_field
    from zs_operators.heads.exchange import export_statistics, head_from_statistics
    from zs_operators.heads.fitting import fit_head, iter_fit_head
    from zs_operators.heads.head import Head
    from zs_operators.heads.report import HeadReport
    from zs_operators.heads.saved import delete_head, list_heads, load_head, save_head
    from zs_operators.heads.statistics import merge_statistics
    from zs_operators.prompt_lab import PromptLab
    from zs_operators.region_detector import RegionDetector
    from zs_operators.report import Progress, RunReport
    from zs_operators.run_history import (
        DeletedRun,
        RunComparison,
        StoredRun,
        compare_runs,
        delete_run,
        export_run,
        import_run,
        iter_rerun,
        load_run,
        rerun,
        runs,
    )
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
    from zs_operators.stopping import stop_run
    from zs_operators.thresholds import apply_thresholds, sweep_thresholds
    from zs_operators.video_frames import iter_sample_frames, sample_frames
    from zs_operators.vocabulary import PromptRow, Vocabulary
    from zs_operators.weights import models, plan_weights

_HOMES = {
    "ClipClassifier": "clip_classifier",
    "ClipModel": "clip",
    "DeletedRun": "run_history",
    "ErrorKind": "analysis",
    "EvaluationReport": "evaluation.report",
    "FoundBoxes": "detectors.text_detector",
    "Head": "heads.head",
    "HeadReport": "heads.report",
    "Progress": "report",
    "PromptLab": "prompt_lab",
    "PromptRow": "vocabulary",
    "RayExecutor": "executors.options",
    "RegionDetector": "region_detector",
    "ReviewQueue": "analysis",
    "Reviewed": "analysis",
    "RunComparison": "run_history",
    "RunReport": "report",
    "SamModel": "sam",
    "SamSegmenter": "sam_segmenter",
    "SanityCard": "analysis",
    "StoredRun": "run_history",
    "TextDetector": "detectors.text_detector",
    "Vocabulary": "vocabulary",
    "ZeroShotError": "errors",
    "apply_temperature": "evaluation.temperature",
    "apply_thresholds": "thresholds",
    "check_label_field": "fields",
    "check_samples": "samples",
    "class_names": "samples",
    "classify": "classification",
    "compare_runs": "run_history",
    "delete_head": "heads.saved",
    "delete_run": "run_history",
    "delete_vocabulary": "saved_vocabularies",
    "detect": "detection",
    "error_view": "analysis",
    "evaluate": "evaluation.running",
    "export_reviewed": "analysis",
    "export_run": "run_history",
    "export_statistics": "heads.exchange",
    "fit_head": "heads.fitting",
    "head_from_statistics": "heads.exchange",
    "import_run": "run_history",
    "iter_classify": "classification",
    "iter_detect": "detection",
    "iter_evaluate": "evaluation.running",
    "iter_fit_head": "heads.fitting",
    "iter_rerun": "run_history",
    "iter_sample_frames": "video_frames",
    "iter_segment": "segmentation",
    "list_heads": "heads.saved",
    "list_vocabularies": "saved_vocabularies",
    "load_clip": "clip",
    "load_evaluation": "evaluation.records",
    "load_head": "heads.saved",
    "load_run": "run_history",
    "load_sam": "sam",
    "load_vocabulary": "saved_vocabularies",
    "mark_reviewed": "analysis",
    "merge_statistics": "heads.statistics",
    "models": "weights",
    "plan_weights": "weights",
    "register_index": "embedding_index",
    "rerun": "run_history",
    "reviewed_view": "analysis",
    "runs": "run_history",
    "sanity_check": "analysis",
    "sample_frames": "video_frames",
    "save_error_views": "analysis",
    "save_head": "heads.saved",
    "save_vocabulary": "saved_vocabularies",
    "score_hardness": "analysis",
    "score_mistakenness": "analysis",
    "score_uniqueness": "analysis",
    "segment": "segmentation",
    "stop_run": "stopping",
    "sweep_thresholds": "thresholds",
    "tag_for_review": "analysis",
    "take_over": "embedding_index",
}

__all__ = [
    "ClipClassifier",
    "ClipModel",
    "DeletedRun",
    "ErrorKind",
    "EvaluationReport",
    "FoundBoxes",
    "Head",
    "HeadReport",
    "Progress",
    "PromptLab",
    "PromptRow",
    "RayExecutor",
    "RegionDetector",
    "ReviewQueue",
    "Reviewed",
    "RunComparison",
    "RunReport",
    "SamModel",
    "SamSegmenter",
    "SanityCard",
    "StoredRun",
    "TextDetector",
    "Vocabulary",
    "ZeroShotError",
    "__version__",
    "apply_temperature",
    "apply_thresholds",
    "check_label_field",
    "check_samples",
    "class_names",
    "classify",
    "compare_runs",
    "delete_head",
    "delete_run",
    "delete_vocabulary",
    "detect",
    "error_view",
    "evaluate",
    "export_reviewed",
    "export_run",
    "export_statistics",
    "fit_head",
    "head_from_statistics",
    "import_run",
    "iter_classify",
    "iter_detect",
    "iter_evaluate",
    "iter_fit_head",
    "iter_rerun",
    "iter_sample_frames",
    "iter_segment",
    "list_heads",
    "list_vocabularies",
    "load_clip",
    "load_evaluation",
    "load_head",
    "load_run",
    "load_sam",
    "load_vocabulary",
    "mark_reviewed",
    "merge_statistics",
    "models",
    "plan_weights",
    "register_index",
    "rerun",
    "reviewed_view",
    "runs",
    "sample_frames",
    "sanity_check",
    "save_error_views",
    "save_head",
    "save_vocabulary",
    "score_hardness",
    "score_mistakenness",
    "score_uniqueness",
    "segment",
    "stop_run",
    "sweep_thresholds",
    "tag_for_review",
    "take_over",
]


def __getattr__(name: str) -> Any:
    # Importing torch and FiftyOne takes seconds, which registering the plugin must not pay
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
