"""FiftyOne models in the detector slot: of one's own, and of the kind that its zoo has."""

from __future__ import annotations

import fiftyone as fo
import fiftyone.core.models as fom
import numpy as np
import pytest
import torch
from PIL import Image

import zs_operators as zs
from tests.tiny_detectors import picture
from zs_operators import provenance
from zs_operators.detectors.fiftyone_model import of_model
from zs_operators.detectors.loading import plan_detector
from zs_operators.errors import InvalidInputError


class Corner(fom.Model):
    """Finds a box at a place that the size of the image decides, under several names."""

    def __init__(self, labels=("cat", "Dog"), classes=("cat", "dog", "fish"), output=None):
        self.labels, self.classes, self.output = labels, list(classes), output
        self.seen = []

    @property
    def media_type(self):
        return "image"

    def predict(self, image):
        self.seen.append(image.shape)
        if self.output is not None:
            return self.output
        return fo.Detections(
            detections=[
                fo.Detection(label=label, bounding_box=[0.1 + n / 4, 0.2, 0.2, 0.5], confidence=c)
                for n, (label, c) in enumerate(zip(self.labels, (0.9, 0.4, None), strict=False))
            ]
        )


@pytest.fixture
def pictures(dataset, tmp_path):
    for number, size in enumerate([(90, 60), (60, 90), (90, 60)]):
        path = tmp_path / f"{number}.png"
        Image.fromarray(picture(*size, seed=number)).save(path)
        dataset.add_sample(fo.Sample(filepath=str(path)))
    return dataset


def test_a_model_of_ones_own_is_the_whole_detector(pictures):
    model = Corner()
    report = zs.detect(pictures, ["cat", "dog"], detector=model, progress=False)
    assert report.counts == {"labeled": 3}
    for found in pictures.values("zs_detections"):
        assert [one.label for one in found.detections] == ["cat", "dog"]
        assert [one.confidence for one in found.detections] == pytest.approx([0.9, 0.4])
        assert found.detections[1].bounding_box == pytest.approx([0.35, 0.2, 0.2, 0.5])
    record = provenance.find(pictures, "detect", "zs_detections")
    assert record["model"]["name"] == "Corner"
    assert zs.detect(pictures, ["cat", "dog"], detector=model, progress=False).resumed == 3
    with pytest.raises(InvalidInputError, match="Corner object"):
        zs.rerun(zs.load_run(pictures, "zs_detect_zs_detections"), label_field="again")


def test_its_classes_are_asked_for_before_a_run(pictures):
    with pytest.raises(InvalidInputError, match=r"without 'star'.*cat, dog, fish"):
        zs.detect(pictures, ["cat", "star"], detector=Corner(), progress=False)
    report = zs.detect(
        pictures, {"cat": ["cat", "kitty"]}, detector=Corner(labels=("cat",)), progress=False
    )
    assert any("'kitty'" in warning for warning in report.warnings)


def test_names_that_nobody_asked_for_are_counted(pictures):
    model = Corner(labels=("cat", "wolf"))
    report = zs.detect(pictures, ["cat", "fish"], detector=model, progress=False)
    assert report.labels == {"cat": 3}
    assert any("3 × 'wolf'" in warning for warning in report.warnings)


def test_as_proposer_its_names_do_not_count(pictures):
    clip = zs.load_clip("shapes-tiny", precision="fp32")
    options = {"model": clip, "min_confidence": 0.0, "progress": False}
    report = zs.detect(pictures, ["red circle", "blue star"], proposals=Corner(), **options)
    assert report.counts == {"labeled": 3}
    objectness = pictures.values("zs_detections.detections.objectness")
    assert [sorted(one) for one in objectness] == [pytest.approx([0.4, 0.9])] * 3


@pytest.mark.parametrize(
    ("output", "match"),
    [
        (fo.Classification(label="cat"), "gives Classification"),
        (fo.Keypoints(), "gives Keypoints"),
    ],
)
def test_other_labels_are_refused_before_a_run(pictures, output, match):
    with pytest.raises(InvalidInputError, match=match):
        zs.detect(pictures, ["cat"], detector=Corner(output=output), progress=False)
    assert not pictures.list_runs()


@pytest.fixture(scope="module")
def torchvision_model():
    """What the zoo's torchvision detectors are, with local random weights."""
    from fiftyone.zoo.models.torch import TorchvisionImageModel, TorchvisionImageModelConfig

    torch.manual_seed(0)
    return TorchvisionImageModel(
        TorchvisionImageModelConfig(
            {
                "entrypoint_fcn": "torchvision.models.detection.ssdlite320_mobilenet_v3_large",
                "entrypoint_args": {"weights": None, "weights_backbone": None, "num_classes": 5},
                "output_processor_cls": "fiftyone.utils.torch.DetectorOutputProcessor",
                "model_path": "nothing is read from it",
                "labels_string": "background,cat,dog,fish,bird",
                "confidence_thresh": 0.9,
                "device": "cpu",
            }
        )
    )


def test_a_torchvision_model_of_the_zoo(pictures, torchvision_model):
    classes = ["cat", "dog", "fish", "bird"]
    detector = of_model(torchvision_model)
    assert len(detector.identity()["weights_sha256"]) == 64
    images = [picture(90, 60, 0), picture(60, 90, 1), picture(90, 60, 2)]
    found = detector.find(images, classes, limit=20)
    assert all(len(one) for one in found)
    for image, one in zip(images, found, strict=True):
        (alone,) = detector.find([image], classes, limit=20)
        assert np.abs(alone.boxes_px - one.boxes_px).max() < 1e-2
        # FiftyOne takes the size of the first image for all of a batch
        assert one.boxes_px[:, 2].max() <= image.shape[1] + 1e-3
        assert one.boxes_px[:, 3].max() <= image.shape[0] + 1e-3
    options = {"min_confidence": 0.0, "max_regions": 20, "overlap": "none", "progress": False}
    zs.detect(pictures, classes, detector=torchvision_model, **options)
    for one, label in zip(found, pictures.values("zs_detections"), strict=True):
        assert len(label.detections) == len(one)
        assert label.detections[0].confidence == pytest.approx(float(one.scores[0]), abs=1e-5)
    assert torchvision_model.config.confidence_thresh == 0.9


def test_what_the_zoo_says_of_its_models():
    world = plan_detector("yolov8s-world-torch")
    assert world.takes_text
    assert world.licence == "AGPL-3.0"
    assert world.state == "download"
    assert not plan_detector("faster-rcnn-resnet50-fpn-coco-torch").takes_text
    assert not plan_detector("yoloe26n-seg-pf-torch").takes_text
    with pytest.raises(zs.ZeroShotError):
        plan_detector("clip-vit-base32-torch")


def test_a_zoo_model_of_open_texts_is_loaded_for_the_classes(pictures, monkeypatch):
    """Through the zoo's own loader: with ``classes``, and once a run."""
    loaded = []

    def load_zoo_model(name, classes=None, device=None, **options):
        loaded.append((name, classes, device))
        return Corner(labels=classes[:2], classes=classes)

    monkeypatch.setattr("fiftyone.zoo.load_zoo_model", load_zoo_model)
    options = {"detector": "yolov8s-world-torch", "device": "cpu", "progress": False}
    report = zs.detect(pictures, {"feline": ["cat", "tiger"], "dog": None}, **options)
    assert loaded == [("yolov8s-world-torch", ["cat", "tiger", "dog"], "cpu")]
    assert report.labels == {"feline": 6}
