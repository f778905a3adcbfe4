"""Zero-shot detectors of transformers give what transformers gives, in our frame and in parts."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny_detectors import picture
from zs_operators.detectors import hugging_face_files as files
from zs_operators.detectors.hugging_face import load_hugging_face
from zs_operators.detectors.loading import load_text_detector, plan_detector, weights_sha256
from zs_operators.detectors.text_detector import FoundBoxes
from zs_operators.errors import (
    InvalidInputError,
    MissingDependencyError,
    OfflineError,
    UnknownModelError,
    WeightsError,
)

PROMPTS = ["a photo of a cat", "a photo of a red circle", "a photo of a dog"]
NAMES = ["red circle", "cat", "blue star"]


@pytest.fixture(scope="module")
def owl(owl_folder):
    return load_hugging_face(owl_folder)


@pytest.fixture(scope="module")
def owlvit(owlvit_folder):
    return load_hugging_face(owlvit_folder)


@pytest.fixture(scope="module")
def sam3(sam3_folder):
    return load_hugging_face(sam3_folder)


@pytest.fixture(scope="module")
def dino(dino_folder):
    return load_hugging_face(dino_folder)


def by_transformers(folder, pixels, text, mask_separators=False, **options):
    """What a page of transformers' documentation would do: PIL image in, post-processed out."""
    import transformers
    from PIL import Image

    processor = transformers.AutoProcessor.from_pretrained(folder)
    model = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    inputs = processor(images=Image.fromarray(pixels), text=[text], return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    if mask_separators:
        ids = inputs["input_ids"][0]
        separators = torch.isin(ids, torch.tensor([101, 102, 1012])).nonzero().flatten()
        outputs.logits[..., separators] = -torch.inf
    sizes = [pixels.shape[:2]]
    return processor.post_process_grounded_object_detection(outputs, target_sizes=sizes, **options)[
        0
    ]


def matched(found, expected):
    """Where each box is among those expected, within 0.001 px and 0.00001; all are there once."""
    assert (np.diff(found.scores) <= 0).all()
    boxes, scores = expected["boxes"].numpy(), expected["scores"].numpy()
    apart = np.abs(found.boxes_px[:, None] - boxes).max(axis=2) / 1e-3
    apart = np.maximum(apart, np.abs(found.scores[:, None] - scores) / 1e-5)
    order = apart.argmin(axis=1)
    assert apart.min(axis=1).max() <= 1
    assert sorted(order) == list(range(len(scores)))
    return order


@pytest.mark.parametrize("kind", ["owl", "owlvit"])
@pytest.mark.parametrize("size", [(90, 60), (60, 90), (200, 30)])
def test_owl_is_as_transformers_has_it(request, kind, size):
    detector = request.getfixturevalue(kind)
    folder = request.getfixturevalue(f"{kind}_folder")
    pixels = picture(*size)
    expected = by_transformers(folder, pixels, PROMPTS, threshold=0.0)
    (found,) = detector.find([pixels], PROMPTS, limit=1000)

    assert len(found) == 16
    order = matched(found, expected)
    assert found.prompts.tolist() == expected["labels"][order].tolist()
    assert np.ptp(found.scores) > 0.005
    assert len(np.unique(found.boxes_px.round(1), axis=0)) > 8


@pytest.mark.parametrize("size", [(90, 60), (60, 90)])
def test_grounding_dino_is_as_transformers_has_it(dino, dino_folder, size):
    pixels = picture(*size)
    (found,) = dino.find([pixels], NAMES, limit=1000)
    expected = by_transformers(dino_folder, pixels, NAMES, mask_separators=True, threshold=0.0)

    assert len(found) == 12
    order = matched(found, expected)
    assert np.ptp(found.scores) > 0.005
    assert len(np.unique(found.boxes_px.round(1), axis=0)) > 6
    # with the best box's score as threshold its text has the words of its best token only
    best = int(order[0])
    least = float(expected["scores"][best]) - 1e-6
    labels = by_transformers(
        dino_folder, pixels, NAMES, mask_separators=True, threshold=-1.0, text_threshold=least
    )["text_labels"]
    assert set(labels[best].split()) & set(NAMES[found.prompts[0]].split())


def test_sam3_is_as_transformers_has_it(sam3, sam3_folder):
    import transformers
    from PIL import Image

    pixels = picture()
    (found,) = sam3.find([pixels], NAMES, limit=1000)
    assert len(found) == 9 * len(NAMES)
    processor = transformers.Sam3Processor.from_pretrained(sam3_folder)
    model = transformers.Sam3Model.from_pretrained(sam3_folder).eval()
    for number, name in enumerate(NAMES):
        inputs = processor(images=Image.fromarray(pixels), text=name, return_tensors="pt")
        with torch.no_grad():
            outputs = model(**inputs)
        (expected,) = processor.post_process_instance_segmentation(
            outputs, threshold=0.0, target_sizes=[pixels.shape[:2]]
        )
        rows = found.prompts == number
        assert (~np.isnan(found.prompt_scores[rows])).sum() == 9
        matched(FoundBoxes(found.boxes_px[rows], found.scores[rows], found.prompts[rows]), expected)


@pytest.mark.parametrize("kind", ["owl", "dino", "sam3"])
def test_images_do_not_depend_on_their_batch(request, kind):
    detector = request.getfixturevalue(kind)
    images = [picture(90, 60, 0), picture(60, 90, 1), picture(90, 60, 2), picture(30, 200, 3)]
    together = detector.find(images, NAMES)
    for image, one in zip(images, together, strict=True):
        (alone,) = detector.find([image], NAMES)
        assert np.abs(one.boxes_px - alone.boxes_px).max() < 1e-2
        assert np.abs(one.scores - alone.scores).max() < 1e-5


def test_prompts_that_do_not_fit_at_once_take_several_passes(dino):
    names = ["red circle", "green circle", "blue circle", "red star", "green star", "blue star"]
    names += ["red square", "green square", "blue square", "cat", "dog"]
    passes = []
    with _counted(dino.module, passes):
        (found,) = dino.find([picture()], names, limit=1000)
    assert len(passes) == 2
    compared = ~np.isnan(found.prompt_scores)
    assert {tuple(np.flatnonzero(row)) for row in compared} == {tuple(range(7)), (7, 8, 9, 10)}
    for part in (slice(0, 7), slice(7, None)):
        rows = compared[:, part.start]
        (alone,) = dino.find([picture()], names[part], limit=1000)
        assert np.abs(found.scores[rows] - alone.scores).max() < 1e-6
        assert np.abs(found.boxes_px[rows] - alone.boxes_px).max() < 1e-3
        assert (found.prompts[rows] == alone.prompts + part.start).all()


def _counted(module, passes):
    from contextlib import contextmanager

    @contextmanager
    def counting():
        handle = module.register_forward_hook(lambda *_: passes.append(1))
        try:
            yield
        finally:
            handle.remove()

    return counting()


def test_a_full_stop_in_a_name_is_no_end_of_it(dino):
    (with_stop,) = dino.find([picture()], ["red. circle", "Cat"])
    (without,) = dino.find([picture()], ["red circle", "cat"])
    assert np.array_equal(with_stop.prompt_scores, without.prompt_scores)


def test_a_prompt_too_long_is_said(dino, owl):
    long = " ".join(["cat"] * 30)
    with pytest.raises(InvalidInputError, match="reads 22 at most"):
        dino.find([picture()], ["dog", long])
    assert owl.too_long(["a photo of a dog", long]) == [long]
    cut = " ".join(["cat"] * 14)
    (found,) = owl.find([picture()], [long])
    (expected,) = owl.find([picture()], [cut])
    assert np.array_equal(found.scores, expected.scores)


def test_floor_and_limit(owl):
    (all_of_them,) = owl.find([picture()], PROMPTS, limit=1000)
    (few,) = owl.find([picture()], PROMPTS, limit=3)
    assert np.array_equal(few.boxes_px, all_of_them.boxes_px[:3])
    floor = float(all_of_them.scores[5])
    (good,) = owl.find([picture()], PROMPTS, floor=floor, limit=1000)
    assert len(good) == 6


def test_objectness_of_owlv2_asks_for_no_class(owl, owl_folder):
    (one,) = owl.find([picture()], ["cat"], agnostic=True, limit=1000)
    (other,) = owl.find([picture()], ["blue star", "dog"], agnostic=True, limit=1000)
    assert np.array_equal(one.boxes_px, other.boxes_px)
    assert np.array_equal(one.scores, one.objectness)
    assert (np.diff(one.objectness) <= 0).all()
    import transformers
    from PIL import Image

    processor = transformers.AutoProcessor.from_pretrained(owl_folder)
    inputs = processor(images=Image.fromarray(picture()), text=[["cat"]], return_tensors="pt")
    with torch.no_grad():
        logits = owl.module(**inputs).objectness_logits.flatten()
    assert np.allclose(one.objectness, logits.sigmoid().sort(descending=True).values, atol=1e-5)


@pytest.mark.parametrize("kind", ["owl", "owlvit", "dino"])
@pytest.mark.parametrize("size", [(1500, 900), (4000, 12), (3, 700)])
def test_large_and_thin_images_stay_small_on_their_way(request, monkeypatch, kind, size):
    detector = request.getfixturevalue(kind)
    seen = []
    process = detector._image_processor.__class__.__call__

    def watched(self, images, **options):
        seen.append(images[0].shape)
        return process(self, images, **options)

    monkeypatch.setattr(detector._image_processor.__class__, "__call__", watched)
    (found,) = detector.find([picture(*size)], NAMES)
    assert np.isfinite(found.boxes_px).all()
    assert min(seen[0][:2]) <= 4 * 96
    if kind == "owl":  # which makes a square of it
        assert max(seen[0][:2]) <= 4 * 64


def test_boxes_of_a_reduced_image_are_those_of_the_whole(owl):
    pixels = picture(80, 56)
    large = pixels.repeat(10, axis=0).repeat(10, axis=1)
    (small,) = owl.find([pixels], PROMPTS, limit=1000)
    (found,) = owl.find([large], PROMPTS, limit=1000)
    nearest = np.abs(found.boxes_px[:, None] / 10 - small.boxes_px).max(axis=2).min(axis=1)
    assert np.median(nearest) < 1


@pytest.mark.parametrize("kind", ["owl_folder", "dino_folder"])
def test_half_precision_is_nearly_the_same(request, kind):
    folder = request.getfixturevalue(kind)
    exact = load_hugging_face(folder).find([picture()], NAMES, limit=1000)[0]
    (half,) = load_hugging_face(folder, precision="bf16").find([picture()], NAMES, limit=1000)
    assert len(half) == len(exact)
    assert half.scores.dtype == np.float32
    assert abs(np.median(half.scores) - np.median(exact.scores)) < 0.2


# --- files ------------------------------------------------------------------------------------


@pytest.fixture
def copy(owl_folder, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(owl_folder, folder)
    return folder


def test_a_pickle_is_not_read(copy):
    state = load_file(copy / "model.safetensors")
    torch.save(state, copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="could run code"):
        load_text_detector(copy)


def test_code_beside_the_weights_does_not_run(copy, tmp_path):
    planted = tmp_path / "ran"
    (copy / "modeling.py").write_text(f"open({str(planted)!r}, 'w')\nclass Model: pass\n")
    for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
        content = json.loads((copy / name).read_text())
        content["auto_map"] = {
            "AutoConfig": "modeling.Model",
            "AutoProcessor": "modeling.Model",
            "AutoTokenizer": ["modeling.Model", "modeling.Model"],
            "AutoImageProcessor": "modeling.Model",
            "AutoModelForZeroShotObjectDetection": "modeling.Model",
        }
        (copy / name).write_text(json.dumps(content))
    load_text_detector(copy)
    assert not planted.exists()


def test_weights_of_another_model_are_refused(copy):
    state = load_file(copy / "model.safetensors")
    gone = [name for name in state if "box_head" in name]
    save_file(
        {name: tensor for name, tensor in state.items() if name not in gone},
        copy / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(WeightsError, match=f"lacks {len(gone)} tensors"):
        load_text_detector(copy)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model_type": "bert"}, "no zero-shot detector"),
        ({"model_type": None}, "no zero-shot detector"),
    ],
)
def test_other_models_are_refused(copy, change, match):
    content = json.loads((copy / "config.json").read_text()) | change
    (copy / "config.json").write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=match):
        plan_detector(copy)


