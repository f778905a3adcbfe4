"""Statistics of labelled embeddings that add up across sites, so that images stay where they are.

What travels is, of each class with enough samples, how many there are and the sum of their
embeddings, and one matrix of second moments. Statistics of several sites added up are those of
all samples together, to float precision, and so is the head fitted on them. That is aggregation
of statistics: no model is trained in rounds as in FedAvg, and it is no proof of privacy. Means of
few samples, and second moments, say something about single images.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zs_operators.errors import InvalidInputError
from zs_operators.heads.files import read_arrays, write_arrays
from zs_operators.heads.gda import Moments
from zs_operators.heads.identity import check_fits, check_same_model, model_of, words_of
from zs_operators.heads.poisoning import Suspicion, suspicions

if TYPE_CHECKING:
    from zs_operators.clip import ClipModel
    from zs_operators.heads.support import Support
    from zs_operators.vocabulary import Vocabulary

_KIND = "zs_head_statistics"


@dataclass(frozen=True, eq=False)
class Statistics:
    """Additive statistics of one site, or of several.

    Attributes:
        moments: counts, sums and second moments, by column
        columns: the K classes and background prompts
        texts: (K, D) float64 text of each column; public, the same at every site
        model, words, embedding, vocabulary: what they are of, see :class:`Head`
        site: who made them
        left_out: classes with fewer samples than allowed, and how many; their samples are in none
            of the numbers
        suspicious: after merging, the classes whose sums may be wrong
        dropped: samples whose sums were left out for that
    """

    moments: Moments
    columns: tuple[str, ...]
    texts: np.ndarray
    model: Mapping[str, Any]
    words: str
    embedding: Any
    vocabulary: Mapping[str, Any]
    site: str
    left_out: Mapping[str, int] = field(default_factory=dict)
    suspicious: tuple[Suspicion, ...] = ()
    dropped: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Samples of each class that has some."""
        pairs = zip(self.columns, self.moments.counts.tolist(), strict=True)
        return {name: count for name, count in pairs if count}

    def moments_for(
        self, clip: ClipModel, vocabulary: Vocabulary, embedding: Any, support: Support
    ) -> tuple[Moments, Support]:
        """The moments in the order of a vocabulary, and the samples that are in them.

        Args:
            clip, vocabulary, embedding: what a head is fitted for
            support: samples that these statistics are of, among others; those of classes that
                were left out, or are fewer in the statistics, take no part

        Raises:
            InvalidInputError: if they are of another model, other words, another kind of
                embedding, or have no sample of the support
        """
        check_fits("These statistics", self.model, self.words, self.columns, clip, vocabulary)
        if self.embedding != embedding:
            raise InvalidInputError(
                f"These statistics are of embeddings of {self.embedding}, not of {embedding}."
            )
        order = [self.columns.index(name) for name in vocabulary.columns]
        found = Moments(self.moments.counts[order], self.moments.sums[order], self.moments.second)
        exported = np.array([name not in self.left_out for name in vocabulary.columns])
        kept = support.take((exported & (found.counts >= support.counts))[support.columns])
        if not len(kept):
            raise InvalidInputError(
                f"These statistics ({self.site}) have none of the samples that are labelled here: "
                "merge the statistics of these samples too."
            )
        return found, kept

    def save(self, path: str | os.PathLike, *, overwrite: bool = False) -> Path:
        """Writes a ``.safetensors`` file for :func:`zs_operators.merge_statistics`.

        Raises:
            InvalidInputError: if the file exists, or cannot be written
        """
        arrays = {
            "counts": self.moments.counts.astype(np.int64),
            "sums": self.moments.sums,
            "second": self.moments.second,
            "texts": self.texts,
        }
        facts = {
            "columns": list(self.columns),
            "model": dict(self.model),
            "words": self.words,
            "embedding": self.embedding,
            "vocabulary": dict(self.vocabulary),
            "site": self.site,
            "left_out": dict(self.left_out),
            "dropped": self.dropped,
        }
        return write_arrays(Path(path), _KIND, arrays, facts, overwrite=overwrite)

    @classmethod
    def read(cls, path: str | os.PathLike) -> Statistics:
        """Statistics from a file of :meth:`save`, which another site may have sent.

        Raises:
            InvalidInputError: if it is none, or its numbers cannot be what they should be
        """
        arrays, facts = read_arrays(Path(path), _KIND)
        facts["columns"] = tuple(facts["columns"])
        moments = Moments(arrays["counts"], arrays["sums"], arrays["second"])
        found = cls(moments=moments, texts=arrays["texts"], **facts)
        found.check()
        return found

    def check(self) -> None:
        """Refuses numbers that no unit embeddings can have.

        Raises:
            InvalidInputError: which says what is wrong
        """
        counts, sums, second = self.moments.counts, self.moments.sums, self.moments.second
        size, dim = len(self.columns), self.texts.shape[-1]
        wrong = None
        if (counts.shape, sums.shape, second.shape) != ((size,), (size, dim), (dim, dim)):
            wrong = "its arrays have other shapes than its classes and model say"
        elif not all(np.isfinite(part).all() for part in (sums, second, self.texts)):
            wrong = "some of its numbers are not finite"
        elif (counts < 0).any() or not np.issubdtype(counts.dtype, np.integer):
            wrong = "its counts are no numbers of samples"
        elif (np.linalg.norm(sums, axis=1) > counts * (1 + 1e-3) + 1e-6).any():
            wrong = "a sum is longer than that many unit vectors can make it"
        elif not 0.99 * counts.sum() <= np.trace(second) <= 1.01 * (counts.sum() + self.dropped):
            wrong = "its second moments are of another number of samples"
        if wrong:
            raise InvalidInputError(
                f"Statistics of {self.site!r} cannot be used: {wrong}. Ask for them again."
            )

    def __str__(self) -> str:
        counts = self.counts
        title = f"statistics of {self.site}"
        total = sum(counts.values())
        lines = [title, "-" * len(title), f"{total:,} samples of {len(counts):,} classes"]
        if self.left_out:
            few = ", ".join(f"{name} ({count})" for name, count in self.left_out.items())
            lines.append(f"left out, too few samples: {few}")
        return "\n".join([*lines, *(f"suspicious: {one}" for one in self.suspicious)])


