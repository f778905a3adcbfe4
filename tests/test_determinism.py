"""The same labels whatever the batch size, the threads, the order, or where a run was resumed.

Sums in another order differ in their last digits, so scores are compared within a tolerance that
docs/reliability.md states; names, boxes and masks are compared exactly.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import zs_operators as zs
from tests.run_labels import assert_same, written
from tests.tiny_clips import VIT, batch_of, build, pictures, save
from zs_operators import runner
from zs_operators.proposals import load_proposer
from zs_operators.shapes.dataset import SCENE
from zs_operators.shapes.world import CLASSES

NUM_SCENES = 6
NAMES = list(CLASSES)
#: Of cosines; of an embedding's numbers less.
BF16_TOLERANCE = 0.02
POINTS = {"points_per_side": 6, "min_iou": 0.6, "min_stability": 0.8}
#: As many heads, layers and tokens as make attention and its sums real ones.
VIT_LIKE = {
    **VIT,
    "embed_dim": 128,
    "vision_cfg": {
        "image_size": 96,
        "layers": 3,
        "width": 192,
        "patch_size": 16,
        "head_width": 64,
    },
}


@pytest.fixture(scope="module")
def models():
    return {
        "clip": zs.load_clip("shapes-tiny", precision="fp32"),
        "proposer": load_proposer("shapes-tiny", precision="fp32", max_proposals=30),
        "sam": zs.load_sam("shapes-tiny", precision="fp32"),
    }


@pytest.fixture(scope="module")
def scenes(shapes):
    return shapes.match_tags(SCENE)


@pytest.fixture(scope="module")
def start(models):
    """Begins each task on a view; a generator, as an interruption needs one."""
    clip, proposer, sam = models["clip"], models["proposer"], models["sam"]
    found = {"model": clip, "proposals": proposer, "min_confidence": 0.3}

    def make(task, view, **options):
        if task == "classify":
            return zs.iter_classify(view, NAMES, model=clip, label_field=task, **options)
        if task == "detect":
            return zs.iter_detect(view, NAMES, label_field=task, **found, **options)
        if task == "boxes":
            prompts = {"prompts": "objects", "label_field": task}
            return zs.iter_segment(view, model=sam, **prompts, **options)
        named = {"clip": clip, "proposals": proposer, "classes": NAMES, "label_field": task}
        return zs.iter_segment(view, model=sam, **named, **POINTS, **options)

    return make


def finish(steps):
    for _ in steps:
        pass


@pytest.fixture(scope="module")
def expected(scenes, start):
    """What each task writes one image at a time, read in the calling thread."""
    found = {}

    def of(task):
        if task not in found:
            finish(start(task, scenes, batch_size=1, workers=0))
            found[task] = written(scenes, task)
            assert sum(bool(labels) for labels, _ in found[task].values()) == len(scenes)
        return found[task]

    return of


WAYS = {
    "batches of 3": {"batch_size": 3, "workers": 1},
    "one batch": {"batch_size": 16, "workers": 4},
    "shuffled": {"batch_size": 3, "workers": 4, "shuffle": 51},
    "two threads": {"batch_size": 16, "workers": 1, "threads": 2},
    "resumed": {"batch_size": 2, "workers": 4, "resumed": True},
}


CASES = [(task, way) for task in ("classify", "detect", "boxes") for way in WAYS]
CASES += [("everything", "resumed")]


@pytest.mark.parametrize(("task", "way"), CASES)
def test_labels_do_not_depend_on_how_they_are_computed(
    scenes, start, expected, monkeypatch, task, way
):
    first = expected(task)
    options = dict(WAYS[way])
    seed, is_resumed = options.pop("shuffle", None), options.pop("resumed", False)
    threads = torch.get_num_threads()
    torch.set_num_threads(options.pop("threads", 1))
    view = scenes if seed is None else scenes.shuffle(seed=seed)
    options = {"overwrite": True, "resume": False, **options}
    try:
        if is_resumed:
            monkeypatch.setattr(runner, "CHUNK_SAMPLES", 2)
            steps = start(task, view, **options)
            while next(steps).done < 3:
                pass
            steps.close()
            finish(start(task, view.shuffle(seed=7), **{**options, "resume": True}))
        else:
            finish(start(task, view, **options))
    finally:
        torch.set_num_threads(threads)
    assert_same(written(scenes, task), first)


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 1e-6), ("bf16", 2e-2)], ids=["fp32", "bf16"]
)
def test_embeddings_of_a_transformer_by_batch_and_threads(tmp_path, precision, tolerance):
    """Of a network like ViT-B-32, whose sums are long enough for their order to matter."""
    folder = save(tmp_path / "clip", VIT_LIKE, module=build(VIT_LIKE, seed=3))
    clip = zs.load_clip(str(folder), device="cpu", precision=precision)
    pixels = batch_of(clip, pictures(8, 96, 96))
    alone = torch.cat([clip.encode_images(one[None]) for one in pixels])
    threads = torch.get_num_threads()
    try:
        for size, count in ((3, 1), (8, 1), (8, 2), (1, 2)):
            torch.set_num_threads(count)
            found = torch.cat([clip.encode_images(part) for part in pixels.split(size)])
            assert torch.allclose(found, alone, rtol=0, atol=tolerance)
            again = torch.cat([clip.encode_images(part) for part in pixels.split(size)])
            assert torch.equal(found, again), "the same batches gave other bits"
    finally:
        torch.set_num_threads(threads)


def test_reduced_precision_keeps_names_and_moves_scores_a_little(scenes, expected, models):
    half = zs.load_clip("shapes-tiny", device="cpu", precision="bf16")
    for size in (1, 16):
        report = zs.classify(
            scenes,
            NAMES,
            model=half,
            label_field="half",
            batch_size=size,
            overwrite=True,
            resume=False,
            progress=False,
        )
        assert report.counts == {"labeled": len(scenes)}
        found, exact = written(scenes, "half"), expected("classify")
        cosines = np.array([scores[1] for _, scores in found.values()])
        assert np.abs(cosines - [scores[1] for _, scores in exact.values()]).max() < BF16_TOLERANCE
        if size == 1:
            alone = found
    assert_same(found, alone, BF16_TOLERANCE)
