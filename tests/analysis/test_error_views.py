"""Error views hold exactly the samples and labels that they name."""

from __future__ import annotations

import fiftyone as fo
import pytest

import zs_operators as zs
from zs_operators.analysis.error_kinds import ERROR_KINDS, ErrorKind
from zs_operators.analysis.error_views import error_view
from zs_operators.analysis.saved_views import save_error_views
from zs_operators.errors import FieldError, InvalidInputError

#: truth, label, confidence, margin, rejected_by, label of another run
IMAGES = {
    "right": ("cat", "cat", 0.9, 5.0, None, "cat"),
    "wrong": ("cat", "dog", 0.7, 2.0, None, "cat"),
    "very_wrong": ("dog", "cat", 0.99, 6.0, None, "dog"),
    "unsure_wrong": ("dog", "cat", 0.4, 0.2, None, "cat"),
    "close": ("cat", "cat", 0.6, 0.5, None, "cat"),
    "rejected": ("cat", None, 0.3, 0.1, "confidence", None),
    "renamed": ("cat", "unknown", 0.3, 0.1, "margin", None),
    "without_truth": (None, "dog", 0.8, 3.0, None, "dog"),
    "failed": ("cat", None, None, None, None, "cat"),
}


@pytest.fixture
def images(dataset):
    for name, (truth, label, confidence, margin, rule, other) in IMAGES.items():
        sample = fo.Sample(filepath=f"/{name}.png", tags=[name])
        if truth is not None:
            sample["truth"] = fo.Classification(label=truth)
        if name == "failed":
            sample["said_error"] = "missing_media: there is no file"
        else:
            sample["said"] = fo.Classification(
                label=label, confidence=confidence, margin=margin, rejected_by=rule
            )
        sample["other"] = fo.Classification(label=other)
        dataset.add_sample(sample, dynamic=True)
    return dataset


def names(view):
    return [tags[0] for tags in view.values("tags")]


def box(label, x, **attributes):
    return fo.Detection(label=label, bounding_box=[x, 0.1, 0.1, 0.1], **attributes)


@pytest.fixture
def boxes(dataset):
    """One sample with every case, one where all is right, one where nothing was found."""
    truth = [box("cat", 0.1), box("dog", 0.3), box("cat", 0.5)]
    said = [
        box("cat", 0.1, confidence=0.9, margin=4.0, predicted_iou=0.95, stability=0.5),
        box("cat", 0.3, confidence=0.8, margin=3.0, predicted_iou=0.9, stability=0.9),
        box("dog", 0.7, confidence=0.6, margin=0.3, predicted_iou=0.3, stability=0.9),
        box("dog", 0.85, confidence=0.2, margin=0.2, predicted_iou=0.9, stability=0.9),
    ]
    good = fo.Detections(detections=[box("cat", 0.2)])
    found = box("cat", 0.2, confidence=0.9, margin=9.0, predicted_iou=1.0, stability=1.0)
    for name, *fields in (
        ("mixed", fo.Detections(detections=truth), fo.Detections(detections=said)),
        ("right", good, fo.Detections(detections=[found])),
        ("empty", good.copy(), fo.Detections()),
    ):
        sample = fo.Sample(filepath=f"/{name}.png", tags=[name], truth=fields[0], said=fields[1])
        dataset.add_sample(sample, dynamic=True)
    return dataset


@pytest.mark.parametrize("by_eval", [False, True], ids=["here", "evaluated"])
class TestImages:
    def ask(self, images, by_eval, kind, **arguments):
        if not by_eval:
            return error_view(images, kind, predictions="said", ground_truth="truth", **arguments)
        images.evaluate_classifications("said", "truth", eval_key="check", progress=False)
        return error_view(images, kind, eval_key="check", **arguments)

    def test_confident_mistakes_come_most_confident_first(self, images, by_eval):
        view = self.ask(images.exists("truth"), by_eval, "confident_mistakes")
        assert names(view) == ["very_wrong", "wrong"]
        lower = self.ask(images.exists("truth"), by_eval, "confident_mistakes", threshold=0.0)
        assert names(lower) == ["very_wrong", "wrong", "unsure_wrong"]
        assert names(lower.limit(1)) == ["very_wrong"]

    def test_one_class_taken_for_another(self, images, by_eval):
        view = self.ask(images, by_eval, "confused", truth="dog", label="cat")
        assert names(view) == ["very_wrong", "unsure_wrong"]
        nothing = self.ask(images, by_eval, "confused", truth="cat", label="(none)")
        assert names(nothing) == ["rejected", "renamed", "failed"]
        assert names(self.ask(images, by_eval, "confused", truth="(none)", label="dog")) == [
            "without_truth"
        ]


def test_a_name_that_mongodb_would_read_as_a_field(images):
    images.match_tags("wrong").set_values("truth.label", ["$said.label"])
    images.match_tags("wrong").set_values("said.label", ["$truth.label"])
    arguments = {"predictions": "said", "ground_truth": "truth"}
    pair = {"truth": "$said.label", "label": "$truth.label"}
    assert names(error_view(images, "confused", **arguments, **pair)) == ["wrong"]


