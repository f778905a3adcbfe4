"""Records of runs as JSON files: what another dataset, or another person, needs to repeat one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zs_operators import provenance
from zs_operators.errors import InvalidInputError, VocabularyError
from zs_operators.redaction import without_secrets
from zs_operators.run_history.stored_run import StoredRun, check_run, root_of
from zs_operators.version import __version__
from zs_operators.whole_files import write_whole

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

FORMAT = "zs-operators run"
FORMAT_VERSION = 1
MAX_BYTES = 16 * 2**20
TASKS = ("classify", "detect", "segment", "evaluate", "thresholds")

_SECRET_NAMES = ("password", "passwd", "secret", "token", "api_key", "apikey", "credentials")
_VIRTUAL = ("cls", "type", "method")  # FiftyOne's own
# Views are queries and folders are written to: those of another machine are nobody's here
_STAYS_THERE = ("samples", "output_dir")
_NUMBER = (int, float)
_SHAPES = {
    "label_field": str,
    "state": str,
    "signature": str,
    "started": _NUMBER,
    "record_version": int,
    "report": Mapping,
    "parameters": Mapping,
    "environment": Mapping,
    "model": Mapping,
    "clip": Mapping,
    "options": Mapping,
    "vocabulary": Mapping,
    "source": Mapping,
    "samples": Mapping,
    "output_dir": str,
    "semantic_field": str,
}


def exported(run: StoredRun) -> dict[str, Any]:
    """The record of a run as plain JSON, without passwords, tokens and keys."""
    check_run(run)
    record = {name: one for name, one in run.record.items() if name not in _VIRTUAL}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "zs_operators": __version__,
        "exported": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "dataset": run.dataset.name,
        "task": run.task,
        "key": run.key,
        "record": _clean(json.loads(json.dumps(record, default=str))),
    }


def export_run(run: StoredRun, path: str | os.PathLike, *, overwrite: bool = False) -> Path:
    """Writes the record of a run to a JSON file; labels are not in it.

    Args:
        run: from :func:`load_run`
        path: of the file, or a folder for ``<key>.json``
        overwrite (False): allow replacing a file

    Returns:
        the path of the file

    Raises:
        InvalidInputError: if it exists, or cannot be written
    """
    content = json.dumps(exported(run), indent=2, ensure_ascii=False) + "\n"
    file = Path(path).expanduser()
    file = file / f"{run.key}.json" if file.is_dir() else file
    if file.exists() and not overwrite:
        raise InvalidInputError(
            f"{str(file)!r} exists: choose another name, or allow overwriting (overwrite=True)."
        )
    try:
        write_whole(file, content.encode())
    except OSError as error:
        raise InvalidInputError(f"{str(file)!r} cannot be written: {error.strerror}.") from error
    return file


def import_run(
    dataset: SampleCollection,
    path: str | os.PathLike | Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> StoredRun:
    """Registers the record of a run that was exported, under its key; no label is written.

    Which samples it was given and the folder of its masks are left out: pass ``samples`` and
    ``output_dir`` to repeat it.

    Args:
        dataset: a dataset, or a view of it
        path: of the file, or what :func:`exported` returned
        overwrite (False): allow replacing the record of another run of that key

    Raises:
        InvalidInputError: if it is no such file, of a later version, damaged, or the key is taken
    """
    root = root_of(dataset)
    name = "The record" if isinstance(path, Mapping) else repr(os.fspath(path))
    content = path if isinstance(path, Mapping) else _read(path, name)
    task, key, record = _checked(content, name)
    if root.has_run(key) and not overwrite:
        raise InvalidInputError(
            f"Dataset {root.name!r} has a run {key!r} already: delete it first, or allow "
            "overwriting (overwrite=True)."
        )
    if root.has_run(key) and not provenance.is_ours(root.get_run_info(key).config.serialize()):
        raise InvalidInputError(f"Run {key!r} of dataset {root.name!r} is not one of zs-operators.")
    # Keeps an old record an old one
    imported = datetime.now(timezone.utc).isoformat(timespec="seconds")
    record = {"record_version": 0, **record, "imported": imported}
    provenance.save(root, task, key.removeprefix(provenance.run_key(task, "")), record)
    return StoredRun(root, key, dict(root.get_run_info(key).config.serialize()))


def _read(path: str | os.PathLike, name: str) -> Any:
    try:
        file = Path(path).expanduser()
        if file.stat().st_size > MAX_BYTES:
            raise InvalidInputError(f"{name} has more than {MAX_BYTES:,} bytes, which no run has.")
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInputError(f"{name} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{name} is not JSON: {error}.") from error


def _checked(content: Any, name: str) -> tuple[str, str, dict[str, Any]]:
    """Task, key and record of an exported run.

    Raises:
        InvalidInputError: saying what of it is wrong
    """
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        raise InvalidInputError(f"{name} is not a run that zs.export_run has written.")
    version = content.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise InvalidInputError(
            f"{name} is of format {version!r}, and this zs-operators ({__version__}) reads up to "
            f"{FORMAT_VERSION}: update it."
        )
    task, key, record = (content.get(part) for part in ("task", "key", "record"))
    if task not in TASKS or not isinstance(record, Mapping):
        raise InvalidInputError(f"{name} is damaged: it has no task or no record.")
    label_field = record.get("label_field")
    if not isinstance(label_field, str) or not label_field.isidentifier():
        raise InvalidInputError(f"{name} is damaged: label_field is {label_field!r}.")
    usual = provenance.run_key(task, label_field)
    if key not in (usual, usual + provenance.BESIDE):
        raise InvalidInputError(f"{name} is damaged: its key {key!r} is not that of its field.")
    record = _checked_record(record, name)
    parameters = record.get("parameters") or {}
    if parameters.get(_written(task, parameters), label_field) != label_field:
        raise InvalidInputError(f"{name} is damaged: its parameters are those of another field.")
    return task, key, record


def _written(task: str, parameters: Mapping[str, Any]) -> str:
    """The argument that names what a run writes."""
    if task == "evaluate":
        return "eval_key"
    return "regions" if parameters.get("update_source") else "label_field"


def _checked_record(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    from fiftyone.core.runs import RunConfig

    from zs_operators.vocabulary import Vocabulary

    kept = {part: one for part, one in record.items() if part not in (*_VIRTUAL, *_STAYS_THERE)}
    for part, value in kept.items():
        # Each becomes an attribute of FiftyOne's object
        if not part.isidentifier() or part.startswith("_") or hasattr(RunConfig, part):
            raise InvalidInputError(f"{name} is damaged: a record has no {part!r}.")
        shape = _SHAPES.get(part)
        if shape is not None and value is not None and not isinstance(value, shape):
            raise InvalidInputError(f"{name} is damaged: {part} is {value!r}.")
    if kept.get("vocabulary") is not None:
        try:
            Vocabulary.from_dict(kept["vocabulary"])
        except VocabularyError as error:
            raise InvalidInputError(f"{name} is damaged: {error}") from error
    if kept.get("parameters"):
        kept["parameters"] = {
            part: value for part, value in kept["parameters"].items() if part not in _STAYS_THERE
        }
    return json.loads(json.dumps(kept))


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, list):
        return [_clean(one) for one in value]
    if isinstance(value, dict):
        return {name: _clean(one) for name, one in value.items() if not _is_secret(name)}
    return value


def _is_secret(name: str) -> bool:
    return any(name.lower().endswith(secret) for secret in _SECRET_NAMES)
