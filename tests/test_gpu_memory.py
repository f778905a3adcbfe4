"""A GPU whose memory really runs out: the process may take little more than the models do."""

from __future__ import annotations

from collections import Counter

import fiftyone as fo
import numpy as np
import pytest
import torch

import zs_operators as zs
from zs_operators.classifier import load_pixels
from zs_operators.device import release_memory
from zs_operators.proposals import load_proposer
from zs_operators.shapes.dataset import SCENE, load_shapes_dataset
from zs_operators.shapes.world import CLASSES

pytestmark = pytest.mark.gpu

DEVICE = "cuda:0"
NAMES = list(CLASSES)
MIB = 2**20
#: Of scores and sides: convolutions choose other algorithms where there is less room for them.
TOLERANCE = 1e-3
LEAST_MASK_IOU = 0.9
SCORES = ("confidence", "cosine", "objectness", "predicted_iou", "stability")


@pytest.fixture(autouse=True)
def _no_tf32(monkeypatch):
    """Its convolutions would differ in the third digit."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """1,024 samples of 16 images."""
    folder = tmp_path_factory.mktemp("shapes")
    dataset = load_shapes_dataset("test-gpu-memory", num_scenes=16, folder=folder)
    view = dataset.match_tags(SCENE)
    dataset.delete_samples(dataset.exclude(view.values("id")))
    originals = list(dataset)
    copies = [
        fo.Sample(filepath=one.filepath, objects=one.objects.copy())
        for _ in range(63)
        for one in originals
    ]
    dataset.add_samples(copies)
    yield dataset
    dataset.delete()


@pytest.fixture
def little_memory():
    """Lets the process take so many mebibytes more than it has now; the rest when it is over."""
    _, total = torch.cuda.mem_get_info(DEVICE)

    def limit(mebibytes):
        release_memory(DEVICE)
        allowed = torch.cuda.memory_reserved(DEVICE) + mebibytes * MIB
        torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / total), DEVICE)

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0, DEVICE)
    release_memory(DEVICE)


def assert_alike(found, expected):
    """Each label has a twin of its name, with scores and a place that differ by little.

    One of twenty may have none: of two equal masks the last digit says which suppresses the other.
    """
    found = list(getattr(found, "detections", [found]))
    alone = []
    expected = list(getattr(expected, "detections", [expected]))
    for label in expected:
        twin = next((one for one in found if is_alike(one, label)), None)
        alone.append(label) if twin is None else found.remove(twin)
    assert max(len(alone), len(found)) <= len(expected) // 20, (alone, found)


def is_alike(found, expected):
    if found.label != expected.label:
        return False
    if getattr(expected, "mask", None) is not None:
        # of two points on one thing either mask may be the better one by the last digit
        return mask_iou(found, expected) >= LEAST_MASK_IOU
    pairs = [(getattr(one, "bounding_box", []), scores(one)) for one in (found, expected)]
    return all(np.allclose(*pair, rtol=0, atol=TOLERANCE) for pair in zip(*pairs, strict=True))


def scores(label):
    return [getattr(label, name) for name in SCORES if getattr(label, name, None) is not None]


def mask_iou(*labels):
    both = [label.to_segmentation(frame_size=(512, 512)).mask > 0 for label in labels]
    return (both[0] & both[1]).sum() / max(1, (both[0] | both[1]).sum())


def compare(run, samples, little_memory, mebibytes):
    """Warnings about memory of a run with little of it, whose labels are those of plenty."""
    run("plenty")
    little_memory(mebibytes)
    report = run("tight")
    assert not report.num_failed
    assert Counter(report.counts) == Counter({"labeled": len(samples)})
    for sample in samples.select_fields(["plenty", "tight"]):
        assert_alike(sample["tight"], sample["plenty"])
    samples._dataset.delete_sample_fields(["plenty", "tight"])
    return [one for one in report.warnings if one.startswith("Memory ran out")]


def test_images_of_a_classifier(scenes, little_memory):
    clip = zs.load_clip("shapes-tiny", device=DEVICE, precision="fp32")
    options = {"model": clip, "batch_size": 1024, "progress": False}

    def run(field):
        return zs.classify(scenes, NAMES, label_field=field, **options)

    # 1,024 images of 64 px are 50 MB, and several times that in the first layers
    said = compare(run, scenes, little_memory, 48)
    assert any("instead of 1,024 images at once" in one for one in said)


def test_regions_of_a_detector(scenes, little_memory, monkeypatch):
    clip = zs.load_clip("shapes-tiny", device=DEVICE, precision="fp32")
    monkeypatch.setattr("zs_operators.regions.default_batch_size", lambda *_: 4096)
    view = scenes.limit(256)

    def run(field):
        options = {"regions": "objects", "batch_size": 256, "progress": False}
        return zs.detect(view, NAMES, model=clip, label_field=field, **options)

    said = compare(run, view, little_memory, 64)
    assert any("regions at once" in one for one in said)


def test_images_of_a_proposer(scenes, little_memory):
    clip = zs.load_clip("shapes-tiny", device=DEVICE, precision="fp32")
    proposer = load_proposer("shapes-tiny", device=DEVICE, precision="fp32", batch_size=256)
    view = scenes.limit(256)

    def run(field):
        options = {"proposals": proposer, "min_confidence": 0.5, "batch_size": 256}
        return zs.detect(view, NAMES, model=clip, label_field=field, progress=False, **options)

    said = compare(run, view, little_memory, 96)
    assert any("images to propose in at once" in one for one in said)


def test_prompts_of_sam(scenes, little_memory):
    sam = zs.load_sam("shapes-tiny", device=DEVICE, precision="fp32", prompt_chunk=1024)
    view = scenes.limit(3)
    points = {"points_per_side": 32, "min_iou": 0.6, "min_stability": 0.8}

    def run(field):
        return zs.segment(view, model=sam, label_field=field, progress=False, **points)

    said = compare(run, view, little_memory, 96)
    assert any("instead of 1,024 prompts at once" in one for one in said)


def test_an_image_that_never_fits_is_named_and_the_others_go_on(scenes, little_memory):
    clip = zs.load_clip("shapes-tiny", device=DEVICE, precision="fp32")
    real = clip.encode_images
    hoard = []

    def encode(batch):
        # What another process holds while this image is tried
        if len(batch) and bool((batch[0] == marked).all()):
            hoard.append(torch.empty(512 * MIB, dtype=torch.uint8, device=DEVICE))
        return real(batch)

    view = scenes.limit(4)
    marked = load_pixels(clip, view.first().filepath)
    clip.encode_images = encode
    little_memory(128)
    report = zs.classify(view, NAMES, model=clip, label_field="one", batch_size=2, progress=False)
    assert report.counts == {"labeled": 3, "out_of_memory": 1}
    assert not hoard
    scenes.delete_sample_fields(["one", "one_error"])
