"""The loss of shapes-clip: pictures against captions at six levels of detail at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from zs_operators.shapes import captions
from zs_operators.shapes.clip_recipe import Recipe
from zs_operators.shapes.drawing import SHAPES, TEXTURES
from zs_operators.shapes.training_data import ALL_COLORS, BACKGROUND, NO_COLOR
from zs_operators.shapes.world import COLORS, is_held_out


class TextEncoder:
    """Embeds training captions, only as many positions long as the longest of them."""

    def __init__(self, model: nn.Module, tokenizer) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.known: dict[str, torch.Tensor] = {}

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """(T, D) fp32 unit embeddings."""
        for text in set(texts) - self.known.keys():
            self.known[text] = self.tokenizer([text])[0]
        tokens = torch.stack([self.known[text] for text in texts])
        ends = tokens.argmax(dim=1)
        length = int(ends.max()) + 1
        model = self.model
        x = model.token_embedding(tokens[:, :length]) + model.positional_embedding[:length]
        x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
        x = model.ln_final(x[torch.arange(len(texts)), ends]) @ model.text_projection
        return F.normalize(x.float(), dim=-1)


def trained_pairs() -> torch.Tensor:
    """(all colours, shapes) bool: which pairs training shows."""
    table = torch.ones(len(ALL_COLORS), len(SHAPES), dtype=torch.bool)
    for c, color in enumerate(COLORS):
        for s, shape in enumerate(SHAPES):
            table[c, s] = not is_held_out(color, shape)
    return table


def contrast(logits: torch.Tensor, target: torch.Tensor, offset: torch.Tensor | None = None):
    """Pictures pick their caption, and captions pick (any of) their pictures.

    Args:
        logits: (N, T) scaled cosines.
        target: (N,) int64 column of each picture's caption.
        offset: (N, T) added to the logits; default none.
    """
    if offset is not None:
        logits = logits + offset
    to_text = F.cross_entropy(logits, target)
    present, column = target.unique(return_inverse=True)
    logits = logits[:, present].T
    positive = F.one_hot(column, len(present)).T.bool()
    to_image = logits.logsumexp(1) - logits.masked_fill(~positive, -1e4).logsumexp(1)
    return to_text + 0.3 * to_image.mean()


class Levels:
    """The loss of one batch over all levels of detail."""

    def __init__(self, recipe: Recipe, encode: TextEncoder) -> None:
        self.recipe = recipe
        self.encode = encode
        self.shown = trained_pairs()
        self.pair_nouns = captions.joint_nouns()
        self.pair_color = [ALL_COLORS.index(color) for color, _ in captions.JOINT_PAIRS]
        self.pair_shape = [SHAPES.index(shape) for _, shape in captions.JOINT_PAIRS]
        self.pair_index = torch.full(self.shown.shape, -1)
        for k, (c, s) in enumerate(zip(self.pair_color, self.pair_shape, strict=True)):
            self.pair_index[c, s] = k

    def __call__(
        self,
        image: torch.Tensor,
        scale: torch.Tensor,
        labels: tuple[np.ndarray, np.ndarray, np.ndarray],
        rng: np.random.Generator,
    ) -> torch.Tensor:
        """Scalar loss from (B, D) unit image embeddings."""
        recipe = self.recipe
        color, shape, texture = (torch.from_numpy(x) for x in labels)
        empty, has_color = shape == BACKGROUND, color != NO_COLOR
        groups, spans = self._texts(color, shape, texture, rng)
        vectors = self.encode([text for group in groups.values() for text in group])
        text = {name: vectors[a:b] for name, (a, b) in spans.items()}
        slow = image * recipe.pair_image_gradient + image.detach() * (
            1 - recipe.pair_image_gradient
        )

        absent = torch.where(self.shown, 0.0, math.log(recipe.absent_pair_weight))
        no_offset = torch.zeros(len(image), 1)
        by_shape = torch.where(has_color[:, None], absent[color.clamp(min=0)], 0.0)
        by_color = torch.where(empty[:, None], 0.0, absent.T[shape.clamp(min=0)])

        def level(name, source, rows, target, offset=None) -> torch.Tensor:
            background = text[name].shape[0] - 1
            target = torch.where(empty, background, target)[rows]
            logits = scale * source[rows] @ text[name].T
            return contrast(logits, target, None if offset is None else offset[rows])

        any_row, colored = torch.ones_like(empty), has_color | empty
        pair = self.pair_index[color.clamp(min=0), shape.clamp(min=0)]
        textured = torch.where(empty, 0, self._textured_pair_targets(pair, texture, colored))
        shape_offset = torch.cat([by_shape, no_offset], dim=1)
        return (
            recipe.pair * level("pair", slow, colored, pair)
            + recipe.textured_pair * level("textured_pair", slow, textured >= 0, textured)
            + recipe.shape * level("shape", image, any_row, shape, shape_offset)
            + recipe.color
            * level("color", image, colored, color, torch.cat([by_color, no_offset], dim=1))
            + recipe.texture * level("texture", image, any_row, texture)
            + recipe.textured_shape
            * level(
                "textured_shape",
                image,
                any_row,
                shape * len(TEXTURES) + texture,
                torch.cat([by_shape.repeat_interleave(len(TEXTURES), dim=1), no_offset], dim=1),
            )
            + recipe.additive * self._additive(text)
        )

    def _texts(self, color, shape, texture, rng):
        """Captions of each level, the background's last, and where each level starts and ends."""
        some = rng.permutation(len(self.pair_nouns))[:16]
        self.some_pairs = torch.from_numpy(np.sort(some))
        nouns = {
            "pair": self.pair_nouns,
            "textured_pair": [
                f"{t} {self.pair_nouns[k]}" for k in self.some_pairs.tolist() for t in TEXTURES
            ],
            "shape": list(SHAPES),
            "color": [captions.describe(rng, name) for name in ALL_COLORS],
            "texture": [captions.describe(rng, name) for name in TEXTURES],
            "textured_shape": [f"{t} {s}" for s in SHAPES for t in TEXTURES],
        }
        groups = {
            name: [captions.fill(rng, noun) for noun in [*level, captions.nothing(rng)]]
            for name, level in nouns.items()
        }
        spans, start = {}, 0
        for name, group in groups.items():
            spans[name] = (start, start + len(group))
            start += len(group)
        return groups, spans

    def _textured_pair_targets(self, pair, texture, colored) -> torch.Tensor:
        """(B,) column among this step's textured pairs; -1 where the pair is not among them."""
        position = torch.full((len(self.pair_nouns),), -1)
        position[self.some_pairs] = torch.arange(len(self.some_pairs))
        column = position[pair.clamp(min=0)]
        inside = colored & (pair >= 0) & (column >= 0)
        return torch.where(inside, column * len(TEXTURES) + texture, -1)

    def _additive(self, text: dict[str, torch.Tensor]) -> torch.Tensor:
        """A pair's text should lie between its colour's and its shape's (and its texture's)."""
        color, shape, texture = text["color"], text["shape"], text["texture"]
        parts = color[self.pair_color] + shape[self.pair_shape]
        pair = 1 - F.cosine_similarity(text["pair"][:-1], parts).mean()
        chosen = parts[self.some_pairs].repeat_interleave(len(TEXTURES), dim=0)
        chosen = chosen + texture[:-1].repeat(len(self.some_pairs), 1)
        textured = 1 - F.cosine_similarity(text["textured_pair"][:-1], chosen).mean()
        both = shape[:-1].repeat_interleave(len(TEXTURES), dim=0) + texture[:-1].repeat(
            len(SHAPES), 1
        )
        return (
            pair
            + 0.5 * textured
            + 0.5 * (1 - F.cosine_similarity(text["textured_shape"][:-1], both).mean())
        )