def statistics_of(
    clip: ClipModel,
    vocabulary: Vocabulary,
    support: Support,
    embedding: Any,
    *,
    site: str,
    min_count: int,
) -> Statistics:
    """The statistics of labelled embeddings, without the classes that have too few.

    Raises:
        InvalidInputError: if no class has enough samples
    """
    counts = support.counts
    few = {
        vocabulary.columns[column]: int(counts[column])
        for column in np.flatnonzero((counts > 0) & (counts < min_count))
    }
    kept = support.take(counts[support.columns] >= min_count)
    if not len(kept):
        raise InvalidInputError(
            f"No class has the {min_count} samples that min_count asks for: the mean of fewer says "
            f"too much about each of them. There are: {few}."
        )
    return Statistics(
        moments=Moments.of(kept.embeddings, kept.columns, len(support.texts)),
        columns=vocabulary.columns,
        texts=support.texts,
        model=model_of(clip),
        words=words_of(vocabulary),
        embedding=embedding,
        vocabulary=vocabulary.to_dict(),
        site=site,
        left_out=few,
    )


def merge_statistics(
    parts: Sequence[Statistics | str | os.PathLike], *, drop_suspicious: bool = False
) -> Statistics:
    """Adds up the statistics of sites: those of all their samples together.

    Args:
        parts: statistics, or files of them
        drop_suspicious (False): leave out the sums that :attr:`Statistics.suspicious` names; the
            spread of their samples about their own mean stays, which says nothing of its place

    Returns:
        :class:`Statistics`, for ``zs.fit_head(…, statistics=)`` and
        :func:`zs_operators.head_from_statistics`

    Raises:
        InvalidInputError: if there are none, or they are of another model, preprocessing, other
            classes or prompts, or other kinds of embeddings; or their numbers are impossible
    """
    read = [one if isinstance(one, Statistics) else Statistics.read(one) for one in parts]
    if not read:
        raise InvalidInputError("There are no statistics to merge.")
    first = read[0]
    for one in read:
        one.check()
        _check_same(first, one)
    aligned = [_in_order_of(first, one) for one in read]
    found = suspicions([(one.site, one.moments) for one in aligned], first.columns, first.texts)
    moments = [one.moments for one in aligned]
    dropped = sum(one.dropped for one in read)
    for doubt in found if drop_suspicious else ():
        part, column = doubt.part, first.columns.index(doubt.label)
        dropped += int(moments[part].counts[column])
        moments[part] = moments[part].without_mean(column)
    counts = np.sum([one.counts for one in moments], axis=0)
    left_out: dict[str, int] = {}
    for one in aligned:
        for name, count in one.left_out.items():
            left_out[name] = left_out.get(name, 0) + count
    return replace(
        first,
        moments=Moments(counts, _exact_sum(moments, "sums"), _exact_sum(moments, "second")),
        site=" + ".join(one.site for one in aligned),
        left_out=left_out,
        suspicious=tuple(found),
        dropped=dropped,
    )


def _exact_sum(parts: Sequence[Moments], name: str) -> np.ndarray:
    """Sum in an order that does not depend on the order of the parts."""
    arrays = sorted((getattr(one, name) for one in parts), key=lambda array: array.tobytes())
    return np.sum(arrays, axis=0)


def _check_same(first: Statistics, other: Statistics) -> None:
    what = f"Statistics of {other.site!r}, unlike those of {first.site!r},"
    check_same_model(what, other.model, first.model)
    if sorted(other.columns) != sorted(first.columns) or other.words != first.words:
        raise InvalidInputError(
            f"Statistics of {other.site!r} and of {first.site!r} are of other classes, templates "
            "or background prompts: export them again with the same vocabulary."
        )
    if other.embedding != first.embedding:
        raise InvalidInputError(
            f"Statistics of {other.site!r} are of {other.embedding}, those of {first.site!r} of "
            f"{first.embedding}: whole images and boxes do not add up."
        )


def _in_order_of(first: Statistics, other: Statistics) -> Statistics:
    order = [other.columns.index(name) for name in first.columns]
    moments = other.moments
    return replace(
        other,
        columns=first.columns,
        moments=Moments(moments.counts[order], moments.sums[order], moments.second),
    )
