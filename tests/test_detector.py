"""Detection without FiftyOne: planted signals, fusion, suppression, batches, bad boxes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from zs_operators.clip import load_clip
from zs_operators.detect_options import DetectOptions
from zs_operators.detections import DetectItem, Regions
from zs_operators.detector import ZeroShotDetector
from zs_operators.errors import InvalidInputError, MissingMediaError, ZeroShotError
from zs_operators.images import UprightImage
from zs_operators.proposals import Proposals, load_proposer
from zs_operators.regions import RegionEncoder
from zs_operators.shapes.proposal_model import CONFIG, build_shapes_proposer
from zs_operators.vocabulary import Vocabulary

COLOURS = ("red", "green", "blue")


class ColourModel:
    """A hand-made CLIP: an image's embedding is its mean colour, a class vector a pure colour."""

    name = architecture = "mean-colour"
    device, precision, dim = "cpu", "fp32", 3
    image_size_px, reduce_to_px = 16, 16
    logit_scale, logit_bias = 100.0, None
    preprocessing = {"size_px": [16, 16], "mean": [0, 0, 0], "std": [1, 1, 1]}  # noqa: RUF012

    class module:
        visual = None

    def encode_images(self, batch):
        assert batch.dtype == torch.uint8
        return F.normalize(batch.float().mean(dim=(2, 3)) - 99.5, dim=1)

    def text_budget(self):
        return None

    def class_vectors(self, vocabulary, budget=None):
        pure = {"red": [1, 0, 0], "green": [0, 1, 0], "blue": [0, 0, 1], "grey": [-1, -1, -1]}
        return F.normalize(
            torch.tensor([pure[name] for name in vocabulary.columns], dtype=torch.float32), dim=1
        )


class Planted:
    """A proposer that gives the boxes it was told."""

    reduce_to_px = 16

    def __init__(self, boxes, objectness=None):
        self.boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        self.objectness = torch.ones(len(self.boxes)) if objectness is None else objectness

    def budget(self):
        return None

    def propose(self, images, budget=None):
        return [Proposals(self.boxes, torch.as_tensor(self.objectness)) for _ in images]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


#: fractional boxes in a 200 x 120 image, one a colour
BOXES = [[10.3, 10.6, 50.2, 60.9], [80.5, 20.1, 130.7, 70.4], [140.2, 60.8, 190.9, 110.3]]


def painted(width=200, height=120):
    """Grey with a rectangle of each colour, a little larger than its box's context."""
    pixels = np.full((height, width, 3), 100, dtype=np.uint8)
    for channel, (x1, y1, x2, y2) in enumerate(BOXES):
        pixels[int(y1) : math.ceil(y2), int(x1) : math.ceil(x2)] = 100
        pixels[int(y1) : math.ceil(y2), int(x1) : math.ceil(x2), channel] = 250
    return UprightImage(pixels, width, height)


def colour_detector(boxes=BOXES, objectness=None, *, vocabulary=None, contexts=None, **options):
    clip = ColourModel()
    encoder = RegionEncoder(clip, "crops", **({"contexts": contexts} if contexts else {}))
    return ZeroShotDetector(
        clip,
        vocabulary or Vocabulary.parse(COLOURS),
        DetectOptions(**options),
        proposer=None if boxes is None else Planted(boxes, objectness),
        encoder=encoder,
    )


def labels_of(prediction):
    return {d.region_index: d.label for d in prediction.detections}


# ---- planted signals ----


@pytest.mark.parametrize("contexts", [(1,), (1, 1.5)])
def test_rectangles_get_their_colours(contexts):
    prediction = colour_detector(contexts=contexts).predict([DetectItem(painted())])[0]
    assert labels_of(prediction) == dict(enumerate(COLOURS))
    for detection in prediction.detections:
        assert detection.confidence == pytest.approx(1, abs=1e-3)
        assert detection.cosine > 0.99
        assert detection.margin > 50
        assert detection.box_px == pytest.approx(BOXES[detection.region_index], abs=1e-4)
        x, y, w, h = detection.box_rel
        assert [x * 200, y * 120, (x + w) * 200, (y + h) * 120] == pytest.approx(
            BOXES[detection.region_index], abs=1e-4
        )