def test_all_other_classes(images):
    def ask(**pair):
        arguments = {"predictions": "said", "ground_truth": "truth"}
        return names(error_view(images, "confused", **arguments, **pair))

    assert ask(truth="cat", label="(others)") == ["wrong", "rejected", "renamed", "failed"]
    assert ask(truth="(others)", label="dog") == ["wrong", "without_truth"]
    with pytest.raises(InvalidInputError, match="at least one"):
        ask(truth="(others)", label="(others)")


def test_names_that_an_evaluation_brought_together(images):
    images.match_tags("very_wrong").set_values("said.label", ["Cats"])
    names_of = {"names": {"Cats": "cat"}, "progress": False}
    report = zs.evaluate(images, "said", "truth", eval_key="check", **names_of)
    assert [item.evaluated_as for item in report.names.renamed] == ["cat"]
    view = error_view(images, "confused", eval_key="check", truth="dog", label="cat")
    assert names(view) == ["very_wrong", "unsure_wrong"]
    assert report.confusion.matrix.max() == 2
    wrong = error_view(images, "confident_mistakes", eval_key="check")
    assert names(wrong) == ["very_wrong", "wrong"]


def test_an_evaluation_of_some_images_shows_no_others(images):
    some = images.match_tags(["wrong", "right"])
    zs.evaluate(some, "said", "truth", eval_key="check", progress=False)
    arguments = {"eval_key": "check", "truth": "dog", "label": "cat"}
    assert names(error_view(images, "confused", **arguments)) == []
    assert names(error_view(images, "confident_mistakes", eval_key="check")) == ["wrong"]


def test_mistakes_without_evaluation_need_truth(images):
    view = error_view(images, "confident_mistakes", predictions="said", ground_truth="truth")
    assert "without_truth" not in names(view)


def test_kinds_that_need_no_truth(images):
    def ask(kind, **arguments):
        return names(error_view(images, kind, predictions="said", **arguments))

    assert ask("low_margin") == ["unsure_wrong", "close"]
    assert ask("low_margin", threshold=2.0) == ["unsure_wrong", "close", "wrong"]
    assert ask("low_margin", limit=1) == ["unsure_wrong"]
    assert ask("rejected") == ["rejected", "renamed"]
    assert ask("failed") == ["failed"]
    assert ask("disagreements", other="other") == ["wrong", "very_wrong", "renamed"]


def test_lists_of_classes_are_judged_by_their_best(dataset):
    def classes(*found):
        return fo.Classifications(
            classifications=[
                fo.Classification(label=label, confidence=confidence, margin=1.0)
                for label, confidence in found
            ]
        )

    rows = {
        "right": (classes(("cat", 0.9), ("dog", 0.8)), classes(("cat", None), ("hat", None))),
        "wrong": (classes(("dog", 0.9), ("cat", 0.8)), classes(("cat", None))),
        "nothing": (classes(), classes(("cat", None))),
    }
    for name, (said, truth) in rows.items():
        sample = fo.Sample(filepath=f"/{name}.png", tags=[name], said=said, truth=truth)
        dataset.add_sample(sample, dynamic=True)
    arguments = {"predictions": "said", "ground_truth": "truth"}
    assert names(error_view(dataset, "confident_mistakes", **arguments)) == ["wrong"]
    confused = error_view(dataset, "confused", truth="cat", label="dog", **arguments)
    assert names(confused) == ["wrong"]
    nothing = error_view(dataset, "confused", truth="cat", label="(none)", **arguments)
    assert names(nothing) == ["nothing"]


@pytest.mark.parametrize("by_eval", [False, True], ids=["here", "evaluated"])
class TestBoxes:
    def ask(self, boxes, by_eval, kind, **arguments):
        if not by_eval:
            return error_view(boxes, kind, predictions="said", ground_truth="truth", **arguments)
        boxes.evaluate_detections("said", "truth", eval_key="check", progress=False)
        return error_view(boxes, kind, eval_key="check", **arguments)

    def test_confident_mistakes_are_the_wrong_boxes_alone(self, boxes, by_eval):
        view = self.ask(boxes, by_eval, "confident_mistakes")
        assert names(view) == ["mixed"]
        assert view.values("said.detections.confidence") == [[0.8, 0.6]]

    def test_missed_objects(self, boxes, by_eval):
        view = self.ask(boxes, by_eval, "missed_objects")
        assert names(view) == ["mixed", "empty"]
        assert view.values("truth.detections.label") == [["dog", "cat"], ["cat"]]

    def test_right_box_wrong_name(self, boxes, by_eval):
        view = self.ask(boxes, by_eval, "misnamed_boxes")
        assert view.values("truth.detections.label") == [["dog"]]
        assert view.values("said.detections.label") == [["cat"]]

    def test_confusion_goes_by_place(self, boxes, by_eval):
        view = self.ask(boxes, by_eval, "confused", truth="dog", label="cat")
        assert view.values("said.detections.confidence") == [[0.8]]
        nothing = self.ask(boxes, by_eval, "confused", truth="(none)", label="dog")
        assert nothing.values("said.detections.confidence") == [[0.6, 0.2]]


