import gzip
import json
import logging
import pickle
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.tokenizer import default_bpe
from safetensors.torch import save_file

from tests.tiny_clips import (
    CLIP_PREPROCESS,
    CUSTOM_TEXT,
    NAMES,
    RESNET,
    SIGLIP,
    SIGLIP_PREPROCESS,
    TEXT,
    VIT,
    batch_of,
    build,
    pictures,
    save,
)
from zs_operators import clip_loading
from zs_operators.clip import load_clip
from zs_operators.clip_weights import guess_architectures
from zs_operators.errors import (
    InvalidInputError,
    MissingDependencyError,
    OfflineError,
    WeightsError,
)
from zs_operators.weights import file_sha256


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("clips")
    return {
        "vit": save(base / "vit", VIT),
        "resnet": save(base / "resnet", RESNET),
        "siglip": save(base / "siglip", SIGLIP, SIGLIP_PREPROCESS),
        "custom_text": save(base / "custom_text", CUSTOM_TEXT),
    }


@pytest.fixture(scope="module")
def clips(folders):
    return {
        name: load_clip(folder, device="cpu", precision="fp32") for name, folder in folders.items()
    }


@pytest.fixture
def architecture(tmp_path, monkeypatch):
    """The tiny ViT as an architecture open_clip knows by name."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-vit", VIT)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-resnet", RESNET)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-siglip", SIGLIP)


class TestLocalFolder:
    @pytest.mark.parametrize("name", ["vit", "resnet", "siglip", "custom_text"])
    def test_embeddings_are_open_clips_own(self, folders, clips, name):
        model = clips[name]
        reference = build({"vit": VIT, "resnet": RESNET, "siglip": SIGLIP}.get(name, CUSTOM_TEXT))
        batch = batch_of(model, pictures())
        preprocess = model.preprocessing
        pixels = (batch / 255 - torch.tensor(preprocess["mean"]).view(3, 1, 1)) / torch.tensor(
            preprocess["std"]
        ).view(3, 1, 1)
        with torch.no_grad():
            expected = reference.encode_image(pixels, normalize=True)
            texts = reference.encode_text(open_clip.tokenize(list(NAMES)), normalize=True)
        torch.testing.assert_close(model.encode_images(batch), expected, atol=2e-6, rtol=0)
        torch.testing.assert_close(model.encode_texts(NAMES), texts, atol=2e-6, rtol=0)

    def test_plan_has_the_checksum_of_the_file(self, folders, clips):
        plan = clips["vit"].plan
        assert plan.state == "local"
        assert plan.sha256 == file_sha256(folders["vit"] / "open_clip_model.safetensors")

    def test_scale_and_bias_are_the_checkpoints(self, clips):
        assert clips["vit"].logit_scale == pytest.approx(np.exp(4.0), rel=1e-6)
        assert clips["vit"].logit_bias is None
        assert not clips["vit"].is_sigmoid
        assert clips["siglip"].logit_bias == pytest.approx(-12.93)
        assert clips["siglip"].is_sigmoid

    def test_describe_is_plain_json(self, clips):
        for model in clips.values():
            told = json.loads(json.dumps(model.describe()))
            assert told["weights"]["sha256"] == model.plan.sha256
            assert told["preprocessing"]["size_px"] == [64, 64]
            assert (told["precision"], told["device"], told["dim"]) == ("fp32", "cpu", 32)
        assert clips["siglip"].describe()["scores"] == "sigmoid"

    def test_reduced_vocabulary_comes_from_the_folder(self, tmp_path):
        lines = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")[:101]
        config = {**VIT, "text_cfg": {**TEXT, "vocab_size": 512 + 100 + 2, "context_length": 16}}
        folder = save(tmp_path / "small", config)
        with pytest.raises(WeightsError, match=r"49408 tokens .* 614; put the bpe\.txt\.gz"):
            load_clip(folder)
        with gzip.open(folder / "bpe.txt.gz", "wb") as file:
            file.write("\n".join(lines).encode())
        model = load_clip(folder, precision="fp32")
        assert model.context_length == 16
        assert model.encode_texts(["cat"]).shape == (1, 32)

    def test_bundled_model_loads(self):
        model = load_clip("shapes-tiny", device="cpu", precision="fp32")
        assert model.plan.state == "bundled"
        assert model.encode_texts(["red circle"]).shape == (1, model.dim)

    def test_a_loaded_model_is_returned_as_it_is(self, clips):
        assert load_clip(clips["vit"]) is clips["vit"]
        with pytest.raises(InvalidInputError, match="loaded model"):
            load_clip(clips["vit"], "openai")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"text_cfg": {**TEXT, "hf_model_name": "roberta-base"}}, "network"),
            ({"vision_cfg": {"timm_model_name": "hf-hub:someone/vit"}}, "network"),
            ({"text_cfg": {**TEXT, "no_such_option": 1}}, "cannot build"),
        ],
    )
    def test_configs_that_reach_for_the_network_or_are_wrong(
        self, tmp_path, monkeypatch, change, message
    ):
        monkeypatch.setattr(clip_loading, "_has", lambda package: True)
        folder = save(tmp_path / "odd", {**VIT, **change}, module=build(VIT))
        with pytest.raises(WeightsError, match=message):
            load_clip(folder)

    @pytest.mark.parametrize("content", ["{", "[]", '{"model_cfg": {"embed_dim": 1}}'])
    def test_unreadable_config(self, folders, tmp_path, content):
        folder = save(tmp_path / "broken", VIT)
        (folder / "open_clip_config.json").write_text(content)
        with pytest.raises(WeightsError, match=r"open_clip_config\.json"):
            load_clip(folder)

    def test_folder_of_another_architecture_than_asked_for(self, folders, architecture):
        assert load_clip("tiny-vit", folders["vit"]).dim == 32
        with pytest.raises(WeightsError, match=r"another architecture than 'tiny-resnet'.*layers"):
            load_clip("tiny-resnet", folders["vit"])


class TestLocalFile:
    @pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin"])
    def test_every_format_gives_the_same_model(self, tmp_path, architecture, suffix):
        module, file = build(VIT), tmp_path / f"weights{suffix}"
        if suffix == ".safetensors":
            save_file(module.state_dict(), file)
        elif suffix == ".pt":  # a training checkpoint of open_clip under DDP
            state = {f"module.{key}": value for key, value in module.state_dict().items()}
            torch.save({"epoch": 3, "name": "run", "state_dict": state}, file)
        else:
            torch.save(module.state_dict(), file)
        model = load_clip("tiny-vit", file, precision="fp32")
        for name, tensor in model.module.state_dict().items():
            torch.testing.assert_close(tensor, module.state_dict()[name], atol=0, rtol=0)
        assert model.preprocessing["mean"] == pytest.approx(CLIP_PREPROCESS["mean"])
        assert model.plan.sha256 == file_sha256(file)

    @pytest.mark.filterwarnings("ignore:Detected pickle protocol")
    def test_pickles_that_could_run_code_are_refused(self, tmp_path, architecture):
        file = tmp_path / "evil.pt"

        class Evil:
            def __reduce__(self):
                return (open, (str(tmp_path / "touched"), "w"))

        torch.save({"state_dict": Evil()}, file)
        with pytest.raises(WeightsError, match="could run code"):
            load_clip("tiny-vit", file)
        file.write_bytes(pickle.dumps(Evil()))
        with pytest.raises(WeightsError):
            load_clip("tiny-vit", file)
        assert not (tmp_path / "touched").exists()

    @pytest.mark.filterwarnings("ignore:.*TorchScript", "ignore:.*torch.jit.script")
    def test_torchscript_says_where_to_get_the_same_weights(self, tmp_path, architecture):
        file = tmp_path / "RN50.pt"
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(file))
        with pytest.raises(WeightsError, match=r"TorchScript .* safetensors"):
            load_clip("tiny-vit", file)

    @pytest.mark.parametrize("content", [b"", b"not weights at all"])
    @pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
    def test_damaged_file(self, tmp_path, architecture, content, suffix):
        file = tmp_path / f"w{suffix}"
        file.write_bytes(content)
        with pytest.raises(WeightsError, match=r"not a readable weights file|could run code"):
            load_clip("tiny-vit", file)

    def test_another_architecture_is_named(self, tmp_path, architecture):
        file = tmp_path / "w.safetensors"
        save_file(build(RESNET).state_dict(), file)
        with pytest.raises(WeightsError) as error:
            load_clip("tiny-vit", file)
        text = str(error.value)
        assert "another architecture than 'tiny-vit'" in text
        assert "visual.conv1.weight is (8, 3, 3, 3) instead of (64, 3, 16, 16)" in text
        assert "They fit model='tiny-resnet'" in text

    def test_another_image_size_is_not_interpolated(self, tmp_path, architecture):
        bigger = {**VIT, "vision_cfg": {**VIT["vision_cfg"], "image_size": 96}}
        file = tmp_path / "w.safetensors"
        save_file(build(bigger).state_dict(), file)
        with pytest.raises(WeightsError, match=r"visual\.positional_embedding is \(37, 64\)"):
            load_clip("tiny-vit", file)

    def test_regionclip_checkpoints_load_under_their_own_names(self, tmp_path, architecture):
        module = build(RESNET)
        state = {}
        for name, tensor in module.state_dict().items():
            if name.startswith("visual."):
                if not name.endswith("num_batches_tracked"):
                    state[f"backbone.{name.removeprefix('visual.')}"] = tensor
            elif name != "logit_scale":
                state[f"lang_encoder.{name}"] = tensor
        file = tmp_path / "regionclip.pth"
        torch.save({"model": state, "iteration": 3}, file)
        model = load_clip("tiny-resnet", file, precision="fp32")
        batch = batch_of(model, pictures())
        with torch.no_grad():
            expected = module.encode_image(model._preprocess.normalize(batch), normalize=True)
        torch.testing.assert_close(model.encode_images(batch), expected, atol=1e-6, rtol=0)
        assert model.logit_scale == pytest.approx(100)

    def test_weights_without_bias_do_not_load_into_a_sigmoid_model(self, tmp_path):
        state = build(SIGLIP).state_dict()
        del state["logit_bias"]
        folder = save(tmp_path / "nobias", SIGLIP, SIGLIP_PREPROCESS)
        save_file(state, folder / "open_clip_model.safetensors")
        with pytest.raises(WeightsError, match="logit_bias"):
            load_clip(folder)

    def test_the_guess_is_right_for_published_architectures(self):
        for name in ("ViT-B-32", "RN50"):
            with torch.device("meta"):
                module = open_clip.CLIP(**open_clip.get_model_config(name))
            assert guess_architectures(module.state_dict()) == (name, f"{name}-quickgelu")

    def test_preprocessing_of_other_families_is_not_guessed(self, tmp_path, architecture):
        file = tmp_path / "w.safetensors"
        save_file(build(SIGLIP).state_dict(), file)
        with pytest.raises(WeightsError, match="preprocess_cfg"):
            load_clip("tiny-siglip", file)
        folder = save(tmp_path / "folder", SIGLIP, None)
        with pytest.raises(WeightsError, match="preprocess_cfg"):
            load_clip(folder)
        folder = save(tmp_path / "half", SIGLIP, {"resize_mode": "squash"})
        with pytest.raises(WeightsError, match="lacks mean, std"):
            load_clip(folder)

    def test_a_config_beside_the_file_is_used(self, tmp_path, architecture):
        folder = save(tmp_path / "both", SIGLIP, SIGLIP_PREPROCESS)
        model = load_clip("tiny-siglip", folder / "open_clip_model.safetensors")
        assert model.preprocessing["resize_mode"] == "squash"

    @pytest.mark.parametrize(
        ("name", "mode", "mean"),
        [
            ("ViT-B-16-SigLIP2", "squash", 0.5),
            ("ViT-L-14-CLIPA", "squash", 0.485),
            ("ViT-B-32-quickgelu", "shortest", 0.48145466),
            ("ViT-L-14", "shortest", 0.48145466),  # its tags disagree: the family's own
        ],
    )
    def test_preprocessing_that_all_tags_of_an_architecture_share(self, tmp_path, name, mode, mean):
        from zs_operators.weights import plan_weights

        file = tmp_path / "w.pt"
        file.write_bytes(b"x")
        config = clip_loading._preprocess_config(
            plan_weights("clip", name, file), open_clip.get_model_config(name), None
        )
        assert config["resize_mode"] == mode
        assert config["mean"][0] == pytest.approx(mean)

    def test_lone_file_of_a_model_with_a_tokenizer_of_its_own(self, tmp_path, monkeypatch):
        monkeypatch.setattr(clip_loading, "_has", lambda package: True)
        file = tmp_path / "w.pt"
        file.write_bytes(b"x")
        with pytest.raises(WeightsError, match=r"tokenizer\.json .* one folder"):
            load_clip("ViT-B-16-SigLIP2", file)

    def test_missing_transformers_is_said_before_a_download(self, monkeypatch):
        monkeypatch.setattr(clip_loading, "_has", lambda package: package != "transformers")
        with pytest.raises(MissingDependencyError, match="pip install transformers"):
            load_clip("siglip2-b-16")

    def test_offline(self):
        with pytest.raises(OfflineError, match="ViT-B-32"):
            load_clip("ViT-B-32", "laion2b_s34b_b79k", allow_download=False)

    def test_random_weights_repeat_and_warn_nobody(self, architecture, caplog):
        first, second = (load_clip("tiny-vit", "random", precision="fp32") for _ in range(2))
        batch = batch_of(first, pictures())
        assert torch.equal(first.encode_images(batch), second.encode_images(batch))
        assert first.plan.state == "random"
        assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


class TestTag:
    """Weights that open_clip downloaded before: a cache as Hugging Face lays it out."""

    TAG = {  # noqa: RUF012
        **SIGLIP_PREPROCESS,
        "hf_hub": "someone/tiny/",
        "url": "",
        "quick_gelu": True,
    }

    @pytest.fixture
    def cached(self, tmp_path, monkeypatch, architecture):
        import huggingface_hub.constants as constants

        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-vit", {"run": self.TAG})
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        base = tmp_path / "models--someone--tiny"
        snapshot = base / "snapshots" / ("0" * 40)
        for folder in (snapshot, base / "blobs", base / "refs"):
            folder.mkdir(parents=True)
        (base / "refs" / "main").write_text("0" * 40)
        file = tmp_path / "w.safetensors"
        save_file(build(VIT).state_dict(), file)
        blob = file.rename(base / "blobs" / file_sha256(file))
        (snapshot / "open_clip_model.safetensors").symlink_to(blob)
        return blob

    def test_loads_without_network_with_the_tags_own_settings(self, cached):
        model = load_clip("tiny-vit", "run", precision="fp32", allow_download=False)
        assert model.plan.state == "cached"
        assert model.plan.sha256 == cached.name
        assert model.preprocessing["mean"] == [0.5, 0.5, 0.5]
        assert model.preprocessing["resize_mode"] == "squash"
        names = {type(layer).__name__ for layer in model.module.modules()}
        assert "QuickGELU" in names  # there is no tiny-vit-quickgelu to switch to
        assert "GELU" not in names

    def test_a_damaged_download_is_not_loaded(self, cached):
        content = bytearray(cached.read_bytes())
        content[-1] ^= 1
        cached.write_bytes(content)
        with pytest.raises(WeightsError, match="damaged"):
            load_clip("tiny-vit", "run")


def test_the_root_logger_gets_no_handler(monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    load_clip("shapes-tiny", device="cpu")
    assert logging.getLogger().handlers == []
