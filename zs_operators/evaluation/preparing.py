"""Everything an evaluation needs before FiftyOne compares labels: samples, names, a mapped view.

Names are mapped by a stage of the view, so the fields keep theirs, and the App, which opens an
evaluation on its own view, shows the names that were compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from zs_operators.evaluation.names import NameMatch, match_names
from zs_operators.evaluation.options import EvaluateOptions
from zs_operators.evaluation.selection import select
from zs_operators.evaluation.sources import find_run, names_of, rejection_names, vocabulary_of
from zs_operators.evaluation.targets import check_pair
from zs_operators.vocabulary import Vocabulary

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection


@dataclass(frozen=True)
class Comparison:
    """Two fields, ready to be compared.

    Attributes:
        predictions, ground_truth: the fields
        kind: "classification", "detection" or "segmentation"
        options: what was asked for
        view: the samples to evaluate, with the labels as they are
        match: what names count as; of labels that were rejected under a name of their own, None
        seen: names of supported classes as they count; None without a split
        record: of the run that made the predictions, or None
        vocabulary: of that run, or as given
        counts: of samples, by what becomes of them
        warnings: what a person should know
    """

    predictions: str
    ground_truth: str
    kind: str
    options: EvaluateOptions
    view: SampleCollection
    match: NameMatch
    seen: frozenset[str] | None
    record: Any
    vocabulary: Vocabulary | None
    counts: dict[str, int]
    warnings: tuple[str, ...]

    def mapped(
        self, predictions: str | None = None, ground_truth: str | None = None
    ) -> SampleCollection:
        """:attr:`view` with the names that are compared.

        Args:
            predictions (None): a field with the names of the predictions, instead of them
            ground_truth (None): a field whose names are those that are compared already
        """
        view = map_names(self.view, predictions or self.predictions, self.match.predictions)
        if ground_truth in (None, self.ground_truth):
            view = map_names(view, self.ground_truth, self.match.ground_truth)
        return view

    def has_attribute(self, path: str) -> bool:
        """Whether the schema of the dataset has ``path``."""
        return self.view._root_dataset.get_field(path) is not None


def prepare(
    samples: SampleCollection, predictions: str, ground_truth: str, options: EvaluateOptions
) -> Comparison:
    """Checks fields and selects samples and names; writes nothing.

    Raises:
        FieldError: if the fields cannot be compared
        SamplesError: if there is nothing to compare
        InvalidInputError: if another argument cannot be used
    """
    kind = check_pair(samples, predictions, ground_truth)
    selection = select(samples, predictions, ground_truth, options.missing)
    record = find_run(samples, predictions)
    vocabulary = vocabulary_of(record)
    if options.vocabulary is not None:
        vocabulary = Vocabulary.parse(options.vocabulary)
    predicted, truth = _names_of_masks(selection.view, kind, predictions, ground_truth) or (
        names_of(selection.view, predictions),
        names_of(selection.view, ground_truth),
    )
    reserved = set()
    if kind != "segmentation":
        reserved = rejection_names(selection.view, predictions, truth)
    match = match_names(
        [name for name in predicted if name not in reserved],
        truth,
        vocabulary=vocabulary,
        names=options.names,
        roll_up=options.roll_up,
    )
    match = replace(match, predictions={**match.predictions, **dict.fromkeys(reserved)})
    warnings = [*selection.warnings, *_name_warnings(match, vocabulary)]
    seen = None
    if options.seen is not None:
        seen = frozenset(match.of_any(options.seen))
        evaluated = {match.of_truth(name) for name in truth}
        if not seen & evaluated:
            warnings.append(
                "None of the classes in seen is in ground truth: all count as unsupported."
            )
        elif evaluated <= seen:
            warnings.append("All classes of ground truth are in seen: none is unsupported.")
    counts = dict(selection.counts)
    evaluated = {match.of_truth(name) for name in truth}
    possible = {match.of_prediction(name) for name in predicted} - {None}
    if vocabulary is not None:
        possible |= {match.of_prediction(name) for name in vocabulary.labels}
    counts["classes"] = len(evaluated)
    counts["absent_classes"] = len(possible - evaluated)
    return Comparison(
        predictions,
        ground_truth,
        kind,
        options,
        selection.view,
        match,
        seen,
        record,
        vocabulary,
        counts,
        tuple(warnings),
    )


def map_names(
    view: SampleCollection, field: str, names: Mapping[str, str | None]
) -> SampleCollection:
    """``view`` with labels of a field under other names, if it has any of those."""
    present = {name: names[name] for name in names_of(view, field) if name in names}
    return view.map_labels(field, present) if present else view


def _names_of_masks(
    view: SampleCollection, kind: str, predictions: str, ground_truth: str
) -> tuple[list[str], list[str]] | None:
    if kind != "segmentation":
        return None
    from zs_operators.evaluation.mask_values import named_values

    return tuple(
        sorted(set(named_values(view, field).values())) for field in (predictions, ground_truth)
    )


def _name_warnings(match: NameMatch, vocabulary: Vocabulary | None) -> list[str]:
    found = []
    if match.names.unmatched_ground_truth:
        shown = _shown(match.names.unmatched_ground_truth)
        what = "are not in the vocabulary" if vocabulary else "are never predicted"
        found.append(f"Some classes of ground truth {what}: {shown}.")
    if match.names.unmatched_predictions:
        shown = _shown(match.names.unmatched_predictions)
        found.append(f"Some predicted classes are not in ground truth: {shown}.")
    return found


def _shown(names: tuple[str, ...], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more
