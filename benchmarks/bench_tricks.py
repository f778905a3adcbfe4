"""What was tried to make models faster: each against what is kept, with its effect on results.

    python benchmarks/bench_tricks.py [--tricks clip-layout sam-attention …] [--rounds 3]
        [--threads N] [--precision auto] [--device cpu]

Full-size models with random weights; both variants get the same tensors and take turns in one
process. "kept / tried" is the median over rounds of the ratio of their times: above 1 the trick is
faster. Effects: the lowest cosine between embeddings, IoU of boxes or masks, labels that the
trained ``shapes-tiny`` gives drawn objects. Needs no database. Prints markdown for
docs/performance.md.
"""

from __future__ import annotations

import argparse
import copy
import io
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import machine
from replay import timed
from worlds import copy_in_precision

MODEL = "ViT-B-32"


class Trick(NamedTuple):
    """Two ways to the same result.

    Attributes:
        name: what was tried
        kept, tried: called in turns
        effect: says what the results of both are to each other
        preparing_s: what the trick costs once
        items: images a call
    """

    name: str
    kept: Callable[[], Any]
    tried: Callable[[], Any]
    effect: Callable[[Any, Any], str]
    preparing_s: float = 0.0
    items: int = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tricks", nargs="+", choices=TRICKS, default=list(TRICKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of torch; else its own choice")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(machine.describe(options.device))
    print("\n| tried | kept / tried, wall | CPU | effect | once | pays after |")
    print("|---|---|---|---|---|---|")
    for name in options.tricks:
        try:
            for trick in TRICKS[name](options):
                with torch.no_grad():
                    print(row(trick, options.rounds), flush=True)
        except (RuntimeError, ImportError) as error:  # no compiler, no such processor
            print(f"| {name} | cannot be tried here: {str(error).splitlines()[0]} | | | | |")


def row(trick: Trick, rounds: int) -> str:
    """Runs both in turns."""
    before = time.perf_counter()
    kept, tried = trick.kept(), trick.tried()
    preparing = trick.preparing_s + (time.perf_counter() - before if trick.preparing_s else 0.0)
    effect = trick.effect(kept, tried)
    pairs = [(timed(trick.kept)[1], timed(trick.tried)[1]) for _ in range(rounds)]
    wall = statistics.median(a.wall / b.wall for a, b in pairs)
    cpu = statistics.median(a.cpu / b.cpu for a, b in pairs)
    once = pays = "–"
    if trick.preparing_s:
        once = f"{preparing:.0f} s"
        saved = statistics.median(a.wall - b.wall for a, b in pairs) / trick.items
        pays = f"{preparing / saved:,.0f} images" if saved > 0 else "never"
    return f"| {trick.name} | {wall:.2f} | {cpu:.2f} | {effect} | {once} | {pays} |"


def clip_layout(options) -> Iterator[Trick]:
    """Channels last for the patch convolution of a ViT."""
    import torch

    clip, batch = clip_and_batch(options)
    other = copy.deepcopy(clip.module.visual).to(memory_format=torch.channels_last)
    laid_out = batch.contiguous(memory_format=torch.channels_last)
    yield Trick(
        f"channels last, {MODEL}, {clip.precision}",
        lambda: clip.module.visual(batch),
        lambda: other(laid_out),
        cosine,
        items=len(batch),
    )


def clip_batch(options) -> Iterator[Trick]:
    """Other numbers of images a forward pass."""
    clip, batch = clip_and_batch(options, 64)
    kept = batch.split(16)
    for size in (8, 32, 64):
        parts = batch.split(size)
        yield Trick(
            f"{size} instead of 16 images a batch, {MODEL}, {clip.precision}",
            lambda: _cat(map(clip.module.visual, kept)),
            lambda parts=parts: _cat(map(clip.module.visual, parts)),
            cosine,
            items=len(batch),
        )


def clip_compiled(options) -> Iterator[Trick]:
    """torch.compile of the image tower; the number of images is fixed."""
    import torch

    clip, batch = clip_and_batch(options)
    compiled, seconds = compile_now(clip.module.visual, batch)
    yield Trick(
        f"torch.compile, {MODEL}, {clip.precision}",
        lambda: clip.module.visual(batch),
        lambda: compiled(batch),
        cosine,
        seconds,
        len(batch),
    )
    torch.compiler.reset()


def proposer_layout(options) -> Iterator[Trick]:
    """The usual layout instead of channels last, in the backbone of the Faster R-CNN."""
    import torch

    proposer, pixels = proposer_and_pixels(options)
    backbone = proposer.module.backbone
    other = copy.deepcopy(backbone).to(memory_format=torch.contiguous_format)
    yield Trick(
        f"usual layout instead of channels last, Faster R-CNN, {proposer.precision}",
        lambda: in_precision(proposer, lambda: backbone(pixels)),
        lambda: in_precision(proposer, lambda: other(pixels)),
        lambda a, b: cosine(a["0"].flatten(1), b["0"].flatten(1)),
    )


