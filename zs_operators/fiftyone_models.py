"""What every FiftyOne model of this package shares: reading, batches that survive a bad image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import fiftyone.core.models as fom
import fiftyone.utils.torch as fout
import numpy as np

from zs_operators.images import UprightImage


class Unread:
    """Takes the place of an image that could not be read.

    FiftyOne drops a whole batch when one of its items is an exception; this is not one.
    """

    def __init__(self, error: Exception) -> None:
        self.error = error


class LoadSample(fout.GetItem):
    """Reads what a model needs of one sample with the reader of this package.

    Args:
        load: values by key -> item of a batch
        keys: keys of ``load``, names of fields unless ``field_mapping`` says otherwise
        field_mapping: keys -> names of fields
    """

    def __init__(
        self,
        load: Callable[[dict[str, Any]], Any],
        keys: Sequence[str] = ("filepath",),
        field_mapping: dict[str, str] | None = None,
    ) -> None:
        self._load = load
        self._keys = list(keys)
        super().__init__(field_mapping=field_mapping)

    @property
    def required_keys(self) -> list[str]:
        return self._keys

    def __call__(self, d: dict[str, Any]) -> Any:
        try:
            return self._load(d)
        except Exception as error:
            return Unread(error)


class ZeroShotModel(fom.SupportsGetItem, fom.TorchModelMixin, fom.Model):
    """Base of this package's FiftyOne models."""

    def __init__(self) -> None:
        # Empty: confidence_thresh= and classes= of apply_model are applied by FiftyOne itself
        self.config = SimpleNamespace()
        self._preprocess = True

    @property
    def media_type(self) -> str:
        return "image"

    @property
    def ragged_batches(self) -> bool:
        return False

    @property
    def preprocess(self) -> bool:
        """Whether :meth:`predict` gets images rather than items that are ready for the model."""
        return self._preprocess

    @preprocess.setter
    def preprocess(self, value: bool) -> None:
        self._preprocess = value

    @property
    def has_collate_fn(self) -> bool:
        return True

    @staticmethod
    def collate_fn(batch: Sequence[Any]) -> list[Any]:
        return list(batch)

    def predict(self, arg: Any) -> Any:
        """The label of one image, a (H, W, 3) uint8 array or a PIL image."""
        return self.predict_all([arg])[0]

    def predict_all(self, args: Sequence[Any]) -> list[Any]:
        """One label per image, None for an image that could not be read."""
        items = [self._prepare(arg) for arg in args]
        readable = [i for i, item in enumerate(items) if not isinstance(item, Unread)]
        found: list[Any] = [None] * len(items)
        if readable:
            labels = self._predict([items[i] for i in readable])
            for i, label in zip(readable, labels, strict=True):
                found[i] = label
        return found

    def _prepare(self, arg: Any) -> Any:
        if isinstance(arg, Unread) or not self._preprocess:
            return arg
        return self._transform(arg)

    def _transform(self, image: Any) -> Any:
        """An image in memory -> an item of a batch."""
        raise NotImplementedError

    def _predict(self, items: Sequence[Any]) -> Sequence[Any]:
        """One label or None per item."""
        raise NotImplementedError


def as_upright(image: Any) -> UprightImage | np.ndarray:
    """A PIL image or array as (H, W, 3) uint8 RGB; an :class:`UprightImage` unchanged."""
    if isinstance(image, (UprightImage, np.ndarray)):
        return image
    return np.asarray(image.convert("RGB"))
