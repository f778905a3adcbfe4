"""Two runs side by side: which samples changed, from which class to which."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zs_operators.errors import InvalidInputError
from zs_operators.option_checks import check_choice, check_range
from zs_operators.run_history import results
from zs_operators.run_history.differences import differences
from zs_operators.run_history.mask_overlaps import overlaps_of_masks
from zs_operators.run_history.matching import NONE, Objects, Pair, pair_boxes, pair_names
from zs_operators.run_history.stored_run import StoredRun, check_run

if TYPE_CHECKING:
    import fiftyone as fo

PARTS = ("changed", "unchanged", "only_a", "only_b", "redrawn")
_SHOWN = 10


@dataclass(frozen=True)
class Flip:
    """Objects, or images, that the first run calls ``before`` and the second ``after``.

    Attributes:
        before, after: class names; ``"(none)"`` where a run has no such object, ``"(rejected)"``
            where no class was certain enough, ``"(unnamed)"`` for masks without a name
        count: of objects, or images
        ids: of the samples, each once
    """

    before: str
    after: str
    count: int
    ids: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True)
class RunComparison:
    """What changed between two runs; printable as a small table.

    Attributes:
        run_a, run_b: the runs
        kind: of labels: ``"images"``, ``"boxes"`` or ``"masks"``
        compared: samples (of videos frames) that both have labelled
        changed_ids: those of them whose labels differ
        unchanged_ids: the others
        only_a_ids, only_b_ids: that only one run has labelled
        redrawn_ids: with an object of the same name whose overlap is too small
        flips: by class pair, most first
        same: objects, or images, on which both agree
        total: pairs of objects and those that only one run has; of images, all of them
        mean_iou: of the pairs, None for images
        differences: ``{what: (of a, of b)}`` of options, models, prompts and versions
    """

    run_a: StoredRun
    run_b: StoredRun
    kind: str
    compared: int
    changed_ids: tuple[str, ...] = field(repr=False)
    unchanged_ids: tuple[str, ...] = field(repr=False)
    only_a_ids: tuple[str, ...] = field(repr=False)
    only_b_ids: tuple[str, ...] = field(repr=False)
    redrawn_ids: tuple[str, ...] = field(repr=False)
    flips: tuple[Flip, ...]
    same: int
    total: int
    mean_iou: float | None
    differences: Mapping[str, tuple[Any, Any]]

    @property
    def agreement(self) -> float | None:
        """``same / total``; None if there is nothing to compare."""
        return self.same / self.total if self.total else None

    def view(
        self, part: str = "changed", *, flip: Flip | Sequence[str] | None = None
    ) -> fo.DatasetView:
        """The samples of a part of the comparison; of videos their frames.

        Args:
            part ("changed"): ``"changed"``, ``"unchanged"``, ``"only_a"``, ``"only_b"`` or
                ``"redrawn"``
            flip (None): one of :attr:`flips`, or its ``(before, after)``

        Raises:
            InvalidInputError: if there is no such part or flip
        """
        ids = self.ids(part, flip=flip)
        dataset = self.run_a.dataset
        if results.place_of(self.run_a).is_frames:
            return dataset.select_frames(list(ids))
        return dataset.select(list(ids))

    def ids(
        self, part: str = "changed", *, flip: Flip | Sequence[str] | None = None
    ) -> tuple[str, ...]:
        """Ids of the samples, or frames, that :meth:`view` shows."""
        if flip is None:
            check_choice("part", part, PARTS)
            return getattr(self, f"{part}_ids")
        wanted = (flip.before, flip.after) if isinstance(flip, Flip) else tuple(flip)
        for one in self.flips:
            if (one.before, one.after) == wanted:
                return one.ids
        raise InvalidInputError(f"Nothing went {' -> '.join(map(str, wanted))} in this comparison.")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, sample ids included."""
        return {
            "run_a": self.run_a.key,
            "run_b": self.run_b.key,
            "kind": self.kind,
            "compared": self.compared,
            "agreement": self.agreement,
            "same": self.same,
            "total": self.total,
            "mean_iou": self.mean_iou,
            **{f"{part}_ids": list(getattr(self, f"{part}_ids")) for part in PARTS},
            "flips": [{**vars(flip), "ids": list(flip.ids)} for flip in self.flips],
            "differences": {name: list(pair) for name, pair in self.differences.items()},
        }

    def __str__(self) -> str:
        title = f"{self.run_a.key} -> {self.run_b.key}"
        agreement = "-" if self.agreement is None else f"{self.agreement:.1%}"
        rows = [("compared", f"{self.compared:,} samples"), ("agreement", agreement)]
        rows.append(("changed", f"{len(self.changed_ids):,} samples"))
        if self.mean_iou is not None:
            rows.append(("mean IoU", f"{self.mean_iou:.3f}"))
        for label, ids in (("only in a", self.only_a_ids), ("only in b", self.only_b_ids)):
            rows += [(label, f"{len(ids):,} samples")] if ids else []
        if self.redrawn_ids:
            rows.append(("redrawn", f"{len(self.redrawn_ids):,} samples"))
        for flip in self.flips[:_SHOWN]:
            rows.append((f"  {flip.before} -> {flip.after}", f"{flip.count:,}"))
        if len(self.flips) > _SHOWN:
            rows.append(("  …", f"{len(self.flips) - _SHOWN} more"))
        width = max(len(name) for name, _ in rows)
        lines = [title, "-" * len(title), *(f"{name:<{width}}  {value}" for name, value in rows)]
        differ = list(self.differences.items())
        lines += [f"differs: {name}: {_short(a)} | {_short(b)}" for name, (a, b) in differ[:_SHOWN]]
        if len(differ) > _SHOWN:
            lines.append(f"differs: {len(differ) - _SHOWN} more")
        return "\n".join(lines)


