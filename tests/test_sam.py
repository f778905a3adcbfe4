"""Sam: embeddings, prompts and masks are those of segment_anything's own predictor."""

from __future__ import annotations

import copy
import json
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import nn

from zs_operators import sam_attention
from zs_operators.errors import InvalidInputError, UnknownModelError, WeightsError
from zs_operators.masks import MaskResizer
from zs_operators.sam import Prompts, SamModel, load_sam
from zs_operators.sam_loading import build_sam, plan_sam
from zs_operators.shapes.sam_model import CONFIG, build_shapes_sam
from zs_operators.weights import models, plan_weights

SIZES = [(192, 256), (256, 192), (100, 1000), (7, 900), (1, 1), (300, 300)]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny_vit(global_attention=(1,), size=256, dim=32) -> Sam:
    """Meta's architecture, narrow, with every part of its attention in use: 64 x 64 logits."""
    torch.manual_seed(0)
    cells = size // 16
    sam = Sam(
        image_encoder=ImageEncoderViT(
            img_size=size,
            depth=2,
            embed_dim=dim,
            num_heads=2,
            out_chans=32,
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=global_attention,
            window_size=6,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        ),
        prompt_encoder=PromptEncoder(32, (cells, cells), (size, size), 16),
        mask_decoder=MaskDecoder(
            transformer_dim=32,
            transformer=TwoWayTransformer(depth=2, embedding_dim=32, mlp_dim=64, num_heads=2),
        ),
    )
    # Meta's initial values of positions are zeros, which would hide their use
    for name, parameter in sam.image_encoder.named_parameters():
        if "pos" in name:
            nn.init.normal_(parameter, std=0.5)
    return sam.eval()


def loaded(module: Sam, **options) -> SamModel:
    return SamModel(copy.deepcopy(module), plan_sam("sam-vit-b", "random"), **options)


@pytest.fixture(scope="module")
def library() -> Sam:
    return tiny_vit()


@pytest.fixture(scope="module")
def sam(library) -> SamModel:
    return loaded(library)


@pytest.fixture(scope="module")
def shapes() -> SamModel:
    return load_sam("shapes-tiny", precision="fp32")


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
    pixels[height // 3 :, : width // 2 + 1] = (200, 40, 90)
    return pixels


def boxes_in(height, width, count, seed=0):
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1)
    return (corners * (width, height)).reshape(count, 4)


def everything(sam, embedding, prompts):
    chunks = list(sam.decode(embedding, prompts))
    logits = torch.cat([chunk.logits for chunk in chunks])
    return logits, torch.cat([chunk.predicted_iou for chunk in chunks])


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_boxes_give_the_predictor_s_masks(library, sam, height, width):
    image = picture(height, width)
    predictor = SamPredictor(library)
    predictor.set_image(image)
    boxes = boxes_in(height, width, 5)
    (embedding,) = sam.encode([sam.frame(image)])
    np.testing.assert_allclose(embedding.features, predictor.features[0], atol=2e-5, rtol=1e-4)
    logits, iou = everything(sam, embedding, Prompts(boxes_px=boxes))
    resizer = MaskResizer(logits.shape[2:], sam.size_px, embedding.frame_size, width, height)
    masks = list(resizer.resize(logits[:, 0]))
    for i, box in enumerate(boxes):
        full, score, low = predictor.predict(box=box, multimask_output=False, return_logits=True)
        np.testing.assert_allclose(logits[i, 0], low[0], atol=1e-4, rtol=1e-4)
        assert float(iou[i, 0]) == pytest.approx(float(np.clip(score[0], 0, 1)), abs=1e-4)
        mine = np.zeros((height, width), dtype=bool)
        x1, y1, x2, y2 = masks[i].box_px
        mine[y1:y2, x1:x2] = masks[i].pixels
        certain = np.abs(full[0]) > 1e-3
        np.testing.assert_array_equal(mine[certain], (full[0] > 0)[certain])


