"""A detector of another make as all of detection: its boxes, its names, our rules.

Takes the place of :class:`zs_operators.detector.ZeroShotDetector`, whose interface it has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from zs_operators import boxes as box_ops
from zs_operators.classifier import ClassScore
from zs_operators.detections import Detection, DetectItem, DetectPrediction
from zs_operators.detectors.text_detector import FoundBoxes, TextDetector, check_found
from zs_operators.errors import InvalidInputError, ZeroShotError
from zs_operators.frames import as_pixels
from zs_operators.images import read_image
from zs_operators.templates import TEMPLATE_SETS

if TYPE_CHECKING:
    import numpy as np

    from zs_operators.detect_options import DetectOptions
    from zs_operators.device import BatchBudget
    from zs_operators.vocabulary import Vocabulary

_READ_TOGETHER = 4  # images that wait for the detector
_SHOWN = 8


def with_own_templates(vocabulary: Vocabulary, detector: TextDetector) -> Vocabulary:
    """The vocabulary in the templates a detector was made for, unless it has chosen ones.

    The set "simple" is CLIP's, and what is written where nobody chose.
    """
    if vocabulary.templates != TEMPLATE_SETS["simple"]:
        return vocabulary
    return replace(vocabulary, templates=detector.templates)


def check_known(detector: TextDetector, vocabulary: Vocabulary) -> list[str]:
    """Warnings of prompts that a detector with a list of classes cannot look for.

    Raises:
        InvalidInputError: if that leaves nothing of a class
    """
    prompts = vocabulary.prompts()
    unknown = set(detector.unknown([prompt.text for prompt in prompts]))
    if not unknown:
        return []
    known = {p.label for p in prompts if p.label is not None and p.text not in unknown}
    lost = [label for label in vocabulary.classes if label not in known]
    if lost:
        classes = detector.known() or []
        more = ", …" if len(classes) > _SHOWN else ""
        raise InvalidInputError(
            f"detector {detector.name!r} has a list of classes of its own, without "
            f"{', '.join(map(repr, lost[:_SHOWN]))}. It knows {len(classes)}: "
            f"{', '.join(classes[:_SHOWN])}{more}. Use these, or use it as proposals= and let CLIP "
            "name its boxes"
        )
    shown = ", ".join(sorted(map(repr, unknown))[:_SHOWN])
    return [f"{detector.name} does not know these prompts, which are left out: {shown}."]


@dataclass(frozen=True)
class FoundInImage:
    """What was found in one image, in pixels of what was decoded of it."""

    found: FoundBoxes
    scale: tuple[float, float]
    width_px: int
    height_px: int


class WholeDetector:
    """A text detector with one vocabulary and our options of which boxes stay.

    A class gets the highest score of its prompts: templates, synonyms and descriptions alike.
    Background prompts are looked for as well, and a box that one of them fits best is left out.

    Args:
        detector: what looks
        vocabulary: what for; in the detector's own templates unless others were chosen
        options: ``max_regions``, ``min_confidence``, ``min_margin``, ``min_size_px``,
            ``max_detections``, ``runners_up`` and those of overlap; ``objectness_weight`` has no
            meaning here

    Attributes:
        batch_size: images a call of :meth:`embed`

    Raises:
        InvalidInputError: for options or classes that the detector has no use for
    """

    def __init__(
        self, detector: TextDetector, vocabulary: Vocabulary, options: DetectOptions
    ) -> None:
        from zs_operators.device import BatchBudget

        self.detector = detector
        self.vocabulary = with_own_templates(vocabulary, detector)
        self.options = options
        self._check_options()
        self.warnings = check_known(detector, self.vocabulary)
        self._prompts = [prompt.text for prompt in self.vocabulary.prompts()]
        self._columns = self.vocabulary.prompt_columns()
        detector.prepare(self._prompts)
        if too_long := detector.too_long(self._prompts):
            self.warnings.append(
                f"{len(too_long)} prompts are longer than {detector.name} reads and are cut off: "
                f"{'; '.join(map(repr, too_long[:3]))}."
            )
        self._budget = BatchBudget(
            detector.batch_size, what="images to look for objects in", device=detector.device
        )
        self.batch_size = max(_READ_TOGETHER, detector.batch_size)

    @property
    def budgets(self) -> list[BatchBudget]:
        """Of what is done in parts, and may run out of memory."""
        return [self._budget]

    @property
    def late_warnings(self) -> list[str]:
        """What a report says of the boxes found so far."""
        return self.detector.late_warnings

    def load(self, source: str | bytes, boxes_rel: Any = None) -> DetectItem:
        """Reads one image; safe to call from many threads.

        Raises:
            MediaError: if the image cannot be read
            InvalidInputError: for boxes, which CLIP can name and a detector cannot
        """
        if boxes_rel is not None:
            raise InvalidInputError("a detector finds boxes of its own: do not give any")
        return DetectItem(read_image(source, reduce_to_px=self.detector.reduce_to_px))

    def predict(self, items: Sequence[DetectItem]) -> list[DetectPrediction | Exception]:
        """One prediction per loaded image."""
        return [self.predict_regions(one) for one in self.embed(items)]

    def embed(self, items: Sequence[DetectItem]) -> list[FoundInImage]:
        """Boxes of each image and what fits them; all that takes the model."""
        images = [as_pixels(item.image) for item in items]
        results = self._budget.run(
            lambda part: self.detector.find(
                [pixels for pixels, _, _ in part],
                self._prompts,
                floor=self._lowest(),
                limit=self.options.max_regions,
            ),
            images,
        )
        found = [one for _, _, part in results for one in part]
        return [
            FoundInImage(
                check_found(one, len(self._prompts), self.detector.name),
                (width / pixels.shape[1], height / pixels.shape[0]),
                width,
                height,
            )
            for one, (pixels, width, height) in zip(found, images, strict=True)
        ]

    def predict_regions(self, image: FoundInImage) -> DetectPrediction | Exception:
        """Choose among what was found; no model runs here."""
        import numpy as np
        import torch

        options, found = self.options, image.found
        size = (image.width_px, image.height_px)
        if not len(found):
            return DetectPrediction((), *size, 0)
        if not np.isfinite(found.scores).any():
            return ZeroShotError(f"{self.detector.name} returned no score that is finite")
        boxes = torch.from_numpy(found.boxes_px * np.array(image.scale * 2, np.float32))
        usable = box_ops.select_usable(boxes, *size, min_size_px=options.min_size_px)
        # 1. prompts -> classes; background columns come last
        scores = self._class_scores(found)[usable.index.numpy()]
        num_classes = len(self.vocabulary.labels)
        filled = np.nan_to_num(scores, nan=-1.0)
        winners, ranks = filled.argmax(axis=1), np.argsort(-filled, axis=1, kind="stable")
        confidence = filled.max(axis=1)
        margins = _margins(scores)
        # 2. the rules, in order
        dropped: Counter[str] = Counter()
        rows = np.arange(len(scores))
        for reason, fails in (
            ("non_finite", confidence < 0),
            ("background", winners >= num_classes),
            ("margin", self._below("min_margin", margins, winners, options.min_margin)),
            ("confidence", self._below("min_confidence", confidence, winners, self._default())),
        ):
            stay = ~fails[rows]
            dropped[reason] += int((~stay).sum())
            rows = rows[stay]
        # 3. overlap, then the best
        kept = rows[
            box_ops.suppress_overlaps(
                usable.boxes_px[rows],
                torch.from_numpy(confidence[rows]),
                torch.from_numpy(winners[rows]),
                overlap=options.overlap,
                metric=options.overlap_metric,
                threshold=options.overlap_threshold,
            ).numpy()
        ]
        dropped["overlap"] += len(rows) - len(kept)
        limited = kept[: options.max_detections]
        dropped["max_detections"] += len(kept) - len(limited)
        relative = box_ops.xyxy_px_to_xywh_rel(usable.boxes_px, *size)
        detections = tuple(
            Detection(
                label=self.vocabulary.labels[winners[row]],
                confidence=float(confidence[row]),
                probability=float(confidence[row]),
                cosine=None,
                margin=_number(margins[row]),
                objectness=self._objectness(found, int(usable.index[row])),
                region_index=int(usable.index[row]),
                box_px=tuple(usable.boxes_px[row].tolist()),
                box_rel=tuple(relative[row].tolist()),
                runners_up=self._runners_up(scores[row], ranks[row], winners[row]),
            )
            for row in limited
        )
        return DetectPrediction(detections, *size, len(scores), dropped=dict(+dropped))

    def _check_options(self) -> None:
        options, name = self.options, self.detector.name
        for option, needs in (
            ("min_cosine", "is a rule for embeddings"),
            ("temperature", "divides the logits of CLIP"),
            ("tile_size_px", "is for proposals"),
        ):
            if getattr(options, option, None) is not None:
                raise InvalidInputError(
                    f"{option}={getattr(options, option)!r} {needs}, and has no meaning with "
                    f"detector={name!r}"
                )
        if not self.detector.has_prompt_scores and (
            options.min_margin is not None or self.vocabulary.limits("min_margin") is not None
        ):
            raise InvalidInputError(
                f"min_margin compares classes, and detector {name!r} tells the best one only"
            )
        if self.vocabulary.limits("min_cosine") is not None:
            raise InvalidInputError(
                f"the vocabulary has a min_cosine, which has no meaning with detector={name!r}"
            )

    def _default(self) -> float:
        return self.options.min_confidence

    def _lowest(self) -> float:
        lowest = self.vocabulary.limits("min_confidence", self._default())
        return max(0.0, min(lowest) if isinstance(lowest, list) else lowest)

    def _below(
        self, name: str, values: np.ndarray, winners: np.ndarray, default: float | None
    ) -> np.ndarray:
        import numpy as np

        limit = self.vocabulary.limits(name, default)
        if limit is None:
            return np.zeros(len(values), bool)
        if isinstance(limit, list):  # background has none
            background = [-np.inf] * len(self.vocabulary.background)
            limit = np.array([*limit, *background])[winners]
        return values < limit

    def _class_scores(self, found: FoundBoxes) -> np.ndarray:
        """(N, C) float32 of all columns, NaN where one was not compared."""
        import numpy as np

        columns = np.array(self._columns)
        scores = np.full((len(self.vocabulary.columns), len(found)), -1.0, np.float32)
        if found.prompt_scores is None:
            scores[columns[found.prompts], np.arange(len(found))] = found.scores
        else:
            np.maximum.at(scores, columns, np.nan_to_num(found.prompt_scores.T, nan=-1.0))
        return np.where(scores < 0, np.nan, scores).T

    def _runners_up(
        self, scores: np.ndarray, ranks: np.ndarray, winner: int
    ) -> tuple[ClassScore, ...]:
        labels = self.vocabulary.labels
        others = [i for i in ranks if i != winner and i < len(labels) and scores[i] == scores[i]]
        return tuple(
            ClassScore(labels[i], float(scores[i]), None, None)
            for i in others[: self.options.runners_up]
        )

    @staticmethod
    def _objectness(found: FoundBoxes, row: int) -> float | None:
        return None if found.objectness is None else float(found.objectness[row])


def _margins(scores: np.ndarray) -> np.ndarray:
    """Logit of the best column minus that of the next; NaN where there is no other."""
    import numpy as np

    if scores.shape[1] == 1:
        return np.full(len(scores), np.nan)
    clipped = np.clip(scores.astype(np.float64), 1e-7, 1 - 1e-7)
    # NaN goes last, and stays where a second column is missing
    logits = -np.sort(-np.log(clipped / (1 - clipped)), axis=1)
    return logits[:, 0] - logits[:, 1]


def _number(value: float) -> float | None:
    return float(value) if value == value else None
