"""docs/models.md is what the registry says, and each number there says where it is from."""

from __future__ import annotations

import importlib.util
import re

import pytest

from zs_operators.model_registry import models


@pytest.fixture(scope="module")
def tool(root):
    spec = importlib.util.spec_from_file_location("models_page", root / "tools/models_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_of_today_s_registry(root, tool):
    page = (root / "docs/models.md").read_text(encoding="utf-8")
    assert page == tool.page(), "run: python tools/models_page.py"
    for entry in models():
        assert f"`{entry.name}`" in page


@pytest.mark.parametrize("entry", models(), ids=lambda entry: entry.name)
def test_a_card_is_whole_and_names_its_sources(root, entry):
    assert entry.licence
    assert entry.description
    assert entry.size_mb > 0
    assert entry.memory_mb > 0
    assert re.match(r"https://|docs/", entry.page)
    if entry.page.startswith("docs/"):
        assert (root / entry.page).is_file()
    published = entry.imagenet_top1 or entry.coco_box_ap
    assert (published is None) == (entry.accuracy_page is None)
    if published is not None:
        assert 0 < published < 100
        assert entry.accuracy_page.startswith("https://")
    assert entry.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", entry.sha256)


@pytest.mark.parametrize("entry", models("clip"), ids=lambda entry: entry.name)
def test_a_clip_s_card_is_that_of_open_clip(entry):
    """Where it comes from, what it takes and what comes out are open_clip's own."""
    import open_clip

    if entry.pretrained is None:
        return
    published = open_clip.pretrained.get_pretrained_cfg(entry.architecture, entry.pretrained)
    assert published["hf_hub"].rstrip("/") == entry.source
    config = open_clip.get_model_config(entry.architecture)
    assert config["embed_dim"] == entry.embedding_dim
    assert config["vision_cfg"]["image_size"] == entry.image_px
    assert config["text_cfg"].get("hf_tokenizer_name") == entry.tokenizer
    assert ("timm_model_name" in config["vision_cfg"]) == ("timm" in entry.needs)
    assert (entry.tokenizer is not None) == ("transformers" in entry.needs)
