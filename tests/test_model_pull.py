"""Models pulled from a server on this machine, and loaded without it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest

from tests.model_registries import (
    CLIP,
    CLIP_REPO,
    DETECTOR,
    register,
    serve_clip,
    serve_detector,
    use_hub,
)
from tests.model_server import serve
from zs_operators import downloads
from zs_operators.errors import OfflineError, UnknownModelError, WeightsError
from zs_operators.model_pull import pull_models
from zs_operators.model_registry import ModelEntry, find_model
from zs_operators.model_state import model_state
from zs_operators.weights import plan_weights

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server of weights, downloads allowed, and caches of this test's own."""
    for name in ("HF_HUB_OFFLINE", "ZS_OFFLINE", "ZS_WEIGHTS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(downloads, "_WAIT_S", 0)
    with serve() as served:
        yield served


def test_one_file_is_pulled_and_loaded(server, monkeypatch, tmp_path):
    from zs_operators.proposals import load_proposer

    content = serve_detector(monkeypatch, server)
    assert model_state(find_model(DETECTOR)).how == f"zs pull {DETECTOR}"
    server.cut_after = [len(content) // 2]
    seen = []
    (file,) = pull_models([DETECTOR], on_progress=lambda *at: seen.append(at))
    assert file.path == tmp_path / "torch" / "hub" / "checkpoints" / file.path.name
    assert (file.state, file.bytes) == ("downloaded", len(content))
    assert file.sha256 == hashlib.sha256(content).hexdigest()
    assert seen[-1] == (file.path.name, len(content), len(content))
    assert server.ranges == [None, f"bytes={len(content) // 2}-"]
    assert model_state(find_model(DETECTOR)).how is None

    proposer = load_proposer(DETECTOR, allow_download=False)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    ours, bundled = (one.propose([image])[0] for one in (proposer, load_proposer("shapes-tiny")))
    assert np.allclose(ours.boxes_px, bundled.boxes_px)


def test_what_is_here_is_not_asked_for(server, monkeypatch):
    serve_detector(monkeypatch, server)
    pull_models([DETECTOR])
    server.asked = []
    (file,) = pull_models([DETECTOR, DETECTOR, "shapes-tiny"])
    assert file.state == "here"
    assert server.asked == []


def test_what_is_here_and_damaged_is_said(server, monkeypatch):
    serve_detector(monkeypatch, server)
    (file,) = pull_models([DETECTOR])
    file.path.write_bytes(b"damaged")
    with pytest.raises(WeightsError, match=r"is damaged or another file.*remove it"):
        pull_models([DETECTOR])


def test_a_folder_of_ones_own(server, monkeypatch, tmp_path):
    serve_detector(monkeypatch, server)
    (file,) = pull_models([DETECTOR], weights_dir=tmp_path / "disk")
    assert file.path.parent == tmp_path / "disk" / "checkpoints"
    assert plan_weights("proposals", DETECTOR).state == "download"
    monkeypatch.setenv("ZS_WEIGHTS_DIR", str(tmp_path / "disk"))
    assert plan_weights("proposals", DETECTOR).path == str(file.path)
    # and without naming it, new files go there as well
    file.path.unlink()
    assert pull_models([DETECTOR])[0].path == file.path


def test_a_clip_of_the_hub_with_its_tokenizer(server, monkeypatch, tmp_path):
    """Cut on the way, in the layout of Hugging Face's own client, and loaded without network."""
    pytest.importorskip("transformers")
    import zs_operators as zs

    contents = serve_clip(monkeypatch, server, tmp_path)
    weights = contents["open_clip_model.safetensors"]
    server.cut_after = [len(weights) // 3]
    files = pull_models([CLIP])
    assert {file.path.name for file in files} == set(contents)
    assert f"bytes={len(weights) // 3}-" in server.ranges
    for file in files:
        assert file.path.read_bytes() == contents[file.path.name]
        assert file.path.is_symlink()
        assert file.path.resolve().name == file.sha256

    server.asked = []
    monkeypatch.setenv("ZS_OFFLINE", "1")
    clip = zs.load_clip(CLIP)
    vectors = clip.encode_texts(["a photo of a cat", "a photo of a dog"])
    assert vectors.shape == (2, 32)
    assert not np.allclose(vectors[0], vectors[1])
    assert server.asked == []
    assert clip.plan.sha256 == hashlib.sha256(weights).hexdigest()


def test_the_hub_without_the_file(server, monkeypatch, tmp_path):
    serve_clip(monkeypatch, server, tmp_path)
    for path in [path for path in server.files if CLIP_REPO in path]:
        del server.files[path]
    with pytest.raises(WeightsError, match=f"'{CLIP_REPO}' has none of open_clip_model"):
        pull_models([CLIP])


def test_the_hub_is_away(server, monkeypatch, tmp_path):
    serve_clip(monkeypatch, server, tmp_path)
    use_hub(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(OfflineError, match="cannot be asked for open_clip_model"):
        pull_models([CLIP])


def test_a_server_that_is_not_the_hub(server, monkeypatch, tmp_path):
    serve_clip(monkeypatch, server, tmp_path)
    server.has_tags = False
    with pytest.raises((OfflineError, WeightsError)):
        pull_models([CLIP])
    assert not list(tmp_path.glob("hf-cache/**/open_clip*"))


def test_nothing_begins_that_does_not_fit(server, monkeypatch):
    serve_detector(monkeypatch, server)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda path: Usage(10**9, 0, 10**6))
    with pytest.raises(WeightsError, match="GB free and"):
        pull_models([DETECTOR])
    assert server.asked == []


@pytest.mark.parametrize("variable", ["ZS_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_says_how_to_carry_it(server, monkeypatch, variable):
    serve_detector(monkeypatch, server)
    monkeypatch.setenv(variable, "1")
    with pytest.raises(OfflineError, match=rf"{variable}.*zs bundle {DETECTOR} -o .*--from"):
        pull_models(["shapes-tiny", DETECTOR])
    assert server.asked == []
    assert pull_models(["shapes-tiny"]) == []


def test_what_no_server_gives(server, monkeypatch, tmp_path):
    with pytest.raises(WeightsError, match=r"regionclip_pretrained-cc_rn50.pth by hand"):
        pull_models(["regionclip-rn50"])
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    file = folder / "regionclip_pretrained-cc_rn50.pth"
    file.write_bytes(b"fetched by hand")
    assert plan_weights("clip", "regionclip-rn50").path == str(file)
    assert pull_models(["regionclip-rn50"])[0].state == "here"


def test_names_that_nobody_has(server):
    with pytest.raises(UnknownModelError, match="nearest: clip-vit-b-32"):
        pull_models(["clip-vit-b32"])


@pytest.mark.parametrize("name", ["../../x", "a/../../b/c", "owner", "owner/na me", "/etc/x"])
def test_a_repository_is_no_path(server, monkeypatch, tmp_path, name):
    from huggingface_hub import constants

    use_hub(monkeypatch, server.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))
    register(monkeypatch, ModelEntry("odd", "clip", "ViT-B-32", "x", source=name, size_mb=1))
    with pytest.raises((WeightsError, OfflineError, ValueError)):
        pull_models(["odd"])
    assert not (tmp_path / "hf-cache").exists() or not list((tmp_path / "hf-cache").iterdir())


def test_a_killed_pull_goes_on_in_a_new_process(server, tmp_path):
    """With the command itself, from start to end."""
    content = os.urandom(200_000)
    digest = hashlib.sha256(content).hexdigest()
    url = server.put(f"/w-{digest[:8]}.pth", content)
    code = (
        "import sys, dataclasses; from zs_operators import model_registry as r, downloads\n"
        "downloads._WAIT_S = 0\n"
        "e = dataclasses.replace(r.find_model('sam-vit-b'), source=sys.argv[1], sha256=None)\n"
        "t = {**r._registry(), 'sam-vit-b': e}; r._registry = lambda: t\n"
        "from zs_operators.cli import main; sys.exit(main(['pull', 'sam-vit-b']))\n"
    )
    environment = {
        **{name: value for name, value in os.environ.items() if "OFFLINE" not in name},
        "TORCH_HOME": str(tmp_path / "torch"),
    }

    def pull():
        return subprocess.run(
            [sys.executable, "-c", code, url],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    server.cut_after = [150_000] + [0] * 10
    first = pull()
    assert first.returncode == 2
    assert "150,000 bytes are kept" in first.stderr
    server.cut_after, server.asked = [], []
    second = pull()
    assert second.returncode == 0, second.stderr
    assert server.ranges == ["bytes=150000-"]
    assert digest in second.stdout
    assert (tmp_path / f"torch/hub/checkpoints/w-{digest[:8]}.pth").read_bytes() == content
