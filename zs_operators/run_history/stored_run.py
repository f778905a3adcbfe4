"""A run as its dataset remembers it, and finding those there are."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from zs_operators import provenance
from zs_operators.errors import InvalidInputError, SamplesError
from zs_operators.report import FAILURES
from zs_operators.run_history import marks
from zs_operators.run_history.old_records import with_parameters

if TYPE_CHECKING:
    import fiftyone as fo
    from fiftyone.core.collections import SampleCollection

    from zs_operators.vocabulary import Vocabulary

_LABELS_SHOWN = 10


@dataclass(frozen=True)
class StoredRun:
    """A run of ``zs.classify``, ``zs.detect``, ``zs.segment`` or ``zs.evaluate``.

    Attributes:
        dataset: that it belongs to
        key: of the FiftyOne custom run
        record: all that is known of it, plain JSON values
    """

    dataset: fo.Dataset = field(repr=False)
    key: str
    record: Mapping[str, Any] = field(repr=False)

    @property
    def task(self) -> str:
        """``"classify"``, ``"detect"``, ``"segment"``, ``"evaluate"`` or ``"thresholds"``."""
        return str(self.record["method"]).partition("/")[2]

    @property
    def label_field(self) -> str:
        """The field it wrote; of an evaluation its key."""
        return self.record.get("label_field") or self.key.removeprefix(f"zs_{self.task}_")

    @property
    def state(self) -> str:
        """``"running"`` (or killed), ``"complete"``, ``"cancelled"`` or ``"failed"``."""
        return self.record.get("state") or provenance.COMPLETE

    @property
    def started(self) -> datetime | None:
        """When it began, in UTC."""
        began = self.record.get("started")
        return None if began is None else datetime.fromtimestamp(began, timezone.utc)

    @property
    def record_version(self) -> int:
        """0 for those that zs-operators 0.1.0 wrote."""
        return self.record.get("record_version") or 0

    @property
    def signature(self) -> str | None:
        """What the labels of this run are marked with."""
        return self.record.get("signature")

    @property
    def parameters(self) -> dict[str, Any]:
        """The arguments it was called with; of an old record those that can be told from it."""
        return with_parameters(self.record)["parameters"]

    @property
    def model(self) -> dict[str, Any]:
        """What of the model decides labels: name, sha256 of the weights, preprocessing …"""
        return self.record.get("model") or {}

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The classes and templates, if it had any."""
        from zs_operators.vocabulary import Vocabulary

        stored = self.record.get("vocabulary")
        return None if stored is None else Vocabulary.from_dict(stored)

    @property
    def prompts(self) -> list[tuple[str, str | None]]:
        """The exact texts that were encoded, and the class of each; None is background."""
        stored = self.record.get("prompts")
        if isinstance(stored, list):
            return [(text, label) for text, label in stored]
        vocabulary = self.vocabulary
        found = vocabulary.prompts() if vocabulary is not None else ()
        return [(prompt.text, prompt.label) for prompt in found]

    @property
    def versions(self) -> dict[str, str]:
        """Of everything that can change a label."""
        return dict(self.record.get("environment") or {})

    @property
    def counts(self) -> dict[str, int]:
        """Samples by outcome, those resumed from an earlier call not included."""
        found = self._report.get("counts") or self.record.get("counts") or {}
        return {name: count for name, count in found.items() if isinstance(count, int)}

    @property
    def labels(self) -> dict[str, int]:
        """Labels by class name."""
        return dict(self._report.get("labels") or {})

    @property
    def seconds(self) -> dict[str, float]:
        """Wall-clock seconds by stage."""
        found = self._report.get("seconds") or self.record.get("seconds") or {}
        return dict(found) if isinstance(found, Mapping) else {"total": found}

    @property
    def source(self) -> dict[str, Any] | None:
        """The field whose labels it began with: ``field``, and the ``run_key`` that made it."""
        return self.record.get("source")

    @property
    def num_failed(self) -> int:
        """Samples that ended with a recorded failure."""
        return sum(count for outcome, count in self.counts.items() if outcome in FAILURES)

    @property
    def _report(self) -> Mapping[str, Any]:
        return self.record.get("report") or {}

    def samples(self) -> fo.DatasetView:
        """The samples that hold what it wrote; of an evaluation those that it evaluated."""
        if self.task == "evaluate":
            key = evaluation_key(self)
            if self.dataset.has_evaluation(key):
                return self.dataset.load_evaluation_view(key)
            return self.dataset.limit(0)
        place = marks.place_of(self.dataset, self.record)
        return marks.marked(self.dataset, place, self.signature)

    def failed(self) -> fo.DatasetView:
        """The samples that failed, whose reasons are in ``<label_field>_error``."""
        return marks.failed(self.dataset, self.label_field)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON."""
        return {
            "key": self.key,
            "task": self.task,
            "label_field": self.label_field,
            "state": self.state,
            "started": None if self.started is None else self.started.isoformat(),
            "dataset": self.dataset.name,
            "record_version": self.record_version,
            "signature": self.signature,
            "parameters": self.parameters,
            "vocabulary": self.record.get("vocabulary"),
            "prompts": [list(pair) for pair in self.prompts],
            "model": self.model,
            "source": self.source,
            "versions": self.versions,
            "counts": self.counts,
            "labels": self.labels,
            "seconds": self.seconds,
            "record": json.loads(json.dumps(self.record, default=str)),
        }

    def __str__(self) -> str:
        title = f"{self.task} -> {self.label_field} ({self.key})"
        rows = [("state", self.state), ("started", day(self))]
        rows += [("model", self.model["name"])] if self.model.get("name") else []
        if self.record.get("clip"):
            rows.append(("names by", self.record["clip"].get("name", "?")))
        if self.record.get("vocabulary"):
            rows.append(("classes", f"{len(self.record['vocabulary']['classes']):,}"))
            rows.append(("prompts", f"{self.record.get('num_prompts') or len(self.prompts):,}"))
        if self.source:
            maker = self.source.get("run_key")
            rows.append(("source", self.source["field"] + (f" ({maker})" if maker else "")))
        rows += [(outcome, f"{count:,}") for outcome, count in self.counts.items() if count]
        rows += [("seconds", f"{self.seconds['total']:.1f}")] if self.seconds.get("total") else []
        top = sorted(self.labels.items(), key=lambda pair: (-pair[1], pair[0]))
        rows += [(f"  {name}", f"{count:,}") for name, count in top[:_LABELS_SHOWN]]
        if len(top) > _LABELS_SHOWN:
            rows.append(("  …", f"{len(top) - _LABELS_SHOWN} more labels"))
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {value}" for name, value in rows]
        return "\n".join([title, "-" * len(title), *lines])


def runs(dataset: SampleCollection) -> list[StoredRun]:
    """The runs of this package on a dataset, newest first.

    Args:
        dataset: a dataset, or a view of it

    Raises:
        SamplesError: if it is neither
    """
    root = root_of(dataset)
    found = [StoredRun(root, key, one) for key, one in provenance.records(root).items()]
    return sorted(found, key=lambda run: run.record.get("started") or 0.0, reverse=True)


def load_run(dataset: SampleCollection, key_or_label_field: str) -> StoredRun:
    """The run of this key, or the one that wrote this field.

    Args:
        dataset: a dataset, or a view of it
        key_or_label_field: such as ``"zs_classify_pets"`` or ``"pets"``

    Raises:
        InvalidInputError: if there is none, or more than one; the message names those there are
    """
    found = runs(dataset)
    by_key = {run.key: run for run in found}
    if key_or_label_field in by_key:
        return by_key[key_or_label_field]
    writers = [
        run
        for run in found
        if key_or_label_field in (run.label_field, run.record.get("semantic_field"))
    ]
    if len(writers) > 1:  # an evaluation may have the name of a field as its key
        writers = [run for run in writers if run.task != "evaluate"]
    if len(writers) > 1:
        # One that only added to the labels goes by its key
        writers = [run for run in writers if not marks.adds_attributes(run.record)] or writers
    if len(writers) == 1:
        return writers[0]
    if writers:
        keys = ", ".join(repr(run.key) for run in writers)
        raise InvalidInputError(f"{key_or_label_field!r} is of {len(writers)} runs: name {keys}.")
    raise InvalidInputError(_unknown(root_of(dataset).name, key_or_label_field, by_key))


def root_of(dataset: SampleCollection) -> fo.Dataset:
    """The dataset behind a view, or itself.

    Raises:
        SamplesError: if it is neither
    """
    import fiftyone.core.collections as foc

    if not isinstance(dataset, foc.SampleCollection):
        kind = "none" if dataset is None else type(dataset).__name__
        raise SamplesError(f"dataset must be a FiftyOne dataset or view, not {kind}.")
    return dataset._root_dataset


def check_run(run: Any, argument: str = "run") -> StoredRun:
    """The run itself.

    Raises:
        InvalidInputError: if it is none
    """
    if isinstance(run, StoredRun):
        return run
    raise InvalidInputError(
        f"{argument} must be a StoredRun, not {type(run).__name__}: get it from "
        "zs.load_run(dataset, key_or_label_field)."
    )


def evaluation_key(run: StoredRun) -> str:
    """The key of FiftyOne's evaluation behind an ``evaluate`` run."""
    return run.record.get("eval_key") or run.label_field


def day(run: StoredRun) -> str:
    """When it began, as people here read it."""
    return "?" if run.started is None else f"{run.started.astimezone():%Y-%m-%d %H:%M}"


def _unknown(dataset: str, name: str, keys: Sequence[str] | Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(str(name), keys, n=3, cutoff=0.4) or sorted(keys)[:5]
    have = f"There is: {', '.join(map(repr, near))}." if near else "It has no runs yet."
    return f"Dataset {dataset!r} has no run {name!r}. {have}"
