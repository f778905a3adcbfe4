"""One reader for every model: a path or bytes -> upright RGB uint8 pixels and the full size.

Nothing global in Pillow is read or changed (``MAX_IMAGE_PIXELS``, ``LOAD_TRUNCATED_IMAGES``), so
any number of threads may read at once with policies of their own.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from zs_operators import remote_media
from zs_operators.errors import (
    InvalidInputError,
    MediaTooLargeError,
    MissingMediaError,
    UnreadableMediaError,
    UnsupportedMediaError,
)
from zs_operators.host_memory import decoding
from zs_operators.redaction import without_secrets
from zs_operators.rgb import to_rgb, upright_size
from zs_operators.signatures import kind_of_media

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PIXELS = 2**28
"""16384 x 16384: above every camera (200 MP phones pass), 1 GiB at Pillow's 4 bytes a pixel."""

# Importing a Pillow plugin registers it. The list is closed on purpose: EPS would start
# Ghostscript, and formats without a signature would claim any bytes.
_PLUGINS = (
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    WebPImagePlugin.WebPImageFile,
    TiffImagePlugin.TiffImageFile,
    BmpImagePlugin.BmpImageFile,
    GifImagePlugin.GifImageFile,
    PpmImagePlugin.PpmImageFile,
    Jpeg2KImagePlugin.Jpeg2KImageFile,
    AvifImagePlugin.AvifImageFile,
    MpoImagePlugin.MpoImageFile,
)
_FORMATS = tuple(plugin.format for plugin in _PLUGINS if plugin.format in Image.OPEN)

# FiftyOne makes a path of what it takes for one, and of two slashes one
_ADDRESS = re.compile(r"://|(?<!\w)(?:https?|ftp|s3|gs|hf):/")
# Pillow reads these into memory whole, and a file may claim to be of any length
_READ_WHOLE = ("WEBP", "AVIF")
_MAX_BYTES_READ_WHOLE = 2**30
# Some of Pillow's readers skip what they do not know, however much of it there is
_MAX_READS = 1_000_000
_MAX_BYTES_A_PIXEL = 16

Source = str | os.PathLike | bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class UprightImage:
    """Pixels as a person sees them, and the size of the whole image.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, C-contiguous and writable; smaller than the image when the
            decoder was allowed to reduce
        width_px: width of the full upright image
        height_px: height of the full upright image
        partial: True if the file ended early and what is missing was filled in
    """

    pixels: np.ndarray
    width_px: int
    height_px: int
    partial: bool = False


def read_image(
    source: Source,
    *,
    reduce_to_px: int | None = None,
    max_pixels: int | None = MAX_PIXELS,
    truncated: Literal["error", "partial"] = "error",
) -> UprightImage:
    """Reads one image file, or the bytes of one.

    Args:
        source: a path, an address such as ``s3://bucket/key``, or the file's bytes
        reduce_to_px (None): the size the image will be resized to. A JPEG may then be decoded at
            1/2, 1/4 or 1/8 as long as its shorter side stays at least twice this; at most 4
            levels of difference after the resize. None always gives the full size
        max_pixels (2**28): refuse images with more pixels than this. None sets no limit
        truncated ("error"): ``"partial"`` keeps what could be decoded of a file that ends early

    Raises:
        MissingMediaError: there is no such file
        UnreadableMediaError: it is empty, truncated, corrupt or no image, or may not be read
        UnsupportedMediaError: it is a video, a 3D scene, a document, or an image Pillow has no
            conversion for
        MediaTooLargeError: it has more than ``max_pixels``, or does not fit in memory
    """
    if truncated not in ("error", "partial"):
        raise InvalidInputError(f"truncated must be 'error' or 'partial', not {truncated!r}")
    if reduce_to_px is not None and reduce_to_px < 1:
        raise InvalidInputError(f"reduce_to_px must be at least 1 or None, not {reduce_to_px!r}")

    with _opened(source) as (file, name):
        image = _identify(file, name)
        _check_size(image, name, max_pixels)
        if isinstance(image.fp, _BoundedFile):
            pixels_and_more = image.width * image.height + 2**20
            image.fp.bytes_left = _MAX_BYTES_A_PIXEL * pixels_and_more
        width_px, height_px, orientation = upright_size(image)
        if reduce_to_px is not None and min(image.size) >= 4 * reduce_to_px:
            # Only JPEG does anything here; Pillow never goes below the size asked for.
            image.draft(None, (2 * reduce_to_px, 2 * reduce_to_px))

        partial = False
        with decoding(image.width * image.height):
            pixels = _fast_jpeg(image, file, orientation)
            if pixels is None:
                try:
                    image.load()
                except Exception as error:
                    _salvage(image, file, truncated, error, name)
                    partial = True
                try:
                    pixels = to_rgb(image, orientation)
                except Exception as error:
                    raise _decode_error(error, image, name) from error
        return UprightImage(pixels, width_px, height_px, partial)