def proposer_precision(options) -> Iterator[Trick]:
    """fp32 against bf16 in the Faster R-CNN: the whole proposer."""
    from zs_operators.proposals import load_proposer

    load = {"device": options.device, "max_proposals": 100}
    fp32, bf16 = (
        load_proposer("fasterrcnn_resnet50_fpn_v2", "random", precision=precision, **load)
        for precision in ("fp32", "bf16")
    )
    bf16.module.load_state_dict(fp32.module.state_dict())
    image = picture()
    yield Trick(
        "bf16 instead of fp32, Faster R-CNN",
        lambda: fp32.propose([image]),
        lambda: bf16.propose([image]),
        lambda a, b: overlap(a[0].boxes_px, b[0].boxes_px),
    )


def sam_attention(options) -> Iterator[Trick]:
    """segment_anything's own attention instead of the fused kernel."""
    from segment_anything.modeling.image_encoder import Attention

    sam, pixels = sam_and_pixels(options)
    encoder = sam.module.image_encoder
    other = copy.deepcopy(encoder)
    for layer in other.modules():
        if isinstance(layer, Attention):
            layer.__class__ = Attention
    yield Trick(
        f"attention of segment_anything, SAM ViT-B, {sam.precision}",
        lambda: encoder(pixels),
        lambda: other(pixels),
        embedding_cosine,
    )


def sam_layout(options) -> Iterator[Trick]:
    """Channels last for the convolutions of SAM's encoder."""
    import torch

    sam, pixels = sam_and_pixels(options)
    encoder = sam.module.image_encoder
    other = copy.deepcopy(encoder).to(memory_format=torch.channels_last)
    laid_out = pixels.contiguous(memory_format=torch.channels_last)
    yield Trick(
        f"channels last, SAM ViT-B, {sam.precision}",
        lambda: encoder(pixels),
        lambda: other(laid_out),
        embedding_cosine,
    )


def sam_batch(options) -> Iterator[Trick]:
    """Two images at once: twice the windows in each layer."""
    import torch

    sam, pixels = sam_and_pixels(options)
    encoder = sam.module.image_encoder
    both = torch.cat([pixels, pixels.flip(-1)])
    yield Trick(
        f"2 images at once, SAM ViT-B, {sam.precision}",
        lambda: torch.cat([encoder(both[:1]), encoder(both[1:])]),
        lambda: encoder(both),
        embedding_cosine,
        items=2,
    )


def sam_compiled(options) -> Iterator[Trick]:
    """torch.compile of SAM's encoder."""
    import torch

    sam, pixels = sam_and_pixels(options)
    encoder = sam.module.image_encoder
    compiled, seconds = compile_now(encoder, pixels)
    yield Trick(
        f"torch.compile, SAM ViT-B, {sam.precision}",
        lambda: encoder(pixels),
        lambda: compiled(pixels),
        embedding_cosine,
        seconds,
    )
    torch.compiler.reset()


def sam_prompts(options) -> Iterator[Trick]:
    """Other numbers of prompts decoded together."""
    import torch

    sam, _ = sam_and_pixels(options)
    (embedding,) = sam.encode([sam.frame(picture())])
    corners = torch.rand(32, 2) * torch.tensor([400.0, 300.0])
    boxes = torch.cat([corners, corners + 150], 1)
    from zs_operators.device import BatchBudget
    from zs_operators.sam import Prompts

    def decode(size: int):
        sam._prompt_chunk = size
        found = sam.decode(embedding, Prompts(boxes_px=boxes), BatchBudget(size))
        return torch.cat([one.logits for one in found])

    kept = sam._prompt_chunk
    for size in (1, 2, 8, 16):
        yield Trick(
            f"{size} instead of {kept} prompts at once, SAM decoder",
            lambda: decode(kept),
            lambda size=size: decode(size),
            lambda a, b: f"IoU {mask_overlap(a > 0, b > 0):.4f}",
        )


