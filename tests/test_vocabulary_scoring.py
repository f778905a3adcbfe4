"""Merge policies, roll-up and thresholds of single classes: from vocabulary to labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from zs_operators import scoring
from zs_operators.boxes import xyxy_px_to_xywh_rel
from zs_operators.classification import prompt_record
from zs_operators.classifier import ClassifyOptions, ZeroShotClassifier
from zs_operators.detect_options import DetectOptions
from zs_operators.detections import DetectItem
from zs_operators.detector import ZeroShotDetector
from zs_operators.errors import InvalidInputError, VocabularyError
from zs_operators.images import UprightImage
from zs_operators.proposals import Proposals
from zs_operators.regions import RegionEncoder
from zs_operators.scoring import class_vectors
from zs_operators.vocabulary import PromptRow, Vocabulary


class Words:
    """A hand-made CLIP whose texts are vectors of three numbers, and whose images are them too."""

    name = architecture = "words"
    device, precision, dim = "cpu", "fp32", 3
    image_size_px, reduce_to_px = 16, 16
    logit_scale, logit_bias = 10.0, None
    is_sigmoid = False
    preprocessing = {"size_px": [16, 16], "mean": [0, 0, 0], "std": [1, 1, 1]}  # noqa: RUF012

    class module:
        visual = None

    texts = {  # noqa: RUF012
        "red": [1, 0, 0],
        "pink": [1, 0.5, 0.5],
        "green": [0, 1, 0],
        "blue": [0, 0, 1],
        "something green": [0, 1, 0.2],
        "grey": [-1, -1, -1],
    }

    def text_budget(self):
        return None

    def class_vectors(self, vocabulary, budget=None):
        embeddings = [self.texts[prompt.text] for prompt in vocabulary.prompts()]
        vectors = vocabulary.prompt_vectors()
        return class_vectors(
            torch.tensor(embeddings, dtype=torch.float32),
            vectors,
            vectors[-1] + 1,
            vocabulary.prompt_weights(),
        )

    def encode_images(self, batch):
        return F.normalize(batch.float().mean(dim=(2, 3)) - 99.5, dim=1)


COLOURS = {"warm": {"red": None, "pink": None}, "cold": {"blue": None, "green": None}}


def classifier(vocabulary, **options):
    return ZeroShotClassifier(Words(), vocabulary, ClassifyOptions(**options))


def one(classifier, vector):
    embedding = F.normalize(torch.tensor([vector], dtype=torch.float32), dim=1)
    (prediction,) = classifier.predict_embeddings(embedding)
    return prediction


# --- merge ---------------------------------------------------------------------------------------


def test_mean_is_one_vector_a_class_and_max_takes_the_nearest_name():
    spec = {"a": ["red", "blue"], "b": ["pink"]}
    mean = Vocabulary.parse(spec, templates="none", background=["grey"])
    most = Vocabulary.parse(mean, merge="max")
    assert mean.prompt_vectors() == mean.prompt_columns() == (0, 0, 1, 2)
    assert (mean.vector_columns(), most.vector_columns()) == (None, (0, 0, 1, 2))
    assert most.prompt_vectors() == (0, 1, 2, 3)
    assert most.prompt_columns() == (0, 0, 1, 2)

    blue = [0, 0.1, 1]
    cosine = F.cosine_similarity(torch.tensor([blue]), torch.tensor([[0.0, 0, 1]])).item()
    assert one(classifier(most), blue).best.cosine == pytest.approx(cosine, abs=1e-6)
    assert one(classifier(mean), blue).best.cosine == pytest.approx(cosine * 0.5**0.5, abs=0.01)
    # a red image is nearer to "red" than to "pink", but the mean of red and blue is far from both
    assert one(classifier(most), [1, 0, 0]).best.label == "a"
    assert one(classifier(mean), [1, 0, 0]).best.label == "b"


def test_a_description_weighs_what_a_name_in_all_templates_weighs():
    rows = [PromptRow("car", "car"), PromptRow("it has wheels", "car", "description")]
    rows += [PromptRow("dog", "dog")]
    vocabulary = Vocabulary.parse(rows, templates=["a {}", "b {}", "c {}", "d {}"])
    assert vocabulary.prompt_weights() == (0.25, 0.25, 0.25, 0.25, 1, *[0.25] * 4)
    prompts = F.normalize(torch.randn(9, 5, generator=torch.manual_seed(0)), dim=1)

    vectors = class_vectors(prompts, vocabulary.prompt_vectors(), 2, vocabulary.prompt_weights())

    expected = F.normalize(prompts[:4].mean(0) + prompts[4], dim=0)
    torch.testing.assert_close(vectors[0], expected)
    torch.testing.assert_close(vectors[1], F.normalize(prompts[5:].mean(0), dim=0))
    assert Vocabulary.parse(vocabulary, templates=["{}"]).prompt_weights() is None
    assert Vocabulary.parse(vocabulary, merge="max").prompt_weights() is None
    assert Vocabulary.parse(["car", "dog"]).prompt_weights() is None


def test_max_over_vectors_is_what_numpy_says():
    rng = np.random.default_rng(0)
    images, vectors = (
        F.normalize(torch.from_numpy(rng.normal(size=size).astype(np.float32)), dim=1)
        for size in ((7, 6), (5, 6))
    )
    columns = (0, 2, 1, 2, 0)

    scores = scoring.score(images, vectors, logit_scale=20.0, columns=columns)

    cosines = (images @ vectors.T).numpy()
    expected = np.stack([cosines[:, np.array(columns) == k].max(axis=1) for k in range(3)], axis=1)
    np.testing.assert_array_equal(scores.cosines, expected)
    np.testing.assert_array_equal(scores.logits, expected * np.float32(20))
    np.testing.assert_allclose(scores.probabilities.sum(axis=1), 1, atol=1e-6)
    with pytest.raises(InvalidInputError, match="2 columns were given for 5 vectors"):
        scoring.score(images, vectors, logit_scale=20.0, columns=(0, 1))


# --- roll-up -------------------------------------------------------------------------------------


def test_roll_up_writes_parents_that_score_as_their_best_class():
    plain = Vocabulary.parse(COLOURS, templates="none")
    rolled = Vocabulary.parse(COLOURS, templates="none", roll_up="parent")
    assert plain.classes == rolled.classes == ("red", "pink", "blue", "green")
    assert plain.labels == plain.classes
    assert rolled.labels == rolled.columns == ("warm", "cold")
    assert [prompt.label for prompt in rolled.prompts()] == list(rolled.classes)

    leaf = one(classifier(plain, store_logits=True), [0.9, 0.3, 0.3])
    parent = one(classifier(rolled, store_logits=True), [0.9, 0.3, 0.3])
    assert (leaf.best.label, parent.best.label) == ("pink", "warm")
    assert parent.best.cosine == leaf.best.cosine
    assert parent.logits == [max(leaf.logits[:2]), max(leaf.logits[2:])]
    # sisters do not compete any more
    assert parent.best.margin > leaf.best.margin
    assert parent.best.confidence > leaf.best.confidence


def test_levels_to_roll_up_to():
    tree = {"a": {"b": {"c": None, "d": None}, "e": None}, "f": None}
    labels = {
        None: ("c", "d", "e", "f"),
        "parent": ("b", "a", "f"),
        "top": ("a", "f"),
        ("b",): ("b", "e", "f"),
        ("a", "d"): ("a", "d", "f"),
    }
    for roll_up, expected in labels.items():
        assert Vocabulary.parse(tree, roll_up=roll_up).labels == expected
    with pytest.raises(VocabularyError, match=r"roll_up names 'bb'.*did you mean 'b'"):
        Vocabulary.parse(tree, roll_up=["bb"])
    with pytest.raises(VocabularyError, match="roll_up='up' must be 'parent', 'top'"):
        Vocabulary.parse(tree, roll_up="up")


# --- thresholds ----------------------------------------------------------------------------------


def test_thresholds_of_a_class_go_before_its_parents_and_before_the_options():
    vocabulary = Vocabulary.parse(
        COLOURS, thresholds={"warm": 0.3, "pink": 0.6, "blue": {"min_cosine": 0.2}}
    )
    assert vocabulary.limits("min_confidence", 0.1) == [0.3, 0.6, 0.1, 0.1]
    assert vocabulary.limits("min_confidence") == [0.3, 0.6, -np.inf, -np.inf]
    assert vocabulary.limits("min_cosine", None) == [-np.inf, -np.inf, 0.2, -np.inf]
    assert vocabulary.limits("min_margin", 2.0) == 2.0
    assert Vocabulary.parse(["a", "b"]).limits("min_confidence", 0.5) == 0.5
    rolled = Vocabulary.parse(vocabulary, roll_up="parent")
    assert rolled.limits("min_confidence", 0.1) == [0.3, 0.1]
    assert "without effect" in rolled.warnings[0]
    assert "'pink', 'blue'" in rolled.warnings[0]


def test_classes_are_rejected_by_their_own_thresholds():
    limits = {"red": {"min_cosine": 0.99}, "green": 0.999, "blue": {"min_margin": 9.5}}
    vocabulary = Vocabulary.parse(["red", "green", "blue"], templates="none", thresholds=limits)
    found = classifier(vocabulary, min_confidence=0.0)
    loose = classifier(Vocabulary.parse(["red", "green", "blue"], templates="none"))
    for vector, rule in (
        ([1, 0.3, 0], "cosine"),
        ([0.3, 1, 0], "confidence"),
        ([0.3, 0, 1], "margin"),
        ([1, 0, 0], None),
        ([0, 0.02, 1], None),
    ):
        assert one(found, vector).rejected_by == rule
        assert one(loose, vector).rejected_by is None
        assert one(found, vector).best == one(loose, vector).best
    with pytest.raises(InvalidInputError, match="min_margin"):
        classifier(Vocabulary.parse(vocabulary, background=["grey"]), multi_label=True)


BOXES = [[10.0, 10.0, 50.0, 60.0], [80.0, 20.0, 130.0, 70.0], [140.0, 60.0, 190.0, 110.0]]


class Planted:
    reduce_to_px = 16

    def budget(self):
        return None

    def propose(self, images, budget=None):
        return [Proposals(torch.tensor(BOXES), torch.tensor([0.9, 0.8, 0.5])) for _ in images]


def detector(vocabulary, **options):
    clip = Words()
    encoder = RegionEncoder(clip, "crops", contexts=(1,))
    parsed = DetectOptions(**options)
    return ZeroShotDetector(clip, vocabulary, parsed, proposer=Planted(), encoder=encoder)


def painted():
    pixels = np.full((120, 200, 3), 100, dtype=np.uint8)
    for channel, box in enumerate(BOXES):
        x1, y1, x2, y2 = map(int, box)
        pixels[y1:y2, x1:x2, channel] = 250
    return UprightImage(pixels, 200, 120)


def test_detections_obey_the_thresholds_of_their_class_after_fusion():
    names = ["red", "green", "blue"]

    def found(limits=None, **options):
        vocabulary = Vocabulary.parse(names, templates="none", thresholds=limits)
        (prediction,) = detector(vocabulary, **options).predict([DetectItem(painted())])
        return {d.label: d for d in prediction.detections}, prediction

    every, _ = found()
    assert list(every) == names
    limit = every["green"].confidence
    assert list(found({"green": limit - 0.01})[0]) == names
    stricter, prediction = found({"green": limit + 0.01})
    assert list(stricter) == ["red", "blue"]
    assert prediction.dropped == {"confidence": 1}
    # a class may also be let through where the others are not
    assert list(found({"blue": 0.1}, min_confidence=0.8)[0]) == ["red", "green", "blue"]
    assert list(found({}, min_confidence=0.8)[0]) == ["red", "green"]
    assert list(found({"red": {"min_cosine": 1}, "green": {"min_margin": 50}})[0]) == ["blue"]


def test_existing_boxes_are_marked_by_the_thresholds_of_their_class():
    vocabulary = Vocabulary.parse(
        ["red", "green", "blue"], templates="none", thresholds={"red": 1.0}
    )
    boxes = xyxy_px_to_xywh_rel(torch.tensor(BOXES), 200, 120)
    (prediction,) = detector(vocabulary, min_confidence=0.99999).predict(
        [DetectItem(painted(), boxes.tolist())]
    )
    assert [d.rejected_by for d in prediction.detections] == ["confidence", None, None]


def test_detections_are_rolled_up_and_merged():
    vocabulary = Vocabulary.parse(
        {"warm": {"red": None}, "cold": {"green": ["green", "blue"]}},
        templates="none",
        merge="max",
        roll_up="parent",
    )
    (prediction,) = detector(vocabulary).predict([DetectItem(painted())])
    assert [d.label for d in prediction.detections] == ["warm", "cold", "cold"]
    assert all(d.cosine == pytest.approx(1, abs=1e-3) for d in prediction.detections)


# --- signatures ----------------------------------------------------------------------------------


def test_plain_vocabularies_keep_their_records():
    vocabulary = Vocabulary.parse({"car": ["car", "sedan"], "dog": None}, background=["grey"])
    assert set(vocabulary.to_dict()) == {"classes", "templates", "background", "warnings"}
    assert vocabulary.to_dict()["classes"][0] == {"label": "car", "names": ["car", "sedan"]}
    assert vocabulary.scoring_settings() == {}
    decisive, _ = prompt_record(vocabulary)
    # as before any of this existed
    assert decisive == {"prompts_digest": "1b9b2bd0645e", "columns": ["car", "dog", "grey"]}


@pytest.mark.parametrize(
    "change",
    [
        {"merge": "max"},
        {"thresholds": {"red": 0.5}},
        {"thresholds": {"warm": {"min_cosine": 0.1}}},
        {"roll_up": "parent"},
        {"descriptions": {"red": "like blood"}},
        {"concept": "a colour"},
    ],
)
def test_whatever_changes_labels_changes_the_record(change):
    plain, _ = prompt_record(Vocabulary.parse(COLOURS))
    changed, _ = prompt_record(Vocabulary.parse(COLOURS, **change))
    assert changed != plain


def test_a_hierarchy_alone_changes_no_record():
    flat = ["red", "pink", "blue", "green"]
    assert prompt_record(Vocabulary.parse(COLOURS))[0] == prompt_record(Vocabulary.parse(flat))[0]


def test_concept_ends_every_template_but_no_description():
    vocabulary = Vocabulary.parse(
        ["ramen", "pho"],
        templates=["a photo of {}.", "{}"],
        descriptions={"pho": "clear soup."},
        concept="a type of food",
    )
    assert [prompt.text for prompt in vocabulary.prompts()] == [
        "a photo of ramen, a type of food.",
        "ramen, a type of food",
        "a photo of pho, a type of food.",
        "pho, a type of food",
        "clear soup.",
    ]
    assert vocabulary.num_prompts == 5
