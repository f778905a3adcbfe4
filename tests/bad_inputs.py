"""Files as people's disks hold them: sound but unusual, damaged, and no images at all."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

LABEL, FAILURE, EITHER = "label", "failure", "either"

#: Outcomes that say what is wrong with a file; any other would be our mistake.
NAMED = ("missing_media", "unreadable_media", "unsupported_media", "too_large")


@dataclass(frozen=True)
class BadInput:
    """A path and what must become of it: a label, a named failure, or either."""

    path: str
    expected: str


def write_corpus(folder: Path, count: int, seed: int = 0) -> list[BadInput]:
    """At least ``count`` paths in ``folder``, the damaged ones among them from ``seed``.

    Sound files are spread among the others, so that each has bad neighbours in its batch.
    """
    rng = np.random.default_rng(seed)
    sound = sound_files()
    fixed = [*_sound(folder, sound), *_named_oddly(folder, sound["png"]), *_no_images(folder)]
    fixed += [*_endless(folder, sound), *_paths_that_lead_nowhere(folder)]
    corpus = fixed + list(_damaged(folder, sound, max(0, count - len(fixed)), rng))
    return [corpus[index] for index in rng.permutation(len(corpus))]


def sound_files() -> dict[str, bytes]:
    """Bytes of small images in every format and kind of pixel that is read, by suffix."""
    rng = np.random.default_rng(7)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    picture = coarse.resize((40, 30), Image.Resampling.BICUBIC)
    palette = picture.quantize(16)
    deep = Image.fromarray(rng.integers(0, 2**16, (30, 40), dtype=np.uint16))
    frames = {"save_all": True, "append_images": [picture.rotate(90), picture.rotate(180)]}
    return {
        "jpg": _encoded(picture, "JPEG", quality=90),
        "progressive.jpg": _encoded(picture, "JPEG", progressive=True),
        "cmyk.jpg": _encoded(picture.convert("CMYK"), "JPEG"),
        "grey.jpg": _encoded(picture.convert("L"), "JPEG"),
        "png": _encoded(picture, "PNG"),
        "alpha.png": _encoded(picture.convert("RGBA"), "PNG"),
        "palette.png": _encoded(palette, "PNG", transparency=bytes(range(0, 256, 16))),
        "deep.png": _encoded(deep, "PNG"),
        "bits.png": _encoded(picture.convert("1"), "PNG"),
        "webp": _encoded(picture, "WEBP"),
        "animated.gif": _encoded(picture, "GIF", **frames),
        "tif": _encoded(picture, "TIFF"),
        "deep.tif": _encoded(deep, "TIFF"),
        "float.tif": _encoded(picture.convert("F"), "TIFF"),
        "bmp": _encoded(picture, "BMP"),
        "avif": _encoded(picture, "AVIF"),
        "jp2": _encoded(picture, "JPEG2000"),
    }


def _encoded(image: Image.Image, format_: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def _sound(folder: Path, sound: dict[str, bytes]) -> Iterator[BadInput]:
    for suffix, data in sound.items():
        yield BadInput(_write(folder / f"sound.{suffix}", data), LABEL)
        # FiftyOne looks at the suffix, and nobody else should
        yield BadInput(_write(folder / f"{suffix.replace('.', '-')}-called.jpg", data), LABEL)


def _named_oddly(folder: Path, png: bytes) -> Iterator[BadInput]:
    names = [
        "new\nline",
        "tab\tand space ",
        "weiß 漢字 🐈",
        "%s{}$HOME",
        "'quoted\"",
        "-rf",
        "a" * 200,
    ]
    names += ["\u202egnp", "..hidden", "<img src=x>", "[x](javascript:y)", "combining e\u0301"]
    for name in names:
        yield BadInput(_write(folder / f"{name}.png", png), LABEL)


def _no_images(folder: Path) -> Iterator[BadInput]:
    content = {
        "empty.jpg": b"",
        "text.jpg": b"just some text\n" * 20,
        "zeros.png": bytes(4096),
        "page.jpg": b"<!DOCTYPE html><title>404</title>",
        "lfs.png": b"version https://git-lfs.github.com/spec/v1\n",
        "film.jpg": b"\0\0\0 ftypisom\0\0\2\0" + bytes(200),
        "head.jpg": b"\xff\xd8\xff",
        "bomb.png": _png_header(100_000, 100_000),
        "long.png": _png_header(2**31 - 1, 1),
        "bomb.gif": b"GIF89a\xff\xff\xff\xff\xf7\0\0" + bytes(800),
        "bomb.bmp": b"BM"
        + struct.pack("<IIIIiiHH", 54, 0, 54, 40, 2**30, 2**30, 1, 24)
        + bytes(24),
        "ends.jpg": b"\xff\xd8\xff\xd9",
    }
    for name, data in content.items():
        yield BadInput(_write(folder / name, data), FAILURE)


def _endless(folder: Path, sound: dict[str, bytes]) -> Iterator[BadInput]:
    """The beginning of a file, and a terabyte of nothing, which takes no space on disk."""
    beginnings = {
        "sparse.webp": (b"RIFF\xff\xff\xff\xffWEBPVP8X", FAILURE),
        "sparse.jpg": (b"\xff\xd8\xff\xe0", FAILURE),
        "sparse.gif": (sound["animated.gif"][:13], FAILURE),
    }
    beginnings |= {
        f"half.{suffix}": (data[: len(data) // 2], EITHER) for suffix, data in sound.items()
    }
    for name, (beginning, expected) in beginnings.items():
        path = _write(folder / name, beginning)
        os.truncate(path, 2**40)
        yield BadInput(path, expected)


def _paths_that_lead_nowhere(folder: Path) -> Iterator[BadInput]:
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "ping.jpg").symlink_to("pong.jpg")
    (folder / "pong.jpg").symlink_to("ping.jpg")
    (folder / "dangling.jpg").symlink_to("nothing.jpg")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    (folder / "terminal.jpg").symlink_to("/dev/tty")
    for name in (
        *("folder", "pipe", "loop", "ping", "pong", "dangling"),
        *("zero", "terminal", "never-there"),
    ):
        yield BadInput(str(folder / f"{name}.jpg"), FAILURE)
    yield BadInput(str(folder / "sound.png" / "below.png"), FAILURE)
    yield BadInput(str(folder / ("x" * 300 + ".png")), FAILURE)


def _damaged(
    folder: Path, sound: dict[str, bytes], count: int, rng: np.random.Generator
) -> Iterator[BadInput]:
    """Cut at every length in turn, or with some bytes changed, or both."""
    suffixes = list(sound)
    lengths = {suffix: iter(rng.permutation(len(sound[suffix]))) for suffix in suffixes}
    for number in range(count):
        suffix = suffixes[number % len(suffixes)]
        data = bytearray(sound[suffix])
        what = rng.integers(4)
        if what != 1:
            cut = next(lengths[suffix], None)
            data = data[: len(data) if cut is None else int(cut)]
        if what != 0 and data:
            reach = min(len(data), 200) if what == 3 else len(data)
            for position in rng.integers(0, reach, rng.integers(1, 9)):
                data[position] ^= 1 << rng.integers(8)
        name = f"damaged-{number}.{suffix.rsplit('.', 1)[-1]}"
        # What is cut off may be padding, and what is flipped metadata
        yield BadInput(_write(folder / name, bytes(data)), EITHER if data else FAILURE)


def _write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def _png_header(width: int, height: int) -> bytes:
    body = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    head = struct.pack(">I", len(body)) + b"IHDR" + body
    data = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + struct.pack(">I", zlib.crc32(head[4:]))
        + struct.pack(">I", len(data))
        + b"IDAT"
        + data
        + struct.pack(">I", zlib.crc32(b"IDAT" + data))
    )
