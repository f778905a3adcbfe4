from __future__ import annotations

import errno
import io
import os
import socket
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, ImageOps

from zs_operators import images
from zs_operators.errors import (
    InvalidInputError,
    MediaError,
    MediaTooLargeError,
    MissingMediaError,
    UnreadableMediaError,
    UnsupportedMediaError,
)
from zs_operators.images import MAX_PIXELS, read_image, read_size

# Pillow warns about damaged metadata; what counts here is the outcome.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

WIDTH, HEIGHT = 48, 32


def _encode(image: Image.Image, format_: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def _smooth(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """A picture without symmetry whose JPEG stays close to it."""
    coarse = np.random.default_rng(7).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _grey(values, dtype, format_: str, **options) -> bytes:
    return _encode(Image.fromarray(np.array([values], dtype=dtype)), format_, **options)


def _first_row(data: bytes) -> list[int]:
    pixels = read_image(data).pixels
    assert (pixels == pixels[:, :, :1]).all(), "grey must stay grey"
    return pixels[0, :, 0].tolist()


SMOOTH = _smooth()
PHOTO = np.asarray(SMOOTH)
FORMATS = {
    "jpeg": _encode(SMOOTH, "JPEG", quality=95),
    "jpeg-progressive": _encode(SMOOTH, "JPEG", quality=95, progressive=True),
    "png": _encode(SMOOTH, "PNG"),
    "webp": _encode(SMOOTH, "WEBP", quality=95),
    "webp-lossless": _encode(SMOOTH, "WEBP", lossless=True),
    "tiff": _encode(SMOOTH, "TIFF"),
    "tiff-lzw": _encode(SMOOTH, "TIFF", compression="tiff_lzw"),
    "bmp": _encode(SMOOTH, "BMP"),
    "gif": _encode(SMOOTH, "GIF"),
    "ppm": _encode(SMOOTH, "PPM"),
    "jpeg2000": _encode(SMOOTH, "JPEG2000"),
    "avif": _encode(SMOOTH, "AVIF", quality=95),
    "cmyk-jpeg": _encode(SMOOTH.convert("CMYK"), "JPEG", quality=95),
}


@pytest.fixture(params=["torchvision", "pillow"])
def decoder(request, monkeypatch):
    """Both decoders a JPEG can take."""
    if request.param == "pillow":
        monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    else:
        import torchvision.io  # noqa: F401
    return request.param


# --- pixels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_picture(name, decoder):
    image = read_image(FORMATS[name])
    assert (image.width_px, image.height_px, image.partial) == (WIDTH, HEIGHT, False)
    assert image.pixels.dtype == np.uint8
    assert image.pixels.shape == (HEIGHT, WIDTH, 3)
    assert image.pixels.flags.c_contiguous
    assert image.pixels.flags.writeable
    difference = np.abs(image.pixels.astype(int) - PHOTO)
    if name in ("png", "webp-lossless", "tiff", "tiff-lzw", "bmp", "ppm", "jpeg2000"):
        assert difference.max() == 0
    else:
        assert difference.mean() < (12 if name == "gif" else 4)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "LAB"])
