"""Masks of a prediction -> native FiftyOne labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zs_operators.errors import MediaTooLargeError
from zs_operators.fields import RUN_ATTRIBUTE
from zs_operators.labels import detection

if TYPE_CHECKING:
    import fiftyone as fo

    from zs_operators.prompt_fields import ExistingPrompts
    from zs_operators.segmenter import SegmentedMask, SegmentPrediction

#: Class of what has no name, in semantic masks.
UNNAMED = "object"

# MongoDB's limit of 16 MiB, less room for what else a sample holds
_MAX_DOCUMENT_BYTES = 15 * 2**20


def mask_detections(
    prediction: SegmentPrediction,
    *,
    run: str | None = None,
    source: ExistingPrompts | None = None,
) -> fo.Detections:
    """All masks of an image.

    Args:
        prediction: of one image
        run: signature of the run
        source: the labels that prompted; their ids, names, confidences and indices are kept
    """
    import fiftyone as fo

    found = [_detection(mask, source) for mask in prediction.masks]
    return fo.Detections(detections=found, **{RUN_ATTRIBUTE: run})


def serialized_detections(
    prediction: SegmentPrediction,
    *,
    run: str,
    source: ExistingPrompts | None = None,
    mask_paths: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The same as MongoDB holds it: one mask after the other, so that one is in memory unpacked.

    Args:
        mask_paths (None): where the pixels are, if not in the database

    Raises:
        MediaTooLargeError: if the masks take more than a document of MongoDB may have
    """
    import fiftyone as fo

    documents = []
    size = 0
    for i, mask in enumerate(prediction.masks):
        label = _detection(mask, source, None if mask_paths is None else mask_paths[i])
        document = label.to_mongo()
        size += len(document.get("mask") or b"")
        if size > _MAX_DOCUMENT_BYTES:
            raise MediaTooLargeError(
                f"the first {i + 1} of {len(prediction.masks)} masks take {size / 2**20:.0f} MiB "
                "compressed, more than a document of MongoDB holds: write them to files with "
                "output_dir, or ask for fewer with max_masks"
            )
        documents.append(document)
    empty = fo.Detections(detections=[], **{RUN_ATTRIBUTE: run}).to_mongo()
    return {**empty, "detections": documents}


def class_name(mask: SegmentedMask, source: ExistingPrompts | None) -> str | None:
    """What a mask is called: by the detector, or by the label that prompted."""
    if mask.detection is not None:
        return mask.detection.label
    return None if source is None else source.labels[mask.index]


def serialized_classes(
    prediction: SegmentPrediction, source: ExistingPrompts | None, targets: Mapping[str, int]
) -> bytes:
    """Which class each pixel of an image is of, as MongoDB holds the array.

    (H, W) uint8, or uint16 if a value needs it; 0 where there is no mask. Large masks are painted
    first, so that what lies on something is not covered by it.

    Args:
        targets: the value of each class name
    """
    import fiftyone.core.utils as fou
    import numpy as np

    dtype = np.uint8 if max(targets.values(), default=0) < 256 else np.uint16
    values = np.zeros((prediction.height_px, prediction.width_px), dtype=dtype)
    for mask in sorted(prediction.masks, key=lambda mask: -mask.area_px):
        x1, y1, x2, y2 = mask.mask.box_px
        name = class_name(mask, source)
        values[y1:y2, x1:x2][mask.mask.pixels] = targets[UNNAMED if name is None else name]
    return fou.serialize_numpy_array(values)


def _detection(
    mask: SegmentedMask, source: ExistingPrompts | None, mask_path: str | None = None
) -> fo.Detection:
    import fiftyone as fo

    if mask.detection is not None:
        label = detection(mask.detection)
    elif source is not None:
        label = fo.Detection(
            label=source.labels[mask.index],
            confidence=source.confidences[mask.index],
            index=source.indices[mask.index],
            source_id=source.label_ids[mask.index],
        )
    else:
        label = fo.Detection(confidence=mask.predicted_iou)
    label.bounding_box = list(mask.box_rel)
    if mask_path is None:
        label.mask = mask.mask.pixels
    else:
        label.mask_path = mask_path
    label["predicted_iou"] = mask.predicted_iou
    label["stability"] = mask.stability
    label["area_px"] = mask.area_px
    return label