def test_a_folder_without_a_processor_is_refused(copy):
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load_text_detector(copy)


def test_what_to_install_is_said(owl_folder, monkeypatch):
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    for name in (owl_folder, "google/owlv2-base-patch16-ensemble"):
        with pytest.raises(MissingDependencyError, match=r"pip install 'zs-operators\[hf\]'"):
            plan_detector(name)


def test_the_hub_is_asked_only_where_it_may_be(monkeypatch):
    with pytest.raises(OfflineError, match="hf download some/detector"):
        load_text_detector("some/detector")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(OfflineError, match="not allowed"):
        load_text_detector("some/detector", allow_download=False)


def test_what_the_hub_gave_is_used_offline(owl_folder, tmp_path, monkeypatch):
    revision = "0123456789abcdef0123456789abcdef01234567"
    home = tmp_path / "models--some--detector"
    shutil.copytree(owl_folder, home / "snapshots" / revision)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert plan_detector("some/detector").state == "cached"
    found = load_text_detector("some/detector")
    assert found.identity()["name"] == "some/detector"
    assert found.describe()["weights"]["revision"] == revision
    assert found.identity()["weights_sha256"] == weights_sha256("some/detector")
    (home / "snapshots" / revision / "model.safetensors").unlink()
    with pytest.raises(OfflineError):
        load_text_detector("some/detector")


def test_a_name_of_nothing_has_nearest_ones():
    with pytest.raises(UnknownModelError, match="yolov8s-world-torch"):
        plan_detector("yolov8s-world")
    with pytest.raises(WeightsError, match="is an address"):
        plan_detector("https://github.com/someone/models")
    with pytest.raises(InvalidInputError, match="not int"):
        load_text_detector(3)
