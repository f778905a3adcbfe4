"""Boxes of two fields matched by place alone, whatever their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection


@dataclass(frozen=True)
class BoxPair:
    """A box, and the one of the other field that it covers; either side may have none.

    Attributes:
        truth, label: names of the two
        truth_id, label_id: their ids
    """

    truth: str | None
    label: str | None
    truth_id: str | None
    label_id: str | None

    @property
    def is_matched(self) -> bool:
        return self.truth_id is not None and self.label_id is not None

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(one for one in (self.truth_id, self.label_id) if one is not None)


def box_pairs(
    samples: SampleCollection,
    predictions: str,
    ground_truth: str,
    *,
    by_class: bool = False,
    eval_key: str | None = None,
) -> list[BoxPair]:
    """Every box of both fields, in the pairs that FiftyOne's evaluation makes of them.

    Nothing is written.

    Args:
        by_class (False): match only boxes of the same name
        eval_key (None): a stored evaluation to take the pairs from if it matched like this
    """
    results = _stored(samples, eval_key, by_class)
    if results is None:
        results = samples.evaluate_detections(
            predictions, gt_field=ground_truth, classwise=by_class, progress=False
        )
    columns = (results.ytrue, results.ypred, results.ytrue_ids, results.ypred_ids)
    return [
        BoxPair(
            str(truth) if truth_id is not None else None,
            str(label) if label_id is not None else None,
            truth_id,
            label_id,
        )
        for truth, label, truth_id, label_id in zip(*columns, strict=True)
    ]


def select_boxes(
    samples: SampleCollection, pairs: Sequence[BoxPair], fields: Sequence[str]
) -> SampleCollection:
    """The view of these boxes alone, and of the samples that have some."""
    ids = [one for pair in pairs for one in pair.ids]
    return samples.select_labels(ids=ids, fields=list(fields), omit_empty=True)


def _stored(samples: SampleCollection, eval_key: str | None, by_class: bool):
    if eval_key is None or not samples.has_evaluation(eval_key):
        return None
    config = samples.get_evaluation_info(eval_key).config
    if getattr(config, "classwise", None) is not by_class:
        return None
    return samples.load_evaluation_results(eval_key)
