"""Models of this machine in one file, to be carried to one without network."""

from __future__ import annotations

import contextlib
import io
import tarfile
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

from zs_operators.bundle_manifest import MANIFEST_NAME, BundledFile, manifest
from zs_operators.downloads import check_space
from zs_operators.errors import InvalidInputError, WeightsError
from zs_operators.hub_cache import commit_of
from zs_operators.model_files import missing_files, model_files
from zs_operators.model_registry import ModelEntry, require_model
from zs_operators.weights_files import file_sha256

#: What a bundle's name ends in
BUNDLE_SUFFIX = ".zsbundle"


def bundle_models(
    names: Iterable[str],
    path: str | Path,
    *,
    weights_dir: str | Path | None = None,
    overwrite: bool = False,
    on_file: Callable[[str, int], None] | None = None,
) -> Path:
    """Write the files of models that are on this machine into one file.

    Args:
        names: of the registry; bundled ones are everywhere and add nothing
        path: of the new file, ``models.zsbundle``
        weights_dir (None): a folder of weights to take them from, instead of where loaders look
        overwrite (False): replace a file that is there
        on_file (None): called with the name and bytes of each file before it is written

    Returns:
        the path

    Raises:
        UnknownModelError: if there is no such model
        InvalidInputError: if the file is there already, or no model has files
        WeightsError: if a file of a model is not on this machine, is not the one that was
            published, or the disk has no room
    """
    path = Path(path).expanduser().absolute()
    if path.exists() and not overwrite:
        raise InvalidInputError(f"{str(path)!r} is there already: name another, or overwrite it")
    if not path.parent.is_dir():
        raise InvalidInputError(f"there is no folder {str(path.parent)!r}")
    entries = list(dict.fromkeys(require_model(name) for name in names))
    found = _collect(entries, weights_dir)
    if not found:
        raise InvalidInputError(
            "there is nothing to bundle: these models come with zs-operators itself"
        )
    check_space(path.parent, sum(row.size for row, _ in found))
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        _write(temporary, entries, found, on_file)
        temporary.replace(path)
    except OSError as error:
        raise WeightsError(f"{str(path)!r} cannot be written: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return path


def _collect(
    entries: list[ModelEntry], folder: str | Path | None
) -> list[tuple[BundledFile, Path]]:
    """The files of models, each once: some share a tokenizer."""
    missing = [entry.name for entry in entries if missing_files(entry, folder)]
    if missing:
        raise WeightsError(
            f"{', '.join(missing)}: not all on this machine; run `zs pull {' '.join(missing)}`"
        )
    found: dict[tuple[str | None, str], tuple[BundledFile, Path]] = {}
    for entry in entries:
        for file in model_files(entry):
            path = file.find(folder)
            key = (file.repo, path.name if path else "")
            if path is None or key in found:
                continue
            sha256 = file_sha256(path)
            if file.sha256 is not None and not sha256.startswith(file.sha256):
                raise WeightsError(
                    f"{str(path)!r} of {entry.name} is damaged or another file: its sha256 is "
                    f"{sha256}, expected {file.sha256}; remove it and pull again"
                )
            commit = commit_of(path) if file.repo else None
            size = path.stat().st_size
            found[key] = (
                BundledFile(entry.name, path.name, sha256, size, file.repo, commit),
                path,
            )
    return list(found.values())


def _write(
    path: Path,
    entries: list[ModelEntry],
    found: list[tuple[BundledFile, Path]],
    on_file: Callable[[str, int], None] | None,
) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        head = manifest(entries, [row for row, _ in found])
        tar.addfile(_member(MANIFEST_NAME, len(head)), io.BytesIO(head))
        for row, source in {row.sha256: (row, source) for row, source in found}.values():
            if on_file is not None:
                on_file(row.name, row.size)
            with source.open("rb") as stream:
                tar.addfile(_member(row.sha256, row.size), stream)


def _member(name: str, size: int) -> tarfile.TarInfo:
    """Nothing of this machine goes into a bundle: no owner, no time."""
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    return member
