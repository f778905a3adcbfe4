"""Measure shapes-clip on fresh scenes: ``python -m zs_operators.shapes.evaluate``.

Validation and test scenes come from disjoint seeds; test scenes are for reporting only.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from zs_operators.shapes.world import CLASSES, TEXTURES, UNSEEN, Scene, make_scene

VALIDATION_SEED = 800_000_000
TEST_SEED = 900_000_000
_ALONE_OFFSET = 10_000_000  # one-object scenes follow the crowded ones

WEIGHTS = Path(__file__).parent / "weights" / "shapes-clip"
CONTEXTS = (1.0, 1.5)


def scenes(seed: int, count: int, *, alone: bool = False) -> list[Scene]:
    """``count`` scenes from consecutive seeds: 2-6 objects each, or one if ``alone``."""
    first = seed + (_ALONE_OFFSET if alone else 0)
    objects = 1 if alone else (2, 6)
    return [make_scene(first + k, num_objects=objects) for k in range(count)]


def load_clip(folder: Path = WEIGHTS):
    """The trained model in fp32, its preprocessing and its tokenizer, from a weights folder.

    Returns:
        (open_clip.CLIP in eval mode, PIL image -> (3, 64, 64) tensor, texts -> (N, 32) token ids)
    """
    import open_clip
    from open_clip.tokenizer import SimpleTokenizer

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    config = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))
    tokenizer = SimpleTokenizer(
        bpe_path=str(folder / "bpe.txt.gz"),
        context_length=config["model_cfg"]["text_cfg"]["context_length"],
    )
    return model.eval(), preprocess, tokenizer


def crop_box(image: np.ndarray, box_px: Sequence[float], context: float) -> Image.Image:
    """The box grown ``context`` times about its centre and clipped to the frame.

    Args:
        image: (H, W, 3) uint8 RGB.
        box_px: (x1, y1, x2, y2), half-open.
        context: 1.0 is the box itself.
    """
    x1, y1, x2, y2 = box_px
    grow_x, grow_y = (context - 1.0) / 2.0 * (x2 - x1), (context - 1.0) / 2.0 * (y2 - y1)
    left, top = max(0, round(x1 - grow_x)), max(0, round(y1 - grow_y))
    right, bottom = round(x2 + grow_x), round(y2 + grow_y)
    return Image.fromarray(image[top:bottom, left:right])


def embed_images(model, preprocess, pictures: Sequence[Image.Image]):
    """(N, D) fp32 unit embeddings."""
    import torch

    parts = []
    with torch.inference_mode():
        for start in range(0, len(pictures), 256):
            batch = torch.stack([preprocess(p) for p in pictures[start : start + 256]])
            parts.append(model.encode_image(batch, normalize=True))
    return torch.cat(parts)


def class_vectors(model, tokenizer, names: Sequence[str], templates: Sequence[str] | None = None):
    """(C, D) fp32: the mean over templates of unit text embeddings, normalised.

    Args:
        names: C class names.
        templates: such as "a photo of a {}."; default open_clip's seven simple ones.
    """
    import torch
    from open_clip.zero_shot_metadata import SIMPLE_IMAGENET_TEMPLATES

    templates = templates or [template("{}") for template in SIMPLE_IMAGENET_TEMPLATES]
    vectors = []
    with torch.inference_mode():
        for name in names:
            tokens = tokenizer([template.format(name) for template in templates])
            vectors.append(model.encode_text(tokens, normalize=True).mean(dim=0))
        return torch.nn.functional.normalize(torch.stack(vectors), dim=-1)


def measure(model, preprocess, tokenizer, crowded: list[Scene], alone: list[Scene]) -> dict:
    """Accuracies (0-1) of the card's table, with the number of objects behind each.

    Args:
        crowded: scenes whose ground-truth boxes are cropped.
        alone: one-object scenes, given whole to the model's own preprocessing.
    """
    import torch

    vectors = class_vectors(model, tokenizer, CLASSES)
    objects = [(scene, item) for scene in crowded for item in scene.objects]
    per_context = [
        embed_images(model, preprocess, [crop_box(s.image, o.box_px, c) for s, o in objects])
        for c in CONTEXTS
    ]
    both = torch.nn.functional.normalize(sum(per_context), dim=-1)
    labels = np.array([CLASSES.index(o.label) for _, o in objects])
    textures = np.array([TEXTURES.index(o.texture) for _, o in objects])

    table = {"objects": len(objects), "unseen_objects": int(_is_unseen(labels).sum())}
    table["crop_1.0x"] = _seen_unseen((per_context[0] @ vectors.T).argmax(1).numpy(), labels)
    table["crop_1.0x_1.5x"] = _seen_unseen((both @ vectors.T).argmax(1).numpy(), labels)

    words = class_vectors(model, tokenizer, [f"{t} object" for t in TEXTURES])
    table["texture_word"] = _balanced((per_context[0] @ words.T).argmax(1).numpy(), textures)
    full = [f"{t} {name}" for name in CLASSES for t in TEXTURES]
    own = class_vectors(model, tokenizer, full, ["a photo of a {}."])
    own = own.reshape(len(CLASSES), len(TEXTURES), -1)
    scores = torch.einsum("nd,ntd->nt", per_context[0], own[torch.as_tensor(labels)])
    table["texture_in_full_name"] = _balanced(scores.argmax(1).numpy(), textures)

    whole = embed_images(model, preprocess, [Image.fromarray(s.image) for s in alone])
    labels = np.array([CLASSES.index(s.objects[0].label) for s in alone])
    table["scenes_alone"] = len(alone)
    table["alone"] = _seen_unseen((whole @ vectors.T).argmax(1).numpy(), labels)

    empty = [Image.fromarray(make_scene(s.seed, num_objects=0).image) for s in alone[:300]]
    prompts = class_vectors(model, tokenizer, ["background", "nothing"])
    candidates = torch.cat([vectors, prompts])
    best = (embed_images(model, preprocess, empty) @ candidates.T).argmax(1).numpy()
    table["empty_rejected"] = float((best >= len(CLASSES)).mean())
    best = (both @ candidates.T).argmax(1).numpy()
    table["objects_rejected"] = float((best >= len(CLASSES)).mean())
    return table


def _is_unseen(labels: np.ndarray) -> np.ndarray:
    return np.isin(labels, [CLASSES.index(name) for name in UNSEEN])


def _seen_unseen(predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    correct, unseen = predicted == labels, _is_unseen(labels)
    seen_rate, unseen_rate = float(correct[~unseen].mean()), float(correct[unseen].mean())
    return {
        "seen": seen_rate,
        "unseen": unseen_rate,
        "harmonic": 2 * seen_rate * unseen_rate / max(seen_rate + unseen_rate, 1e-9),
        "all": float(correct.mean()),
    }


def _balanced(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes of their accuracy, since half of all objects are solid."""
    return float(np.mean([(predicted[labels == k] == k).mean() for k in np.unique(labels)]))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--scenes", type=int, default=800, help="of each kind")
    parser.add_argument("--validation", action="store_true", help="validation seeds, not test")
    options = parser.parse_args(arguments)
    seed = VALIDATION_SEED if options.validation else TEST_SEED
    crowded, alone = scenes(seed, options.scenes), scenes(seed, options.scenes, alone=True)
    table = measure(*load_clip(options.weights), crowded, alone)
    sys.stdout.write(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
