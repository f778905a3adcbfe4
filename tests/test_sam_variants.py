"""MobileSAM, HQ-SAM and SAM 2.1: masks are those of their own packages, of the same weights.

The packages are none of ours to install: without one, its test is skipped.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from zs_operators.errors import MissingDependencyError
from zs_operators.model_registry import find_model, models
from zs_operators.model_state import model_state
from zs_operators.sam import Prompts, load_sam
from zs_operators.sam_loading import build_sam, plan_sam

BOXES = np.array([[100.0, 200.0, 700.0, 900.0], [5.0, 8.0, 400.0, 500.0]])
POINTS, LABELS = np.array([[[300.0, 400.0], [900.0, 100.0]]]), np.array([[1, 0]])


def mobile_sam():
    package = pytest.importorskip("mobile_sam")
    return package.sam_model_registry["vit_t"](), package.SamPredictor


def hq_sam():
    package = pytest.importorskip("segment_anything_hq")
    return package.sam_model_registry["vit_tiny"](), package.SamPredictor


def sam2():
    build = pytest.importorskip("sam2.build_sam")
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    name = "configs/sam2.1/sam2.1_hiera_t.yaml"
    return build.build_sam2(name, device="cpu", apply_postprocessing=False), SAM2ImagePredictor


def published(module: torch.nn.Module, folder: Path) -> Path:
    """A file as its authors publish it, in which nothing is zero that would hide its use."""
    state = module.state_dict()
    for name, values in state.items():
        if values.is_floating_point() and "running_var" not in name and not values.any():
            torch.nn.init.normal_(values, std=0.02)
    module.load_state_dict(state)
    torch.save({"model": state}, folder / "weights.pt")
    return folder / "weights.pt"


@pytest.mark.parametrize(
    ("name", "library"),
    [("mobile-sam", mobile_sam), ("sam-hq-vit-tiny", hq_sam), ("sam2.1-tiny", sam2)],
)
def test_masks_are_those_of_the_package(tmp_path, name, library):
    torch.manual_seed(0)
    module, predictor_of = library()
    module.eval()
    file = published(module, tmp_path)
    image = np.random.default_rng(0).integers(0, 255, (1024, 1024, 3), dtype=np.uint8)
    image[300:, :500] = (200, 40, 90)
    predictor = predictor_of(module)
    predictor.set_image(image)

    sam = load_sam(name, file, precision="fp32")
    (embedding,) = sam.encode([sam.frame(image)])
    logits, iou = masks_of(sam, embedding, Prompts(boxes_px=BOXES))
    assert logits.std() > 1e-3
    for row, box in enumerate(BOXES):
        _, score, low = predictor.predict(box=box, multimask_output=False)
        close(logits[row, 0], low[0])
        close(iou[row, 0], np.clip(score[0], 0, 1))
    logits, _ = masks_of(sam, embedding, Prompts(points_px=POINTS, point_labels=LABELS))
    _, scores, low = predictor.predict(POINTS[0], LABELS[0], multimask_output=True)
    if len(low) == 3:
        close(logits[0, 1:], low)
    else:  # HQ-SAM gives the best of the three
        close(logits[0, 1 + int(np.argmax(scores))], low[0])
    both, _ = masks_of(sam, embedding, Prompts(BOXES[:1], POINTS, LABELS))
    _, _, low = predictor.predict(POINTS[0], LABELS[0], box=BOXES[0], multimask_output=False)
    close(both[0, 0], low[0])
    assert not torch.allclose(both, logits, atol=1e-3)


def masks_of(sam, embedding, prompts):
    (decoded,) = sam.decode(embedding, prompts)
    return decoded.logits, decoded.predicted_iou


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, atol=1e-3, rtol=1e-3)


def test_sam2_squashes_and_others_pad():
    from types import SimpleNamespace

    from zs_operators.sam import SamModel

    squashing = SimpleNamespace(module=SimpleNamespace(squashes=True), size_px=1024)
    padding = SimpleNamespace(module=SimpleNamespace(), size_px=1024)
    assert SamModel.frame_size(squashing, 640, 480) == (1024, 1024)
    assert SamModel.frame_size(padding, 640, 480) == (768, 1024)


@pytest.mark.parametrize("entry", models("sam"), ids=lambda entry: entry.name)
def test_what_is_not_installed_is_said(entry, monkeypatch):
    """The card, the builder and the error name the same package."""
    monkeypatch.setattr("zs_operators.model_state.find_spec", lambda name: None)
    monkeypatch.setattr("zs_operators.sam_variants.import_module", refuse)
    state = model_state(find_model(entry.name))
    assert state.lacks == entry.needs
    if not entry.needs:
        return
    assert not state.can_run
    how = state.how.partition(";")[0]
    with pytest.raises(MissingDependencyError) as error:
        build_sam(plan_sam(entry.name, "random"))
    assert str(error.value).endswith(how)


def refuse(name):
    raise ImportError(name)
