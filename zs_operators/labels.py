"""Predictions -> native FiftyOne labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zs_operators.fields import RUN_ATTRIBUTE

if TYPE_CHECKING:
    import fiftyone as fo

    from zs_operators.classifier import ClassPrediction
    from zs_operators.detections import Detection, DetectPrediction
    from zs_operators.region_fields import ExistingBoxes


def classification(
    prediction: ClassPrediction, *, run: str | None = None, reject_label: str | None = None
) -> fo.Classification:
    """One label per image.

    A rejected image gets ``reject_label``, or no label (None), and keeps the class that would
    have won in ``rejected_label``, so that thresholds can be changed without inference.
    """
    import fiftyone as fo

    best = prediction.best
    rejected = prediction.rejected_by is not None
    return fo.Classification(
        label=reject_label if rejected else best.label,
        confidence=best.confidence,
        logits=prediction.logits,
        cosine=best.cosine,
        margin=best.margin,
        rejected_by=prediction.rejected_by,
        rejected_label=best.label if rejected else None,
        **{RUN_ATTRIBUTE: run},
    )


def classifications(
    prediction: ClassPrediction, *, run: str | None = None, reject_label: str | None = None
) -> fo.Classifications:
    """All labels of an image that were kept, best first; ``reject_label`` alone if none was."""
    import fiftyone as fo

    rejected = prediction.rejected_by is not None
    labels = [
        fo.Classification(
            label=score.label,
            confidence=score.confidence,
            cosine=score.cosine,
            margin=score.margin,
        )
        for score in prediction.kept
    ]
    if rejected and reject_label is not None:
        best = prediction.best
        labels = [
            fo.Classification(
                label=reject_label,
                confidence=best.confidence,
                cosine=best.cosine,
                margin=best.margin,
            )
        ]
    return fo.Classifications(
        classifications=labels,
        logits=prediction.logits,
        rejected_by=prediction.rejected_by,
        **{RUN_ATTRIBUTE: run},
    )


def detections(
    prediction: DetectPrediction,
    *,
    run: str | None = None,
    source: ExistingBoxes | None = None,
    reject_label: str | None = None,
) -> fo.Detections:
    """All boxes of an image, best first; of existing boxes in their own order.

    Args:
        prediction: of one image
        run: signature of the run
        source: the existing boxes that were scored; their ids and names are kept
        reject_label: label for existing boxes that a rule rejects
    """
    import fiftyone as fo

    return fo.Detections(
        detections=[detection(item, source, reject_label) for item in prediction.detections],
        **{RUN_ATTRIBUTE: run},
    )


def source_attributes(
    prediction: DetectPrediction, source: ExistingBoxes, run: str | None
) -> dict[str, dict[str, Any]]:
    """What is added to each existing label, by its id."""
    return {
        source.label_ids[item.region_index]: {
            "zs_label": None if item.rejected_by else item.label,
            "zs_confidence": item.confidence,
            "zs_cosine": item.cosine,
            "zs_margin": item.margin,
            "zs_rejected_by": item.rejected_by,
            "zs_run": run,
        }
        for item in prediction.detections
    }


def detection(
    item: Detection, source: ExistingBoxes | None = None, reject_label: str | None = None
) -> fo.Detection:
    """One box; see :func:`detections`."""
    import fiftyone as fo

    label = fo.Detection(
        label=reject_label if item.rejected_by else item.label,
        bounding_box=list(item.box_rel),
        confidence=item.confidence,
        margin=item.margin,
        region_index=item.region_index,
        runners_up=[score.label for score in item.runners_up],
    )
    if item.cosine is not None:
        label["cosine"] = item.cosine
    if item.objectness is not None:
        label["objectness"] = item.objectness
    if item.rejected_by:
        label["rejected_by"] = item.rejected_by
        label["rejected_label"] = item.label
    if source is not None:
        label["source_id"] = source.label_ids[item.region_index]
        label["source_label"] = source.labels[item.region_index]
    return label