def test_existing_boxes_get_labels_and_keep_their_order_and_number():
    relative = [
        [0, 0, 1, 1],
        *([x / 200, y / 120, (a - x) / 200, (b - y) / 120] for x, y, a, b in BOXES[::-1]),
    ]
    relative += relative[1:2] * 3  # the same box again: nothing is suppressed
    detector = colour_detector(boxes=None, max_detections=1, min_confidence=1.0)
    prediction = detector.predict([DetectItem(painted(), relative)])[0]
    assert [d.region_index for d in prediction.detections] == list(range(7))
    assert [d.label for d in prediction.detections][1:] == ["blue", "green", "red"] + ["blue"] * 3
    assert all(d.objectness is None for d in prediction.detections)
    assert all(d.confidence == d.probability for d in prediction.detections)


def test_existing_boxes_that_cannot_be_scored_are_named():
    nan = math.nan
    relative = [
        [nan, 0, 0.1, 0.1],
        [0.1, 0.1, 0.2, 0.4],
        [0.5, 0.5, -0.1, 0.2],
        [0.5, 0.5, 0, 0.2],
        [1.2, 0, 0.3, 0.3],
        [-0.2, -0.2, 0.4, 0.4],
        [0, 0, 2, 2],
    ]
    prediction = colour_detector(boxes=None).predict([DetectItem(painted(), relative)])[0]
    assert [d.region_index for d in prediction.detections] == [1, 5, 6]
    assert prediction.num_regions == 3
    assert prediction.refused == {
        0: "not finite",
        2: "inverted",
        3: "too small",
        4: "outside the image",
    }
    assert prediction.detections[-1].box_rel == pytest.approx((0, 0, 1, 1))


# ---- scores ----


def test_confidence_is_the_fusion_of_probability_and_objectness():
    objectness = torch.tensor([0.9, 0.5, 0.2])
    for weight in (0.0, 0.5, 1.0):
        prediction = colour_detector(objectness=objectness, objectness_weight=weight).predict(
            [DetectItem(painted())]
        )[0]
        assert len(prediction.detections) == 3
        for d in prediction.detections:
            o = float(objectness[d.region_index])
            assert d.objectness == pytest.approx(o)
            expected = d.probability ** (1 - weight) * o**weight
            assert d.confidence == pytest.approx(expected, rel=1e-5)
        confidences = [d.confidence for d in prediction.detections]
        assert confidences == sorted(confidences, reverse=True)


def test_runners_up_are_attributes_not_boxes():
    prediction = colour_detector(runners_up=2).predict([DetectItem(painted())])[0]
    for detection in prediction.detections:
        names = [detection.label, *(other.label for other in detection.runners_up)]
        assert sorted(names) == sorted(COLOURS)
        probabilities = [detection.probability, *(o.confidence for o in detection.runners_up)]
        assert probabilities == sorted(probabilities, reverse=True)
        assert detection.runners_up[0].margin < 0 < detection.margin
    assert all(
        not d.runners_up
        for d in colour_detector(runners_up=0).predict([DetectItem(painted())])[0].detections
    )


def test_order_of_classes_does_not_matter():
    forward = colour_detector().predict([DetectItem(painted())])[0]
    backward = colour_detector(vocabulary=Vocabulary.parse(COLOURS[::-1])).predict(
        [DetectItem(painted())]
    )[0]
    assert labels_of(forward) == labels_of(backward)
    for one, other in zip(forward.detections, backward.detections, strict=True):
        assert one.confidence == pytest.approx(other.confidence, abs=1e-6)


