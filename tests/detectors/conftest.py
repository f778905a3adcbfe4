"""Tiny detectors on disk, made once."""

from __future__ import annotations

import pytest

from tests.tiny_detectors import save_grounding_dino, save_owl, save_sam3


@pytest.fixture(scope="session", autouse=True)
def _quiet():
    from transformers.utils import logging

    logging.disable_progress_bar()


@pytest.fixture(scope="session")
def owl_folder(tmp_path_factory):
    return save_owl(tmp_path_factory.mktemp("detectors") / "tiny-owlv2")


@pytest.fixture(scope="session")
def owlvit_folder(tmp_path_factory):
    return save_owl(tmp_path_factory.mktemp("detectors") / "tiny-owlvit", "owlvit")


@pytest.fixture(scope="session")
def dino_folder(tmp_path_factory):
    return save_grounding_dino(tmp_path_factory.mktemp("detectors") / "tiny-dino")


@pytest.fixture(scope="session")
def sam3_folder(tmp_path_factory):
    return save_sam3(tmp_path_factory.mktemp("detectors") / "tiny-sam3")
