"""Models of tests in the registry: shapes-tiny, served as if it were a big download."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from tests.model_server import Served
from tests.tiny_clips import CLIP_PREPROCESS, TEXT, VIT, build
from zs_operators import model_registry
from zs_operators.model_registry import ModelEntry, find_model

DETECTOR, CLIP = "served-proposals", "served-clip"
CLIP_REPO, WORDS_REPO = "zs-tests/served-clip", "zs-tests/served-words"
ARCHITECTURE, TAG = "zs-tests-clip", "served"
WORDS = ("a", "photo", "of", "cat", "dog", "the")


def register(monkeypatch, *entries: ModelEntry) -> None:
    """Add entries for the rest of a test."""
    table = {**model_registry._registry(), **{entry.name: entry for entry in entries}}
    monkeypatch.setattr(model_registry, "_registry", lambda: table)


def serve_detector(monkeypatch, served: Served) -> bytes:
    """The bundled proposer as a model of one file with an address; its content."""
    bundled = find_model("shapes-proposals")
    content = (Path(bundled.folder) / "model.safetensors").read_bytes()
    url = served.put(f"/shapes-{hashlib.sha256(content).hexdigest()[:8]}.safetensors", content)
    entry = replace(
        bundled, name=DETECTOR, folder=None, source=url, pretrained="V1", sha256=None, size_mb=2
    )
    register(monkeypatch, entry)
    return content


def use_hub(monkeypatch, url: str) -> None:
    """As if HF_ENDPOINT had been this when huggingface_hub was imported, and downloads allowed."""
    from huggingface_hub import constants

    template = constants.HUGGINGFACE_CO_URL_TEMPLATE
    changed = template.replace(constants.ENDPOINT, url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", changed)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def serve_clip(monkeypatch, served: Served, tmp_path: Path) -> dict[str, bytes]:
    """A tiny CLIP of open_clip whose text needs a Hugging Face tokenizer; its files by name."""
    import open_clip.factory
    import open_clip.pretrained
    from huggingface_hub import constants
    from safetensors.torch import save

    config = {**VIT, "text_cfg": {**TEXT, "vocab_size": 64, "hf_tokenizer_name": WORDS_REPO}}
    configs = {**open_clip.factory._MODEL_CONFIGS, ARCHITECTURE: config}
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", configs)
    tag = {"hf_hub": f"{CLIP_REPO}/", "url": "", **CLIP_PREPROCESS}
    tags = {**open_clip.pretrained._PRETRAINED, ARCHITECTURE: {TAG: tag}}
    monkeypatch.setattr(open_clip.pretrained, "_PRETRAINED", tags)
    plain = {**config, "text_cfg": {k: v for k, v in config["text_cfg"].items() if k[:2] != "hf"}}
    files = {"open_clip_model.safetensors": save(build(plain).state_dict()), **_words(tmp_path)}
    for name, content in files.items():
        repo = CLIP_REPO if name.startswith("open_clip") else WORDS_REPO
        served.put_in_repo(repo, name, content)
    use_hub(monkeypatch, served.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))
    entry = ModelEntry(
        name=CLIP,
        kind="clip",
        architecture=ARCHITECTURE,
        pretrained=TAG,
        source=CLIP_REPO,
        licence="MIT",
        size_mb=1,
        tokenizer=WORDS_REPO,
        needs=("transformers",),
    )
    register(monkeypatch, entry)
    return files


def _words(tmp_path: Path) -> dict[str, bytes]:
    """A tokenizer as transformers would save it, without its help."""
    vocabulary = {word: number for number, word in enumerate(("[PAD]", "[UNK]", *WORDS))}
    words = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "model_max_length": 77,
    }
    return {
        "tokenizer.json": json.dumps(words).encode(),
        "tokenizer_config.json": json.dumps(config).encode(),
    }
