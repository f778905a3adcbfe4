"""Tiny zero-shot detectors of transformers with random weights, on disk as published ones are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

WORDS = ("a", "photo", "of", "object", "red", "green", "blue", "circle", "square", "star", "cat")
WORDS += ("dog", "car", "sky", "sedan", "triangle", "an", "the", "with")


def save_owl(folder: Path, kind: str = "owlv2", *, image_px: int = 64, seed: int = 0) -> Path:
    """An OWL-ViT or OWLv2 of two layers, whose scores differ from box to box."""
    import transformers

    prefix = {"owlv2": "Owlv2", "owlvit": "OwlViT"}[kind]
    config = getattr(transformers, f"{prefix}Config")(
        text_config={
            "vocab_size": 200, "hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 16, "bos_token_id": 1,
            "eos_token_id": 2, "pad_token_id": 0,
        },
        vision_config={
            "hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": image_px, "patch_size": 16,
        },
        projection_dim=32,
    )  # fmt: skip
    torch.manual_seed(seed)
    module = getattr(transformers, f"{prefix}ForObjectDetection")(config).eval()
    _spread(module)
    module.save_pretrained(folder)
    _word_tokenizer(folder, ("<pad>", "<bos>", "<eos>", "<unk>"), template="<bos> $A <eos>")
    size = {"height": image_px, "width": image_px}
    image_processor = getattr(transformers, f"{prefix}ImageProcessor")(size=size)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    getattr(transformers, f"{prefix}Processor")(image_processor, tokenizer).save_pretrained(folder)
    return folder


def save_grounding_dino(folder: Path, *, max_text_len: int = 24, seed: int = 0) -> Path:
    """A Grounding DINO of two layers with a small Swin and a small BERT."""
    import transformers

    config = transformers.GroundingDinoConfig(
        backbone_config=transformers.SwinConfig(
            image_size=64, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2],
            window_size=4, out_features=["stage2", "stage3", "stage4"],
        ),
        text_config=transformers.BertConfig(
            vocab_size=1040, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=37,
        ),
        num_queries=12, d_model=32, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, encoder_attention_heads=4, decoder_attention_heads=4,
        num_feature_levels=4, max_text_len=max_text_len, disable_custom_kernels=True,
    )  # fmt: skip
    torch.manual_seed(seed)
    module = transformers.GroundingDinoForObjectDetection(config).eval()
    module.save_pretrained(folder)
    # Where BERT has its special tokens, which the model knows by number
    special = {101: "[CLS]", 102: "[SEP]", 1012: ".", 1029: "?", 100: "[UNK]", 0: "[PAD]"}
    _word_tokenizer(
        folder,
        ("[PAD]", "[CLS]", "[SEP]", "[UNK]"),
        template="[CLS] $A [SEP]",
        numbers={word: number for number, word in special.items()},
    )
    image_processor = transformers.GroundingDinoImageProcessor(
        size={"shortest_edge": 96, "longest_edge": 160}
    )
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    transformers.GroundingDinoProcessor(image_processor, tokenizer).save_pretrained(folder)
    return folder


def save_sam3(folder: Path, *, seed: int = 0) -> Path:
    """A SAM 3 of a few layers."""
    import transformers

    layers = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 37}
    config = transformers.Sam3Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam3_vit_model", **layers, "num_hidden_layers": 2,
                "image_size": 112, "patch_size": 14, "window_size": 4, "global_attn_indexes": [1],
                "pretrain_image_size": 56,
            },
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        },
        text_config={
            "model_type": "clip_text_model", "vocab_size": 200, **layers, "num_hidden_layers": 1,
            "max_position_embeddings": 32, "projection_dim": 32, "bos_token_id": 1,
            "eos_token_id": 2, "pad_token_id": 0,
        },
        geometry_encoder_config={**layers, "num_layers": 1},
        detr_encoder_config={**layers, "num_layers": 1},
        detr_decoder_config={**layers, "num_layers": 1, "num_queries": 9},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )  # fmt: skip
    torch.manual_seed(seed)
    module = transformers.Sam3Model(config).eval()
    module.save_pretrained(folder)
    _word_tokenizer(folder, ("<pad>", "<bos>", "<eos>", "<unk>"), template="<bos> $A <eos>")
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    image_processor = transformers.Sam3ImageProcessor(size={"height": 112, "width": 112})
    transformers.Sam3Processor(image_processor, tokenizer).save_pretrained(folder)
    return folder


def picture(width: int = 90, height: int = 60, seed: int = 0) -> np.ndarray:
    """Noise with a bright rectangle: every corner is told from the others."""
    pixels = np.random.default_rng(seed).integers(0, 90, (height, width, 3), dtype=np.uint8)
    pixels[height // 6 : height // 3, width // 8 : width // 2] = (250, 40, 10)
    return pixels


def _spread(module: torch.nn.Module) -> None:
    """Untrained heads put every box into a corner, and give every class the same score."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "head" in name:
                parameter.mul_(0.2)


def _word_tokenizer(
    folder: Path,
    special: tuple[str, str, str, str],
    *,
    template: str,
    numbers: dict[str, int] | None = None,
) -> None:
    """A tokenizer with one token a word; ``special`` are padding, begin, end, unknown."""
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    pad, begin, end, unknown = special
    vocabulary = dict(numbers or {word: number for number, word in enumerate(special)})
    first = max(vocabulary.values()) + 1 if numbers is None else 200
    vocabulary |= {word: first + number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(begin, vocabulary[begin]), (end, vocabulary[end])]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        unk_token=unknown,
        bos_token=begin,
        eos_token=end,
        model_max_length=16 if numbers is None else 512,
    ).save_pretrained(folder)