def test_background_takes_the_regions_it_fits_better():
    boxes = [*BOXES, [0, 62, 60, 118]]  # the last is grey
    vocabulary = Vocabulary.parse(COLOURS, background=["grey"])
    image = painted()
    image.pixels[65:118, 0:60] = 40
    prediction = colour_detector(boxes, vocabulary=vocabulary).predict([DetectItem(image)])[0]
    assert labels_of(prediction) == dict(enumerate(COLOURS))
    assert prediction.dropped == {"background": 1}
    existing = colour_detector(None, vocabulary=vocabulary).predict(
        [DetectItem(image, [[0, 0.55, 0.28, 0.4]])]
    )[0]
    assert existing.detections[0].rejected_by == "background"


def test_rules_count_what_they_drop():
    boxes = [*BOXES, BOXES[0], [11, 11, 49, 60]]
    objectness = torch.tensor([0.9, 0.8, 0.01, 0.7, 0.6])
    detector = colour_detector(boxes, objectness, min_confidence=0.2, max_detections=1)
    prediction = detector.predict([DetectItem(painted())])[0]
    assert prediction.num_regions == 4  # the third cannot reach 0.2 and is not embedded
    assert prediction.dropped == {"overlap": 2, "max_detections": 1}
    assert [d.region_index for d in prediction.detections] == [0]


def test_pruning_before_embedding_loses_no_detection():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(200, 2, generator=generator) * 80
    boxes = torch.cat([corners, corners + 5 + torch.rand(200, 2, generator=generator) * 30], 1)
    objectness = torch.rand(200, generator=generator).sort(descending=True).values
    for weight in (0.0, 0.3, 1.0):
        options = {"min_confidence": 0.5, "objectness_weight": weight, "overlap": "none"}
        detector = colour_detector(boxes, objectness, max_detections=None, **options)
        everything = colour_detector(
            boxes, objectness, max_detections=None, **{**options, "min_confidence": 0.0}
        )
        pruned = detector.predict([DetectItem(painted())])[0]
        whole = everything.predict([DetectItem(painted())])[0]
        kept = [d.region_index for d in whole.detections if d.confidence >= 0.5]
        assert [d.region_index for d in pruned.detections] == kept
        assert pruned.num_regions <= whole.num_regions == 200


@pytest.mark.parametrize(
    ("overlap", "metric", "left"),
    [
        ("none", "iou", 4),
        ("per_class", "iou", 3),
        ("agnostic", "iou", 2),
        ("agnostic", "ios", 1),
    ],
)
def test_overlap_and_metric(overlap, metric, left):
    # two equal boxes of one class, one of another class on top, and a part inside
    embeddings = F.normalize(
        torch.tensor([[1.0, 0.1, 0], [1, 0.2, 0], [0.2, 1, 0], [0.1, 0, 1]]), dim=1
    )
    boxes = torch.tensor([[0.0, 0, 100, 100], [0, 0, 100, 98], [0, 0, 98, 100], [10, 10, 30, 30]])
    regions = Regions(
        boxes, torch.arange(4), torch.tensor([0.9, 0.8, 0.7, 0.6]), embeddings, 100, 100
    )
    detector = colour_detector(overlap=overlap, overlap_metric=metric)
    assert len(detector.predict_regions(regions).detections) == left


def test_regions_can_be_scored_again_without_the_model():
    image = DetectItem(painted())
    detector = colour_detector()
    regions = detector.embed([image])[0]
    other = colour_detector(vocabulary=Vocabulary.parse(["green", "blue"]))
    assert other.predict_regions(regions) == other.predict([image])[0]


def test_embeddings_that_are_not_finite_are_left_out_or_fail_the_image():
    detector = colour_detector()
    regions = detector.embed([DetectItem(painted())])[0]
    regions.embeddings[1, 0] = math.nan
    prediction = detector.predict_regions(regions)
    assert labels_of(prediction) == {0: "red", 2: "blue"}
    assert prediction.dropped == {"non_finite": 1}
    regions.embeddings[:] = math.nan
    assert isinstance(detector.predict_regions(regions), ZeroShotError)


# ---- nothing and much ----