def test_every_mode(mode):
    if mode == "LAB":
        source = ImageCms.profileToProfile(
            SMOOTH, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
    else:
        source = SMOOTH.convert(mode)
    expected = np.asarray(source.convert("RGB"))
    np.testing.assert_array_equal(read_image(_encode(source, "TIFF")).pixels, expected)


def test_transparency_is_composed_on_white():
    pixels = np.array([[[255, 0, 0, 255], [255, 0, 0, 128], [0, 0, 0, 0]]], np.uint8)
    for format_ in ("PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if format_ == "WEBP" else {}
        read = read_image(_encode(Image.fromarray(pixels), format_, **options)).pixels
        assert read.tolist() == [[[255, 0, 0], [255, 127, 127], [255, 255, 255]]], format_


def test_transparency_of_grey_palette_and_colour_key():
    grey_alpha = Image.fromarray(np.array([[[40, 255], [40, 0]]], np.uint8), "LA")
    assert _first_row(_encode(grey_alpha, "PNG")) == [40, 255]

    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 10, 10, 90, 90, 90])
    palette.putdata([0, 1])
    assert _first_row(_encode(palette, "PNG")) == [10, 90]
    assert _first_row(_encode(palette, "PNG", transparency=1)) == [10, 255]
    assert _first_row(_encode(palette, "PNG", transparency=bytes([255, 0]))) == [10, 255]
    assert _first_row(_encode(palette, "GIF", transparency=1)) == [10, 255]

    grey = Image.fromarray(np.array([[7, 8]], np.uint8))
    assert _first_row(_encode(grey, "PNG", transparency=8)) == [7, 255]
    colour = Image.fromarray(np.array([[[1, 1, 1], [2, 2, 2]]], np.uint8))
    assert _first_row(_encode(colour, "PNG", transparency=(2, 2, 2))) == [1, 255]


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_16_bit_grey_is_rescaled_with_rounding_not_clipped(format_):
    values = [0, 128, 129, 257, 4095, 32768, 65407, 65535]
    expected = [round(v / 257) for v in values]
    assert expected[1:3] == [0, 1]
    assert _first_row(_grey(values, np.uint16, format_)) == expected


def test_16_bit_grey_of_other_kinds():
    big_endian = _encode(Image.frombytes("I;16B", (2, 1), struct.pack(">2H", 257, 65535)), "TIFF")
    assert _first_row(big_endian) == [1, 255]
    assert _first_row(b"P5 3 1 65535\n" + struct.pack(">3H", 0, 257, 65535)) == [0, 1, 255]
    # a dark 16-bit PGM is not mistaken for 8-bit data
    assert _first_row(b"P5 2 1 65535\n" + struct.pack(">2H", 0, 200)) == [0, 1]

    black_is_zero = _grey([0, 65535], np.uint16, "TIFF")
    entry = struct.pack("<HHIHH", 262, 3, 1, 1, 0)
    assert entry in black_is_zero
    white_is_zero = black_is_zero.replace(entry, struct.pack("<HHIHH", 262, 3, 1, 0, 0))
    assert _first_row(white_is_zero) == [255, 0]

    with_key = _png(2, 1, 16, 0, struct.pack(">2H", 65535, 1000), tRNS=struct.pack(">H", 1000))
    assert _first_row(with_key) == [255, 255]


def test_12_bit_tiff_reaches_white():
    tags = [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1)]
    tags.append((279, 3))
    header = b"II*\0" + struct.pack("<I", 12) + b"\x00\x0f\xff\x00"
    directory = struct.pack("<H", len(tags))
    for tag, value in tags:
        directory += struct.pack("<HHIHH", tag, 3, 1, value, 0)
    assert _first_row(header + directory + b"\0\0\0\0") == [0, 255]


def test_16_bit_colour_keeps_its_high_byte():
    samples = struct.pack(">6H", 0, 0x1234, 0xFFFF, 0x80FF, 0xABCD, 0x00FF)
    pixels = read_image(_png(2, 1, 16, 2, samples)).pixels
    assert pixels.tolist() == [[[0, 0x12, 0xFF], [0x80, 0xAB, 0]]]


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([0.0, 0.5, 1.0], np.float32, [0, 128, 255]),  # unit range
        ([0.25, 0.5, 0.25], np.float32, [64, 128, 64]),  # inside the unit range: not stretched
        ([0.0, 100.0, 255.0], np.float32, [0, 100, 255]),
        ([0.0, 257.0, 65535.0], np.float32, [0, 1, 255]),
        ([-1.0, 0.0, 1.0], np.float32, [0, 128, 255]),  # stretched
        ([1000.0, 1e6, 2e6], np.float32, [0, 127, 255]),
        ([np.nan, 0.0, 1.0], np.float32, [0, 0, 255]),
        ([-np.inf, 0.5, np.inf], np.float32, [0, 128, 255]),
        ([np.nan, np.nan, np.nan], np.float32, [0, 0, 0]),
        ([-5.0, -5.0, -5.0], np.float32, [0, 0, 0]),
        ([0, 1, 255], np.int32, [0, 1, 255]),
        ([0, 257, 65535], np.int32, [0, 1, 255]),
        ([-100, 0, 100], np.int32, [0, 128, 255]),
        ([0, 50_000, 100_000], np.int32, [0, 128, 255]),
    ],
)
def test_32_bit_grey_follows_the_documented_scales(values, dtype, expected):
    assert _first_row(_grey(values, dtype, "TIFF")) == expected


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "TIFF", "PNG", "MPO", "AVIF"])
def test_first_frame_of_many(format_):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    data = _encode(frames[0], format_, save_all=True, append_images=frames[1:])
    pixels = read_image(data).pixels.astype(int)
    assert pixels.shape == (10, 20, 3)
    assert np.abs(pixels - (255, 0, 0)).max() <= 6


