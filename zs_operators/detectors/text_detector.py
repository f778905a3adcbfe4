"""What a detector of another make has to offer: boxes of images for texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zs_operators.errors import InvalidInputError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class FoundBoxes:
    """Boxes of one image, best first.

    Attributes:
        boxes_px: (N, 4) float32 ``x1, y1, x2, y2`` in pixels of the array that was given
        scores: (N,) float32 in [0, 1]
        prompts: (N,) int64, which of the prompts fits best
        prompt_scores (None): (N, P) float32 of all prompts, NaN where one was not compared with
            the box; None where a detector gives the best one only
        objectness (None): (N,) float32 in [0, 1], that there is any object
    """

    boxes_px: np.ndarray
    scores: np.ndarray
    prompts: np.ndarray
    prompt_scores: np.ndarray | None = None
    objectness: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.boxes_px)


class TextDetector:
    """Base of all detectors that can be passed as ``detector=`` or ``proposals=``.

    Only :meth:`find` has to be written; it is called from one thread at a time.

    Attributes:
        name: for people and records
        templates: what makes prompts of class names unless a person chooses others
        device: where it runs, "cpu" or "cuda:0"
        precision: "fp32", "bf16" or "fp16"
        batch_size: images that :meth:`find` is given together at most
        reduce_to_px: what to pass to :func:`~zs_operators.images.read_image`; None for full size
        takes_text: whether it looks for any texts, or has a list of classes
        has_prompt_scores: whether boxes come with the scores of all prompts
        has_objectness: whether :meth:`find` with ``agnostic=True`` needs no prompts
    """

    name = "detector"
    templates: tuple[str, ...] = ("{}",)
    device = "cpu"
    precision = "fp32"
    batch_size = 1
    reduce_to_px: int | None = None
    takes_text = True
    has_prompt_scores = False
    has_objectness = False

    def find(
        self,
        images: Sequence[np.ndarray],
        prompts: Sequence[str],
        *,
        floor: float = 0.0,
        limit: int = 300,
        agnostic: bool = False,
    ) -> list[FoundBoxes]:
        """Boxes of each image; what is in one image must not depend on the others.

        Args:
            images: (H, W, 3) uint8 RGB, upright
            prompts: P texts
            floor (0): boxes with a lower score need not be given
            limit (300): nor more than so many an image
            agnostic (False): boxes of any objects are wanted: their names do not count
        """
        raise NotImplementedError

    def prepare(self, prompts: Sequence[str]) -> None:
        """Called once before :meth:`find`, so that what is wrong shows before a run."""

    def unknown(self, prompts: Sequence[str]) -> list[str]:
        """Those it cannot look for, because it has a fixed list of classes."""
        return []

    def known(self) -> list[str] | None:
        """The classes it can look for; None if that is any text."""
        return None

    def too_long(self, prompts: Sequence[str]) -> list[str]:
        """Those of which it would see a part only."""
        return []

    @property
    def late_warnings(self) -> list[str]:
        """What a report says of the boxes found so far."""
        return []

    def identity(self) -> dict[str, Any]:
        """What of it decides boxes: plain JSON with ``name`` and ``weights_sha256``."""
        return {"name": self.name, "weights_sha256": None}

    def describe(self) -> dict[str, Any]:
        """Plain JSON for people: :meth:`identity`, and where it came from and runs."""
        return {**self.identity(), "device": self.device}


def check_found(found: FoundBoxes, num_prompts: int, name: str) -> FoundBoxes:
    """What a detector gave, as arrays of the types it should have.

    Raises:
        InvalidInputError: if shapes do not fit each other or the prompts
    """
    import numpy as np

    boxes = np.asarray(found.boxes_px, np.float32).reshape(-1, 4)
    scores = np.asarray(found.scores, np.float32)
    prompts = np.asarray(found.prompts, np.int64)
    count = len(boxes)
    shapes = [("scores", scores, (count,)), ("prompts", prompts, (count,))]
    optional = {"prompt_scores": (count, num_prompts), "objectness": (count,)}
    given = {}
    for field, shape in optional.items():
        value = getattr(found, field)
        given[field] = None if value is None else np.asarray(value, np.float32)
        if value is not None:
            shapes.append((field, given[field], shape))
    for field, value, shape in shapes:
        if value.shape != shape:
            raise InvalidInputError(
                f"detector {name!r} gave {field} of shape {value.shape} for {count} boxes and "
                f"{num_prompts} prompts; {shape} is expected"
            )
    if count and (prompts.min() < 0 or prompts.max() >= num_prompts):
        raise InvalidInputError(
            f"detector {name!r} gave prompts from {prompts.min()} to {prompts.max()}, and there "
            f"are {num_prompts}"
        )
    return FoundBoxes(boxes, scores, prompts, **given)
