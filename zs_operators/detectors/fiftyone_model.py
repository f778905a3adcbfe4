"""A FiftyOne model whose predictions are ``Detections`` as a text detector."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from zs_operators.detectors.text_detector import FoundBoxes, TextDetector
from zs_operators.errors import InvalidInputError
from zs_operators.model_stores import weights_digest

_TRIAL_PX = 64
_LEAST = 0.001  # with none at all, YOLO suppresses thousands of boxes that are nothing


class FiftyOneDetector(TextDetector):
    """Boxes of a FiftyOne model; its labels are matched with prompts by name, whatever their case.

    Args:
        name: for people and records
        load: classes -> the model that looks for them. Called again when they change
        takes_text (True): whether it looks for any classes, or for those it was made with
        device ("cpu"): where it runs
        find_sha256 (None): gives that of its file once it is loaded; where there is none, it is
            computed of the model's tensors, if it has some

    Raises:
        InvalidInputError: if its predictions are no ``Detections``
    """

    def __init__(
        self,
        name: str,
        load: Callable[[list[str]], Any],
        *,
        takes_text: bool = True,
        device: str = "cpu",
        find_sha256: Callable[[], str | None] | None = None,
    ) -> None:
        self.name, self.device, self.takes_text = name, device, takes_text
        self._load = load
        self._prompts: tuple[str, ...] | None = None
        self._model: Any = None
        self._find_sha256, self._sha256 = find_sha256, None
        self._strange: Counter[str] = Counter()
        if not takes_text:
            self._use([])
            self._check_output()

    def known(self) -> list[str] | None:
        # One made for open texts may not say which: then labels are matched as they come
        classes = None if self.takes_text else getattr(self._model, "classes", None)
        return None if classes is None else [str(name) for name in classes]

    def unknown(self, prompts: Sequence[str]) -> list[str]:
        classes = self.known()
        if classes is None:
            return []
        known = {_plain(name) for name in classes}
        return [prompt for prompt in prompts if _plain(prompt) not in known]

    @property
    def late_warnings(self) -> list[str]:
        return [
            f"{self.name} found {count:,} × {label!r}, which is none of the classes."
            for label, count in self._strange.most_common(3)
        ]

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "weights_sha256": self._sha256}

    def describe(self) -> dict[str, Any]:
        import fiftyone as fo

        return {
            **self.identity(),
            "model_class": None if self._model is None else _class_name(self._model),
            "weights": {"model": self.name, "state": "fiftyone", "sha256": self._sha256},
            "device": self.device,
            "versions": {"fiftyone": fo.__version__},
        }

    def find(
        self,
        images: Sequence[np.ndarray],
        prompts: Sequence[str],
        *,
        floor: float = 0.0,
        limit: int = 300,
        agnostic: bool = False,
    ) -> list[FoundBoxes]:
        self._use(prompts)
        # FiftyOne scales all boxes of a batch by the size of its first image
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for position, image in enumerate(images):
            groups[image.shape].append(position)
        numbers = {_plain(prompt): number for number, prompt in reversed([*enumerate(prompts)])}
        found: list[FoundBoxes | None] = [None] * len(images)
        for members in groups.values():
            labels = self._predict([images[i] for i in members], floor)
            for position, label in zip(members, labels, strict=True):
                boxes = self._boxes(label, images[position].shape, None if agnostic else numbers)
                found[position] = _best(*boxes, floor=floor, limit=limit)
        return found

    def prepare(self, prompts: Sequence[str]) -> None:
        if self.takes_text:
            self._use(prompts)
            self._check_output()

    def _use(self, prompts: Sequence[str]) -> None:
        if self._model is None or (self.takes_text and self._prompts != tuple(prompts)):
            self._model = self._load(list(prompts))
            self._prompts = tuple(prompts)
            if self._sha256 is None:
                found = None if self._find_sha256 is None else self._find_sha256()
                self._sha256 = found or _digest(self._model)

    def _predict(self, images: list[np.ndarray], floor: float) -> list[Any]:
        from fiftyone.core.utils import SetAttributes

        model = self._model
        settings: Any = SetAttributes(model)
        if hasattr(getattr(model, "config", None), "confidence_thresh"):
            settings = SetAttributes(model.config, confidence_thresh=max(floor, _LEAST))
        with settings, model:
            if len(images) == 1:
                return [model.predict(images[0])]
            return list(model.predict_all(images))

    def _boxes(
        self, label: Any, shape: tuple[int, ...], numbers: dict[str, int] | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Corners in pixels, confidences and prompts of one image's label."""
        height, width = shape[:2]
        boxes, scores, prompts = [], [], []
        for one in _detections(label, self.name):
            number = 0 if numbers is None else numbers.get(_plain(one.label))
            if number is None:
                self._strange[str(one.label)] += 1
                continue
            x, y, w, h = one.bounding_box
            boxes.append([x * width, y * height, (x + w) * width, (y + h) * height])
            scores.append(1.0 if one.confidence is None else one.confidence)
            prompts.append(number)
        return (
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(scores, np.float32),
            np.array(prompts, np.int64),
        )

    def _check_output(self) -> None:
        gray = np.full((_TRIAL_PX, _TRIAL_PX, 3), 127, np.uint8)
        try:
            (label,) = self._predict([gray], 0.0)
        except Exception as error:
            raise InvalidInputError(
                f"FiftyOne model {self.name!r} does not run: {type(error).__name__}: {error}"
            ) from error
        _detections(label, self.name)


def of_model(model: Any, name: str | None = None) -> FiftyOneDetector:
    """A loaded FiftyOne model, with the classes it was made with.

    Raises:
        InvalidInputError: if it does not look at images, or gives no ``Detections``
    """
    if model.media_type not in ("image", None):
        raise InvalidInputError(
            f"a detector looks at images, and {_class_name(model)} at {model.media_type}s"
        )
    return FiftyOneDetector(
        name or _class_name(model),
        lambda _: model,
        takes_text=False,
        device=str(getattr(model, "device", None) or "cpu"),
    )


def _detections(label: Any, name: str) -> list[Any]:
    import fiftyone.core.labels as fol

    if isinstance(label, dict) and len(label) == 1:
        (label,) = label.values()
    if label is None:
        return []
    if not isinstance(label, fol.Detections):
        raise InvalidInputError(
            f"FiftyOne model {name!r} gives {type(label).__name__}, and a detector gives Detections"
        )
    return label.detections


def _best(
    boxes: np.ndarray, scores: np.ndarray, prompts: np.ndarray, *, floor: float, limit: int
) -> FoundBoxes:
    rows = np.flatnonzero(scores >= floor)
    rows = rows[np.argsort(-scores[rows], kind="stable")[:limit]]
    return FoundBoxes(boxes[rows], np.clip(scores[rows], 0, 1), prompts[rows])


def _plain(name: Any) -> str:
    return " ".join(str(name).replace("_", " ").lower().split())


def _class_name(model: Any) -> str:
    return type(model).__name__


def _digest(model: Any) -> str | None:
    """Of the tensors of a model that has some."""
    module = getattr(model, "_model", None)
    try:
        return weights_digest(SimpleNamespace(module=module)) if module is not None else None
    except (AttributeError, TypeError, RuntimeError):  # no torch module, whatever it is
        return None
