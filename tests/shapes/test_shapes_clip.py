"""The committed shapes-clip weights: the file the card describes, loadable, and still accurate."""

import hashlib
import json
from pathlib import Path

import pytest

from zs_operators.shapes import evaluate

CARD = Path(__file__).parents[2] / "docs" / "model-cards" / "shapes-tiny.md"
WEIGHTS_FILE = evaluate.WEIGHTS / "open_clip_model.safetensors"
FLOOR_SEED = 950_000_000  # neither training, validation nor test scenes


@pytest.fixture(scope="module")
def loaded():
    return evaluate.load_clip()


@pytest.fixture(scope="module")
def table(loaded):
    crowded = evaluate.scenes(FLOOR_SEED, 50)
    alone = evaluate.scenes(FLOOR_SEED, 80, alone=True)
    return evaluate.measure(*loaded, crowded, alone)


def test_the_card_names_exactly_this_file():
    data = WEIGHTS_FILE.read_bytes()
    assert hashlib.sha256(data).hexdigest() in CARD.read_text(encoding="utf-8")
    assert len(data) < 10e6
    assert sum(path.stat().st_size for path in evaluate.WEIGHTS.iterdir()) < 10e6


def test_the_config_is_portable_and_squashes():
    text = (evaluate.WEIGHTS / "open_clip_config.json").read_text(encoding="utf-8")
    config = json.loads(text)
    assert set(config) == {"model_cfg", "preprocess_cfg"}
    assert config["preprocess_cfg"]["resize_mode"] == "squash"
    assert "/" not in text


def test_every_weight_fits_and_none_is_missing():
    from open_clip.model import CLIP
    from safetensors.torch import load_file

    config = json.loads((evaluate.WEIGHTS / "open_clip_config.json").read_text(encoding="utf-8"))
    CLIP(**config["model_cfg"]).load_state_dict(load_file(str(WEIGHTS_FILE)), strict=True)


@pytest.mark.parametrize("text", ["", "giraffe", "日本 ünïcödé 🙂", "red " * 200, "<end_of_text>"])
def test_any_string_can_be_embedded(loaded, text):
    model, _, tokenizer = loaded
    tokens = tokenizer([text])
    assert tokens.shape == (1, 32)
    assert int(tokens.max()) < model.token_embedding.num_embeddings
    assert model.encode_text(tokens, normalize=True).isfinite().all()


def test_crops_of_seen_and_held_out_pairs(table):
    for crops in (table["crop_1.0x"], table["crop_1.0x_1.5x"]):
        assert crops["seen"] >= 0.95
        assert crops["unseen"] >= 0.82


def test_whole_scenes_with_one_object(table):
    assert table["alone"]["all"] >= 0.85


def test_texture_words_mean_textures(table):
    assert table["texture_word"] >= 0.90
    assert table["texture_in_full_name"] >= 0.90


def test_background_prompts_reject_empty_scenes_and_no_objects(table):
    assert table["empty_rejected"] >= 0.95
    assert table["objects_rejected"] <= 0.02
