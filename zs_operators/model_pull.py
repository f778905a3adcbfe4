"""Get models before they are needed: what is missing, in one go, into where the loaders look."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from zs_operators.downloads import check_space, download
from zs_operators.errors import OfflineError, WeightsError
from zs_operators.hub_cache import fetch_hub_file
from zs_operators.model_files import ModelFile, model_files
from zs_operators.model_registry import ModelEntry, require_model
from zs_operators.weights_files import file_sha256, forbidden_downloads
from zs_operators.weights_places import checkpoint_folders, hub_folders

#: Called with the name of a file, the bytes that are here, and all there will be or None
PullProgress = Callable[[str, int, "int | None"], None]


@dataclass(frozen=True)
class PulledFile:
    """One file of a model that was asked for.

    Attributes:
        model: its name
        path: where the file is
        bytes: its size
        sha256: of its content
        state: "here" before already, or "downloaded"
    """

    model: str
    path: Path
    bytes: int
    sha256: str
    state: str


def pull_models(
    names: Iterable[str],
    *,
    weights_dir: str | Path | None = None,
    on_progress: PullProgress | None = None,
) -> list[PulledFile]:
    """Download what is not on this machine yet of some models, and check all of it.

    Args:
        names: of the registry, see :func:`models`
        weights_dir (None): a folder to put them into; name it in ``ZS_WEIGHTS_DIR`` later. None is
            the folder of ``ZS_WEIGHTS_DIR``, or the caches of Hugging Face and torch
        on_progress (None): called after each part of a file

    Returns:
        the files of the models, also those that were here; none of a bundled one

    Raises:
        UnknownModelError: if there is no such model
        OfflineError: if something is missing and the network is away or forbidden; what came
            before a cut is kept, and the next call goes on from there
        WeightsError: if a file has to be fetched by hand, is not what was published, or the disk
            has no room; nothing is begun that would not fit
    """
    entries = list(dict.fromkeys(require_model(name) for name in names))
    missing = [(entry, _missing(entry, weights_dir)) for entry in entries]
    wanted = [(entry, files) for entry, files in missing if files]
    if wanted:
        _refuse_what_cannot_work(wanted)
        hub, checkpoints = hub_folders(weights_dir)[0], checkpoint_folders(weights_dir)[0]
        for folder, place in ((hub, "hub"), (checkpoints, "checkpoints")):
            check_space(folder, _bytes(wanted, place))
        for entry, files in wanted:
            for file in files:
                _fetch(entry, file, hub, checkpoints, on_progress)
    fetched = {(entry.name, file) for entry, files in wanted for file in files}
    return [
        _report(entry, file, path, (entry.name, file) in fetched)
        for entry in entries
        for file in model_files(entry)
        if (path := file.find(weights_dir)) is not None
    ]


def how_to_fetch_by_hand(entry: ModelEntry) -> str:
    """Where a file comes from that no server gives to programs, and where it goes."""
    return (
        f"{entry.name} cannot be pulled: get {entry.file} by hand, see {entry.page}, and put it "
        f"into {checkpoint_folders()[0]}, or pass its path as weights"
    )


def _missing(entry: ModelEntry, folder: str | Path | None) -> list[ModelFile]:
    files = [one for one in model_files(entry) if one.find(folder) is None]
    # a file that its source lacks would be asked for each time
    return files if any(not one.optional for one in files) else []


def _refuse_what_cannot_work(wanted: list[tuple[ModelEntry, list[ModelFile]]]) -> None:
    for entry, _ in wanted:
        if entry.file is not None:
            raise WeightsError(how_to_fetch_by_hand(entry))
    reason = forbidden_downloads()
    if reason is not None:
        names = ", ".join(entry.name for entry, _ in wanted)
        raise OfflineError(
            f"{names}: not all on this machine, and {reason}. On a machine with network run "
            f"`zs bundle {' '.join(entry.name for entry, _ in wanted)} -o models.zsbundle`, bring "
            "the file here and run `zs pull --from models.zsbundle`"
        )


def _bytes(wanted: list[tuple[ModelEntry, list[ModelFile]]], place: str) -> int:
    """About what is going to be downloaded into a place."""
    return sum(
        entry.size_bytes or (entry.size_mb or 0) * 1_000_000
        for entry, files in wanted
        if any(file.place == place and file.is_weights for file in files)
    )


def _fetch(
    entry: ModelEntry,
    file: ModelFile,
    hub: Path,
    checkpoints: Path,
    on_progress: PullProgress | None,
) -> None:
    def told(name: str) -> Callable[[int, int | None], None] | None:
        return None if on_progress is None else lambda done, total: on_progress(name, done, total)

    if file.url is not None:
        name = file.names[0]
        target = checkpoints / name
        download(file.url, target, sha256=file.sha256, on_progress=told(name))
        return
    for name in file.names:
        if fetch_hub_file(file.repo, name, hub, on_progress=told(name)) is not None:
            return
    if not file.optional:
        raise WeightsError(f"{entry.name}: {file.repo!r} has none of {', '.join(file.names)}")


def _report(entry: ModelEntry, file: ModelFile, path: Path, is_new: bool) -> PulledFile:
    sha256 = file_sha256(path)
    if file.sha256 is not None and not sha256.startswith(file.sha256):
        raise WeightsError(
            f"{str(path)!r} of {entry.name} is damaged or another file: its sha256 is {sha256}, "
            f"expected {file.sha256}; remove it and pull again"
        )
    state = "downloaded" if is_new else "here"
    return PulledFile(entry.name, path, path.stat().st_size, sha256, state)
