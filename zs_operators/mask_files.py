"""Where masks that are files of their own go, and how they are written.

Masks of objects are ``<output_dir>/<field>/<stem>-<hash>/<run>-<name>.png``, one folder an image;
semantic masks are ``<output_dir>/<field>/<stem>-<hash>.png``. The stem is for people, the hash of
the whole path tells images of the same name apart.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from zs_operators.errors import InvalidInputError
from zs_operators.whole_files import write_whole

if TYPE_CHECKING:
    import numpy as np

_RUN_DIGITS = 8
_STEM_BYTES = 80  # of 255 that most file systems allow a name, and 143 that encrypted ones do
# nothing else is ever removed, whatever folder is given
_OURS = re.compile(rf"([0-9a-f]{{{_RUN_DIGITS}}})-([0-9]{{3,}}|[0-9a-f]{{24}})\.png")


def check_output_dir(path: str | os.PathLike) -> Path:
    """The folder as an absolute path, if masks can be written there; creates nothing.

    Raises:
        InvalidInputError: if it cannot be created or written, or is a file
    """
    text = os.fspath(path)
    if not str(text).strip():
        raise InvalidInputError("output_dir is empty: give the path of a folder.")
    try:
        folder = Path(os.path.abspath(Path(text).expanduser()))
        known = _deepest_known(folder)
        is_folder = known.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # no home, null characters, too long
        reason = getattr(error, "strerror", None) or error
        raise InvalidInputError(
            f"output_dir={text!r} cannot be used: {reason}. Choose another folder."
        ) from error
    if not is_folder:
        raise InvalidInputError(
            f"output_dir={text!r} cannot be a folder, because {str(known)!r} is none: choose "
            "another."
        )
    if not os.access(known, os.W_OK | os.X_OK):
        raise InvalidInputError(
            f"output_dir={text!r} cannot be written: there is no permission to write to "
            f"{str(known)!r}. Choose another folder, or have it changed."
        )
    return folder


def mask_folder(output_dir: str | os.PathLike, label_field: str, filepath: str) -> Path:
    """The folder of one image's masks, not created here.

    Args:
        output_dir: as :func:`check_output_dir` returns it
        label_field: of the masks
        filepath: of the image
    """
    return Path(output_dir) / label_field / _name_of(filepath)


def semantic_path(output_dir: str | os.PathLike, semantic_field: str, filepath: str) -> Path:
    """The file of one image's semantic mask; see :func:`mask_folder`."""
    return Path(output_dir) / semantic_field / f"{_name_of(filepath)}.png"


def mask_path(folder: Path, signature: str, name: str) -> Path:
    """The file of one mask.

    Args:
        folder: of the image's masks
        signature: of the run, so that until its labels are written the old ones have their files
        name: three digits or more, or the id of the label that prompted
    """
    path = folder / f"{signature[:_RUN_DIGITS]}-{name}.png"
    if not _OURS.fullmatch(path.name):
        raise ValueError(f"{path.name!r} would never be removed")
    return path


def write_mask(path: Path, pixels: np.ndarray) -> None:
    """Write a mask as 8-bit grey PNG, 255 where it is true, whole or not at all.

    Args:
        path: of the file; its folder is created
        pixels: (h, w) bool

    Raises:
        InvalidInputError: if a folder of ours on the way is a link to somewhere else
        OSError: if it cannot be written
    """
    import numpy as np

    _write_png(path, np.where(pixels, np.uint8(255), np.uint8(0)), folders=3)


def write_classes(path: Path, classes: np.ndarray) -> None:
    """Write a semantic mask as grey PNG of as many bits, whole or not at all.

    Args:
        path: of the file; its folder is created
        classes: (H, W) uint8 or uint16

    Raises:
        InvalidInputError: if a folder of ours on the way is a link to somewhere else
        OSError: if it cannot be written
    """
    if classes.dtype.name not in ("uint8", "uint16"):
        raise TypeError(f"classes must be uint8 or uint16, not {classes.dtype}")
    _write_png(path, classes, folders=2)


def remove_stale(folder: Path, keep_signature: str) -> None:
    """Remove the masks that other runs have left in an image's folder, and the folder if empty.

    What cannot be removed stays; so does every file that is not named like a mask.

    Args:
        folder: of the image's masks; may not exist
        keep_signature: of the run whose masks stay
    """
    if folder.is_symlink():
        return
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            found = _OURS.fullmatch(path.name)
            if found and found[1] != keep_signature[:_RUN_DIGITS]:
                with contextlib.suppress(OSError):
                    path.unlink()
        folder.rmdir()  # refused unless empty


def masks_of(folder: Path, signature: str) -> list[Path]:
    """The masks that a run has left in an image's folder.

    Args:
        folder: of the image's masks; may not exist
        signature: of the run
    """
    with contextlib.suppress(OSError):
        named = [(path, _OURS.fullmatch(path.name)) for path in folder.iterdir()]
        return [path for path, found in named if found and found[1] == signature[:_RUN_DIGITS]]
    return []


def _deepest_known(path: Path) -> Path:
    """The path, or that of its parents which is there."""
    for one in (path, *path.parents):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(one)
            return one
    raise FileNotFoundError(f"{path.anchor!r} cannot be found")


def _name_of(filepath: str) -> str:
    absolute = os.path.abspath(filepath)
    # 64 bits: among a million images all called "image.jpg" two meet once in 40 million datasets
    digest = hashlib.sha256(absolute.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{_readable(Path(absolute).stem)}-{digest}"


def _readable(stem: str) -> str:
    """A part of a file name that every file system takes."""
    kept = (c if c.isprintable() and c not in '<>:"/\\|?*' else "_" for c in stem)
    short = "".join(kept).encode()[:_STEM_BYTES].decode(errors="ignore")
    return short.lstrip(".") or "_"  # a leading dot would hide it


def _write_png(path: Path, values: np.ndarray, *, folders: int) -> None:
    """Writes it where the last ``folders`` folders of its path are ours, not the person's."""
    from PIL import Image

    for folder in path.parents[:folders]:
        if folder.is_symlink():
            raise InvalidInputError(
                f"{str(folder)!r} is a link, and masks stay in the folder that was named: remove "
                "it, or name the folder it leads to as output_dir."
            )
    data = io.BytesIO()
    Image.fromarray(values).save(data, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    # The lease of the field's run keeps others away
    write_whole(path, data.getvalue(), alone=True)
