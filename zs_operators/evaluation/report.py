"""What an evaluation found: plain numbers that print as a small table and go into JSON.

No class name ever becomes a key of :meth:`EvaluationReport.to_dict`, so it may be stored in
MongoDB.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from zs_operators.evaluation.report_parts import (
    Calibration,
    ClassRow,
    Confusion,
    Localisation,
    Names,
    ReliabilityBin,
    Split,
    TopK,
)
from zs_operators.evaluation.report_reading import read_report
from zs_operators.evaluation.report_table import report_table


@dataclass(frozen=True)
class EvaluationReport:
    """The result of :func:`zs_operators.evaluate`.

    Attributes:
        eval_key: of FiftyOne's evaluation, which the App's Model Evaluation panel opens
        run_key: of the custom run that holds this report
        kind: "classification", "detection" or "segmentation"
        predictions, ground_truth: the two fields
        counts: samples by what became of them: "samples" that were asked for, "evaluated",
            "no_ground_truth", "failed" (the run could not process them), "not_predicted" (no run
            did), "rejected" (evaluated, without a label); "rejected_labels" of detection
        metrics: the numbers of all classes together, by name; see docs/evaluation.md
        per_class: one row a class, by name; classes that ground truth lacks have support 0 and
            are in no mean
        confusion: of detection between boxes that match whatever their names
        split: supported against unsupported classes; None unless asked for
        top_k: of classification, where logits or lists of labels are stored
        localisation: of detection and segmentation
        calibration: None without confidences
        thresholds: for each predicted name that has one, the ``min_confidence`` of highest F1 on
            these samples: what :func:`zs_operators.apply_thresholds` takes
        names: how names were brought together
        parameters: what was asked for
        seconds: wall-clock seconds
        any_class_key: of FiftyOne's second evaluation, which matches boxes whatever their names
        fields: sample fields that belong to the evaluation
        warnings: what the person should know, one sentence each
    """

    eval_key: str
    run_key: str
    kind: str
    predictions: str
    ground_truth: str
    counts: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    per_class: tuple[ClassRow, ...] = ()
    confusion: Confusion | None = None
    split: Split | None = None
    top_k: tuple[TopK, ...] = ()
    localisation: Localisation | None = None
    calibration: Calibration | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    names: Names = field(default_factory=Names)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    any_class_key: str | None = None
    fields: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def reliability(self) -> tuple[ReliabilityBin, ...]:
        """The bins of :attr:`calibration`; empty without one."""
        return () if self.calibration is None else self.calibration.reliability

    @property
    def absent(self) -> list[str]:
        """Classes that were predicted, or could be, and that ground truth lacks."""
        return [row.label for row in self.per_class if not row.support]

    def of(self, label: str) -> ClassRow:
        """The row of a class; KeyError if there is none."""
        for row in self.per_class:
            if row.label == label:
                return row
        raise KeyError(label)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain dicts, lists, strings and Python numbers."""
        content = {item.name: getattr(self, item.name) for item in fields(self)}
        for name in ("confusion", "split", "localisation", "calibration", "names"):
            content[name] = None if content[name] is None else asdict(content[name])
        content["per_class"] = [asdict(row) for row in self.per_class]
        content["top_k"] = [asdict(row) for row in self.top_k]
        content["thresholds"] = [
            {"label": label, "threshold": value} for label, value in self.thresholds.items()
        ]
        # Tuples become lists, as they will be when this comes back from a database
        return json.loads(json.dumps(content))

    def to_json(self, **kwargs: Any) -> str:
        """The report as a JSON string; keyword arguments go to :func:`json.dumps`."""
        return json.dumps(self.to_dict(), **kwargs)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> EvaluationReport:
        """What :meth:`to_dict` wrote, of this or an older version; unknown entries are left out."""
        return read_report(cls, content)

    def __str__(self) -> str:
        return report_table(self)
