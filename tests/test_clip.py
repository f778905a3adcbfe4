from concurrent.futures import ThreadPoolExecutor

import open_clip
import pytest
import torch

from tests.tiny_clips import (
    CUSTOM_TEXT,
    NAMES,
    RESNET,
    SIGLIP,
    SIGLIP_PREPROCESS,
    VIT,
    batch_of,
    pictures,
    save,
)
from zs_operators.clip import ClipModel, load_clip
from zs_operators.errors import (
    InvalidInputError,
)
from zs_operators.vocabulary import Vocabulary


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


def test_folded_batch_norms_change_rounding_only(folders, clips):
    """Half-precision ResNets run without batch norm layers; their numbers stay."""
    from zs_operators.clip import _fold_batch_norms

    plain, folded = clips["resnet"], load_clip(folders["resnet"], precision="fp32")
    _fold_batch_norms(folded.module.visual)
    norms = [m for m in folded.module.visual.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms == []
    images = batch_of(plain, pictures())
    expected, got = plain.encode_images(images), folded.encode_images(images)
    # Far less than what tells two images apart
    assert (expected - got).abs().max() < 0.01 * (expected[0] - expected[1]).abs().max()
