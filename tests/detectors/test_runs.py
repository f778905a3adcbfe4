"""zs.detect with detectors of other makes: labels, records, outcomes, resumption, evaluation."""

from __future__ import annotations

import json
import shutil

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

import zs_operators as zs
from tests.run_labels import memory_for
from tests.tiny_detectors import picture
from zs_operators import provenance
from zs_operators.detectors.hugging_face import load_hugging_face
from zs_operators.detectors.text_detector import FoundBoxes, TextDetector
from zs_operators.errors import FieldError, InvalidInputError, OfflineError, WeightsError

NUM_SCENES = 4

NAMES = ["red circle", "blue star", "green square"]


def first_inside(found, pixels):
    """OWLv2 finds boxes in its padding, too."""
    inside = (found.boxes_px[:, :2] < pixels.shape[1::-1]).all(1) & (found.boxes_px[:, 2:] > 0).all(
        1
    )
    return int(np.flatnonzero(inside)[0])


def test_whole_detector_from_a_folder(scenes, owl_folder):
    options = {"label_field": "owl", "min_confidence": 0.3, "progress": False}
    report = zs.detect(scenes, NAMES, detector=owl_folder, **options)

    assert report.counts == {"labeled": 4}
    detector = load_hugging_face(owl_folder)
    prompts = [f"a photo of a {name}" for name in NAMES]
    for sample in scenes:
        pixels = np.asarray(Image.open(sample.filepath).convert("RGB"))
        (found,) = detector.find([pixels], prompts, floor=0.3)
        labels = sample.owl.detections
        best = first_inside(found, pixels)
        assert labels[0].label == NAMES[found.prompts[best]]
        assert labels[0].confidence == pytest.approx(float(found.scores[best]), abs=1e-5)
        for label in labels:
            x, y, width, height = label.bounding_box
            assert 0 <= x < x + width <= 1 + 1e-6
            assert 0 <= y < y + height <= 1 + 1e-6
            assert label.confidence >= 0.3
            assert 0 <= label.objectness <= 1
            assert label.margin >= 0
            assert "cosine" not in label.to_dict()
            assert {label.label, *label.runners_up} == set(NAMES)

    record = provenance.find(scenes, "detect", "owl")
    assert record["model"]["name"] == "tiny-owlv2"
    assert record["model"]["architecture"] == "owlv2"
    assert len(record["model"]["weights_sha256"]) == 64
    assert record["prompts"][0] == ["a photo of a red circle", "red circle"]
    assert record["parameters"]["detector"] == str(owl_folder)
    assert "transformers" in record["model_details"]["versions"]
    assert json.loads(json.dumps(record["model"]))

    again = zs.detect(scenes, NAMES, detector=owl_folder, **options)
    assert again.resumed == 4
    results = scenes.evaluate_detections("owl", gt_field="objects", eval_key="e", progress=False)
    assert results.metrics()["support"] > 0
    assert zs.evaluate(scenes, "owl", "objects", eval_key="ours", progress=False).metrics


def test_a_run_goes_on_where_it_stopped(scenes, owl_folder):
    options = {"detector": str(owl_folder), "label_field": "owl", "min_confidence": 0.3}
    zs.detect(scenes.limit(2), NAMES, progress=False, **options)
    report = zs.detect(scenes, NAMES, progress=False, **options)
    assert (report.resumed, report.counts) == (2, {"labeled": 2})
    with pytest.raises(FieldError, match="overwrite"):
        zs.detect(scenes, NAMES[:2], progress=False, **options)


