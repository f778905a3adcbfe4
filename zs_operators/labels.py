"""Predictions -> native FiftyOne labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zs_operators.fields import RUN_ATTRIBUTE

if TYPE_CHECKING:
    import fiftyone as fo

    from zs_operators.classifier import ClassPrediction


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
