"""Provenance: every run is a FiftyOne custom run that says how its field came to be."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NamedTuple

from zs_operators.version import __version__

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

#: Version of what a record holds; those without one were written by zs-operators 0.1.0.
RECORD_VERSION = 1

RUNNING = "running"
COMPLETE = "complete"
CANCELLED = "cancelled"
FAILED = "failed"

_METHOD = "zs/"
#: Ends the name of a run beside the one that made a field; see :func:`name_beside`.
BESIDE = "_names"
#: Tasks whose ``label_field`` is no field of their own.
_WRITE_NO_FIELD = ("evaluate",)


class Writer(NamedTuple):
    """The run that made a field."""

    run_key: str
    signature: str | None


def run_key(task: str, label_field: str) -> str:
    """Key of the custom run that describes ``label_field``."""
    return f"zs_{task}_{label_field}"


def signature(record: dict[str, Any]) -> str:
    """12 hex digits that two runs share exactly if they give the same labels.

    Args:
        record: plain JSON values that decide the labels: parameters, prompts, model, weights
    """
    canonical = json.dumps(record, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def find(samples: SampleCollection, task: str, label_field: str) -> dict[str, Any] | None:
    """The record of the run that wrote ``label_field``, or None."""
    dataset = samples._root_dataset
    key = run_key(task, label_field)
    if not dataset.has_run(key):
        return None
    record = dict(dataset.get_run_info(key).config.serialize())
    return record if record.get("method") == f"{_METHOD}{task}" else None


def records(samples: SampleCollection) -> dict[str, dict[str, Any]]:
    """The records of all runs of this package on the dataset, by key."""
    dataset = samples._root_dataset
    found = {key: dataset.get_run_info(key).config.serialize() for key in dataset.list_runs()}
    return {key: dict(one) for key, one in found.items() if is_ours(one)}


def is_ours(record: dict[str, Any]) -> bool:
    """Whether a custom run is one of this package."""
    return str(record.get("method")).startswith(_METHOD)


def writer_of(samples: SampleCollection, field: str) -> Writer | None:
    """The newest run that made a field, None if none of ours did."""
    found = [
        (record.get("started") or 0.0, Writer(key, record.get("signature")))
        for key, record in records(samples).items()
        if field in (record.get("label_field"), record.get("semantic_field"))
        and record.get("task") not in _WRITE_NO_FIELD
        # One that only adds attributes did not make the labels
        and record.get("regions") != field
    ]
    return max(found)[1] if found else None


def name_beside(samples: SampleCollection, task: str, label_field: str) -> str:
    """What to call a run that adds to the labels of a field.

    The run that made them, if it is of the same task, has the name of the field already.
    """
    earlier = find(samples, task, label_field)
    is_maker = earlier is not None and earlier.get("regions") != label_field
    return f"{label_field}{BESIDE}" if is_maker else label_field


def source(samples: SampleCollection, field: str) -> dict[str, Any]:
    """What a record says of the field whose labels a run begins with."""
    writer = writer_of(samples, field)
    return {"field": field, **(writer or Writer(None, None))._asdict()}


def describe(key: str, record: dict[str, Any]) -> str:
    """One line for the field's tooltip in the App: task, model, number of classes, day, run."""
    model = (record.get("clip") or record.get("model") or {}).get("name", "model")
    if record.get("clip"):
        model = f"{record['model'].get('name', 'model')} and {model}"
    parts = [f"zs.{record.get('task', 'run')} with {model}"]
    if record.get("vocabulary"):
        count = len(record["vocabulary"]["classes"])
        parts.append(f"{count:,} class" + ("" if count == 1 else "es"))
    parts.append(time.strftime("%Y-%m-%d", time.localtime(record.get("started"))))
    return f"{', '.join(parts)}: run {key}"


def save(samples: SampleCollection, task: str, label_field: str, record: dict[str, Any]) -> str:
    """Creates or replaces the record of the run that writes ``label_field``; returns its key.

    Args:
        samples: a dataset or view
        task: such as ``"classify"``; the run's method is ``"zs/<task>"``
        label_field: the field, or for ``"evaluate"`` the evaluation key; or :func:`name_beside`
        record: plain JSON values. Where they are missing, ``record_version``, ``task``,
            ``label_field``, ``state`` (complete), ``started`` (now) and ``environment`` are added.
            For :func:`zs_operators.rerun` it needs ``parameters``, the arguments of the public
            function besides its samples as :func:`.run_parameters.recorded` gives them
    """
    from fiftyone.core.runs import RunConfig

    dataset = samples._root_dataset
    key = run_key(task, label_field)
    known = {
        "record_version": RECORD_VERSION,
        "task": task,
        "label_field": label_field,
        "state": COMPLETE,
        "started": time.time(),
        "environment": environment(),
    }
    virtual = ("cls", "type", "method")  # FiftyOne's own
    given = {name: value for name, value in {**known, **record}.items() if name not in virtual}
    config = RunConfig(**given)
    config.method = f"{_METHOD}{task}"
    if dataset.has_run(key):
        dataset.update_run_config(key, config)
    else:
        dataset.register_run(key, config)
    return key


def update_report(samples: SampleCollection, key: str, report: dict[str, Any]) -> None:
    """Replaces what the record of a run says of its result."""
    dataset = samples._root_dataset
    config = dataset.get_run_info(key).config
    config.report = report
    dataset.update_run_config(key, config)


def environment() -> dict[str, str]:
    """Versions of everything that can change a label."""
    names = ("fiftyone", "torch", "torchvision", "open_clip_torch", "segment_anything", "numpy")
    versions = {"zs_operators": __version__, "python": platform.python_version()}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