def read_size(source: Source) -> tuple[int, int]:
    """``(width_px, height_px)`` of the upright image, from the header alone.

    Raises the errors of :func:`read_image` for what the header shows; there is no size limit.
    """
    with _opened(source) as (file, name):
        return upright_size(_identify(file, name))[:2]


@contextmanager
def _opened(source: Source) -> Iterator[tuple[BinaryIO, str]]:
    if isinstance(source, bytes | bytearray | memoryview):
        name = "image bytes"
        if not len(source):
            raise UnreadableMediaError(f"{name}: empty; pass the content of an image file")
        yield io.BytesIO(source), name
        return
    if source is None or (isinstance(source, str) and not source):
        raise MissingMediaError("No file path; set the sample's filepath to an image file")
    try:
        path = os.fspath(source)
    except TypeError:
        raise InvalidInputError(
            f"An image must be a path or bytes, not {type(source).__name__}"
        ) from None

    name = repr(os.fsdecode(path))
    address = remote_media.address_of(os.fsdecode(path))
    if address is not None:
        yield io.BytesIO(remote_media.read(address)), repr(without_secrets(address))
        return
    try:
        status = os.stat(path)
        # A pipe or a device would block or never end, so it is refused before it is opened.
        if stat.S_ISDIR(status.st_mode):
            raise UnreadableMediaError(f"{name} is a folder; give the path of one image file")
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableMediaError(f"{name} is a pipe, socket or device, not an image file")
        if not status.st_size:
            raise UnreadableMediaError(f"{name} is empty (0 bytes); copy or download it again")
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except (OSError, ValueError) as error:
        raise _open_error(error, name) from error
    with file:
        yield file, name


def _open_error(error: Exception, name: str) -> Exception:
    name = without_secrets(name)
    if _ADDRESS.search(name):
        return MissingMediaError(
            f"{name} is a remote address of a kind that is not read; download it and use the local "
            "path, or see docs/scale-out.md for those that are"
        )
    if isinstance(error, ValueError):
        return MissingMediaError(f"{name} is not a valid path ({error}); correct the filepath")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return MissingMediaError(f"{name} does not exist; restore it or correct the filepath")
    if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
        return MissingMediaError(f"{name}: {error.strerror}; correct the filepath")
    if isinstance(error, PermissionError):
        return UnreadableMediaError(f"{name} may not be read (permission denied); chmod +r it")
    return UnreadableMediaError(f"{name} could not be read: {error.strerror or error}")