# --- orientation --------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "avif"])
def test_exif_orientation_is_applied(tmp_path, suffix, orientation, decoder):
    path = tmp_path / f"turned.{suffix}"
    if suffix == "tif":
        SMOOTH.save(path, tiffinfo={274: orientation}, compression="tiff_deflate")
    else:
        options = {"quality": 95} if suffix != "png" else {}
        SMOOTH.save(path, exif=_exif(orientation), **options)

    with Image.open(path) as reference:
        expected = np.asarray(ImageOps.exif_transpose(reference))
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, expected)
    size = (HEIGHT, WIDTH) if orientation >= 5 else (WIDTH, HEIGHT)
    assert (image.width_px, image.height_px) == size == read_size(path)


def test_orientation_by_hand():
    # The stored picture has its one white pixel at the top left, 3 wide and 2 high.
    stored = np.zeros((2, 3, 3), np.uint8)
    stored[0, 0] = 255
    corners = {
        1: (0, 0),
        2: (0, 2),
        3: (1, 2),
        4: (1, 0),
        5: (0, 0),
        6: (0, 1),
        7: (2, 1),
        8: (2, 0),
    }
    for orientation, (row, column) in corners.items():
        data = _encode(Image.fromarray(stored), "PNG", exif=_exif(orientation))
        pixels = read_image(data).pixels
        assert np.argwhere(pixels[:, :, 0] == 255).tolist() == [[row, column]], orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "tif", "webp"])
def test_size_agrees_with_fiftyone_metadata(tmp_path, suffix, orientation):
    import fiftyone as fo

    path = tmp_path / f"turned.{suffix}"
    turn = {"tiffinfo": {274: orientation}} if suffix == "tif" else {"exif": _exif(orientation)}
    SMOOTH.save(path, **turn)
    metadata = fo.ImageMetadata.build_for(str(path))
    image = read_image(path)
    assert (metadata.width, metadata.height) == read_size(path)
    assert image.pixels.shape == (metadata.height, metadata.width, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_survives_reduction_transparency_and_depth(orientation):
    large = _smooth(1200, 800)
    turned = read_image(_encode(large, "JPEG", exif=_exif(orientation)), reduce_to_px=64)
    plain = read_image(_encode(large, "JPEG"), reduce_to_px=64)
    assert turned.pixels.size == plain.pixels.size < large.width * large.height * 3
    reference = Image.fromarray(plain.pixels)
    reference.info["exif"] = _exif(orientation).tobytes()
    np.testing.assert_array_equal(turned.pixels, np.asarray(ImageOps.exif_transpose(reference)))

    deep = _grey(range(0, 60000, 6000), np.uint16, "PNG", exif=_exif(orientation))
    assert sorted(read_image(deep).pixels[:, :, 0].ravel()) == [
        round(v / 257) for v in range(0, 60000, 6000)
    ]
    keyed = _encode(
        Image.fromarray(np.array([[3, 9]], np.uint8)),
        "PNG",
        transparency=9,
        exif=_exif(orientation),
    )
    assert sorted(read_image(keyed).pixels[:, :, 0].ravel()) == [3, 255]


def test_damaged_exif_is_ignored():
    data = _encode(SMOOTH, "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff garbage")
    assert read_size(data) == (WIDTH, HEIGHT)
    assert read_image(data).pixels.shape == (HEIGHT, WIDTH, 3)


# --- reduced decoding ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "reduce_to_px", "expected"),
    [
        ((1600, 1200), None, (1600, 1200)),
        ((1600, 1200), 224, (800, 600)),
        ((1600, 1200), 300, (800, 600)),
        ((1600, 1200), 301, (1600, 1200)),  # half would be under twice 301
        ((1600, 1200), 64, (200, 150)),
        ((1600, 1200), 1, (200, 150)),  # JPEG stops at an eighth
        ((1601, 1203), 224, (801, 602)),
        ((2000, 100), 64, (2000, 100)),  # the shorter side decides
    ],
)
def test_reduction_keeps_twice_the_target(size, reduce_to_px, expected):
    data = _encode(_smooth(*size), "JPEG")
    image = read_image(data, reduce_to_px=reduce_to_px)
    assert image.pixels.shape == (expected[1], expected[0], 3)
    assert (image.width_px, image.height_px) == size
    if reduce_to_px and expected != size:
        assert min(image.pixels.shape[:2]) >= 2 * reduce_to_px or expected[1] * 8 == size[1]


