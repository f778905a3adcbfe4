"""What an evaluation report is made of: classes, confusion, calibration, splits and names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

CLASSIFICATION, DETECTION, SEGMENTATION = "classification", "detection", "segmentation"

#: Name of "no label" in confusion matrices, as FiftyOne calls it.
NONE = "(none)"

#: What to say wherever two groups of classes are compared.
SPLIT_CAVEAT = (
    "unsupported means: without labelled examples here. A model such as CLIP may have seen every "
    "one of these classes in its pre-training."
)


@dataclass(frozen=True)
class ClassRow:
    """One class.

    Attributes:
        label: the name both sides are evaluated under
        support: labels of ground truth; pixels for segmentation
        num_predicted: predictions of this class
        num_right: predictions of this class that are right
        precision: right of those predicted; None where nothing is predicted
        recall: right of those that ground truth has; None where it has none
        f1: twice the right ones, of all on both sides: the harmonic mean of the two, and 0 where
            nothing or only something else is predicted; None where neither side has the class
        accuracy: share of ground truth that is named right: of classification the recall, of
            detection among objects that some box matches whatever its name, of segmentation
            among pixels that are foreground in both; None without any
        num_rejected: labels of ground truth whose prediction was rejected
        supported: whether the class has labelled examples; None where no split was asked for
        average_precision: of detection, the mean over the IoU thresholds, and of several labels
            an image; else None
        iou: of segmentation, intersection over union of the pixels; else None
    """

    label: str
    support: int
    num_predicted: int
    num_right: int
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    accuracy: float | None = None
    num_rejected: int = 0
    supported: bool | None = None
    average_precision: float | None = None
    iou: float | None = None


def worst_first(rows: Iterable[ClassRow]) -> list[ClassRow]:
    """Classes of low F1 before others, of those alike the common ones, then by name."""
    # Earlier reports have no F1 where nothing was predicted
    return sorted(rows, key=lambda row: (row.f1 or 0.0, -row.support, row.label))


@dataclass(frozen=True)
class Confusion:
    """How often each class was taken for each.

    Attributes:
        labels: of rows (ground truth) and columns (predictions) alike; the last one is "(none)":
            its row counts predictions of nothing that is there, its column what was not predicted
        cells: (row, column, count) of each count above 0, row by row
    """

    labels: tuple[str, ...]
    cells: tuple[tuple[int, int, int], ...]

    @property
    def matrix(self) -> np.ndarray:
        """(L, L) int64, rows are ground truth and columns predictions."""
        matrix = np.zeros((len(self.labels), len(self.labels)), dtype=np.int64)
        for row, column, count in self.cells:
            matrix[row, column] = count
        return matrix

    def worst(self, limit: int = 10) -> list[tuple[str, str, int]]:
        """(truth, prediction, count) of the commonest mistakes between two classes."""
        none = len(self.labels) - 1
        wrong = [cell for cell in self.cells if cell[0] != cell[1] and none not in cell[:2]]
        wrong.sort(key=lambda cell: (-cell[2], cell[0], cell[1]))
        return [(self.labels[row], self.labels[column], n) for row, column, n in wrong[:limit]]


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions whose confidence is in (low, high], of the first bin also those at ``low``.

    Attributes:
        low, high: edges in [0, 1]
        count: how many
        mean_confidence, accuracy: of those; None where there is none
    """

    low: float
    high: float
    count: int
    mean_confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """How far confidences say how often a prediction is right.

    Attributes:
        source: what the temperature was fitted on: "logits" of all classes, or "confidences"
            alone, where nothing else is stored
        num: predictions used
        temperature: what to divide logits by; of "confidences" their log odds. Fitted on these
            very samples
        ece, nll: expected calibration error and mean negative log likelihood as stored
        ece_fitted, nll_fitted: with the temperature
        reliability: bins of equal width as stored
        reliability_fitted: the same with the temperature
    """

    source: str
    num: int
    temperature: float | None
    ece: float | None
    nll: float | None
    ece_fitted: float | None
    nll_fitted: float | None
    reliability: tuple[ReliabilityBin, ...] = ()
    reliability_fitted: tuple[ReliabilityBin, ...] = ()