class _BoundedFile:
    """A file that does not let a decoder read for ever."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.reads_left = _MAX_READS
        self.bytes_left = _MAX_BYTES_READ_WHOLE

    def read(self, size: int = -1) -> bytes:
        if self.reads_left <= 0 or self.bytes_left <= 0:
            raise ValueError("no end in sight")
        data = self._file.read(size)
        self.reads_left -= 1
        self.bytes_left -= len(data)
        return data

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


def _identify(file: BinaryIO, name: str) -> Image.Image:
    """Opens the header. Not ``Image.open``: its size limit is global to the process."""
    reason = None
    try:
        head = file.read(512)
        for format_ in _FORMATS:
            factory, accept = Image.OPEN[format_]
            accepted = accept is None or accept(head[:16])
            if not accepted:
                continue
            if isinstance(accepted, str):
                raise UnsupportedMediaError(f"{name}: {accepted}; convert it to PNG or JPEG")
            if format_ in _READ_WHOLE and file.seek(0, os.SEEK_END) > _MAX_BYTES_READ_WHOLE:
                raise MediaTooLargeError(f"{name} has {file.tell():,} bytes; shrink or tile it")
            file.seek(0)
            try:
                return factory(_BoundedFile(file), "")
            except Image.DecompressionBombError as error:
                raise _bomb_error(error, name) from error
            except MemoryError as error:
                raise MediaTooLargeError(
                    f"{name} does not fit in memory; shrink or tile it"
                ) from error
            except Exception as error:
                reason = error
    except OSError as error:
        raise _open_error(error, name) from error

    kind = kind_of_media(head, name.strip("'\""))
    if kind is not None:
        if kind.damaged:
            raise UnreadableMediaError(f"{name} is {kind.name}, not an image; {kind.advice}")
        raise UnsupportedMediaError(f"{name} is {kind.name}, not one image; {kind.advice}")
    if reason is None:
        raise UnreadableMediaError(
            f"{name} is not an image of a known format ({', '.join(_FORMATS)}); "
            "replace it or remove the sample"
        )
    if "pixel mode" in str(reason) or isinstance(reason, NotImplementedError):
        raise UnsupportedMediaError(
            f"{name} has a pixel layout that Pillow cannot decode ({reason}); "
            "convert it to 8- or 16-bit PNG"
        )
    raise UnreadableMediaError(
        f"{name} has a damaged header ({reason}); restore it from the original"
    )


def _check_size(image: Image.Image, name: str, max_pixels: int | None) -> None:
    pixels = image.width * image.height
    if max_pixels is not None and pixels > max_pixels:
        raise MediaTooLargeError(
            f"{name} has {image.width} x {image.height} = {pixels / 1e6:.0f} megapixels, over the "
            f"limit of {max_pixels / 1e6:.0f}; shrink or tile it, or raise max_pixels"
        )


def _fast_jpeg(image: Image.Image, file: BinaryIO, orientation: int) -> np.ndarray | None:
    """The same pixels from torchvision, 1.2 times as fast as Pillow; None where it cannot."""
    # Only if a model has already paid for importing it. Turning its array costs what it gains.
    torchvision = sys.modules.get("torchvision")
    if (
        getattr(torchvision, "io", None) is None
        or image.format not in ("JPEG", "MPO")
        or image.mode not in ("RGB", "L")
        or orientation != 1
        or getattr(image, "decoderconfig", None)
    ):
        return None
    import torch

    if file.seek(0, os.SEEK_END) > _MAX_BYTES_READ_WHOLE:
        return None
    file.seek(0)
    try:
        data = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)
        decoded = torchvision.io.decode_jpeg(data, mode=torchvision.io.ImageReadMode.RGB)
    except (RuntimeError, OSError):
        return None
    pixels = np.ascontiguousarray(decoded.numpy().transpose(1, 2, 0))
    return pixels if pixels.shape[:2] == (image.height, image.width) else None


def _salvage(
    image: Image.Image, file: BinaryIO, truncated: str, error: Exception, name: str
) -> None:
    """Keeps what was decoded of a file that ends early; raises where that is nothing."""
    failure = _decode_error(error, image, name)
    if truncated != "partial" or not isinstance(failure, UnreadableMediaError):
        raise failure from error
    try:
        if image.format in ("JPEG", "MPO"):
            # An early end-of-image marker makes libjpeg fill the rest, progressive scans included.
            file.seek(0)
            image.fp = io.BytesIO(file.read(_MAX_BYTES_READ_WHOLE) + b"\xff\xd9")
        else:
            # Rows decoded before the failure are in place; no tiles left means nothing to load.
            image.tile = []
        image.load()
        extrema = np.atleast_2d(image.getextrema())
    except Exception:
        raise failure from error
    if (extrema[:, 0] == extrema[:, 1]).all():  # only filling
        raise failure from error


def _decode_error(error: Exception, image: Image.Image, name: str) -> Exception:
    if isinstance(error, MemoryError):
        return MediaTooLargeError(
            f"{name} ({image.width} x {image.height}) does not fit in memory; shrink or tile it"
        )
    if isinstance(error, Image.DecompressionBombError):
        return _bomb_error(error, name)
    if isinstance(error, UnidentifiedImageError | NotImplementedError):
        return UnsupportedMediaError(f"{name} cannot be decoded ({error}); convert it to PNG")
    return UnreadableMediaError(
        f"{name} is truncated or corrupt ({error}); restore it from the original, "
        'or read it with truncated="partial"'
    )


def _bomb_error(error: Exception, name: str) -> Exception:
    # A few of Pillow's readers check its global limit again.
    return MediaTooLargeError(
        f"{name}: {error}; shrink or tile it, or raise PIL.Image.MAX_IMAGE_PIXELS"
    )
