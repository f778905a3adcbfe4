"""From suspicious labels to reviewed ones, and out into a file."""

from __future__ import annotations

import csv
import json

import fiftyone as fo
import pytest

from zs_operators.analysis.review import mark_reviewed, reviewed_view, tag_for_review
from zs_operators.analysis.review_export import export_reviewed, reviewed_rows
from zs_operators.errors import FieldError, InvalidInputError


@pytest.fixture
def images(dataset):
    rows = (("cat", 0.9, 5.0, None), ("cat", 0.5, 0.5, None), ("dog", 0.7, 0.2, None))
    rows += ((None, 0.2, 0.1, "confidence"),)
    for label, confidence, margin, rule in rows:
        said = fo.Classification(
            label=label, confidence=confidence, margin=margin, rejected_by=rule
        )
        path = f"/{len(dataset)}.png"
        dataset.add_sample(fo.Sample(filepath=path, said=said), dynamic=True)
    dataset.add_sample(fo.Sample(filepath="/4.png", said_error="missing_media: gone"))
    return dataset


@pytest.fixture
def boxes(dataset):
    def box(label, x, margin):
        return fo.Detection(
            label=label, bounding_box=[x, 0.1, 0.1, 0.1], confidence=0.5, margin=margin
        )

    found = fo.Detections(detections=[box("cat", 0.1, 0.1), box("dog", 0.5, 4.0)])
    dataset.add_sample(fo.Sample(filepath="/0.png", said=found), dynamic=True)
    more = fo.Detections(detections=[box("cat", 0.3, 0.2), box("cat", 0.7, 0.3)])
    dataset.add_sample(fo.Sample(filepath="/1.png", said=more), dynamic=True)
    return dataset


def paths(view):
    return [path[1] for path in view.values("filepath")]


def test_suspicious_images_are_tagged_by_kind(images):
    queue = tag_for_review(images, "said", ["low_margin", "rejected", "failed"])
    assert queue.counts == {"low_margin": 2, "rejected": 1, "failed": 1}
    assert "2 low_margin" in str(queue)
    assert paths(images.match_tags("zs_review")) == ["1", "2", "3", "4"]
    assert paths(images.match_tags("zs_review:rejected")) == ["3"]
    closest = tag_for_review(images, "said", ["low_margin"], limit=1, tag="first")
    assert closest.counts == {"low_margin": 1}
    assert paths(images.match_tags("first")) == ["2"]
    with pytest.raises(InvalidInputError, match="at least one kind"):
        tag_for_review(images, "said", [])


def test_what_is_reviewed_leaves_the_queue(images):
    tag_for_review(images, "said")
    doubt = images.match_tags("zs_review")
    assert mark_reviewed(doubt.limit(1), "said").corrected == 0
    assert mark_reviewed(doubt.limit(1), "said", "cow").corrected == 1
    assert paths(images.match_tags("zs_review")) == ["3"]
    assert mark_reviewed(doubt, "said", discard=True).marked == 1
    assert images.distinct("tags") == []
    assert images.values("zs_reviewed.label") == [None, "cat", "cow", None, None]
    assert images.values("zs_reviewed.predicted") == [None, "cat", "dog", None, None]
    assert images.values("said.label") == ["cat", "cat", "dog", None, None]
    # Truth for what comes next: those with a name
    assert paths(reviewed_view(images)) == ["1", "2"]
    # What was reviewed is not asked again
    assert tag_for_review(images, "said", ["low_margin"]).counts == {"low_margin": 0}


def test_reviews_are_kept_unless_they_may_be_replaced(images):
    ids = images.values("id")
    first = mark_reviewed(images, "said", {ids[0]: "cow", ids[1]: "cat"})
    assert (first.marked, first.corrected, first.kept) == (2, 1, 0)
    again = mark_reviewed(images.limit(3), "said", "hen")
    assert (again.marked, again.kept) == (1, 2)
    assert images.values("zs_reviewed.label")[:3] == ["cow", "cat", "hen"]
    assert mark_reviewed(images.limit(1), "said", "hen", overwrite=True).marked == 1
    assert images.first().zs_reviewed.label == "hen"


