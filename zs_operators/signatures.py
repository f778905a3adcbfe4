"""What a file that is no readable image is instead, from its first bytes or its name."""

from __future__ import annotations

import os
from typing import NamedTuple

_FRAMES = "extract its frames first (FiftyOne: dataset.to_frames())"
_SCENE = "use a dataset of rendered images"
_CONVERT = "convert it to PNG or JPEG"
_AGAIN = "download it again"


class MediaKind(NamedTuple):
    """A kind of file: its name with article, what to do, and whether an image was lost."""

    name: str
    advice: str
    damaged: bool = False


_VIDEO = MediaKind("a video", _FRAMES)
_HEIC = MediaKind("a HEIC/HEIF photo", _CONVERT)
_HTML = MediaKind("a web page", _AGAIN, damaged=True)

# (offset, bytes, kind); first match wins
_SIGNATURES = (
    (4, b"ftyphei", _HEIC),
    (4, b"ftyphev", _HEIC),
    (4, b"ftypmif1", _HEIC),
    (4, b"ftypmsf1", _HEIC),
    (4, b"ftypavif", MediaKind("a damaged AVIF image", _AGAIN, damaged=True)),
    (4, b"ftyp", _VIDEO),
    (4, b"moov", _VIDEO),
    (4, b"mdat", _VIDEO),
    (0, b"\x1aE\xdf\xa3", _VIDEO),
    (8, b"AVI ", _VIDEO),
    (0, b"OggS", MediaKind("an Ogg audio or video file", _FRAMES)),
    (0, b"FLV\x01", _VIDEO),
    (0, b"\x00\x00\x01\xba", _VIDEO),
    (0, b"\x00\x00\x01\xb3", _VIDEO),
    (0, b"0&\xb2u\x8ef\xcf\x11", _VIDEO),
    (8, b"WAVE", MediaKind("an audio file", "remove the sample")),
    (0, b"ID3", MediaKind("an audio file", "remove the sample")),
    (0, b"glTF", MediaKind("a glTF 3D scene", _SCENE)),
    (0, b"ply\n", MediaKind("a PLY point cloud or mesh", _SCENE)),
    (0, b"ply\r", MediaKind("a PLY point cloud or mesh", _SCENE)),
    (0, b"# .PCD", MediaKind("a PCD point cloud", _SCENE)),
    (0, b"VERSION .7", MediaKind("a PCD point cloud", _SCENE)),
    (0, b"VERSION 0.7", MediaKind("a PCD point cloud", _SCENE)),
    (0, b"LASF", MediaKind("a LAS point cloud", _SCENE)),
    (0, b"Kaydara FBX", MediaKind("an FBX 3D scene", _SCENE)),
    (0, b"%PDF", MediaKind("a PDF document", "export its pages as images")),
    (0, b"%!PS", MediaKind("a PostScript document", "export its pages as images")),
    (0, b"<svg", MediaKind("an SVG drawing", _CONVERT)),
    (0, b"8BPS", MediaKind("a Photoshop document", _CONVERT)),
    (0, b"v/1\x01", MediaKind("an OpenEXR image", _CONVERT)),
    (0, b"#?RADIANCE", MediaKind("a Radiance HDR image", _CONVERT)),
    (0, b"\x00\x00\x01\x00", MediaKind("an icon", _CONVERT)),
    (128, b"DICM", MediaKind("a DICOM image", _CONVERT)),
    (0, b"\x89HDF", MediaKind("an HDF5 file", _CONVERT)),
    (0, b"\x93NUMPY", MediaKind("a NumPy array", "save it as PNG")),
    (0, b"PK\x03\x04", MediaKind("a zip archive", "unpack it")),
    (0, b"\x1f\x8b", MediaKind("a gzip archive", "unpack it")),
    (
        0,
        b"version https://git-lfs",
        MediaKind("a Git LFS pointer", "run git lfs pull", damaged=True),
    ),
)

# Kinds whose content has no signature
_SUFFIXES = {
    ".fo3d": MediaKind("a FiftyOne 3D scene", _SCENE),
    ".obj": MediaKind("an OBJ mesh", _SCENE),
    ".stl": MediaKind("an STL mesh", _SCENE),
    ".gltf": MediaKind("a glTF 3D scene", _SCENE),
    ".pcd": MediaKind("a PCD point cloud", _SCENE),
    ".ts": _VIDEO,
}


def kind_of_media(head: bytes, name: str) -> MediaKind | None:
    """The kind of a file from its first (at least 150) bytes and its name; None if unknown."""
    for offset, magic, kind in _SIGNATURES:
        if head.startswith(magic, offset):
            return kind
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return _HTML
    if text.startswith(b"<?xml") and b"<svg" in text:
        return MediaKind("an SVG drawing", _CONVERT)
    return _SUFFIXES.get(os.path.splitext(name)[1].lower())
