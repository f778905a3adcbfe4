"""The words of the shapes world: templates, nouns at six levels of detail, and the tokenizer file.

Captions name seen pairs and spare colours only; a held-out pair is never spelled out in training.
"""

from __future__ import annotations

import gzip
from itertools import pairwise
from pathlib import Path

import numpy as np

from zs_operators.shapes.drawing import SHAPES, TEXTURES
from zs_operators.shapes.training_data import ALL_COLORS, SEEN_PAIRS, SPARE_COLORS

# open_clip's SIMPLE_IMAGENET_TEMPLATES first, so that default prompts are prompts it was taught.
TEMPLATES = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
    "a photo of a {}.",
    "a photo of a {}.",
    "a picture of a {}",
    "a {}",
    "an {}",
    "the {}.",
    "{}",
    "{}",
)
COLOR_NOUNS = ("{} object", "{} shape", "{} thing", "something {}", "{}")
NOTHING = (
    "nothing",
    "background",
    "empty background",
    "plain background",
    "empty scene",
    "blank image",
    "no object",
)

JOINT_PAIRS = (*SEEN_PAIRS, *((color, shape) for color in SPARE_COLORS for shape in SHAPES))


def fill(rng: np.random.Generator, noun: str) -> str:
    """The noun in a random training template."""
    return TEMPLATES[int(rng.integers(len(TEMPLATES)))].format(noun)


def describe(rng: np.random.Generator, word: str) -> str:
    """A noun for one colour or texture word, such as "red object" or "something striped"."""
    return COLOR_NOUNS[int(rng.integers(len(COLOR_NOUNS)))].format(word)


def nothing(rng: np.random.Generator) -> str:
    """A noun for a picture without an object."""
    return NOTHING[int(rng.integers(len(NOTHING)))]


def joint_nouns() -> list[str]:
    """ "red square" and so on, in the order of ``JOINT_PAIRS``."""
    return [f"{color} {shape}" for color, shape in JOINT_PAIRS]


def write_bpe(path: Path) -> int:
    """Write the subset of CLIP's own merges that splits our words exactly as CLIP splits them.

    The first 512 merges plus those the training captions need, in CLIP's order.

    Returns:
        The vocabulary size of ``SimpleTokenizer(bpe_path=path)``.
    """
    from open_clip.tokenizer import SimpleTokenizer, default_bpe

    lines = gzip.decompress(Path(default_bpe()).read_bytes()).decode("utf-8").split("\n")
    merges = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
    full = SimpleTokenizer()
    words = {word for text in _all_texts() for word in full.pat.findall(text.lower())}
    needed = set()
    for word in words:
        needed |= _merges_of(word, full.bpe_ranks)
    kept = [merge for rank, merge in enumerate(merges) if rank < 512 or merge in needed]
    # No newline at the end: SimpleTokenizer would read it as one more, empty merge.
    text = "\n".join(["#version: 0.2", *(" ".join(merge) for merge in kept)])
    path.write_bytes(gzip.compress(text.encode("utf-8"), compresslevel=9, mtime=0))
    small = SimpleTokenizer(bpe_path=str(path))
    for word in words:
        if small.bpe(word) != full.bpe(word):
            raise RuntimeError(f"the reduced tokenizer splits {word!r} unlike CLIP's")
    return small.vocab_size


def _all_texts() -> list[str]:
    words = [*ALL_COLORS, *SHAPES, *TEXTURES, *NOTHING, "grey"]
    return [*words, *TEMPLATES, *COLOR_NOUNS, "an empty background with a and"]


def _merges_of(word: str, ranks: dict[tuple[str, str], int]) -> set[tuple[str, str]]:
    """The merges that BPE applies to one word."""
    used: set[tuple[str, str]] = set()
    parts = [*word[:-1], word[-1] + "</w>"]
    while len(parts) > 1:
        pairs = list(pairwise(parts))
        best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        used.add(best)
        merged, k = [], 0
        while k < len(parts):
            if k + 1 < len(parts) and (parts[k], parts[k + 1]) == best:
                merged.append(parts[k] + parts[k + 1])
                k += 2
            else:
                merged.append(parts[k])
                k += 1
        parts = merged
    return used
