import gzip
import json
import logging
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.tokenizer import default_bpe
from safetensors.torch import save_file

from zs_operators import clip_loading
from zs_operators.clip import ClipModel, load_clip
from zs_operators.errors import (
    InvalidInputError,
    MissingDependencyError,
    OfflineError,
    WeightsError,
)
from zs_operators.vocabulary import Vocabulary
from zs_operators.weights import file_sha256

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
VIT = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
    "text_cfg": TEXT,
}
RESNET = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
    "text_cfg": TEXT,
}
# SigLIP's recipe with a tokenizer that needs no files: sigmoid, no causal mask, last token
SIGLIP = {
    "embed_dim": 32,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": VIT["vision_cfg"],
    "text_cfg": {**TEXT, "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
}
CUSTOM_TEXT = {**VIT, "custom_text": True}
CLIP_PREPROCESS = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
SIGLIP_PREPROCESS = {
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "resize_mode": "squash",
}
NAMES = ("cat", "dog", "a fire truck", *(f"thing number {i}" for i in range(20)))


def build(config, seed=0):
    """open_clip's own network of a config, with scale, bias and batch norm as if trained."""
    torch.manual_seed(seed)
    settings = json.loads(json.dumps(config))
    kind = open_clip.CustomTextCLIP if settings.pop("custom_text", False) else open_clip.CLIP
    module = kind(**settings).eval()
    with torch.no_grad():
        module.logit_scale.fill_(4.0)
        if module.logit_bias is not None:
            module.logit_bias.fill_(-12.93)
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):  # bn3 starts at 0: the branch would be dead
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.normal_(0, 0.1)
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
    return module


def save(folder, config, preprocess=CLIP_PREPROCESS, *, module=None, name="open_clip_model"):
    folder.mkdir(parents=True, exist_ok=True)
    document = {"model_cfg": config}
    if preprocess is not None:
        document["preprocess_cfg"] = preprocess
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    save_file((module or build(config)).state_dict(), folder / f"{name}.safetensors")
    return folder


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


def pictures(count=5, height=70, width=90, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def batch_of(model, images):
    return torch.stack([model.preprocess(image) for image in images])


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

    def test_weights_without_bias_do_not_load_into_a_sigmoid_model(self, tmp_path):
        state = build(SIGLIP).state_dict()
        del state["logit_bias"]
        folder = save(tmp_path / "nobias", SIGLIP, SIGLIP_PREPROCESS)
        save_file(state, folder / "open_clip_model.safetensors")
        with pytest.raises(WeightsError, match="logit_bias"):
            load_clip(folder)

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


class TestImages:
    @pytest.mark.parametrize("name", ["vit", "resnet", "siglip"])
    def test_unit_float32_of_the_right_shape(self, clips, name):
        model = clips[name]
        embeddings = model.encode_images(batch_of(model, pictures()))
        assert embeddings.shape == (5, model.dim)
        assert embeddings.dtype == torch.float32
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(5))
        assert not embeddings.is_inference()
        assert model.encode_images(torch.empty(0, 3, 64, 64, dtype=torch.uint8)).shape == (0, 32)

    @pytest.mark.parametrize("name", ["vit", "resnet"])
    def test_batch_size_and_order_do_not_matter(self, clips, name):
        model = clips[name]
        batch = batch_of(model, pictures(8))
        together = model.encode_images(batch)
        alone = torch.cat([model.encode_images(image[None]) for image in batch])
        torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)
        torch.testing.assert_close(
            model.encode_images(batch.flip(0)), together.flip(0), atol=1e-5, rtol=0
        )

    @pytest.mark.parametrize("name", ["vit", "resnet"])
    def test_bf16_weights_stay_close(self, folders, clips, name):
        half = load_clip(folders[name], device="cpu", precision="bf16")
        dtypes = {p.dtype for p in half.module.visual.parameters()}
        assert dtypes == {torch.bfloat16}
        others = [p for n, p in half.module.named_parameters() if not n.startswith("visual.")]
        assert {p.dtype for p in others} == {torch.float32}
        batch = batch_of(half, pictures(16))
        embeddings = half.encode_images(batch)
        assert embeddings.dtype == torch.float32
        cosines = (embeddings * clips[name].encode_images(batch)).sum(dim=1)
        assert cosines.min() > 0.999
        assert torch.equal(half.encode_texts(NAMES), clips[name].encode_texts(NAMES))
        assert half.logit_scale == clips[name].logit_scale

    def test_convolutional_towers_run_channels_last(self, clips):
        assert clips["resnet"].describe()["channels_last"]
        assert not clips["vit"].describe()["channels_last"]
        weight = clips["resnet"].module.visual.conv2.weight
        assert weight.is_contiguous(memory_format=torch.channels_last)

    @pytest.mark.parametrize(
        "batch",
        [
            torch.zeros(2, 3, 64, 64),
            torch.zeros(2, 64, 64, 3, dtype=torch.uint8),
            torch.zeros(3, 64, 64, dtype=torch.uint8),
            torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
        ],
    )
    def test_refuses_other_batches(self, clips, batch):
        with pytest.raises(InvalidInputError, match=r"expected a batch of shape \(N, 3, 64, 64\)"):
            clips["vit"].encode_images(batch)

    def test_preprocess_is_safe_in_threads(self, clips):
        images = pictures(40)
        with ThreadPoolExecutor(8) as pool:
            threaded = list(pool.map(clips["vit"].preprocess, images))
        for image, result in zip(images, threaded, strict=True):
            assert torch.equal(result, clips["vit"].preprocess(image))

    def test_reading_may_not_go_below_twice_the_size(self, clips):
        assert clips["vit"].reduce_to_px == clips["vit"].image_size_px == 64