@dataclass(frozen=True)
class Stacking:
    """Calibrated stacking: what taking ``gamma`` off the logits of supported classes changes.

    Attributes:
        ausuc: exact area under the curve of unsupported over supported accuracy
        gamma: the one that gives the highest harmonic mean **on these samples**; choose it on
            others before you use it
        supported_accuracy, unsupported_accuracy, harmonic_mean: at that gamma
        given_gamma: the one asked for, if any
        given: supported and unsupported accuracy and harmonic mean at the given gamma
        unsupported_only: accuracy on unsupported classes where only those may be predicted
        curve: (gamma, supported accuracy, unsupported accuracy) along the curve, thinned out
    """

    ausuc: float
    gamma: float
    supported_accuracy: float
    unsupported_accuracy: float
    harmonic_mean: float
    unsupported_only: float
    given_gamma: float | None = None
    given: tuple[float, float, float] | None = None
    curve: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True)
class Split:
    """Classes with labelled examples against classes without, each the mean over its classes.

    Attributes:
        measure: "accuracy", "average precision" or "IoU"
        supported, unsupported: labels of the two groups that ground truth has
        supported_score, unsupported_score, harmonic_mean: S, U and H; None for an empty group
        stacking: of classification with stored logits; else None
        note: why ``stacking`` is None, if it is
    """

    measure: str
    supported: tuple[str, ...]
    unsupported: tuple[str, ...]
    supported_score: float | None
    unsupported_score: float | None
    harmonic_mean: float | None
    stacking: Stacking | None = None
    note: str | None = None


@dataclass(frozen=True)
class Localisation:
    """Where things are, apart from what they are called.

    Attributes:
        num_truth, num_predicted: objects of both sides; foreground pixels for segmentation
        num_located: pairs that match whatever their names
        recall, precision: located of all that is there, and of all that is predicted
        average_precision: with all names made one, mean over the IoU thresholds; None for pixels
            or without confidences
        average_precision_50: the same at IoU 0.5, if that is one of the thresholds
        mean_iou: of the pairs; of pixels the IoU of the foreground
        name_accuracy: pairs of the same name of all pairs
        name_accuracy_per_class: mean over the classes of ground truth with a pair
    """

    num_truth: int
    num_predicted: int
    num_located: int
    recall: float | None
    precision: float | None
    average_precision: float | None
    average_precision_50: float | None
    mean_iou: float | None
    name_accuracy: float | None
    name_accuracy_per_class: float | None


@dataclass(frozen=True)
class TopK:
    """How often the truth is among the k best.

    Attributes:
        k: how many classes count
        accuracy: over samples
        accuracy_per_class: mean over the classes of ground truth
    """

    k: int
    accuracy: float
    accuracy_per_class: float


@dataclass(frozen=True)
class Renamed:
    """A name that was evaluated under another.

    Attributes:
        side: "predictions" or "ground truth"
        name: as it is in the field, which keeps it
        evaluated_as: the name it counts as
        reason: "given", "case", "spelling" (blanks, underscores, hyphens), "plural", "synonym",
            "parent" or "roll-up"
    """

    side: str
    name: str
    evaluated_as: str
    reason: str


@dataclass(frozen=True)
class Names:
    """How names of both sides were brought together.

    Attributes:
        renamed: what was evaluated under another name
        unmatched_predictions: predicted names that ground truth does not have
        unmatched_ground_truth: names of ground truth that can never be predicted, because the
            vocabulary of the run lacks them; without a run, that never are
    """

    renamed: tuple[Renamed, ...] = ()
    unmatched_predictions: tuple[str, ...] = ()
    unmatched_ground_truth: tuple[str, ...] = ()