def test_points_give_the_predictor_s_masks_all_three(library, sam):
    image = picture(192, 256)
    predictor = SamPredictor(library)
    predictor.set_image(image)
    (embedding,) = sam.encode([sam.frame(image)])
    points = np.array([[[30.5, 40.5], [200.0, 100.0]], [[10.0, 10.0], [90.0, 180.0]]])
    labels = np.array([[1, 0], [1, 1]])
    logits, iou = everything(sam, embedding, Prompts(points_px=points, point_labels=labels))
    for i in range(2):
        _, scores, low = predictor.predict(points[i], labels[i], multimask_output=True)
        np.testing.assert_allclose(logits[i, 1:], low, atol=1e-4, rtol=1e-4)
        np.testing.assert_allclose(iou[i, 1:], np.clip(scores, 0, 1), atol=1e-4)


def test_a_box_and_a_point_count_together(library, sam):
    image = picture(192, 256)
    predictor = SamPredictor(library)
    predictor.set_image(image)
    (embedding,) = sam.encode([sam.frame(image)])
    box, point = np.array([20.0, 30.0, 180.0, 150.0]), np.array([[60.0, 70.0]])
    logits, _ = everything(sam, embedding, Prompts(box[None], point[None], [[0]]))
    alone, _ = everything(sam, embedding, Prompts(box[None]))
    _, _, low = predictor.predict(point, np.array([0]), box, multimask_output=False)
    np.testing.assert_allclose(logits[0, 0], low[0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits, alone, atol=1e-2)


def test_chunks_and_company_change_nothing(sam, library):
    boxes = boxes_in(192, 256, 9, seed=3)
    images = [picture(192, 256, seed) for seed in range(3)]
    together = sam.encode([sam.frame(image) for image in images])
    (alone,) = sam.encode([sam.frame(images[1])])
    torch.testing.assert_close(together[1].features, alone.features, atol=1e-5, rtol=1e-4)
    whole, _ = everything(loaded(library, prompt_chunk=64), alone, Prompts(boxes))
    for chunk in (1, 2, 4):
        parts, _ = everything(loaded(library, prompt_chunk=chunk), alone, Prompts(boxes))
        torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)
    starts = [one.start for one in loaded(library, prompt_chunk=4).decode(alone, Prompts(boxes))]
    assert starts == [0, 4, 8]


@pytest.mark.parametrize("global_attention", [(), (0, 1)])
@pytest.mark.parametrize("rows", [1, 5, 1000])
def test_fused_attention_is_the_library_s(global_attention, rows, monkeypatch):
    library = tiny_vit(global_attention)
    patches, heads = 16, 2
    monkeypatch.setattr(sam_attention, "_BIAS_BYTES", rows * patches**3 * heads * 4)
    image = picture(140, 256)
    predictor = SamPredictor(library)
    predictor.set_image(image)
    mine = loaded(library)
    (embedding,) = mine.encode([mine.frame(image)])
    torch.testing.assert_close(embedding.features, predictor.features[0], atol=2e-5, rtol=1e-4)


def test_reduced_precision_stays_close(library, sam):
    image = picture(192, 256)
    half = loaded(library, precision="bf16")
    (one,), (other,) = sam.encode([sam.frame(image)]), half.encode([half.frame(image)])
    assert other.features.dtype == torch.float32
    difference = (one.features - other.features).norm() / one.features.norm()
    assert 0 < float(difference) < 0.05


def test_auto_keeps_small_encoders_in_full_precision(library):
    assert loaded(library, precision="auto").precision == "fp32"


