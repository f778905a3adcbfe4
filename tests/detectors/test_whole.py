"""A planted detector behind our rules: prompts become classes, boxes find their frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.tiny_detectors import picture
from zs_operators.detect_options import DetectOptions
from zs_operators.detections import DetectItem
from zs_operators.detectors.proposing import DetectorProposer
from zs_operators.detectors.text_detector import FoundBoxes, TextDetector
from zs_operators.detectors.whole import WholeDetector
from zs_operators.errors import InvalidInputError
from zs_operators.images import UprightImage
from zs_operators.proposals import ProposalOptions
from zs_operators.vocabulary import Vocabulary

BOXES = [[0, 0, 10, 10], [20, 0, 40, 10], [50, 20, 80, 50]]


class Planted(TextDetector):
    """Gives the scores it was told, by prompt."""

    name = "planted"
    templates = ("find {}",)
    has_prompt_scores = True

    def __init__(self, scores, boxes=BOXES, **kwargs):
        self.scores, self.boxes = scores, np.array(boxes, np.float32)
        self.asked = []
        for name, value in kwargs.items():
            setattr(self, name, value)

    def find(self, images, prompts, *, floor=0.0, limit=300, agnostic=False):
        self.asked.append((list(prompts), floor, limit, agnostic))
        rows = np.array([self.scores.get(p, [np.nan] * len(self.boxes)) for p in prompts]).T
        best = np.nan_to_num(rows, nan=-1).argmax(axis=1)
        scores = np.nan_to_num(rows, nan=-1).max(axis=1)
        order = np.argsort(-scores, kind="stable")
        given = rows[order] if self.has_prompt_scores else None
        return [
            FoundBoxes(self.boxes[order], scores[order], best[order], given, None) for _ in images
        ]


def run(detector, classes, image=None, background=None, **options):
    vocabulary = Vocabulary.parse(classes, background=background)
    whole = WholeDetector(detector, vocabulary, DetectOptions(**options))
    image = picture() if image is None else image
    return whole, whole.predict([DetectItem(image)])[0]


def names(prediction):
    return [(d.region_index, d.label, round(d.confidence, 4)) for d in prediction.detections]


def test_a_class_gets_its_best_prompt():
    scores = {
        "find car": [0.2, 0.1, 0.3],
        "find sedan": [0.9, 0.1, 0.1],
        "find dog": [0.3, 0.6, 0.2],
    }
    whole, found = run(Planted(scores), {"car": ["car", "sedan"], "dog": None})
    assert names(found) == [(0, "car", 0.9), (1, "dog", 0.6), (2, "car", 0.3)]
    first = found.detections[0]
    # of the other class, not of the other name of the same
    assert first.margin == pytest.approx(np.log(9) - np.log(0.3 / 0.7), abs=1e-4)
    assert [other.label for other in first.runners_up] == ["dog"]
    assert first.cosine is None
    assert first.probability == first.confidence
    assert whole.vocabulary.templates == ("find {}",)


def test_templates_that_were_chosen_are_used():
    detector = Planted({"a cat": [0.9] * 3})
    vocabulary = Vocabulary.parse(["cat"], templates=["a {}", "the {}"])
    whole = WholeDetector(detector, vocabulary, DetectOptions())
    whole.embed([DetectItem(picture())])
    assert detector.asked[-1][0] == ["a cat", "the cat"]


def test_background_takes_its_boxes_away():
    scores = {"find cat": [0.5, 0.5, 0.5], "wall": [0.6, 0.4, 0.0]}
    _, found = run(Planted(scores), ["cat"], background=["wall"])
    assert names(found) == [(1, "cat", 0.5), (2, "cat", 0.5)]
    assert found.dropped == {"background": 1}


def test_rules_in_their_order():
    scores = {"find cat": [0.9, 0.3, 0.06], "find dog": [0.88, 0.1, 0.01]}
    _, found = run(Planted(scores), ["cat", "dog"], min_confidence=0.1, min_margin=0.5)
    assert names(found) == [(1, "cat", 0.3)]
    assert found.dropped == {"margin": 1, "confidence": 1}


def test_a_class_may_have_its_own_threshold():
    scores = {"find cat": [0.4, 0.1, 0.1], "find dog": [0.1, 0.4, 0.1]}
    vocabulary = Vocabulary.parse(["cat", "dog"], thresholds={"dog": 0.5})
    whole = WholeDetector(Planted(scores), vocabulary, DetectOptions(min_confidence=0.2))
    (found,) = whole.predict([DetectItem(picture())])
    assert names(found) == [(0, "cat", 0.4)]
    assert whole.detector.asked[-1][1] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("overlap", "kept"), [("agnostic", [0]), ("per_class", [0, 1]), ("none", [0, 1, 2])]
)
def test_overlap(overlap, kept):
    boxes = [[0, 0, 30, 30], [1, 0, 30, 30], [0, 0, 30, 29]]
    scores = {"find cat": [0.9, 0.1, 0.7], "find dog": [0.1, 0.8, 0.1]}
    detector = Planted(scores, boxes)
    _, found = run(detector, ["cat", "dog"], overlap=overlap)
    assert [d.region_index for d in found.detections] == kept
    _, few = run(detector, ["cat", "dog"], overlap=overlap, max_detections=1)
    assert len(few.detections) == 1


def test_boxes_are_in_the_frame_of_the_whole_image():
    image = UprightImage(picture(90, 60), 900, 300)
    _, found = run(Planted({"find cat": [0.1, 0.1, 0.9]}), ["cat"], image, min_confidence=0.5)
    (one,) = found.detections
    assert one.box_px == (500, 100, 800, 250)
    assert one.box_rel == pytest.approx((5 / 9, 1 / 3, 3 / 9, 0.5))


def test_boxes_that_are_none_are_left_out():
    nan = np.nan
    boxes = [[nan, 0, 1, 1], [5, 5, 1, 1], [200, 0, 300, 9], [-50, -50, 20, 20], [0, 0, 2, 2]]
    _, found = run(Planted({"find cat": [0.9] * 5}, boxes), ["cat"], min_size_px=3)
    assert [d.box_px for d in found.detections] == [(0, 0, 20, 20)]


def test_prompts_that_were_not_compared():
    scores = {"find cat": [0.9, np.nan, np.nan], "find dog": [np.nan, 0.5, np.nan]}
    _, found = run(Planted(scores), ["cat", "dog"])
    assert names(found) == [(0, "cat", 0.9), (1, "dog", 0.5)]
    assert [d.margin for d in found.detections] == [None, None]
    assert found.detections[0].runners_up == ()
    assert found.dropped == {"non_finite": 1}


def test_a_detector_that_tells_the_best_only():
    detector = Planted({"find cat": [0.9, 0.1, 0.3]}, has_prompt_scores=False)
    _, found = run(detector, ["cat", "dog"])
    assert names(found)[0] == (0, "cat", 0.9)
    assert found.detections[0].margin is None
    with pytest.raises(InvalidInputError, match="tells the best one only"):
        run(detector, ["cat"], min_margin=1.0)


@pytest.mark.parametrize(
    ("options", "match"),
    [({"min_cosine": 0.2}, "rule for embeddings"), ({"temperature": 2.0}, "logits of CLIP")],
)
def test_options_of_clip_are_refused(options, match):
    with pytest.raises(InvalidInputError, match=match):
        run(Planted({}), ["cat"], **options)


class Fixed(Planted):
    """Has a list of classes."""

    takes_text = False
    templates = ("{}",)

    def known(self):
        return ["cat", "dog"]

    def unknown(self, prompts):
        return [p for p in prompts if p not in self.known()]


def test_classes_it_does_not_have_are_refused():
    with pytest.raises(InvalidInputError, match=r"without 'star'.*It knows 2: cat, dog"):
        run(Fixed({}), ["cat", "star"])
    whole, found = run(Fixed({"cat": [0.9] * 3}), {"cat": ["cat", "kitty"]})
    assert len(found.detections) == 3
    assert any("'kitty'" in warning for warning in whole.warnings)


@pytest.mark.parametrize(
    "change",
    [
        {"scores": np.ones(2)},
        {"prompts": np.array([0, 1, 9])},
        {"prompt_scores": np.ones((3, 9))},
        {"objectness": np.ones(1)},
    ],
)
def test_arrays_that_do_not_fit_are_named(change):
    class Wrong(TextDetector):
        def find(self, images, prompts, **options):
            arrays = {"scores": np.ones(3), "prompts": np.zeros(3, int), **change}
            return [FoundBoxes(np.zeros((3, 4)), **arrays) for _ in images]

    with pytest.raises(InvalidInputError, match=r"detector 'detector' gave"):
        run(Wrong(), ["cat", "dog"])


# --- as proposer --------------------------------------------------------------------------------


def test_proposals_are_without_names_and_overlap():
    boxes = [[0, 0, 30, 30], [0, 0, 30, 29], [40, 0, 60, 30], [-9, 0, 2, 2]]
    scores = {"find cat": [0.5, 0.1, 0.2, 0.1], "find dog": [0.1, 0.7, 0.3, 0.1]}
    detector = Planted(scores, boxes)
    proposer = DetectorProposer(
        detector,
        Vocabulary.parse(["cat", "dog"], background=["wall"]),
        ProposalOptions(max_proposals=5, min_size_px=3),
    )
    image = UprightImage(picture(90, 60), 180, 120)
    (found,) = proposer.propose([image])
    assert detector.asked == [(["find cat", "find dog"], 0.0, 15, True)]
    assert found.boxes_px.tolist() == [[0, 0, 60, 58], [80, 0, 120, 60], [0, 0, 4, 4]]
    assert torch.allclose(found.objectness, torch.tensor([0.7, 0.3, 0.1]))
    assert proposer.identity()["prompts"] == ["find cat", "find dog"]
    with pytest.raises(InvalidInputError, match="cannot be stored"):
        _ = proposer.module


def test_a_detector_with_objectness_is_asked_for_no_class():
    detector = Planted({}, has_objectness=True)
    proposer = DetectorProposer(detector, Vocabulary.parse(["cat"]), ProposalOptions())
    other = DetectorProposer(detector, Vocabulary.parse(["dog"]), ProposalOptions())
    assert proposer.identity() == other.identity()
