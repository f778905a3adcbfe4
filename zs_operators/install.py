"""Puts the plugin where FiftyOne looks for plugins: a link to this installation, or a copy.

Imports no FiftyOne: importing it starts a database.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zs_operators.errors import InvalidInputError, MissingDependencyError
from zs_operators.version import __version__

PLUGIN_NAME = "@zs/operators"
_PACKAGE = Path(__file__).resolve().parent
_FACE = ("fiftyone.yml", "requirements.txt", "LICENSE", "README.md", "assets", "plugins")
_MARKER = ".zs-copied"
_MANIFESTS = ("fiftyone.yml", "fiftyone.yaml")


@dataclass(frozen=True, slots=True)
class Installed:
    """One place below FiftyOne's plugin folder where this plugin was found.

    ``kind`` is "link", "copy" (made by :func:`install`) or "folder" (a download or a checkout).
    """

    path: Path
    kind: str
    version: str

    @property
    def target(self) -> Path:
        return self.path.resolve()


def plugin_source() -> Path:
    """The folder with ``fiftyone.yml``: the checkout's root, or the copy inside the wheel.

    Raises:
        MissingDependencyError: this copy of the package came without the plugin's files.
    """
    for folder in (_PACKAGE.parent, _PACKAGE / "_plugin"):
        if _manifest_value(folder, "name") == PLUGIN_NAME:
            return folder
    raise MissingDependencyError(
        f"{_PACKAGE} came without the plugin's own files (fiftyone.yml, plugins/). Reinstall "
        "zs-operators, or get the plugin with `fiftyone plugins download <repository URL>`."
    )


def fiftyone_setting(name: str) -> str | None:
    """A FiftyOne setting as FiftyOne resolves it: environment, then its JSON file, else None."""
    value = os.environ.get(f"FIFTYONE_{name.upper()}")
    if value:
        return value
    path = os.environ.get("FIFTYONE_CONFIG_PATH") or os.path.expanduser("~/.fiftyone/config.json")
    try:
        settings = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return settings.get(name) if isinstance(settings, dict) else None


def plugins_dir() -> Path:
    """The folder FiftyOne loads plugins from (``fo.config.plugins_dir``)."""
    chosen = fiftyone_setting("plugins_dir")
    if chosen:
        return Path(chosen).expanduser().absolute()
    datasets = Path(fiftyone_setting("default_dataset_dir") or "~/fiftyone")
    return datasets.expanduser().absolute() / "__plugins__"


def find_installed(folder: Path | None = None) -> tuple[Installed, ...]:
    """Every place below ``folder`` (default: :func:`plugins_dir`) where FiftyOne finds us."""
    return tuple(_walk(folder or plugins_dir()))


def install(*, copy: bool = False, force: bool = False) -> tuple[Installed, bool]:
    """Link, or copy, the plugin into FiftyOne's plugin folder as ``@zs/operators``.

    Returns:
        the installation, and whether anything had to be done.

    Raises:
        InvalidInputError: something that this function did not make is in the way; ``force``
            replaces it, but never a git checkout.
    """
    source = plugin_source()
    place = plugins_dir() / PLUGIN_NAME
    for found in find_installed():
        same = found.target == source
        if same and not (copy and found.path == place and found.kind == "link"):
            return found, False
        if found.path != place and not same:
            raise InvalidInputError(
                f"{PLUGIN_NAME} {found.version} is already at {found.path}. Remove that folder "
                "first: FiftyOne loads only one of two plugins with the same name."
            )
    _clear(place, force=force)
    place.parent.mkdir(parents=True, exist_ok=True)
    if copy:
        _copy(source, place)
    else:
        try:
            place.symlink_to(source, target_is_directory=True)
        except OSError as error:
            raise InvalidInputError(
                f"{place} cannot be made a link ({error}). Use `zs install --copy`."
            ) from error
    return Installed(place, "copy" if copy else "link", __version__), True


def uninstall(*, force: bool = False) -> Path | None:
    """Remove what :func:`install` made. Returns its path, or None if there was nothing.

    Raises:
        InvalidInputError: the folder there was not made by :func:`install`; ``force`` removes it,
            but never a git checkout.
    """
    place = plugins_dir() / PLUGIN_NAME
    if not os.path.lexists(place):
        others = [str(found.path) for found in find_installed()]
        if others:
            raise InvalidInputError(
                f"{PLUGIN_NAME} is at {', '.join(others)}, which `zs install` did not make. "
                "Remove it by hand."
            )
        return None
    _clear(place, force=force)
    if not any(place.parent.iterdir()):
        place.parent.rmdir()
    return place


def _clear(place: Path, *, force: bool) -> None:
    if place.is_symlink():
        name = _manifest_value(place, "name")
        if name not in (None, PLUGIN_NAME) and not force:
            raise InvalidInputError(
                f"{place} links to {place.resolve()}, which is another plugin ({name}). "
                "Use --force to replace the link."
            )
        place.unlink()
    elif place.is_dir():
        if (place / ".git").exists():
            raise InvalidInputError(f"{place} is a git checkout. Move it away yourself.")
        if not (place / _MARKER).is_file() and not force:
            raise InvalidInputError(
                f"{place} was not made by `zs install`. Use --force to delete it."
            )
        shutil.rmtree(place)
    elif place.exists():
        if not force:
            raise InvalidInputError(f"{place} is a file. Use --force to delete it.")
        place.unlink()


def _copy(source: Path, place: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc", "_plugin")
    place.mkdir()
    (place / _MARKER).write_text(f"{__version__}\n", encoding="utf-8")
    for name in _FACE:
        if (source / name).is_dir():
            shutil.copytree(source / name, place / name, ignore=ignore)
        elif (source / name).is_file():
            shutil.copy2(source / name, place / name)
    shutil.copytree(_PACKAGE, place / _PACKAGE.name, ignore=ignore)


def _walk(folder: Path) -> Iterator[Installed]:
    # FiftyOne's own rule: follow links, skip hidden folders, stop below the first manifest.
    for path, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if any(name in files for name in _MANIFESTS):
            folders.clear()
            place = Path(path)
            if _manifest_value(place, "name") == PLUGIN_NAME:
                copied = (place / _MARKER).is_file()
                kind = "link" if place.is_symlink() else "copy" if copied else "folder"
                yield Installed(place, kind, _manifest_value(place, "version") or "?")


def _manifest_value(folder: Path, key: str) -> str | None:
    # One key of a flat manifest: no YAML reader is needed, nor there before FiftyOne is.
    for name in _MANIFESTS:
        try:
            text = (folder / name).read_text(encoding="utf-8")
        except OSError:
            continue
        found = re.search(rf"^{key}:[ \t]*[\"']?([^\"'#\n]+?)[\"']?[ \t]*(?:#.*)?$", text, re.M)
        return found.group(1) if found else None
    return None
