"""Memory that runs out at any stage costs time and no label, and the report says so.

Parts of real models refuse more items than a limit, as a GPU that is full does.
"""

from __future__ import annotations

import threading
import weakref

import numpy as np
import pytest
import torch

import zs_operators as zs
from tests.run_labels import assert_same, memory_for, written
from zs_operators import provenance
from zs_operators.images import read_image
from zs_operators.masks import MaskResizer
from zs_operators.proposals import load_proposer
from zs_operators.sam import Prompts
from zs_operators.shapes.dataset import SCENE
from zs_operators.shapes.world import CLASSES

NUM_SCENES = 4
NAMES = list(CLASSES)
POINTS = {"points_per_side": 6, "min_iou": 0.6, "min_stability": 0.8}


@pytest.fixture(autouse=True)
def _no_collecting(monkeypatch):
    """It takes a second in a process of many tests, and what is freed here is freed without."""
    monkeypatch.setattr("zs_operators.device.gc.collect", lambda: 0)


@pytest.fixture(scope="module")
def proposer():
    return load_proposer("shapes-tiny", precision="fp32", max_proposals=30, batch_size=4)


@pytest.fixture(scope="module")
def sam():
    model = zs.load_sam("shapes-tiny", precision="fp32", prompt_chunk=16)
    model.batch_size = 4  # as on a GPU
    return model


@pytest.fixture(scope="module")
def scenes(shapes):
    return shapes.match_tags(SCENE)


@pytest.fixture(scope="module")
def runs(scenes, clip, proposer, sam):
    """Each task as ``run(field)``, and what it writes where memory is plenty."""
    common = {"progress": False, "batch_size": 4, "overwrite": True, "resume": False}
    detect = {"model": clip, "proposals": proposer, "min_confidence": 0.3}
    named = {"clip": clip, "proposals": proposer, "model": sam}
    tasks = {
        "classify": lambda field: zs.classify(
            scenes, NAMES, model=clip, label_field=field, **common
        ),
        "detect": lambda field: zs.detect(scenes, NAMES, label_field=field, **detect, **common),
        "boxes": lambda field: zs.segment(
            scenes, prompts="objects", model=sam, label_field=field, **common
        ),
        "everything": lambda field: zs.segment(
            scenes, classes=NAMES, label_field=field, **POINTS, **named, **common
        ),
    }
    for task, make in tasks.items():
        make(f"{task}_plenty")

    def run(task):
        field = f"{task}_tight"
        report = tasks[task](field)
        record = provenance.find(scenes, report.task, field)
        assert record["report"]["warnings"] == list(report.warnings)
        assert_same(written(scenes, field), written(scenes, f"{task}_plenty"))
        assert sum(report.counts.values()) == len(scenes)
        assert not report.num_failed
        return [one for one in report.warnings if one.startswith("Memory ran out")]

    return run


def test_images_of_a_classifier(runs, clip):
    with memory_for(clip.module.visual, 1) as sizes:
        (said,) = runs("classify")
    assert sizes == [4, 2, 1, 1, 1, 1]
    assert said == "Memory ran out 2 times; went on with 1 instead of 4 images at once."


def test_prompts_of_classes(runs, clip):
    with memory_for(clip.module.transformer, 20) as sizes:
        (said,) = runs("classify")
    # 70 prompts of 10 classes, then 35, then 17
    assert max(sizes) == 70
    assert "went on with 17 instead of 70 prompts at once" in said


def test_regions_of_a_detector(runs, clip):
    with memory_for(clip.module.visual, 6) as sizes:  # of two crops a region
        (said,) = runs("detect")
    # what fits is known to the next batch
    assert sizes[:4] == [16, 8, 4, 4]
    assert sum(size > 6 for size in sizes) == 2
    assert "instead of 8 regions at once" in said


def test_images_of_a_proposer(scenes, proposer):
    image = read_image(scenes.first().filepath)
    plenty = proposer.propose([image])[0]
    budget = proposer.budget()
    with memory_for(proposer.module.backbone, 2) as sizes:
        found = proposer.propose([image] * 4, budget)
        found += proposer.propose([image] * 4, budget)
    assert sizes == [4, 2, 2, 2, 2]
    assert budget.warning == (
        "Memory ran out once; went on with 2 instead of 4 images to propose in at once."
    )
    for one in found:
        assert np.allclose(one.boxes_px, plenty.boxes_px, atol=1e-3)


