"""Pickers of models: what can run is offered, and a line says what the rest lacks."""

from __future__ import annotations

import uuid

import pytest


def model_input(form, scenes, **params):
    """As a form that was just opened: an open one looks once at what is here."""
    typed = {"class_names": "cat\ndog", **params}
    return form(scenes, typed, prompt_id=uuid.uuid4().hex)["model"]


def offered(shown):
    return {choice.value: choice.label for choice in shown.view.choices}


@pytest.fixture
def nothing_here(monkeypatch, tmp_path):
    """A machine without any weights, on which downloads are allowed."""
    from huggingface_hub import constants

    for name in ("HF_HUB_OFFLINE", "ZS_OFFLINE", "ZS_WEIGHTS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def test_what_can_be_downloaded_is_offered_with_its_cost(form, scenes, nothing_here):
    choices = offered(model_input(form, scenes, model="shapes-tiny"))
    assert choices["shapes-tiny"] == "shapes-tiny · comes with the plugin"
    label = choices["laion-vit-b-32"]
    assert "download of 605 MB" in label
    assert "ImageNet 66.6 %" in label
    assert "regionclip-rn50" not in choices


def test_offline_the_rest_is_named_and_not_offered(form, scenes, nothing_here, monkeypatch):
    monkeypatch.setenv("ZS_OFFLINE", "1")
    shown = model_input(form, scenes, model="shapes-tiny")
    choices = offered(shown)
    assert "laion-vit-b-32" not in choices
    assert choices["clip-vit-b-32"].endswith("not on this machine · ImageNet 69.2 %"), "the default"
    assert "downloads are switched off: `zs pull MODEL`" in shown.view.description
    assert "regionclip-rn50, regionclip-rn50x4: a file to fetch by hand" in shown.view.description


def test_packages_that_lack_are_named(form, scenes, nothing_here, monkeypatch):
    monkeypatch.setattr("zs_operators.model_state.find_spec", lambda name: None)
    shown = model_input(form, scenes, model="eva02-b-16")
    choices = offered(shown)
    assert "siglip2-b-16" not in choices
    assert "needs timm" in choices["eva02-b-16"], "what is chosen stays"
    assert "need `pip install transformers sentencepiece timm`" in shown.view.description
