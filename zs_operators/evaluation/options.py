"""What :func:`zs_operators.evaluate` may be asked for, checked before anything is written."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zs_operators.errors import InvalidInputError
from zs_operators.evaluation.calibration import NUM_BINS
from zs_operators.evaluation.names import AUTO, parse_names
from zs_operators.option_checks import check_choice, check_count, check_range
from zs_operators.vocabulary import Vocabulary

SKIP, WRONG = "skip", "wrong"

#: IoU thresholds of COCO's mean average precision.
COCO_THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))


@dataclass(frozen=True)
class EvaluateOptions:
    """See :func:`zs_operators.evaluate`.

    Raises:
        InvalidInputError: if one of them cannot be used
    """

    seen: Collection[str] | None = None
    names: str | Mapping[str, str] | Sequence[Mapping[str, str]] = AUTO
    roll_up: Any = None
    vocabulary: Any = None
    missing: str = SKIP
    top_k: int | Sequence[int] = (1, 5)
    gamma: float | None = None
    iou: float = 0.5
    iou_threshs: Sequence[float] | None = None
    use_masks: bool = False
    compute_mAP: bool = True
    num_bins: int = NUM_BINS

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", parse_names(self.names))
        check_choice("missing", self.missing, (SKIP, WRONG))
        check_range("gamma", self.gamma, -1e9, 1e9, optional=True)
        check_range("iou", self.iou, 1e-6, 1)
        check_count("num_bins", self.num_bins, 1)
        for k in self.ks:
            check_count("top_k", k, 1)
        for value in self.iou_threshs or ():
            check_range("iou_threshs", value, 1e-6, 1)
        if self.seen is not None:
            is_list = isinstance(self.seen, Iterable) and not isinstance(self.seen, str)
            if not is_list or not all(isinstance(name, str) for name in self.seen):
                raise InvalidInputError(
                    f"seen={self.seen!r} must be a list of the classes with labelled examples."
                )
        if self.gamma is not None and self.seen is None:
            raise InvalidInputError(
                "gamma is taken off the logits of the supported classes: say which, with seen=[…]."
            )

    @property
    def ks(self) -> tuple[int, ...]:
        """The k of top-k accuracies, rising."""
        ks = self.top_k if isinstance(self.top_k, (list, tuple)) else (self.top_k,)
        return tuple(sorted(set(ks))) if all(isinstance(k, int) for k in ks) else tuple(ks)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """IoU thresholds of average precision."""
        return COCO_THRESHOLDS if self.iou_threshs is None else tuple(sorted(self.iou_threshs))

    def record(self) -> dict[str, Any]:
        """Them as plain JSON that may be given again; no class name is a key."""
        return {
            "seen": None if self.seen is None else sorted(self.seen),
            "names": self.names
            if isinstance(self.names, str)
            else [{"name": name, "evaluated_as": other} for name, other in self.names.items()],
            "roll_up": self.roll_up
            if self.roll_up is None or isinstance(self.roll_up, str)
            else list(self.roll_up),
            "vocabulary": None
            if self.vocabulary is None
            else Vocabulary.parse(self.vocabulary).to_dict(),
            "missing": self.missing,
            "top_k": list(self.ks),
            "gamma": self.gamma,
            "iou": self.iou,
            "iou_threshs": None if self.iou_threshs is None else list(self.iou_threshs),
            "use_masks": self.use_masks,
            "compute_mAP": self.compute_mAP,
            "num_bins": self.num_bins,
        }