def test_images_of_sam(runs, sam):
    with memory_for(sam.module.image_encoder, 1) as sizes:
        (said,) = runs("boxes")
    assert sizes == [4, 2] + [1] * 4
    assert "went on with 1 instead of 4 images to encode at once" in said


def test_prompts_of_sam(runs, sam):
    with memory_for(sam.module.mask_decoder.transformer, 6) as sizes:
        (said,) = runs("everything")
    assert sizes[:4] == [16, 8, 4, 4]
    assert "went on with 4 instead of 16 prompts at once" in said


def test_masks_of_prompts_that_were_looked_at_make_room(scenes, sam):
    image = read_image(scenes.first().filepath)
    (embedding,) = sam.encode([sam.frame(image)])
    points = np.random.default_rng(0).uniform(0, 60, (16, 1, 2))
    alive = []
    with memory_for(sam.module.mask_decoder.transformer, 4):
        for chunk in sam.decode(embedding, Prompts(points_px=points)):
            # the chunk before is still held by whoever loops
            assert sum(one() is not None for one in alive) <= 1
            alive.append(weakref.ref(chunk.logits))
    assert len(alive) == 4


@pytest.mark.parametrize(("task", "enough"), [("boxes", 2), ("everything", 3)])
def test_masks_that_are_brought_to_full_size(runs, sam, monkeypatch, task, enough):
    """Fewer prompts at once make room for that; images have nothing to do with it."""
    sizes, resize = [], MaskResizer.resize

    def tight(self, logits, within_px=None):
        sizes.append(len(logits))
        for number, mask in enumerate(resize(self, logits, within_px)):
            if number == enough:  # a point has three masks
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            yield mask

    monkeypatch.setattr(MaskResizer, "resize", tight)
    with memory_for(sam.module.image_encoder, 4) as images:
        (said,) = runs(task)
    assert images == [4]
    assert max(sizes) > enough
    assert "prompts at once" in said


def test_all_of_it_at_once(runs, clip, proposer, sam):
    with (
        memory_for(clip.module.visual, 3),
        memory_for(clip.module.transformer, 9),
        memory_for(sam.module.image_encoder, 2),
        memory_for(sam.module.mask_decoder.transformer, 5),
    ):
        said = " ".join(runs("everything"))
    for what in ("images to encode", "prompts", "regions"):
        assert what in said


def test_the_next_run_with_the_same_model_begins_anew(runs, clip, sam):
    with memory_for(sam.module.image_encoder, 1):
        assert runs("boxes")
    assert runs("boxes") == []


def test_an_image_that_does_not_fit_alone_is_named(scenes, clip):
    with (
        memory_for(clip.module.visual, 0),
        pytest.raises(zs.ZeroShotError, match="4 out_of_memory"),
    ):
        zs.classify(scenes, NAMES, model=clip, label_field="none", progress=False)
    scenes._dataset.delete_sample_fields(["none", "none_error"])


class Memory:
    """Host memory for so many decoded images; one that is let go of makes room."""

    def __init__(self, most, never=()):
        self.most = most
        self.never = never
        self.alive = self.refused = 0
        self._lock = threading.Lock()

    def read(self, source, **options):
        with self._lock:
            if self.alive >= self.most or source in self.never:
                self.refused += 1
                raise MemoryError
            self.alive += 1
        image = read_image(source, **options)
        weakref.finalize(image.pixels, self._free)
        return image

    def _free(self):
        with self._lock:
            self.alive -= 1


@pytest.mark.parametrize(("workers", "most"), [(0, 2), (3, 1), (3, 3)])
def test_host_memory_while_reading(runs, monkeypatch, workers, most):
    memory = Memory(most)
    monkeypatch.setattr("zs_operators.detector.read_image", memory.read)
    monkeypatch.setattr("zs_operators.reading.default_workers", lambda: workers)
    said = runs("detect")
    assert memory.refused
    assert any("images in memory at once" in one for one in said)
    assert memory.alive == 0


def test_an_image_that_host_memory_never_fits_is_named(scenes, clip, monkeypatch):
    paths = scenes.values("filepath")
    monkeypatch.setattr("zs_operators.classifier.read_image", Memory(9, never=paths[2:3]).read)
    report = zs.classify(
        scenes, NAMES, model=clip, label_field="host", batch_size=4, progress=False
    )
    assert report.counts == {"labeled": 3, "out_of_memory": 1}
    assert scenes.values("host.label").index(None) == 2
    assert "out_of_memory" in scenes.values("host_error")[2]
    scenes._dataset.delete_sample_fields(["host", "host_error"])