def draft(options) -> Iterator[Trick]:
    """JPEGs decoded smaller: Pillow's draft to at least so many times the model's size."""
    import numpy as np
    from PIL import Image

    import zs_operators as zs
    from zs_operators.clip import load_clip

    clip, _ = clip_and_batch(options, 1)
    tiny = load_clip("shapes-tiny", device=options.device, precision="fp32")
    objects = drawn_objects()

    def read(data: bytes, model, times: int | None):
        image = Image.open(io.BytesIO(data))
        if times:
            side = times * model.reduce_to_px
            image.draft(None, (side, side))
        return model.preprocess(np.asarray(image.convert("RGB")))

    for width, height in ((1600, 1200), (4000, 3000)):
        photos = [jpeg(picture(seed, width, height)) for seed in range(4)]
        drawings = [jpeg(resized(one, 16 * tiny.reduce_to_px)) for one in objects]
        for times in (None, 1, 4):

            def effect(a, b, times=times, drawings=drawings):
                same = labels(tiny, [read(one, tiny, 2) for one in drawings]) == labels(
                    tiny, [read(one, tiny, times) for one in drawings]
                )
                return f"{cosine(clip.encode_images(a), clip.encode_images(b))}; " + (
                    f"labels of shapes-tiny equal: {same.mean():.1%}"
                )

            def labels(model, pixels):
                vectors = model.class_vectors(zs.Vocabulary.parse(list(_classes())))
                return (model.encode_images(_stack(pixels)) @ vectors.T).argmax(1).numpy()

            name = "no draft" if times is None else f"draft to {times} times the model's size"
            yield Trick(
                f"{name} instead of 2 times, {width}x{height}",
                lambda photos=photos: _stack([read(one, clip, 2) for one in photos]),
                lambda photos=photos, times=times: _stack([read(p, clip, times) for p in photos]),
                effect,
                items=len(photos),
            )


TRICKS = {
    "clip-layout": clip_layout,
    "clip-batch": clip_batch,
    "clip-compiled": clip_compiled,
    "proposer-layout": proposer_layout,
    "proposer-precision": proposer_precision,
    "sam-attention": sam_attention,
    "sam-layout": sam_layout,
    "sam-batch": sam_batch,
    "sam-prompts": sam_prompts,
    "sam-compiled": sam_compiled,
    "draft": draft,
}


def clip_and_batch(options, count: int = 16):
    """A CLIP model, and images as its tower gets them."""
    import torch

    from zs_operators.clip import load_clip
    from zs_operators.device import torch_dtype

    fp32 = load_clip(MODEL, "random", device=options.device, precision="fp32")
    clip = copy_in_precision(fp32, options.precision, options.device)
    batch = torch.randn(count, 3, 224, 224, device=options.device)
    return clip, batch.to(torch_dtype(clip.precision))


def proposer_and_pixels(options):
    """A Faster R-CNN, and one image as its backbone gets it."""
    import torch

    from zs_operators.proposals import load_proposer

    proposer = load_proposer(
        "fasterrcnn_resnet50_fpn_v2", "random", device=options.device, precision=options.precision
    )
    return proposer, torch.randn(1, 3, 800, 1088, device=options.device)


def sam_and_pixels(options):
    """A SAM, and one image as its encoder gets it."""
    import torch

    from zs_operators.device import torch_dtype
    from zs_operators.sam import load_sam

    sam = load_sam("sam-vit-b", "random", device=options.device, precision=options.precision)
    for name, values in sam.module.image_encoder.named_parameters():
        if "rel_pos" in name:  # zero without training, and then without effect
            torch.nn.init.normal_(values, std=0.02)
    pixels = torch.randn(1, 3, sam.size_px, sam.size_px, device=options.device)
    return sam, pixels.to(torch_dtype(sam.precision))


def in_precision(proposer, step):
    with proposer._reduced_precision():
        return step()


def compile_now(module, batch):
    """The compiled module, and how long that took."""
    import torch

    compiled = torch.compile(module)
    begun = time.perf_counter()
    with torch.no_grad():
        compiled(batch)
    return compiled, time.perf_counter() - begun


def cosine(a, b) -> str:
    """The lowest between rows."""
    import torch

    found = torch.nn.functional.cosine_similarity(a.float(), b.float(), dim=-1).min()
    return f"cosine {found:.6f}"


def embedding_cosine(a, b) -> str:
    """The lowest between cells of two embeddings (N, C, h, w)."""
    return cosine(a.movedim(1, -1), b.movedim(1, -1))


def overlap(a, b) -> str:
    """How well each box of a is found in b."""
    from torchvision.ops import box_iou

    return f"mean best IoU of boxes {box_iou(a, b).max(1).values.mean():.3f}"


def mask_overlap(a, b) -> float:
    return float((a & b).sum() / (a | b).sum().clamp(min=1))


def picture(seed: int = 0, width: int = 640, height: int = 480):
    """(height, width, 3) uint8: colours that change smoothly, and grain."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    return np.clip(pixels + rng.normal(0, 12, pixels.shape), 0, 255).astype(np.uint8)


def drawn_objects(num_scenes: int = 40):
    """Objects cut out of scenes of the shapes world."""
    from zs_operators.shapes.dataset import FIRST_SEED, cut_out
    from zs_operators.shapes.world import make_scene

    scenes = map(make_scene, range(FIRST_SEED, FIRST_SEED + num_scenes))
    return [cut_out(scene, item) for scene in scenes for item in scene.objects]


def resized(pixels, side: int):
    import numpy as np
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))


def jpeg(pixels) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def _classes():
    from zs_operators.shapes.world import CLASSES

    return CLASSES


def _stack(items):
    import torch

    return torch.stack(list(items))


def _cat(items):
    import torch

    return torch.cat(list(items))


if __name__ == "__main__":
    main()
