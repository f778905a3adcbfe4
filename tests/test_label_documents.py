"""Documents that runs write are what FiftyOne makes of the label objects, to the last field."""

from __future__ import annotations

import bson
import fiftyone as fo
import fiftyone.core.utils as fou
import numpy as np
import pytest

from zs_operators import label_documents, labels, mask_labels
from zs_operators.classifier import ClassPrediction, ClassScore
from zs_operators.detections import Detection, DetectPrediction
from zs_operators.masks import Mask, PackedMask
from zs_operators.prompt_fields import ExistingPrompts
from zs_operators.region_fields import ExistingBoxes
from zs_operators.sam_prompts import GivenPrompts
from zs_operators.segmenter import SegmentedMask, SegmentPrediction


def same(ours, theirs):
    """Also in the order of fields, which the App shows."""
    ours, theirs = (bson.decode(bson.encode(one)) for one in (ours, theirs.to_mongo()))
    for one in (ours, theirs):
        one.pop("_id", None)
        for item in [*one.get("classifications", ()), *one.get("detections", ())]:
            assert item.pop("_id")
    assert ours == theirs
    assert list(ours) == list(theirs)
    for a, b in zip(ours.get("detections", ()), theirs.get("detections", ()), strict=True):
        assert list(a) == list(b)


@pytest.mark.parametrize("logits", [None, [0.5, -1.0]])
@pytest.mark.parametrize("reject_label", [None, "none"])
@pytest.mark.parametrize("rejected_by", [None, "margin"])
@pytest.mark.parametrize("margin", [None, 1.5])
def test_classes(logits, reject_label, rejected_by, margin):
    score = ClassScore("a", 0.5, 0.1, margin)
    prediction = ClassPrediction(score, () if rejected_by else (score, score), rejected_by, logits)
    options = {"run": "r", "reject_label": reject_label}
    for name in ("classification", "classifications"):
        ours = getattr(label_documents, name)(prediction, **options)
        same(ours, getattr(labels, name)(prediction, **options))


@pytest.mark.parametrize("with_source", [False, True])
@pytest.mark.parametrize("objectness", [None, 0.25])
@pytest.mark.parametrize("rejected_by", [None, "cosine"])
@pytest.mark.parametrize("cosine", [None, 0.2])
def test_boxes(with_source, objectness, rejected_by, cosine):
    runner_up = ClassScore("b", 0.1, 0.1, None)
    box = Detection(
        "a", 0.5, 0.5, cosine, None, objectness, 1, (0, 0, 4, 4), (0.0, 0.0, 0.5, 0.5),
        (runner_up,), rejected_by,
    )  # fmt: skip
    prediction = DetectPrediction((box, box), 8, 8, 2)
    boxes = [(0.0, 0.0, 0.5, 0.5)] * 2
    source = ExistingBoxes("/a.png", boxes, ["1", "2"], ["x", None]) if with_source else None
    options = {"run": "r", "source": source, "reject_label": "none"}
    same(
        label_documents.detections(prediction, **options), labels.detections(prediction, **options)
    )
    empty = DetectPrediction((), 8, 8, 0)
    same(label_documents.detections(empty, run="r"), labels.detections(empty, run="r"))


def test_masks():
    pixels = np.random.default_rng(0).random((30, 20)) > 0.4
    packed = PackedMask.of(Mask(pixels, (5, 6, 25, 36), int(pixels.sum()), 0.75))
    source = ExistingPrompts("/a.png", GivenPrompts(), ["i"], ["x"], [0.5], [7])
    named = Detection("a", 0.5, 0.5, 0.2, 1.0, 0.3, 1, (5, 6, 25, 36), (0.1, 0.1, 0.4, 0.4))
    box = [0.1, 0.1, 0.2, 0.3]
    theirs = {
        "quality": fo.Detection(confidence=0.9),
        "source": fo.Detection(label="x", confidence=0.5, index=7, source_id="i"),
        "named": labels.detection(named),
    }
    for kind, label in theirs.items():
        label.bounding_box, label.mask = box, pixels
        label["predicted_iou"], label["stability"], label["area_px"] = 0.9, 0.75, packed.area_px
        mask = SegmentedMask(packed, tuple(box), 0.9, 0, named if kind == "named" else None)
        prediction = SegmentPrediction((mask,), 100, 100)
        options = {"run": "r", "source": source if kind == "source" else None}
        (ours,) = mask_labels.serialized_detections(prediction, **options)["detections"]
        label = label.to_mongo().to_dict()
        for one in (ours, label):
            assert one.pop("_id")
            np.testing.assert_array_equal(fou.deserialize_numpy_array(one.pop("mask")), pixels)
        assert ours == label
        (read,) = mask_labels.mask_detections(prediction, **options).detections
        assert read.mask.dtype == bool
        np.testing.assert_array_equal(read.mask, pixels)
        assert (read.label, read.area_px) == (label.get("label"), packed.area_px)