def test_an_image_without_proposals_has_an_empty_prediction():
    prediction = colour_detector(boxes=[]).predict([DetectItem(painted())])[0]
    assert prediction.detections == ()
    assert prediction.num_regions == 0
    assert (prediction.width_px, prediction.height_px) == (200, 120)
    none = colour_detector(boxes=None).predict([DetectItem(painted(), [])])[0]
    assert none.detections == ()


def test_2000_proposals_are_cut_to_max_regions():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(2000, 2, generator=generator) * 100
    boxes = torch.cat([corners, corners + 15], dim=1)
    objectness = torch.linspace(1, 0.5, 2000)
    every = colour_detector(
        boxes, objectness, max_regions=2000, overlap="none", max_detections=None
    )
    best = colour_detector(boxes, objectness, max_regions=50, overlap="none")
    assert len(every.predict([DetectItem(painted())])[0].detections) == 2000
    prediction = best.predict([DetectItem(painted())])[0]
    assert prediction.num_regions == 50
    assert max(d.region_index for d in prediction.detections) < 50


def test_boxes_are_needed_from_somewhere():
    with pytest.raises(InvalidInputError, match="no boxes to score"):
        colour_detector(boxes=None).predict([DetectItem(painted())])


def test_no_images():
    assert colour_detector().predict([]) == []


# ---- options ----


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_regions": 0},
        {"max_regions": True},
        {"objectness_weight": 1.5},
        {"objectness_weight": None},
        {"overlap": "all"},
        {"overlap_metric": "giou"},
        {"overlap_threshold": -0.1},
        {"min_confidence": math.nan},
        {"max_detections": 0},
        {"min_margin": -1},
        {"min_cosine": 2},
        {"min_size_px": -3},
        {"temperature": 0},
        {"runners_up": -1},
    ],
)
def test_options_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        DetectOptions(**wrong)


def test_defaults_are_the_documented_ones():
    assert DetectOptions() == DetectOptions(
        max_regions=300,
        objectness_weight=0.5,
        overlap="agnostic",
        overlap_metric="iou",
        overlap_threshold=0.5,
        min_confidence=0.05,
        max_detections=100,
    )


def test_options_that_do_not_fit_the_vocabulary_are_refused_at_once():
    with pytest.raises(InvalidInputError, match="min_margin"):
        colour_detector(vocabulary=Vocabulary.parse(["red"]), min_margin=1.0)


