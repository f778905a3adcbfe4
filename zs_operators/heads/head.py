"""A head: what labelled samples add to zero-shot logits, and which model and words it is for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zs_operators.errors import InvalidInputError
from zs_operators.heads import gda, kernel_ridge, logistic
from zs_operators.heads.files import read_arrays, write_arrays
from zs_operators.heads.gda import Moments
from zs_operators.heads.identity import check_fits, model_of, words_of
from zs_operators.heads.report import HeadReport
from zs_operators.heads.selection import Choice
from zs_operators.heads.support import Support

if TYPE_CHECKING:
    import os

    from zs_operators.clip import ClipModel
    from zs_operators.vocabulary import Vocabulary

_KIND = "zs_head"


@dataclass(frozen=True, eq=False)
class Head:
    """What is added to the logits of an embedding x: ``alpha * (f(x) @ weight.T + bias)``.

    f(x) is x itself, or for kernel ridge the kernel of x with the ``keys``.

    Attributes:
        method: "kernel_ridge", "gda" or "logistic_regression"
        alpha: 0 leaves zero-shot exactly as it is
        columns: the K classes and background prompts, by name, in the order of the rows
        weight: (K, F) float32
        bias: (K,) float32
        keys: (F, D) float32 embeddings of the support for kernel ridge, else None
        beta: of the kernel
        model: architecture, weights and preprocessing of the model, and no other
        words: digest of the prompts of the classes, in whatever order
        embedding: "image", or how regions became embeddings
        vocabulary: the words, as ``Vocabulary.to_dict`` has them
        report: how it was fitted and how it does
    """

    method: str
    alpha: float
    columns: tuple[str, ...]
    weight: np.ndarray
    bias: np.ndarray
    keys: np.ndarray | None
    beta: float
    model: Mapping[str, Any]
    words: str
    embedding: Any
    vocabulary: Mapping[str, Any]
    report: HeadReport = field(repr=False)

    @property
    def digest(self) -> str:
        """16 hex digits of all that decides a label; part of the record of a run."""
        facts = [self.method, self.alpha, self.columns, self.beta, dict(self.model), self.words]
        found = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        for array in (self.weight, self.bias, self.keys):
            found.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
        return found.hexdigest()[:16]

    def offsets(self, embeddings: np.ndarray) -> np.ndarray | None:
        """What is added to the logits of (N, D) unit embeddings; (N, K) float32, None for zero."""
        if not self.alpha:
            return None
        found = embeddings
        if self.keys is not None:
            found = kernel_ridge.kernel(embeddings, self.keys, np.float32(self.beta))
        return np.float32(self.alpha) * (found @ self.weight.T + self.bias)

    def fitted_to(self, clip: ClipModel, vocabulary: Vocabulary) -> Head:
        """The head with its rows in the order of a vocabulary's columns.

        Raises:
            InvalidInputError: if it was fitted with another model, preprocessing, or other words
        """
        check_fits("This head", self.model, self.words, self.columns, clip, vocabulary)
        order = [self.columns.index(name) for name in vocabulary.columns]
        return replace(
            self,
            columns=vocabulary.columns,
            weight=self.weight[order],
            bias=self.bias[order],
        )

    def save(self, path: str | os.PathLike, *, overwrite: bool = False) -> Path:
        """Writes a ``.safetensors`` file that :func:`zs_operators.load_head` reads anywhere.

        Raises:
            InvalidInputError: if the file exists, or cannot be written
        """
        arrays = {"weight": self.weight, "bias": self.bias}
        if self.keys is not None:
            arrays["keys"] = self.keys
        return write_arrays(Path(path), _KIND, arrays, self._facts(), overwrite=overwrite)

    @classmethod
    def read(cls, path: str | os.PathLike) -> Head:
        """A head from a file of :meth:`save`.

        Raises:
            InvalidInputError: if it is none
        """
        arrays, facts = read_arrays(Path(path), _KIND)
        digest = facts.pop("digest", None)
        facts["columns"] = tuple(facts["columns"])
        facts["report"] = HeadReport.from_dict(facts["report"])
        head = cls(weight=arrays["weight"], bias=arrays["bias"], keys=arrays.get("keys"), **facts)
        if head.digest != digest:
            raise InvalidInputError(f"{str(path)!r} is damaged: its content is not what was saved.")
        return head

    def _facts(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "alpha": self.alpha,
            "columns": list(self.columns),
            "beta": self.beta,
            "model": dict(self.model),
            "words": self.words,
            "embedding": self.embedding,
            "vocabulary": dict(self.vocabulary),
            "report": self.report.to_dict(),
            "digest": self.digest,
        }


def build(
    choice: Choice,
    support: Support,
    moments: Moments | None,
    *,
    clip: ClipModel,
    vocabulary: Vocabulary,
    embedding: Any,
    report: HeadReport,
) -> Head:
    """The head that a choice of method and constants makes of a support.

    Args:
        choice: of :func:`zs_operators.heads.selection.choose`
        support: all labelled samples
        moments (None): for GDA, statistics of these samples and others
        clip, vocabulary, embedding: what it is for
        report: to keep with it
    """
    size = len(support.texts)
    bias, keys = np.zeros(size), None
    if choice.method == "gda":
        if moments is None:
            moments = Moments.of(support.embeddings, support.columns, size)
        weight, bias = gda.fit(moments, support.texts, choice.constants["text_scale"])
    elif choice.method == "kernel_ridge":
        keys = support.embeddings.astype(np.float32)
        weight = kernel_ridge.fit(support, choice.constants["beta"], choice.constants["ridge"]).T
    else:
        weight, bias = logistic.fit(support, choice.constants["C"])
    return Head(
        method=choice.method,
        alpha=float(choice.alpha),
        columns=vocabulary.columns,
        weight=weight.astype(np.float32),
        bias=bias.astype(np.float32),
        keys=keys,
        beta=float(choice.constants.get("beta", 0.0)),
        model=model_of(clip),
        words=words_of(vocabulary),
        embedding=embedding,
        vocabulary=vocabulary.to_dict(),
        report=report,
    )