def test_the_bundled_sam_segments_what_is_in_the_box(shapes):
    from zs_operators.shapes.world import make_scene

    scene = make_scene(123, num_objects=3)
    (embedding,) = shapes.encode([shapes.frame(scene.image)])
    boxes = [item.box_px for item in scene.objects]
    logits, iou = everything(shapes, embedding, Prompts(boxes))
    height, width = scene.image.shape[:2]
    resizer = MaskResizer(logits.shape[2:], shapes.size_px, embedding.frame_size, width, height)
    overlaps = []
    for item, mask in zip(scene.objects, resizer.resize(logits[:, 0]), strict=True):
        full = np.zeros((height, width), dtype=bool)
        x1, y1, x2, y2 = mask.box_px
        full[y1:y2, x1:x2] = mask.pixels
        overlaps.append((full & item.mask).sum() / (full | item.mask).sum())
        assert 0 < mask.stability <= 1
    assert np.mean(overlaps) > 0.8
    assert float(iou.min()) >= 0
    assert float(iou.max()) <= 1


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        (Prompts(), "nothing to segment"),
        (Prompts(boxes_px=[[1, 2, 3]]), "boxes_px must be"),
        (Prompts(boxes_px=[1, 2, 3, 4]), "boxes_px must be"),
        (Prompts(points_px=[[1, 2]]), "points_px must be"),
        (Prompts(points_px=[[[1, 2]]], point_labels=[[1, 1]]), "point_labels must be"),
        (Prompts([[0, 0, 9, 9]], [[[1, 2]], [[3, 4]]]), "do not go together"),
    ],
)
def test_prompts_of_a_wrong_shape_are_refused(sam, prompts, said):
    (embedding,) = sam.encode([sam.frame(picture(60, 80))])
    with pytest.raises(InvalidInputError, match=said):
        list(sam.decode(embedding, prompts))


def test_no_prompts_decode_nothing(sam):
    (embedding,) = sam.encode([sam.frame(picture(60, 80))])
    assert list(sam.decode(embedding, Prompts(boxes_px=np.zeros((0, 4))))) == []


def test_memory_that_runs_out_halves_the_prompts(sam, library, monkeypatch):
    boxes = boxes_in(192, 256, 7)
    (embedding,) = sam.encode([sam.frame(picture(192, 256))])
    expected, _ = everything(sam, embedding, Prompts(boxes))
    small = loaded(library, prompt_chunk=7)
    decode, sizes = small._decode, []

    def limited(embedding, prompts):
        sizes.append(len(prompts))
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(embedding, prompts)

    monkeypatch.setattr(small, "_decode", limited)
    found, _ = everything(small, embedding, Prompts(boxes))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert max(sizes) == 7
    assert sizes[-1] <= 2


def test_identity_and_description_are_json(shapes):
    identity = json.loads(json.dumps(shapes.identity()))
    assert identity["weights_sha256"] == plan_weights("sam", "shapes-tiny").sha256
    assert json.loads(json.dumps(shapes.describe()))["precision"] == "fp32"


def test_names_and_weights_that_are_unknown_are_refused(tmp_path):
    with pytest.raises(UnknownModelError, match="sam-vit-b"):
        load_sam("sam-vit-x")
    broken = tmp_path / "sam.pth"
    broken.write_bytes(b"no weights")
    with pytest.raises(WeightsError, match=r"sam\.pth"):
        load_sam("sam-vit-b", broken)
    with pytest.raises(InvalidInputError, match="loaded model"):
        load_sam(load_sam("shapes-tiny"), "random")


def test_a_folder_of_weights_loads(tmp_path, shapes):
    torch.manual_seed(3)
    save_file(build_shapes_sam().state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    mine = load_sam(tmp_path)
    assert mine.size_px == CONFIG["image_size_px"]
    assert mine.identity() != shapes.identity()


def test_a_checkpoint_of_meta_s_form_loads(tmp_path):
    torch.manual_seed(0)
    module = sam_model_registry["vit_b"]()
    path = tmp_path / "sam_vit_b.pth"
    torch.save(module.state_dict(), path)
    found, plan = build_sam(plan_sam("sam-vit-b", path))
    assert plan.sha256
    name = "image_encoder.blocks.3.attn.qkv.weight"
    torch.testing.assert_close(found.state_dict()[name], module.state_dict()[name])


def test_every_listed_model_says_what_it_is():
    names = [entry.name for entry in models("sam")]
    assert {"sam-vit-b", "sam-vit-l", "sam-vit-h", "shapes-sam"} <= set(names)
    for name in names:
        plan = plan_weights("sam", name)
        assert plan.licence == "Apache-2.0"
        # HQ-SAM's authors publish none
        assert (plan.sha256 is None) == name.startswith("sam-hq")
        assert plan.sha256 is None or len(plan.sha256) == 64