def test_rerun_takes_the_same_weights(scenes, owl_folder, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(owl_folder, folder)
    zs.detect(scenes, NAMES, detector=folder, min_confidence=0.3, progress=False)
    before = scenes.values("zs_detections.detections.confidence")
    run = zs.load_run(scenes, "zs_detect_zs_detections")
    zs.rerun(run, label_field="again", progress=False)
    assert scenes.values("again.detections.confidence") == before

    state = load_file(folder / "model.safetensors")
    save_file(
        {name: tensor + 0.01 for name, tensor in state.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(WeightsError, match="other weights now"):
        zs.rerun(run, label_field="more", progress=False)
    with pytest.raises(FieldError, match="overwrite"):
        zs.detect(scenes, NAMES, detector=folder, min_confidence=0.3, progress=False)


@pytest.mark.parametrize("kind", ["owl_folder", "dino_folder"])
def test_as_proposer(request, scenes, clip, kind):
    folder = request.getfixturevalue(kind)
    options = {"model": clip, "min_confidence": 0.0, "overlap": "none", "progress": False}
    report = zs.detect(scenes, NAMES, proposals=str(folder), max_regions=7, **options)
    assert report.counts == {"labeled": 4}
    detector = load_hugging_face(folder)
    pixels = np.asarray(Image.open(scenes.first().filepath).convert("RGB"))
    prompts = [template.format(name) for name in NAMES for template in detector.templates]
    (found,) = detector.find([pixels], prompts, agnostic=True, limit=21)
    labels = scenes.first().zs_detections.detections
    assert 0 < len(labels) <= 7
    assert max(one.objectness for one in labels) == pytest.approx(float(found.scores[0]), abs=1e-5)
    assert all(one.cosine is not None for one in labels)
    record = provenance.find(scenes, "detect", "zs_detections")
    assert record["proposer"]["weights_sha256"] == detector.identity()["weights_sha256"]
    assert record["model"]["name"] == "shapes-tiny"
    assert zs.rerun(
        zs.load_run(scenes, "zs_detect_zs_detections"),
        model=clip,
        label_field="again",
        progress=False,
    ).counts == {"labeled": 4}


def test_proposals_of_owlv2_are_stored_and_named_again(scenes, owl_folder, clip):
    options = {"model": clip, "proposals": str(owl_folder), "min_confidence": 0.0}
    options |= {"embeddings": "reuse", "progress": False}
    zs.detect(scenes, NAMES, label_field="one", **options)
    report = zs.detect(scenes, NAMES[:2], label_field="two", **options)
    assert report.reused == 4


def test_one_bad_image_costs_one_label(scenes, owl_folder, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    scenes.add_sample(fo.Sample(filepath=str(broken)))
    report = zs.detect(scenes, NAMES, detector=owl_folder, progress=False)
    assert report.counts == {"labeled": 4, "unreadable_media": 1}
    assert scenes.last().zs_detections_error.startswith("unreadable_media")


def test_memory_that_runs_out_costs_time_only(scenes, owl_folder):
    detector = load_hugging_face(owl_folder)
    detector.batch_size = 4  # as on a GPU
    options = {"detector": detector, "min_confidence": 0.3, "batch_size": 4, "progress": False}
    zs.detect(scenes, NAMES, label_field="plenty", **options)
    with _images_for(detector.module, 1) as sizes:
        report = zs.detect(scenes, NAMES, label_field="tight", **options)
    assert sizes == [4, 2, 1, 1, 1, 1]
    assert any("went on with 1 instead of 4 images to look for" in w for w in report.warnings)
    for path in ("detections.label", "detections.confidence"):
        for a, b in zip(
            scenes.values(f"plenty.{path}"), scenes.values(f"tight.{path}"), strict=True
        ):
            assert a == pytest.approx(b, abs=1e-5) if "conf" in path else a == b


def _images_for(module, most):
    """The image tower refuses more images than this."""
    return memory_for(module.owlv2.vision_model.embeddings.patch_embedding, most)


class Rectangle(TextDetector):
    """Finds what is bright red."""

    name = "bright-red"

    def find(self, images, prompts, **options):
        found = []
        for pixels in images:
            rows, columns = np.nonzero(pixels[..., 0] > 200)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            found.append(FoundBoxes(np.array([box]), np.array([0.9]), np.array([0])))
        return found


def test_boxes_lie_on_the_upright_image(dataset, tmp_path, owl_folder):
    """Stored in each of the eight ways that EXIF knows."""
    upright = Image.fromarray(picture(160, 100))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    for orientation in range(1, 9):
        stored = upright if orientation == 1 else upright.transpose(undo[orientation])
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.png"
        stored.save(path, exif=exif)
        dataset.add_sample(fo.Sample(filepath=str(path)))
    zs.detect(dataset, ["thing", "none"], detector=Rectangle(), progress=False)
    zs.detect(dataset, NAMES, detector=owl_folder, label_field="owl", progress=False)
    pixels = np.asarray(upright)
    prompts = [f"a photo of a {name}" for name in NAMES]
    (expected,) = load_hugging_face(owl_folder).find([pixels], prompts)
    score = float(expected.scores[first_inside(expected, pixels)])
    for sample in dataset:
        (found,) = sample.zs_detections.detections
        assert found.bounding_box == pytest.approx([20 / 160, 0.16, 60 / 160, 0.17], abs=1e-6)
        assert sample.owl.detections[0].confidence == pytest.approx(score, abs=1e-5)


class Failing(Rectangle):
    def find(self, images, prompts, **options):
        if any(image.mean() < 20 for image in images):
            raise RuntimeError("a kernel has failed")
        return super().find(images, prompts, **options)


def test_an_error_of_the_detector_is_an_outcome(dataset, tmp_path):
    for number, level in enumerate((250, 1, 250)):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (64, 48), (level, 0, 0)).save(path)
        dataset.add_sample(fo.Sample(filepath=str(path)))
    dataset.first()
    report = zs.detect(dataset, ["a", "b"], detector=Failing(), progress=False)
    assert report.counts == {"labeled": 2, "model_error": 1}
    assert "a kernel has failed" in dataset.values("zs_detections_error")[1]


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"regions": "objects"}, InvalidInputError, "give one of them"),
        ({"embeddings": "reuse"}, InvalidInputError, "detector as proposals="),
        ({"min_cosine": 0.2}, InvalidInputError, "rule for embeddings"),
        ({"head": "any"}, InvalidInputError, "does not go with detector"),
        ({"detector": "no-such-detector"}, zs.ZeroShotError, "there is no detector"),
        ({"detector": "yolov8s-world-torch"}, zs.ZeroShotError, "yolov8s-world-torch"),
        (
            {"detector": "faster-rcnn-resnet50-fpn-coco-torch"},
            OfflineError,
            "not downloaded",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(scenes, arguments, error, match):
    schema = set(scenes.get_field_schema(flat=True))
    with pytest.raises(error, match=match):
        zs.detect(scenes, NAMES, **{"detector": Rectangle(), "progress": False} | arguments)
    assert set(scenes.get_field_schema(flat=True)) == schema
    assert scenes.list_runs() == []
