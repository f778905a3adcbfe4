"""Proposals: the detector's own boxes with their scores, whatever the image and the company."""

from __future__ import annotations

import copy
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from zs_operators.errors import (
    InvalidInputError,
    OfflineError,
    UnknownModelError,
    WeightsError,
)
from zs_operators.frames import make_frame
from zs_operators.images import UprightImage
from zs_operators.proposal_loading import build_detector
from zs_operators.proposals import Proposer, load_proposer, plan_proposer
from zs_operators.shapes.proposal_model import CONFIG, build_shapes_proposer
from zs_operators.weights import models

MOBILENET = "fasterrcnn_mobilenet_v3_large_fpn"
SMALL = {**CONFIG, "min_size_px": 96, "max_size_px": 160, "fpn_channels": 32, "box_head_width": 32}


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Coloured rectangles on noise: random weights then score some places above others."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
    for _ in range(6):
        x, y = rng.integers(0, max(1, width - 8)), rng.integers(0, max(1, height - 8))
        pixels[y : y + height // 3 + 1, x : x + width // 4 + 1] = rng.integers(0, 255, 3)
    return pixels


def spread(module: torch.nn.Module) -> torch.nn.Module:
    """Untrained heads with scores that differ and boxes that move."""
    generator = torch.Generator().manual_seed(1)
    heads = [module.rpn.head.cls_logits, module.rpn.head.bbox_pred]
    heads += [module.roi_heads.box_predictor.cls_score, module.roi_heads.box_predictor.bbox_pred]
    for head, scale in zip(heads, (3.0, 0.3, 60.0, 3.0), strict=True):
        head.weight.data = torch.randn(head.weight.shape, generator=generator) * scale
        head.weight.data /= head.weight[0].numel() ** 0.5
    return module


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Small networks lose more to a team of threads than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A proposer of the shapes architecture with random weights, as a local folder."""
    folder = tmp_path_factory.mktemp("proposer")
    torch.manual_seed(0)
    module = spread(build_shapes_proposer(SMALL))
    state = {key: value.contiguous() for key, value in module.state_dict().items()}
    save_file(state, str(folder / "model.safetensors"))
    (folder / "config.json").write_text(json.dumps(SMALL))
    return folder


@pytest.fixture(scope="module")
def mobilenet():
    module, plan = build_detector(plan_proposer(MOBILENET, "random"))
    return spread(module), plan


def load(folder, **options):
    options = {"max_proposals": 60, **options}
    return load_proposer(folder, device="cpu", precision="fp32", **options)


def own_boxes(module, pixels):
    """Boxes of the model's own region proposal network, in pixels of the image."""
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    with torch.no_grad():
        batch, _ = module.transform([tensor])
        boxes, _ = module.rpn(batch, module.backbone(batch.tensors))
    height, width = batch.image_sizes[0]
    scale = torch.tensor([pixels.shape[1] / width, pixels.shape[0] / height])
    return boxes[0] * scale.repeat(2)


def same(first, second, tolerance=0.0):
    assert len(first) == len(second)
    torch.testing.assert_close(first.boxes_px, second.boxes_px, atol=tolerance, rtol=0)
    torch.testing.assert_close(first.objectness, second.objectness, atol=tolerance, rtol=0)


# ---- the model's own boxes ----


@pytest.mark.parametrize("size", [(96, 128), (200, 90)])
def test_rpn_boxes_are_the_models_own(mobilenet, size):
    module, plan = mobilenet
    pixels = picture(*size)
    expected = own_boxes(module, pixels)
    proposer = Proposer(module, plan, load_options(mode="rpn", max_proposals=1000), device="cpu")
    found = proposer.propose([pixels])[0]
    assert len(found) == len(expected) > 50
    distance = torch.cdist(found.boxes_px, expected, p=torch.inf)
    # best first; those whose objectness differs by rounding only may have changed places
    tied = (found.objectness[:, None] - found.objectness).abs() < 1e-6
    assert distance.where(tied, torch.inf).min(dim=1).values.max() <= 5e-5
    assert distance.where(tied, torch.inf).min(dim=0).values.max() <= 5e-5


def load_options(**options):
    from zs_operators.proposals import ProposalOptions

    return ProposalOptions(**options)


def test_refined_boxes_are_the_second_stages_own(folder):
    """With one class, torchvision's final boxes without thresholds are the refined ones."""
    proposer = load(folder, max_proposals=500, nms_threshold=0.2)
    pixels = picture(160, 200)
    module = copy.deepcopy(proposer.module)
    module.roi_heads.score_thresh, module.roi_heads.nms_thresh = -1.0, 0.2
    module.roi_heads.detections_per_img = 500
    module.rpn._post_nms_top_n = {"testing": 1000}  # twice as many as asked for
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    with torch.no_grad():
        expected = module([tensor])[0]
    found = proposer.propose([pixels])[0]
    assert 20 < len(found) < 500
    torch.testing.assert_close(found.boxes_px, expected["boxes"], atol=1e-3, rtol=0)
    torch.testing.assert_close(found.objectness, expected["scores"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", ["rpn", "refined"])
def test_boxes_are_inside_sorted_and_of_the_promised_types(folder, mode):
    found = load(folder, mode=mode).propose([picture(123, 211)])[0]
    boxes, objectness = found.boxes_px, found.objectness
    assert boxes.dtype == objectness.dtype == torch.float32
    assert len(found) > 10
    assert (boxes >= 0).all()
    assert (boxes[:, [0, 2]] <= 211).all()
    assert (boxes[:, [1, 3]] <= 123).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (objectness.diff() <= 0).all()
    assert ((objectness >= 0) & (objectness <= 1)).all()


# ---- knobs ----


def test_fewer_proposals_are_the_first_of_more(folder):
    pixels = picture(160, 200)
    many = load(folder, mode="rpn", max_proposals=200).propose([pixels])[0]
    few = load(folder, mode="rpn", max_proposals=20).propose([pixels])[0]
    assert len(few) == 20
    assert torch.equal(few.boxes_px, many.boxes_px[:20])


@pytest.mark.parametrize("mode", ["rpn", "refined"])
def test_nms_leaves_no_pair_above_the_threshold(folder, mode):
    from torchvision.ops import box_iou

    found = load(folder, mode=mode, nms_threshold=0.3).propose([picture(160, 200)])[0]
    overlaps = box_iou(found.boxes_px, found.boxes_px).fill_diagonal_(0)
    assert len(found) > 5
    assert overlaps.max() <= 0.3 + 1e-5


@pytest.mark.parametrize("mode", ["rpn", "refined"])
def test_small_and_unlikely_boxes_are_left_out(folder, mode):
    pixels = picture(160, 200)
    everything = load(folder, mode=mode).propose([pixels])[0]
    floor = float(everything.objectness.median())
    found = load(folder, mode=mode, min_size_px=30, score_floor=floor).propose([pixels])[0]
    sides = found.boxes_px[:, 2:] - found.boxes_px[:, :2]
    assert 0 < len(found) < len(everything)
    assert sides.min() >= 30
    assert found.objectness.min() >= floor


@pytest.mark.parametrize("mode", ["rpn", "refined"])
def test_an_image_can_have_no_proposals(folder, mode):
    nothing, some = (
        load(folder, mode=mode, min_size_px=size).propose([picture(96, 128)])[0]
        for size in (500, 1)
    )
    assert nothing.boxes_px.shape == (0, 4)
    assert nothing.objectness.shape == (0,)
    assert len(some)


def test_more_proposals_than_torchvision_gives_by_default(folder):
    found = load(folder, mode="rpn", max_proposals=1400, nms_threshold=1.0).propose(
        [picture(240, 320)]
    )[0]
    assert len(found) == 1400


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "final"},
        {"max_proposals": 0},
        {"max_proposals": True},
        {"max_proposals": 2.5},
        {"nms_threshold": 1.5},
        {"min_size_px": -1},
        {"score_floor": None},
        {"score_floor": "high"},
        {"topk": 5},
    ],
)
def test_options_out_of_range_are_refused_by_name(folder, wrong):
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        load(folder, **wrong)