class TestTexts:
    @pytest.mark.parametrize("name", ["vit", "custom_text"])
    @pytest.mark.parametrize("length", [1, 13, 14, 15, 29, 60, 75, 90])
    def test_cutting_padding_off_changes_nothing(self, clips, name, length):
        texts = ["cat", " ".join(["cat"] * length)]
        cut = clips[name].encode_texts(texts)
        whole = clips[name].encode_texts(texts, slice_padding=False)
        torch.testing.assert_close(cut, whole, atol=1e-6, rtol=0)

    def test_padding_really_is_cut_off(self, clips, monkeypatch):
        lengths = []
        transformer = clips["vit"].module.transformer
        monkeypatch.setattr(
            transformer,
            "forward",
            lambda x, attn_mask=None, original=transformer.forward: (
                lengths.append(x.shape[1]),
                original(x, attn_mask=attn_mask),
            )[1],
        )
        clips["vit"].encode_texts(["cat"])
        clips["vit"].encode_texts(["cat " * 20])
        clips["vit"].encode_texts(["cat " * 200])
        clips["vit"].encode_texts(["cat"], slice_padding=False)
        assert lengths == [16, 32, 77, 77]

    def test_towers_without_a_causal_mask_are_not_cut(self, clips):
        assert clips["siglip"]._causal_text is None
        assert clips["vit"]._causal_text is not None
        assert clips["custom_text"]._causal_text is not None

    def test_batches_keep_order(self, clips):
        one = torch.cat([clips["vit"].encode_texts([name]) for name in NAMES])
        torch.testing.assert_close(clips["vit"].encode_texts(NAMES, 4), one, atol=1e-6, rtol=0)
        assert clips["vit"].encode_texts([]).shape == (0, 32)

    def test_too_long_names_what_will_be_cut(self, clips):
        fits, long = " ".join(["cat"] * 75), " ".join(["cat"] * 76)
        assert clips["vit"].too_long(["a", fits, long]) == (long,)
        tokens = open_clip.tokenize([fits, long])
        assert torch.equal(tokens[0], tokens[1])  # so the limit is where open_clip cuts


class TestClassVectors:
    @pytest.mark.parametrize("templates", ["none", "simple", ("a {}.", "one {} in a box")])
    @pytest.mark.parametrize("count", [1, 3, 10, 23])
    @pytest.mark.parametrize("name", ["vit", "custom_text", "siglip"])
    def test_equal_open_clips_bit_for_bit(self, clips, name, count, templates):
        model = clips[name]
        vocabulary = Vocabulary.parse(list(NAMES[:count]), templates=templates)
        expected = open_clip.build_zero_shot_classifier(
            model.module, model.tokenizer, NAMES[:count], vocabulary.templates
        ).T
        exact = model.class_vectors(vocabulary, exact=True)
        assert torch.equal(exact, expected)
        # the padding cut off: also to the last bit here, within rounding on any processor
        torch.testing.assert_close(model.class_vectors(vocabulary), exact, atol=1e-6, rtol=0)

    def test_callable_templates_of_open_clip_agree(self, clips):
        model = clips["vit"]
        vocabulary = Vocabulary.parse(list(NAMES), templates="simple")
        expected = open_clip.build_zero_shot_classifier(
            model.module, model.tokenizer, NAMES, open_clip.SIMPLE_IMAGENET_TEMPLATES
        ).T
        assert torch.equal(model.class_vectors(vocabulary, exact=True), expected)

    def test_bf16_model_has_the_same_vectors(self, folders, clips):
        half = load_clip(folders["vit"], device="cpu", precision="bf16")
        vocabulary = Vocabulary.parse(list(NAMES))
        assert torch.equal(half.class_vectors(vocabulary), clips["vit"].class_vectors(vocabulary))

    def test_background_and_synonyms_have_their_columns(self, clips):
        model = clips["vit"]
        vocabulary = Vocabulary.parse(
            {"car": ["car", "sedan"], "cat": None}, templates="none", background=["a photo."]
        )
        vectors = model.class_vectors(vocabulary)
        assert vectors.shape == (3, 32)
        car, sedan, cat, photo = model.encode_texts(["car", "sedan", "cat", "a photo."])
        mean = (car + sedan) / 2
        expected = torch.stack([mean / mean.norm(), cat, photo])
        torch.testing.assert_close(vectors, expected, atol=1e-6, rtol=0)

    def test_permuting_classes_permutes_the_vectors(self, clips):
        forward = clips["vit"].class_vectors(Vocabulary.parse(list(NAMES)))
        backward = clips["vit"].class_vectors(Vocabulary.parse(list(NAMES[::-1])))
        torch.testing.assert_close(backward.flip(0), forward, atol=1e-6, rtol=0)


def test_model_type_is_public(clips):
    assert all(isinstance(model, ClipModel) for model in clips.values())