def compare_runs(run_a: StoredRun, run_b: StoredRun, *, iou: float = 0.5) -> RunComparison:
    """Sets two runs of the same dataset side by side.

    Objects are the same if they began with the same label (``source_id``), else those whose boxes
    overlap most in all. Masks of such pairs are compared pixel by pixel.

    Args:
        run_a, run_b: from :func:`load_run`
        iou (0.5): least overlap in (0, 1] of what is the same object; a pair from the same label
            that overlaps less, or a pair of such masks, counts as redrawn

    Raises:
        InvalidInputError: if they are of different datasets or kinds of labels, or nothing of one
            is left
    """
    check_run(run_a, "run_a")
    check_run(run_b, "run_b")
    check_range("iou", iou, 1e-6, 1.0)
    if run_a.dataset is not run_b.dataset and run_a.dataset.name != run_b.dataset.name:
        raise InvalidInputError(
            f"Run {run_a.key!r} is of dataset {run_a.dataset.name!r} and {run_b.key!r} of "
            f"{run_b.dataset.name!r}: compare runs of one dataset."
        )
    place_a, place_b = results.place_of(run_a), results.place_of(run_b)
    kinds = [results.kind_of(place) for place in (place_a, place_b)]
    if kinds[0] != kinds[1] or place_a.is_frames != place_b.is_frames:
        raise InvalidInputError(
            f"Run {run_a.key!r} wrote {place_a.kind} and {run_b.key!r} {place_b.kind}: compare "
            "labels of one kind."
        )
    of_a, of_b = results.read_results(run_a, place_a), results.read_results(run_b, place_b)
    for run, found in ((run_a, of_a), (run_b, of_b)):
        if not found:
            raise InvalidInputError(
                f"No label in field {run.label_field!r} is of run {run.key!r}: nothing is left of "
                "it to compare."
            )
    both = [one for one in of_a if one in of_b]
    counts = _Counts(iou)
    masks = kinds[0] == results.BOXES and "segment" in (run_a.task, run_b.task)
    pairs = _pairs(of_a, of_b, both, kinds[0], iou)
    if masks:
        pairs = overlaps_of_masks(run_a.dataset, place_a, place_b, of_a, of_b, pairs)
    for sample_id, found in pairs:
        counts.add(sample_id, of_a[sample_id], of_b[sample_id], found)
    return RunComparison(
        run_a=run_a,
        run_b=run_b,
        kind=results.MASKS if masks else kinds[0],
        compared=len(both),
        changed_ids=tuple(counts.changed),
        unchanged_ids=tuple(one for one in both if one not in counts.changed),
        only_a_ids=tuple(one for one in of_a if one not in of_b),
        only_b_ids=tuple(one for one in of_b if one not in of_a),
        redrawn_ids=tuple(counts.redrawn),
        flips=counts.flips(),
        same=counts.same,
        total=counts.total,
        mean_iou=counts.mean_iou,
        differences=differences(run_a, run_b),
    )


def _pairs(
    of_a: Mapping[str, Objects], of_b: Mapping[str, Objects], ids: Sequence[str], kind: str, iou
) -> Iterator[tuple[str, list[Pair]]]:
    for sample_id in ids:
        a, b = of_a[sample_id], of_b[sample_id]
        images = kind == results.IMAGES
        yield sample_id, pair_names(a, b) if images else pair_boxes(a, b, iou)


class _Counts:
    """What adds up over the samples."""

    def __init__(self, iou: float) -> None:
        self._iou = iou
        self._flips: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._overlaps: list[float] = []
        # In order, each once
        self.changed: dict[str, None] = {}
        self.redrawn: dict[str, None] = {}
        self.same = 0
        self.total = 0

    def add(self, sample_id: str, a: Objects, b: Objects, pairs: Sequence[Pair]) -> None:
        self.total += len(pairs)
        for pair in pairs:
            before = NONE if pair.first is None else a.names[pair.first]
            after = NONE if pair.second is None else b.names[pair.second]
            if pair.overlap is not None:
                self._overlaps.append(pair.overlap)
            if before != after:
                self._flips[before, after].append(sample_id)
            elif pair.overlap is not None and pair.overlap < self._iou:
                self.redrawn[sample_id] = None
            else:
                self.same += 1
                continue
            self.changed[sample_id] = None

    def flips(self) -> tuple[Flip, ...]:
        found = [
            Flip(before, after, len(ids), tuple(dict.fromkeys(ids)))
            for (before, after), ids in self._flips.items()
        ]
        return tuple(sorted(found, key=lambda flip: (-flip.count, flip.before, flip.after)))

    @property
    def mean_iou(self) -> float | None:
        return sum(self._overlaps) / len(self._overlaps) if self._overlaps else None


def _short(value: Any) -> str:
    if isinstance(value, list):
        more = f" and {len(value) - 3} more" if len(value) > 3 else ""
        return (", ".join(map(str, value[:3])) or "none") + more
    return str(value)
