"""Provenance: every run is a FiftyOne custom run that says how its field came to be."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from zs_operators.version import __version__

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

RUNNING = "running"
COMPLETE = "complete"
CANCELLED = "cancelled"
FAILED = "failed"


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
    return record if record.get("method") == f"zs/{task}" else None


def save(samples: SampleCollection, task: str, label_field: str, record: dict[str, Any]) -> str:
    """Creates or replaces the record of the run that writes ``label_field``; returns its key."""
    from fiftyone.core.runs import RunConfig

    dataset = samples._root_dataset
    key = run_key(task, label_field)
    config = RunConfig(**record)
    config.method = f"zs/{task}"
    if dataset.has_run(key):
        dataset.update_run_config(key, config)
    else:
        dataset.register_run(key, config)
    return key


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