# ---- company and order ----


@pytest.mark.parametrize("mode", ["rpn", "refined"])
def test_neighbours_and_batch_size_do_not_change_an_images_boxes(folder, mode):
    sizes = [(96, 128), (200, 90), (96, 128), (64, 64), (96, 128), (200, 90), (96, 128)]
    images = [picture(*size, seed=i) for i, size in enumerate(sizes)]
    proposer = load(folder, mode=mode, max_proposals=40)
    alone = [proposer.propose([image])[0] for image in images]
    for batch_size in (1, 4, 7):
        proposer = load(folder, mode=mode, max_proposals=40, batch_size=batch_size)
        together = proposer.propose(images)
        for one, other in zip(alone, together, strict=True):
            same(one, other, tolerance=1e-3)


def test_no_images_no_proposals(folder):
    assert load(folder).propose([]) == []


def test_a_strange_first_image_does_not_spoil_the_next(folder):
    """torchvision's RoI pooler takes its scales from the first image it sees."""
    normal = picture(96, 128)
    fresh = load(folder).propose([normal])[0]
    proposer = load(folder)
    proposer.propose([picture(1, 5000)])
    same(fresh, proposer.propose([normal])[0])


def test_a_call_changes_nothing_and_threads_can_share(folder):
    proposer = load(folder, mode="refined", max_proposals=50, nms_threshold=0.5)
    module = proposer.module
    before = (
        module.rpn.nms_thresh,
        dict(module.rpn._post_nms_top_n),
        module.rpn.score_thresh,
        module.roi_heads.box_roi_pool.scales,
    )
    images = [picture(96, 128, seed=i) for i in range(6)]
    alone = [proposer.propose([image])[0] for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: proposer.propose([image])[0], images))
    for one, other in zip(alone, together, strict=True):
        same(one, other)
    after = (
        module.rpn.nms_thresh,
        dict(module.rpn._post_nms_top_n),
        module.rpn.score_thresh,
        module.roi_heads.box_roi_pool.scales,
    )
    assert before == after