def test_reduction_changes_little_after_the_resize():
    noise = np.random.default_rng(0).normal(0, 6, (1200, 1600, 3))
    photo = (np.asarray(_smooth(1600, 1200)) + noise).clip(0, 255).astype(np.uint8)
    data = _encode(Image.fromarray(photo), "JPEG", quality=90)
    sizes = []
    resized = []
    for reduce_to_px in (None, 224):
        pixels = read_image(data, reduce_to_px=reduce_to_px).pixels
        sizes.append(pixels.shape)
        small = Image.fromarray(pixels).resize((298, 224), Image.Resampling.BICUBIC)
        resized.append(np.asarray(small).astype(int))
    assert sizes[0] != sizes[1]
    assert np.abs(resized[0] - resized[1]).max() <= 4


def test_other_formats_are_never_reduced():
    image = read_image(_encode(_smooth(800, 600), "PNG"), reduce_to_px=16)
    assert image.pixels.shape == (600, 800, 3)


# --- damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_truncated_is_an_error_that_names_the_file(tmp_path, name, decoder):
    path = tmp_path / "cut short.bin"
    path.write_bytes(FORMATS[name][: len(FORMATS[name]) * 2 // 3])
    with pytest.raises(UnreadableMediaError) as caught:
        read_image(path)
    assert "cut short.bin" in str(caught.value)
    assert "restore" in str(caught.value) or "again" in str(caught.value)
    assert caught.value.outcome == "unreadable_media"


@pytest.mark.parametrize("name", ["jpeg", "jpeg-progressive", "png", "tiff", "gif", "ppm"])
def test_partial_keeps_the_rows_that_are_there(name):
    large = _smooth(640, 480)
    format_, _, variant = name.partition("-")
    data = _encode(large, format_.upper(), **({"progressive": True} if variant else {}))
    whole = read_image(data).pixels.astype(int)
    image = read_image(data[: len(data) * 2 // 3], truncated="partial")
    assert image.partial
    assert image.pixels.shape == whole.shape
    top = np.abs(image.pixels[:200] - whole[:200])
    assert np.median(top) <= 3, "the upper part must be the picture's"
    assert not np.array_equal(image.pixels, whole)


def test_partial_does_not_change_sound_files_or_invent_pictures():
    for name, data in FORMATS.items():
        image = read_image(data, truncated="partial")
        assert not image.partial, name
        np.testing.assert_array_equal(image.pixels, read_image(data).pixels)
    png = FORMATS["png"]
    with pytest.raises(UnreadableMediaError):
        read_image(png[: png.index(b"IDAT") + 4], truncated="partial")


@pytest.mark.parametrize("policy", ["error", "partial"])
@pytest.mark.parametrize("name", ["jpeg", "jpeg-progressive", "png", "gif", "tiff", "webp"])
def test_cut_at_any_length(name, policy, decoder):
    data = FORMATS[name]
    for length in range(0, len(data), max(1, len(data) // 97)):
        _read_or_refuse(data[:length], policy)


@settings(max_examples=400, deadline=2000)
@given(
    name=st.sampled_from(sorted(FORMATS)),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=8),
    near_header=st.booleans(),
    keep=st.floats(0.5, 1),
    policy=st.sampled_from(["error", "partial"]),
)
def test_flipped_bytes_end_in_an_image_or_a_media_error(name, flips, near_header, keep, policy):
    data = bytearray(FORMATS[name])
    reach = min(len(data), 300) if near_header else len(data)
    for position, mask in flips:
        data[int(position * reach)] ^= mask
    _read_or_refuse(bytes(data[: int(len(data) * keep)]), policy)


@settings(max_examples=300, deadline=2000)
@given(
    magic=st.sampled_from([data[:24] for data in FORMATS.values()] + [b""]),
    rest=st.binary(max_size=400),
)
def test_arbitrary_bytes_end_in_an_image_or_a_media_error(magic, rest):
    _read_or_refuse(magic + rest, "partial")


def _read_or_refuse(data: bytes, policy: str) -> None:
    try:
        image = read_image(data, truncated=policy, max_pixels=4_000_000)
    except MediaError as refused:
        reason = str(refused)
    else:
        reason = None
    if reason is not None:
        assert reason.startswith("image bytes")
        return
    assert image.pixels.dtype == np.uint8
    assert image.pixels.shape == (image.height_px, image.width_px, 3)
    assert image.pixels.flags.c_contiguous
    assert image.pixels.flags.writeable


def test_both_jpeg_decoders_agree_on_every_damaged_file(monkeypatch):
    import torchvision.io  # noqa: F401

    rng = np.random.default_rng(3)
    cases = []
    for options in ({}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 2}):
        data = _encode(SMOOTH, "JPEG", **options)
        cases += [data[:length] for length in range(len(data) - 60, len(data) + 1)]
        for _ in range(60):
            flipped = bytearray(data)
            flipped[rng.integers(0, len(data))] ^= rng.integers(1, 256)
            cases.append(bytes(flipped))

    def outcomes():
        for case in cases:
            try:
                yield read_image(case, max_pixels=4_000_000).pixels.tobytes()
            except MediaError as error:
                yield type(error)

    fast = list(outcomes())
    monkeypatch.delitem(sys.modules, "torchvision")
    assert fast == list(outcomes())
    assert any(isinstance(outcome, bytes) for outcome in fast)
    assert UnreadableMediaError in fast


def test_policies_of_threads_do_not_mix():
    cut = FORMATS["png"][:-200]

    def read(index: int) -> str:
        try:
            partial = read_image(cut, truncated="partial" if index % 2 else "error").partial
            return "partial" if partial else "whole"
        except UnreadableMediaError:
            return "error"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(read, range(200)))
    assert outcomes == ["error", "partial"] * 100
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


# --- size limits --------------------------------------------------------------------------------


def _png(width, height, bits, colour, samples=b"", **chunks) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    row = len(samples) // height if samples else 0
    lines = b"".join(b"\0" + samples[i * row : (i + 1) * row] for i in range(height if row else 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
        + b"".join(chunk(kind.encode(), body) for kind, body in chunks.items())
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def test_decompression_bomb_is_refused_from_its_header(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(_png(100_000, 100_000, 8, 2))
    with pytest.raises(MediaTooLargeError, match=r"bomb\.png.*100000 x 100000 = 10000 megapixels"):
        read_image(path)
    assert read_size(path) == (100_000, 100_000)
    assert MediaTooLargeError.outcome == "too_large"


def test_limit_is_exact_and_may_be_lifted():
    data = FORMATS["png"]
    assert read_image(data, max_pixels=WIDTH * HEIGHT).width_px == WIDTH
    with pytest.raises(MediaTooLargeError, match="max_pixels"):
        read_image(data, max_pixels=WIDTH * HEIGHT - 1)
    assert read_image(data, max_pixels=None).width_px == WIDTH
    assert MAX_PIXELS >= 200_000_000, "phones take 200 MP photos"


def test_pillows_global_limit_is_neither_used_nor_changed(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for name in ("jpeg", "png", "gif", "bmp", "jpeg2000", "avif"):
        assert read_image(FORMATS[name]).width_px == WIDTH
    # Pillow's TIFF and WebP readers look at it themselves
    for name in ("tiff", "webp"):
        with pytest.raises(MediaTooLargeError, match="MAX_IMAGE_PIXELS"):
            read_image(FORMATS[name])
    assert Image.MAX_IMAGE_PIXELS == 100


def test_out_of_memory_is_too_large(monkeypatch):
    def no_memory(self):
        raise MemoryError

    monkeypatch.setattr(images.PngImagePlugin.PngImageFile, "load", no_memory)
    with pytest.raises(MediaTooLargeError, match="does not fit in memory"):
        read_image(FORMATS["png"])


# --- what is no image, and paths ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "error", "says"),
    [
        ("clip.mp4", b"\0\0\0 ftypisom\0\0\2\0", UnsupportedMediaError, "a video.*frames"),
        ("clip.jpg", b"\0\0\0\x14ftypqt  ", UnsupportedMediaError, "a video"),
        ("clip.mkv", b"\x1aE\xdf\xa3\x9f", UnsupportedMediaError, "a video"),
        ("clip.avi", b"RIFF\0\0\0\0AVI LIST", UnsupportedMediaError, "a video"),
        ("sound.wav", b"RIFF\0\0\0\0WAVEfmt ", UnsupportedMediaError, "an audio file"),
        ("photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0", UnsupportedMediaError, "HEIC.*convert"),
        ("cloud.pcd", b"# .PCD v0.7\n", UnsupportedMediaError, "point cloud"),
        ("cloud.ply", b"ply\nformat ascii", UnsupportedMediaError, "point cloud or mesh"),
        ("scene.glb", b"glTF\2\0\0\0", UnsupportedMediaError, "3D scene"),
        ("scene.fo3d", b'{"scene": 1}', UnsupportedMediaError, "FiftyOne 3D scene"),
        ("mesh.obj", b"v 0 0 0\n", UnsupportedMediaError, "OBJ mesh"),
        ("paper.pdf", b"%PDF-1.7\n", UnsupportedMediaError, "PDF.*export"),
        ("page.eps", b"%!PS-Adobe-3.0 EPSF", UnsupportedMediaError, "PostScript"),
        ("logo.svg", b'<?xml version="1.0"?><svg/>', UnsupportedMediaError, "SVG"),
        ("scan.dcm", bytes(128) + b"DICM", UnsupportedMediaError, "DICOM"),
        ("lost.jpg", b"\n<!DOCTYPE html><title>404", UnreadableMediaError, "web page.*download"),
        ("big.jpg", b"version https://git-lfs.github.com", UnreadableMediaError, "git lfs pull"),
        ("notes.jpg", b"just some text", UnreadableMediaError, "not an image"),
        ("zeros.png", bytes(5000), UnreadableMediaError, "not an image"),
        ("empty.jpg", b"", UnreadableMediaError, r"empty \(0 bytes\)"),
        ("head.jpg", b"\xff\xd8\xff", UnreadableMediaError, "damaged header"),
    ],
)
def test_what_is_no_image_is_called_by_its_name(tmp_path, name, content, error, says):
    path = tmp_path / name
    path.write_bytes(content)
    for read in (read_image, read_size):
        with pytest.raises(error, match=f"{name}.*{says}"):
            read(path)


def test_name_and_content_may_disagree(tmp_path):
    path = tmp_path / "really-a.jpg"
    path.write_bytes(FORMATS["png"])
    np.testing.assert_array_equal(read_image(path).pixels, PHOTO)


@pytest.mark.parametrize(
    "name", ["with space.png", "weiß 漢字 🐈.png", "new\nline.png", "%s{}.png", "'quoted\".png"]
)
def test_any_file_name_is_read_and_quoted_in_errors(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(FORMATS["png"])
    for source in (path, str(path)):
        assert read_size(source) == (WIDTH, HEIGHT)
        np.testing.assert_array_equal(read_image(source).pixels, PHOTO)
    path.write_bytes(b"")
    with pytest.raises(UnreadableMediaError) as caught:
        read_image(path)
    assert repr(str(path)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_paths_that_lead_nowhere(tmp_path):
    loop = tmp_path / "loop.jpg"
    loop.symlink_to(loop)
    dangling = tmp_path / "dangling.jpg"
    dangling.symlink_to(tmp_path / "gone")
    file = tmp_path / "file.png"
    file.write_bytes(FORMATS["png"])
    for source, says in {
        str(tmp_path / "none.jpg"): "does not exist",
        str(dangling): "does not exist",
        str(file / "below.png"): "does not exist",
        str(loop): os.strerror(errno.ELOOP),
        str(tmp_path / ("x" * 5000)): os.strerror(errno.ENAMETOOLONG),
        "nul\0l.jpg": "not a valid path",
        "https://host/photo.jpg": "remote address",
        "": "No file path",
        None: "No file path",
    }.items():
        for read in (read_image, read_size):
            with pytest.raises(MissingMediaError, match=says) as caught:
                read(source)
        assert caught.value.outcome == "missing_media"


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    with pytest.raises(UnreadableMediaError, match="is a folder"):
        read_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UnreadableMediaError, match="is a pipe"):
        read_image(tmp_path / "pipe.jpg")
    with pytest.raises(UnreadableMediaError, match="device"):
        read_image("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "s.jpg"))
        with pytest.raises(UnreadableMediaError, match="socket"):
            read_image(tmp_path / "s.jpg")


def test_permission_denied_says_so(tmp_path):
    path = tmp_path / "private.png"
    path.write_bytes(FORMATS["png"])
    path.chmod(0)
    # Root may read anything, so a child without that right looks at the file.
    code = (
        "import os, sys; from zs_operators.images import read_image\n"
        "file = os.open(sys.argv[1], os.O_PATH)\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "try: read_image(f'/proc/self/fd/{file}')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert "UnreadableMediaError" in done.stdout, done.stderr
    assert "permission denied" in done.stdout


def test_bytes_of_every_kind_are_read():
    for kind in (bytes, bytearray, memoryview):
        np.testing.assert_array_equal(read_image(kind(FORMATS["png"])).pixels, PHOTO)
        assert read_size(kind(FORMATS["jpeg"])) == (WIDTH, HEIGHT)
    with pytest.raises(UnreadableMediaError, match="image bytes: empty"):
        read_image(b"")


def test_misuse_is_an_input_error():
    for source in (PHOTO, 3, ["a.jpg"]):
        with pytest.raises(InvalidInputError, match="path or bytes"):
            read_image(source)
    with pytest.raises(InvalidInputError, match="'partial'"):
        read_image(FORMATS["png"], truncated="yes")
    with pytest.raises(InvalidInputError, match="reduce_to_px"):
        read_image(FORMATS["png"], reduce_to_px=0)


def test_size_needs_only_the_header():
    headers = {"jpeg": 700, "png": 60, "bmp": 60, "ppm": 60, "gif": 900}
    for name, keep in headers.items():
        assert len(FORMATS[name]) > keep
        assert read_size(FORMATS[name][:keep]) == (WIDTH, HEIGHT), name


def test_reading_leaves_no_open_files(tmp_path):
    paths = []
    for name, data in FORMATS.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(data)
        paths.append(tmp_path / f"cut-{name}")
        paths[-1].write_bytes(data[: len(data) // 2])
    before = len(os.listdir("/proc/self/fd"))
    for path in paths:
        for policy in ("error", "partial"):
            try:
                read_image(path, truncated=policy)
            except MediaError:
                continue
    assert len(os.listdir("/proc/self/fd")) == before


def test_importing_the_reader_is_light():
    code = (
        "import sys, zs_operators.images, zs_operators.vocabulary\n"
        "print([m for m in ('torch', 'torchvision', 'fiftyone', 'open_clip') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
