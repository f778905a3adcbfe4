"""The committed shapes-sam weights segment objects, held-out pairs included."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from zs_operators.shapes import evaluate_sam, train_sam
from zs_operators.shapes.world import SEEN, make_scene

CARD = Path(__file__).parents[2] / "docs" / "model-cards" / "shapes-tiny.md"
WEIGHTS_FILE = evaluate_sam.WEIGHTS / "model.safetensors"
FLOOR_SEED = 950_000_000  # neither training, validation nor test scenes


@pytest.fixture(scope="module")
def model():
    return evaluate_sam.load_sam()


def test_the_card_names_exactly_this_file():
    data = WEIGHTS_FILE.read_bytes()
    assert hashlib.sha256(data).hexdigest() in CARD.read_text(encoding="utf-8")
    assert len(data) < 5e6


def test_masks_of_boxes_and_of_single_points(model):
    table = evaluate_sam.measure(model, evaluate_sam.scenes(FLOOR_SEED, 40))
    assert table["box"] >= 0.90
    assert table["box_unseen"] >= 0.88
    assert table["point"] >= 0.83
    assert table["point_best_of_3"] >= 0.83
    assert table["iou_head_error"] <= 0.12


def test_training_prompts_lie_on_their_objects():
    rng = np.random.default_rng(0)
    for seed in range(20):
        scene = make_scene(seed, classes=SEEN)
        _, masks, scale = train_sam.frame(scene, 256)
        chosen, points, boxes = train_sam.prompt_image(scene, scale, rng)
        assert points is not None or boxes is not None
        for row, index in enumerate(chosen):
            if points is None:
                continue
            x, y = (points[row, 0] / scale).tolist()
            on = [bool(item.mask[int(y), int(x)]) for item in scene.objects]
            assert not any(on) if index < 0 else on[index]
        assert masks.shape[0] == len(scene.objects)


def test_the_loss_is_least_for_the_true_mask():
    """Following its gradient leads from nothing to the object."""
    torch.manual_seed(0)
    logits = torch.zeros(2, 4, 16, 16, requires_grad=True)
    guess = torch.zeros(2, 4, requires_grad=True)
    truth = torch.zeros(2, 16, 16)
    truth[0, 4:12, 4:12] = 1  # the other is a click on the background
    first = None
    for _ in range(300):
        loss, overlap = train_sam.mask_loss(logits, guess, truth)
        first = loss.item() if first is None else first
        loss.backward()
        with torch.no_grad():
            for value in (logits, guess):
                value -= 2.0 * value.grad
                value.grad = None
    assert loss.item() < first / 2
    assert float(overlap) > 0.9
