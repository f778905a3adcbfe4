"""What the shapes models are trained on: a held-out pair must not appear in picture or caption."""

import math
import re

import numpy as np
import pytest

from zs_operators.shapes import captions
from zs_operators.shapes.drawing import SHAPES
from zs_operators.shapes.training_data import (
    ALL_COLORS,
    BACKGROUND,
    NO_COLOR,
    SEEN_PAIRS,
    SPARE_COLORS,
    make_views,
    sample_seen_look,
    sample_spare_look,
    sample_unnamed_rgb,
)
from zs_operators.shapes.world import COLORS, SEEN, UNSEEN, sample_rgb


@pytest.fixture(scope="module")
def views():
    return make_views(scale=0.004)


def test_no_training_view_is_a_held_out_pair(views):
    named = (views.color != NO_COLOR) & (views.shape != BACKGROUND)
    assert named.sum() > 50
    for color, shape in zip(views.color[named], views.shape[named], strict=True):
        assert f"{ALL_COLORS[color]} {SHAPES[shape]}" not in UNSEEN


def test_views_cover_every_kind(views):
    assert views.image.shape[1:] == (64, 64, 3)
    assert views.image.dtype == np.uint8
    assert (views.shape == BACKGROUND).any()
    assert (views.color == NO_COLOR).any()
    assert (views.color >= len(COLORS)).any()
    assert set(views.texture) == {0, 1, 2}


def test_seen_looks_stay_in_the_seen_pairs():
    rng = np.random.default_rng(0)
    drawn = set()
    for _ in range(600):
        color, look = sample_seen_look(rng)
        drawn.add(f"{COLORS[color]} {look.shape}")
    assert drawn == set(SEEN)
    assert len(SEEN_PAIRS) == 48


def test_spare_colours_keep_clear_of_the_named_ones():
    rng = np.random.default_rng(0)
    named = [sample_rgb(rng, color) for color in COLORS for _ in range(60)]
    spare = [sample_unnamed_rgb(rng) for _ in range(300)]
    spare += [sample_spare_look(rng)[1].rgb for _ in range(300)]
    nearest = [min(math.dist(rgb, other) for other in named) for rgb in spare]
    assert min(nearest) > 0.05
    assert not set(SPARE_COLORS) & set(COLORS)


def test_no_training_caption_spells_out_a_held_out_pair():
    rng = np.random.default_rng(0)
    nouns = [*captions.joint_nouns(), *SHAPES, *ALL_COLORS]
    texts = {captions.fill(rng, noun) for noun in nouns for _ in range(20)}
    texts |= {captions.fill(rng, captions.describe(rng, name)) for name in ALL_COLORS}
    texts |= {captions.fill(rng, captions.nothing(rng)) for _ in range(50)}
    assert len(texts) > 500
    for name in UNSEEN:
        pattern = re.compile(rf"\b{name}\b")
        assert not [text for text in texts if pattern.search(text)]


def test_default_prompts_are_training_prompts():
    from open_clip.zero_shot_metadata import SIMPLE_IMAGENET_TEMPLATES

    for template in SIMPLE_IMAGENET_TEMPLATES:
        assert template("{}") in captions.TEMPLATES


def test_the_reduced_tokenizer_splits_as_clip_does(tmp_path):
    from open_clip.tokenizer import SimpleTokenizer

    size = captions.write_bpe(tmp_path / "bpe.txt.gz")
    small, full = SimpleTokenizer(bpe_path=str(tmp_path / "bpe.txt.gz")), SimpleTokenizer()
    assert small.vocab_size == size < 1300
    text = "itap of a striped orange triangle."
    split = [small.decoder[token] for token in small.encode(text)]
    assert split == [full.decoder[token] for token in full.encode(text)]
    # The same file on every machine and at every time, so its checksum means something.
    again = tmp_path / "again.gz"
    captions.write_bpe(again)
    assert again.read_bytes() == (tmp_path / "bpe.txt.gz").read_bytes()