# ---- sizes ----


@pytest.mark.parametrize("mode", ["rpn", "refined"])
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 50), (1000, 7)])
def test_images_of_any_shape(folder, mode, size):
    found = load(folder, mode=mode).propose([picture(*size)])[0]
    assert torch.isfinite(found.boxes_px).all()
    assert (found.boxes_px >= 0).all()
    assert (found.boxes_px <= torch.tensor([size[1], size[0]] * 2)).all()


def test_a_large_image_is_averaged_down_first_and_its_boxes_are_full_size(folder):
    small = picture(150, 200)
    large = small.repeat(40, axis=0).repeat(40, axis=1)  # 8000 x 6000 px
    frame = make_frame(large, SMALL["min_size_px"], SMALL["max_size_px"])
    assert frame.pixels.nbytes < 4 * 4 * SMALL["min_size_px"] * SMALL["max_size_px"] * 3
    assert frame.image_size_px == (8000, 6000)
    found = load(folder, mode="rpn").propose([large])[0]
    assert (found.boxes_px.amax(dim=0)[2:] > torch.tensor([7000, 5000])).all()
    # the same places as in the small picture, forty times as large
    reference = load(folder, mode="rpn").propose([small])[0]
    distance = torch.cdist(found.boxes_px[:20] / 40, reference.boxes_px, p=float("inf"))
    assert distance.min(dim=1).values.median() < 1.5


@pytest.mark.parametrize("size", [(1001, 777), (4001, 799), (2, 90_001)])
def test_a_frame_reaches_as_far_as_its_pixels(size):
    rows, columns = size
    pixels = np.zeros((*size, 3), dtype=np.uint8)
    frame = make_frame(pixels, 64, 96)
    factor = int(1 / (2 * min(64 / min(size), 96 / max(size))))
    assert frame.image_size_px == (columns, rows)
    for covered, side in ((frame.width_px, columns), (frame.height_px, rows)):
        assert side <= covered < side + factor


