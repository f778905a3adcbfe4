"""An evaluation as a FiftyOne custom run: writing its record and reading it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zs_operators import provenance, run_parameters
from zs_operators.errors import InvalidInputError
from zs_operators.evaluation.report import EvaluationReport

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

TASK = "evaluate"


def save_evaluation(samples: SampleCollection, report: EvaluationReport) -> str:
    """Stores a report with the dataset; returns the key of its run."""
    record = {
        "samples": {"num_samples": report.counts["samples"], **run_parameters.scope(samples)},
        "source": provenance.source(samples, report.predictions),
        **report.to_dict(),
    }
    return provenance.save(samples, TASK, report.eval_key, record)


def load_evaluation(samples: SampleCollection, eval_key: str) -> EvaluationReport:
    """The report of an earlier :func:`zs_operators.evaluate`.

    Args:
        samples: the dataset, or a view of it
        eval_key: of the evaluation

    Raises:
        InvalidInputError: if there is none of that key; the message names those there are
    """
    record = provenance.find(samples, TASK, eval_key)
    if record is None:
        known = ", ".join(repr(key) for key in list_evaluations(samples)) or "none"
        raise InvalidInputError(f"There is no evaluation {eval_key!r} of zs; there is: {known}.")
    return EvaluationReport.from_dict(record)


def list_evaluations(samples: SampleCollection) -> list[str]:
    """Keys of the evaluations :func:`load_evaluation` finds, sorted."""
    prefix = provenance.run_key(TASK, "")
    keys = [key.removeprefix(prefix) for key in samples.list_runs() if key.startswith(prefix)]
    return sorted(key for key in keys if provenance.find(samples, TASK, key) is not None)