def test_every_cell_of_a_confusion_of_boxes_can_be_shown(boxes):
    report = zs.evaluate(boxes, "said", "truth", eval_key="check", progress=False)
    labels = report.confusion.labels
    assert len(report.confusion.cells) == 4
    for row, column, count in report.confusion.cells:
        pair = {"truth": labels[row], "label": labels[column]}
        view = error_view(boxes, "confused", eval_key="check", **pair)
        shown = [view.count(f"{field}.detections") for field in ("truth", "said")]
        assert shown == [0 if name == "(none)" else count for name in pair.values()]
    taken = error_view(boxes, "confused", eval_key="check", truth="(others)", label="cat")
    assert taken.values("said.detections.confidence") == [[0.8]]
    wrong = error_view(boxes, "confused", eval_key="check", truth="cat", label="(others)")
    assert wrong.values("truth.detections.label") == [["cat"], ["cat"]]


def test_boxes_that_need_no_truth(boxes):
    close = error_view(boxes, "low_margin", predictions="said")
    assert close.values("said.detections.margin") == [[0.3, 0.2]]
    poor = error_view(boxes, "poor_masks", predictions="said")
    assert poor.values("said.detections.predicted_iou") == [[0.95, 0.3]]
    other = error_view(boxes, "disagreements", predictions="said", other="truth")
    assert names(other) == ["mixed", "empty"]
    assert other.values("said.detections.label") == [["cat", "dog", "dog"], []]


def test_evaluating_here_writes_nothing(boxes):
    before = boxes.get_field_schema(flat=True).keys()
    error_view(boxes, "misnamed_boxes", predictions="said", ground_truth="truth")
    assert boxes.get_field_schema(flat=True).keys() == before
    assert boxes.list_evaluations() == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"kind": "typos"}, "confident_mistakes"),
        ({"kind": "failed"}, "predictions="),
        ({"kind": "failed", "predictions": "sad"}, "said"),
        ({"kind": "confident_mistakes", "predictions": "said"}, "ground_truth="),
        ({"kind": "confused", "predictions": "said", "ground_truth": "truth"}, "truth="),
        ({"kind": "missed_objects", "predictions": "said", "ground_truth": "truth"}, "Detections"),
        ({"kind": "disagreements", "predictions": "said"}, "other="),
        ({"kind": "low_margin", "predictions": "truth"}, "no margin"),
        ({"kind": "rejected", "predictions": "truth"}, "no rejected_by"),
        ({"kind": "confident_mistakes", "eval_key": "never"}, "no evaluation"),
        ({"kind": "failed", "predictions": "said", "limit": 0}, "limit"),
    ],
)
def test_what_cannot_be_found_is_said(images, arguments, says):
    with pytest.raises(InvalidInputError, match=says):
        error_view(images, **arguments)


def test_boxes_are_not_compared_with_classes(boxes):
    boxes.set_values("classes", [fo.Classification(label="cat")] * 3)
    with pytest.raises(FieldError, match="compared with boxes"):
        error_view(boxes, "missed_objects", predictions="said", ground_truth="classes")


def test_every_kind_is_described():
    assert ERROR_KINDS.keys() == set(ErrorKind)


def test_saved_views_are_named_and_not_replaced(images):
    images.evaluate_classifications("said", "truth", eval_key="check", progress=False)
    saved = save_error_views(images, "said", "check")
    assert saved.names == {
        "said: confident mistakes": 2,
        "said: close calls": 2,
        "said: rejected": 2,
        "said: failed": 1,
    }
    assert saved.left_out == {}
    without = save_error_views(images, "said", prefix="again")
    assert "ground_truth=" in without.left_out["confident_mistakes"]
    assert names(images.load_saved_view("said: close calls")) == ["unsure_wrong", "close"]
    with pytest.raises(FieldError, match="overwrite=True"):
        save_error_views(images, "said", kinds=["rejected", "low_margin"])
    again = save_error_views(images, "said", kinds=["rejected"], overwrite=True)
    assert list(again.names) == ["said: rejected"]
    pair = {"kinds": ["confused"], "truth": "dog", "label": "cat", "ground_truth": "truth"}
    assert save_error_views(images, "said", **pair).names == {"said: dog taken for cat": 2}


def test_saved_views_follow_the_labels(images):
    save_error_views(images, "said", kinds=["low_margin"])
    sample = images.match_tags("close").first()
    sample["said"].margin = 7.0
    sample.save()
    assert names(images.load_saved_view("said: close calls")) == ["unsure_wrong"]


def test_nothing_to_save_is_said(images):
    with pytest.raises(InvalidInputError, match="No kind"):
        save_error_views(images, "truth")