def test_boxes_of_an_image_decoded_smaller_are_of_its_full_size(folder):
    pixels = picture(96, 128)
    proposer = load(folder)
    plain = proposer.propose([pixels])[0]
    reduced = proposer.propose([UprightImage(pixels, width_px=512, height_px=384)])[0]
    torch.testing.assert_close(reduced.boxes_px, plain.boxes_px * 4, atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4), dtype=np.uint8),
        np.zeros((4, 4, 3), dtype=np.float32),
        np.zeros((0, 4, 3), dtype=np.uint8),
        "image.png",
    ],
)
def test_what_is_no_rgb_image_is_refused(folder, wrong):
    with pytest.raises(InvalidInputError, match=r"\(H, W, 3\) uint8"):
        load(folder).propose([wrong])


# ---- loading ----


def test_the_registry_matches_torchvision():
    from torchvision.models import get_model_weights

    entries = [entry for entry in models("proposals") if ":" not in entry.architecture]
    assert len(entries) == 6
    for entry in entries:
        published = get_model_weights(entry.architecture).DEFAULT
        assert (published.name, published.url) == (entry.pretrained, entry.source)
        assert abs(published.meta["_file_size"] - entry.size_mb) < 1
        assert published.meta["_metrics"]["COCO-val2017"]["box_map"] == entry.coco_box_ap
        assert abs(published.meta["num_params"] / 1e6 - entry.parameters_m) < 0.06


def test_half_precision_weights_are_used_in_float32(folder, tmp_path):
    from safetensors.torch import load_file

    state = load_file(str(folder / "model.safetensors"))
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    save_file(half, str(tmp_path / "model.safetensors"))
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    module = load(tmp_path).module
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert torch.equal(module.rpn.head.cls_logits.weight.half(), half["rpn.head.cls_logits.weight"])


def test_describe_says_what_decides_the_boxes(folder):
    described = json.loads(json.dumps(load(folder, max_proposals=7).describe()))
    assert described["max_proposals"] == 7
    assert described["weights"]["state"] == "local"
    assert len(described["weights"]["sha256"]) == 64


def test_local_file_for_a_torchvision_architecture(mobilenet, tmp_path):
    module, _ = mobilenet
    file = tmp_path / "own.pth"
    torch.save({"model": module.state_dict()}, file)
    proposer = load_proposer(MOBILENET, file, device="cpu")
    assert proposer.plan.state == "local"
    loaded = proposer.module.state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in module.state_dict().items())
    with pytest.raises(WeightsError, match="another architecture than 'fasterrcnn_resnet50_fpn'"):
        load_proposer("fasterrcnn_resnet50_fpn", file, device="cpu")


def test_weights_that_are_not_here_say_where_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    plan = plan_proposer()
    assert (plan.state, plan.path) == ("download", None)
    with pytest.raises(OfflineError, match=r"download\.pytorch\.org/models/fasterrcnn_resnet50"):
        build_detector(plan, allow_download=False)
    cached = tmp_path / "hub" / "checkpoints" / plan.filenames[0]
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"")
    assert plan_proposer().state == "cached"


@pytest.mark.parametrize(
    ("model", "weights", "error", "message"),
    [
        ("fasterrcnn_resnet50", None, UnknownModelError, "nearest: fasterrcnn_resnet50_fpn"),
        (MOBILENET, "IMAGENET", UnknownModelError, "it has COCO_V1"),
        (MOBILENET, "./no/such.pth", WeightsError, "no weights file or folder"),
        (MOBILENET, "nothing.pth", WeightsError, "no weights file or folder"),
    ],
)
def test_unknown_names_and_missing_files(model, weights, error, message):
    with pytest.raises(error, match=message):
        plan_proposer(model, weights)


def test_a_config_cannot_run_other_code(folder, tmp_path):
    for name, architecture in (("a", "os:system"), ("b", "zs_operators.shapes:nothing")):
        other = tmp_path / name
        other.mkdir()
        (other / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
        (other / "config.json").write_text(json.dumps({"architecture": architecture}))
        with pytest.raises(WeightsError, match="architecture"):
            load(other)


def test_a_folder_without_its_files_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"no config\.json and no model\.safetensors"):
        load(tmp_path)


def test_a_loaded_proposer_is_returned_as_it_is(folder):
    proposer = load(folder)
    assert load_proposer(proposer) is proposer
    with pytest.raises(InvalidInputError, match="loaded proposer"):
        load_proposer(proposer, max_proposals=5)
