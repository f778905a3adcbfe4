"""A bundle from elsewhere into where the loaders look: all of it, checked, or nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from zs_operators.bundle_manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    BundledFile,
    read_manifest,
)
from zs_operators.downloads import check_space
from zs_operators.errors import InvalidInputError, WeightsError
from zs_operators.hub_cache import folder_name, place_in_hub
from zs_operators.model_files import ModelFile
from zs_operators.model_pull import PulledFile
from zs_operators.weights_files import file_sha256
from zs_operators.weights_places import checkpoint_folders, hub_folders

_BLOCK = 1 << 20


def pull_bundle(
    path: str | Path,
    *,
    weights_dir: str | Path | None = None,
    on_file: Callable[[str, int], None] | None = None,
) -> list[PulledFile]:
    """Put the models of a bundle into where they are found without network.

    Only files that a model of this version has are taken, and only if their sha256 is that of the
    bundle's manifest, and of the registry where it knows one. Files that could run code when they
    are read are refused. Nothing is put anywhere before all of it was looked at.

    Args:
        path: a file that :func:`bundle_models` wrote
        weights_dir (None): as of :func:`pull_models`
        on_file (None): called with the name and bytes of each file before it is read

    Returns:
        the bundle's files; "here" are those that were already

    Raises:
        InvalidInputError: if there is no such file
        WeightsError: if it is no bundle, damaged, or holds what is not allowed; if another file is
            in the place of one; or if the disk has no room
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InvalidInputError(f"there is no bundle {str(path)!r}")
    hub, checkpoints = hub_folders(weights_dir)[0], checkpoint_folders(weights_dir)[0]
    try:
        with tarfile.open(path, "r:") as tar:
            members = _regular_members(tar)
            rows = _read_rows(members)
            here = {row: _existing(row, hub, checkpoints) for row, _ in rows}
            wanted = [(row, file) for row, file in rows if here[row] is None]
            placed = _unpack(members, rows, wanted, hub, checkpoints, on_file)
    except (tarfile.TarError, EOFError) as error:
        raise WeightsError(f"{str(path)!r} is no bundle, or a damaged one: {error}") from error
    except OSError as error:
        raise WeightsError(f"{str(path)!r} could not be unpacked: {error}") from error
    return [
        PulledFile(
            row.model,
            placed.get(row) or here[row],
            row.size,
            row.sha256,
            "downloaded" if row in placed else "here",
        )
        for row, _ in rows
    ]


def _regular_members(tar: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, BinaryIO]]:
    """Members as they come; a link, a device or a folder among them is no accident."""
    for member in tar:
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
            raise WeightsError(f"the bundle holds {member.name!r}, which is no plain file")
        yield member, tar.extractfile(member)


def _read_rows(
    members: Iterator[tuple[tarfile.TarInfo, BinaryIO]],
) -> list[tuple[BundledFile, ModelFile]]:
    member, stream = next(members, (None, None))
    if member is None or member.name != MANIFEST_NAME or member.size > MAX_MANIFEST_BYTES:
        raise WeightsError(f"this is no bundle of models: it does not begin with {MANIFEST_NAME}")
    return read_manifest(stream.read())


def _existing(row: BundledFile, hub: Path, checkpoints: Path) -> Path | None:
    """Where the same file is already, or None.

    Raises:
        WeightsError: if another one is there
    """
    from huggingface_hub import try_to_load_from_cache

    if row.repo is None:
        found = checkpoints / row.name
    else:
        cached = try_to_load_from_cache(row.repo, row.name, cache_dir=hub)
        found = Path(cached) if isinstance(cached, str) else None
    if found is None or not found.is_file():
        return None
    if file_sha256(found) != row.sha256:
        raise WeightsError(
            f"{str(found)!r} is another file than the bundle's {row.name}: remove it, or name "
            "another folder with --weights-dir"
        )
    return found


def _unpack(
    members: Iterator[tuple[tarfile.TarInfo, BinaryIO]],
    rows: list[tuple[BundledFile, ModelFile]],
    wanted: list[tuple[BundledFile, ModelFile]],
    hub: Path,
    checkpoints: Path,
    on_file: Callable[[str, int], None] | None,
) -> dict[BundledFile, Path]:
    """Where each of the wanted files went."""
    if not wanted:
        return {}
    root = hub.parent
    root.mkdir(parents=True, exist_ok=True)
    check_space(root, sum(row.size for row, _ in wanted))
    sizes = {row.sha256: row for row, _ in rows}
    with tempfile.TemporaryDirectory(dir=root, prefix=".zs-bundle-") as staging:
        staged = {}
        for member, stream in members:
            row = sizes.pop(member.name, None)
            if row is None or member.size != row.size:
                raise WeightsError(f"the bundle holds {member.name!r}, which its manifest lacks")
            if on_file is not None:
                on_file(row.name, row.size)
            # the suffix tells the checks how to read it
            target = Path(staging) / f"{row.sha256}{Path(row.name).suffix}"
            _copy(stream, target, row)
            staged[row.sha256] = target
        if sizes:
            names = ", ".join(row.name for row in sizes.values())
            raise WeightsError(f"the bundle is cut short: {names} is not in it")
        for row, file in wanted:
            _check_content(staged[row.sha256], row, file)
        moved: dict[str, Path] = {}
        return {row: _place(row, staged, moved, hub, checkpoints) for row, _ in wanted}


def _copy(stream: BinaryIO, target: Path, row: BundledFile) -> None:
    digest = hashlib.sha256()
    with target.open("wb") as file:
        while block := stream.read(_BLOCK):
            digest.update(block)
            file.write(block)
    if digest.hexdigest() != row.sha256:
        raise WeightsError(
            f"the bundle's {row.name} of {row.model} is damaged: its sha256 is "
            f"{digest.hexdigest()}, expected {row.sha256}; copy the bundle again"
        )


def _check_content(path: Path, row: BundledFile, file: ModelFile) -> None:
    """Refuse what a loader would refuse later, such as a pickle that runs code."""
    if file.is_weights:
        from zs_operators.clip_weights import read_state_dict

        try:
            read_state_dict(path)
        except WeightsError as error:
            message = str(error).replace(str(path), row.name)
            raise WeightsError(f"the bundle's weights of {row.model}: {message}") from error
        return
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"the bundle's {row.name} of {row.model} is no JSON: {error}") from error


def _place(
    row: BundledFile, staged: dict[str, Path], moved: dict[str, Path], hub: Path, checkpoints: Path
) -> Path:
    if row.repo is None:
        target = checkpoints / row.name
    else:
        # a blob that carries its sha256 as name is checked against it at each load
        target = hub / folder_name(row.repo) / "blobs" / row.sha256
    target.parent.mkdir(parents=True, exist_ok=True)
    if moved.get(row.sha256) != target:
        part = target.with_name(f"{target.name}.part")
        if row.sha256 in moved:  # two models with the same file
            shutil.copyfile(moved[row.sha256], part)
        else:
            shutil.move(staged[row.sha256], part)  # the folders may be on different disks
        os.replace(part, target)
    moved[row.sha256] = target
    if row.repo is None:
        return target
    return place_in_hub(hub, row.repo, row.commit, row.name, target)
