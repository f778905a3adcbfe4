"""The committed shapes-proposals weights find objects, held-out pairs included."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from zs_operators.shapes import evaluate_proposals
from zs_operators.shapes.world import SEEN, make_scene

CARD = Path(__file__).parents[2] / "docs" / "model-cards" / "shapes-tiny.md"
WEIGHTS_FILE = evaluate_proposals.WEIGHTS / "model.safetensors"
FLOOR_SEED = 950_000_000  # neither training, validation nor test scenes


@pytest.fixture(scope="module")
def model():
    return evaluate_proposals.load_proposer()


def test_the_card_names_exactly_this_file():
    data = WEIGHTS_FILE.read_bytes()
    assert hashlib.sha256(data).hexdigest() in CARD.read_text(encoding="utf-8")
    assert len(data) < 5e6


def test_recall_of_objects(model):
    table = evaluate_proposals.measure(model, evaluate_proposals.scenes(FLOOR_SEED, 40))
    assert table["rpn@50 IoU 0.5"]["all"] >= 0.95
    assert table["refined@50 IoU 0.75"]["all"] >= 0.88
    assert table["refined@10 IoU 0.5"]["unseen"] >= 0.90
    assert table["extra_boxes_per_image"] <= 0.5


def test_an_empty_scene_has_no_confident_box(model):
    for seed in range(10):
        image = make_scene(seed, num_objects=0).image
        _, _, scores = evaluate_proposals.proposals(model, image)
        assert scores.max(initial=0.0) < 0.5


def test_boxes_are_in_pixels_of_the_image(model):
    scene = make_scene(5, num_objects=3)
    raw, refined, scores = evaluate_proposals.proposals(model, scene.image)
    height, width = scene.image.shape[:2]
    for boxes in (raw, refined):
        assert boxes.min() >= -0.01
        assert boxes[:, 2].max() <= width + 0.01
        assert boxes[:, 3].max() <= height + 0.01
    assert np.all(np.diff(scores) <= 0)


def test_training_scenes_have_seen_pairs_only():
    from zs_operators.shapes.train_proposals import TRAINING_SEED, training_batch

    images, targets = training_batch(TRAINING_SEED, 4, np.random.default_rng(0))
    for image, target in zip(images, targets, strict=True):
        assert image.shape[0] == 3
        assert 0.0 <= float(image.min()) <= float(image.max()) <= 1.0
        assert set(target["labels"].tolist()) <= {1}
        assert (target["boxes"][:, 2:] > target["boxes"][:, :2]).all()
    for k in range(20):
        scene = make_scene(TRAINING_SEED + k, classes=SEEN)
        assert {item.label for item in scene.objects} <= set(SEEN)