def test_boxes_are_tagged_and_reviewed_one_by_one(boxes):
    queue = tag_for_review(boxes, "said", ["low_margin"])
    assert (queue.on, queue.counts) == ("labels", {"low_margin": 3})
    doubt = boxes.select_labels(tags="zs_review", fields="said")
    first = doubt.limit(1)
    assert mark_reviewed(first, "said", "hen").marked == 1
    patches = boxes.skip(1).to_patches("said").limit(1)
    assert mark_reviewed(patches, "said", discard=True).marked == 1
    assert mark_reviewed(boxes.skip(1), "said").kept == 1
    sample, other = boxes
    assert [(box.label, box.predicted) for box in sample.zs_reviewed.detections] == [("hen", "cat")]
    assert sample.zs_reviewed.detections[0].bounding_box == [0.1, 0.1, 0.1, 0.1]
    assert [box.label for box in other.zs_reviewed.detections] == ["cat"]
    assert boxes.count("said.detections") == 4
    assert boxes.count_label_tags("said") == {}
    assert tag_for_review(boxes, "said", ["low_margin"]).counts == {"low_margin": 0}
    rows = reviewed_rows(boxes, "said")
    assert [(row["predicted"], row["reviewed"], row["wins"]) for row in rows] == [
        ("cat", "hen", "correction"),
        ("cat", "cat", "prediction"),
        ("cat", None, "correction"),
    ]
    assert rows[2]["box"] == pytest.approx([0.3, 0.1, 0.1, 0.1])


def test_missed_objects_are_tagged_where_they_are(boxes):
    truth = fo.Detections(detections=[fo.Detection(label="cow", bounding_box=[0.8, 0.8, 0.1, 0.1])])
    boxes.set_values("truth", [truth, None])
    queue = tag_for_review(boxes, "said", ["missed_objects"], ground_truth="truth")
    assert queue.counts == {"missed_objects": 1}
    assert boxes.count_label_tags("truth") == {"zs_review": 1, "zs_review:missed_objects": 1}


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_a_file_says_who_was_right(images, tmp_path, suffix):
    path = tmp_path / f"reviews.{suffix}"
    with pytest.raises(FieldError, match="Nothing"):
        export_reviewed(images, "said", path)
    ids = images.values("id")
    mark_reviewed(images, "said", {ids[0]: "cat", ids[2]: "cow"})
    assert export_reviewed(images, "said", path) == 2
    text = path.read_text()
    rows = json.loads(text) if suffix == "json" else list(csv.DictReader(text.splitlines()))
    assert [row["filepath"] for row in rows] == ["/0.png", "/2.png"]
    assert [(r["predicted"], r["reviewed"], r["wins"]) for r in rows] == [
        ("cat", "cat", "prediction"),
        ("dog", "cow", "correction"),
    ]
    assert float(rows[1]["confidence"]) == 0.7
    with pytest.raises(InvalidInputError, match="exists"):
        export_reviewed(images, "said", path)
    assert export_reviewed(images, "said", path, overwrite=True) == 2


def test_what_cannot_be_reviewed_is_said(images, tmp_path):
    with pytest.raises(InvalidInputError, match="not both"):
        mark_reviewed(images, "said", "cat", discard=True)
    with pytest.raises(InvalidInputError, match="blank"):
        mark_reviewed(images, "said", " ")
    with pytest.raises(FieldError, match="other than reviews"):
        mark_reviewed(images, "said", reviewed_field="said")
    with pytest.raises(FieldError, match="None of these"):
        mark_reviewed(images.skip(4), "said")
    with pytest.raises(FieldError, match="nothing was reviewed"):
        reviewed_view(images)
    with pytest.raises(InvalidInputError, match="csv"):
        export_reviewed(images, "said", tmp_path / "reviews.txt")
    with pytest.raises(InvalidInputError, match="no folder"):
        export_reviewed(images, "said", tmp_path / "nowhere" / "reviews.csv")