# ---- with real models ----


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The trained toy CLIP and an untrained proposer: everything real but where it looks."""
    folder = tmp_path_factory.mktemp("proposer")
    config = {**CONFIG, "min_size_px": 96, "max_size_px": 160}
    torch.manual_seed(0)
    module = build_shapes_proposer(config)
    module.rpn.head.cls_logits.weight.data *= 30  # scores that differ
    save_file(module.state_dict(), str(folder / "model.safetensors"))
    (folder / "config.json").write_text(json.dumps(config))
    proposer = load_proposer(folder, device="cpu", precision="fp32", max_proposals=20)
    return load_clip("shapes-tiny", device="cpu", precision="fp32"), proposer


def real_detector(real, **options):
    clip, proposer = real
    vocabulary = Vocabulary.parse(["red circle", "blue square", "green star"])
    return ZeroShotDetector(clip, vocabulary, DetectOptions(**options), proposer=proposer)


def scenes(count):
    from zs_operators.shapes.world import make_scene

    return [make_scene(40_000 + i).image for i in range(count)]


def test_batch_size_does_not_change_a_prediction(real):
    images = [*scenes(6), np.zeros((64, 64, 3), dtype=np.uint8)]
    items = [DetectItem(UprightImage(x, x.shape[1], x.shape[0])) for x in images]
    detector = real_detector(real, max_detections=5)
    alone = [detector.predict([item])[0] for item in items]
    for size in (4, 7):
        together = []
        for start in range(0, len(items), size):
            together += detector.predict(items[start : start + size])
        for one, other in zip(alone, together, strict=True):
            assert [d.region_index for d in one.detections] == [
                d.region_index for d in other.detections
            ]
            assert [d.label for d in one.detections] == [d.label for d in other.detections]
            for a, b in zip(one.detections, other.detections, strict=True):
                assert a.confidence == pytest.approx(b.confidence, abs=1e-4)
                assert a.box_px == pytest.approx(b.box_px, abs=1e-2)


def test_ground_truth_boxes_of_scenes_are_named_right(real):
    """Recognition apart from localisation, on classes the toy model was trained on."""
    from zs_operators.shapes.world import CLASSES, SEEN, make_scene

    clip, _ = real
    drawn = [make_scene(60_000 + i, classes=SEEN) for i in range(12)]
    detector = ZeroShotDetector(clip, Vocabulary.parse(list(CLASSES)))
    items = [
        DetectItem(
            UprightImage(scene.image, scene.image.shape[1], scene.image.shape[0]),
            [
                [
                    o.box_px[0] / scene.image.shape[1],
                    o.box_px[1] / scene.image.shape[0],
                    (o.box_px[2] - o.box_px[0]) / scene.image.shape[1],
                    (o.box_px[3] - o.box_px[1]) / scene.image.shape[0],
                ]
                for o in scene.objects
            ],
        )
        for scene in drawn
    ]
    truth = [[o.label for o in scene.objects] for scene in drawn]
    found = [[d.label for d in prediction.detections] for prediction in detector.predict(items)]
    pairs = [(a, b) for x, y in zip(truth, found, strict=True) for a, b in zip(x, y, strict=True)]
    assert sum(a == b for a, b in pairs) / len(pairs) >= 0.9


def test_the_bundled_family_finds_and_names_objects_it_never_saw_labelled(real):
    """End to end on fresh scenes: 64 prompts, boxes from the bundled proposer."""
    from torchvision.ops import box_iou

    from zs_operators.shapes.world import CLASSES, make_scene

    proposer = load_proposer("shapes-tiny", device="cpu")
    assert proposer.plan.state == "bundled"
    assert proposer.precision == "fp32"
    detector = ZeroShotDetector(real[0], Vocabulary.parse(list(CLASSES)), proposer=proposer)
    drawn = [make_scene(78_000_000 + i) for i in range(12)]
    items = [DetectItem(UprightImage(x.image, x.image.shape[1], x.image.shape[0])) for x in drawn]
    found = total = 0
    for scene, prediction in zip(drawn, detector.predict(items), strict=True):
        boxes = torch.tensor([d.box_px for d in prediction.detections])
        truth = torch.tensor([o.box_px for o in scene.objects], dtype=torch.float32)
        best = box_iou(truth, boxes).argmax(dim=1).tolist()
        overlaps = box_iou(truth, boxes).amax(dim=1)
        total += len(scene.objects)
        for thing, row, overlap in zip(scene.objects, best, overlaps, strict=True):
            found += bool(overlap >= 0.5) and prediction.detections[row].label == thing.label
    assert found / total >= 0.85


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (6000, 8000)])
def test_images_of_any_shape(real, size):
    pixels = np.broadcast_to(np.uint8(90), (*size, 3))
    item = DetectItem(UprightImage(pixels, size[1], size[0]))
    prediction = real_detector(real, max_regions=8).predict([item])[0]
    for detection in prediction.detections:
        assert 0 <= detection.confidence <= 1
        x, y, w, h = detection.box_rel
        assert x >= 0
        assert y >= 0
        assert w > 0
        assert h > 0
        assert x + w <= 1 + 1e-6
        assert y + h <= 1 + 1e-6


def test_load_reads_upright_and_reports_what_it_cannot_read(real, tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter: 40 x 20 in the file, 20 x 40 upright
    Image.fromarray(np.zeros((20, 40, 3), dtype=np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    detector = real_detector(real)
    item = detector.load(str(tmp_path / "a.jpg"), boxes_rel=[[0, 0, 0.5, 1]])
    assert (item.image.width_px, item.image.height_px) == (20, 40)
    assert detector.predict([item])[0].detections[0].box_px == pytest.approx((0, 0, 10, 40))
    with pytest.raises(MissingMediaError):
        detector.load(str(tmp_path / "none.jpg"))
