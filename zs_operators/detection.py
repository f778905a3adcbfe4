"""Open-vocabulary detection of FiftyOne samples: proposals or existing boxes, named by CLIP."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from zs_operators import fields, label_documents, labels, provenance
from zs_operators.classification import Classes, parse_classes, prompt_record
from zs_operators.detect_setup import (
    check_goes_with_detector,
    detect_options,
    load_detector,
    proposer_identity,
    with_clip,
    with_detector,
)
from zs_operators.detections import DetectItem, DetectPrediction, Regions
from zs_operators.detector import ZeroShotDetector
from zs_operators.embeddings import MODES
from zs_operators.errors import InvalidInputError
from zs_operators.executors.jobs import Job, Prepared, steps_of
from zs_operators.heads import saved as heads
from zs_operators.media_views import labels_images
from zs_operators.option_checks import check_choice
from zs_operators.progress import show_progress
from zs_operators.proposal_loading import DEFAULT_PROPOSER
from zs_operators.region_fields import ExistingBoxes, images_of, label_path, read_boxes
from zs_operators.report import LABELED, NO_PROMPTS, NOTHING_FOUND, Progress, RunReport
from zs_operators.run_options import RunOptions
from zs_operators.run_parameters import recorded
from zs_operators.runner import CHUNK_SAMPLES, Run
from zs_operators.samples import check_samples
from zs_operators.stored_regions import StoredRegions
from zs_operators.targets import FieldTarget, NamedBoxesTarget, SourceTarget
from zs_operators.weights import DEFAULT_CLIP

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

    from zs_operators.clip import ClipModel
    from zs_operators.detectors.text_detector import TextDetector
    from zs_operators.executors.options import RayExecutor
    from zs_operators.heads.head import Head
    from zs_operators.proposals import Proposer

#: Also for those who compose detectors themselves.
__all__ = ["detect", "detect_options", "iter_detect", "load_detector", "proposer_identity"]

DEFAULT_LABEL_FIELD = "zs_detections"
PROPOSALS = "proposals"


class _Loaded(NamedTuple):
    """One image that was read, or its regions from the store."""

    key: bytes | None
    content: DetectItem | Regions
    source: ExistingBoxes | None


class DetectTask:
    """What the runner does with one image: see :class:`zs_operators.runner.Task`."""

    name = "detect"
    # Whole images wait here, so fewer of them than a classifier's small tensors
    prefetch_batches = 1
    chunk_samples = CHUNK_SAMPLES

    def __init__(
        self,
        detector: ZeroShotDetector,
        *,
        update_source: bool = False,
        reject_label: str | None = None,
        stored: StoredRegions | None = None,
    ) -> None:
        self.detector = detector
        self.stored = stored
        self.reused = 0
        self.num_classes = len(detector.vocabulary.labels)
        self.budgets = detector.budgets
        self.update_source = update_source
        self.reject_label = reject_label
        self._refused: Counter[str] = Counter()

    @property
    def warnings(self) -> list[str]:
        """How many existing boxes could not be scored, by reason; why the store stopped writing."""
        stopped = []
        if self.stored is not None:
            self.stored.store.flush()
            stopped = self.stored.store.warnings
        late = getattr(self.detector, "late_warnings", [])
        return (
            stopped
            + late
            + [
                f"{count:,} boxes could not be scored: {reason}."
                for reason, count in self._refused.most_common()
            ]
        )

    def load(self, source: str | ExistingBoxes) -> _Loaded:
        existing = source if isinstance(source, ExistingBoxes) else None
        path, boxes = (source.filepath, source.boxes_rel) if existing else (source, None)
        key = None
        if self.stored is not None:
            # Before the image is read, so that one that changes meanwhile is not found again
            key = self.stored.key(path, boxes)
            regions = self.stored.get(key, boxes)
            if regions is not None:
                return _Loaded(key, regions, existing)
        return _Loaded(key, self.detector.load(path, boxes), existing)

    def infer(self, items: Sequence[_Loaded]) -> Sequence[Any]:
        regions = [item.content for item in items]
        new = [i for i, one in enumerate(regions) if isinstance(one, DetectItem)]
        if new:
            computed = self.detector.embed([regions[i] for i in new])
            if self.stored is not None:
                computed = self.stored.put([items[i].key for i in new], computed)
            for i, one in zip(new, computed, strict=True):
                regions[i] = one
        found = [self.detector.predict_regions(one) for one in regions]
        self.reused += len(items) - len(new)
        return [
            one if isinstance(one, Exception) else (one, item.source)
            for one, item in zip(found, items, strict=True)
        ]

    def label(
        self, result: tuple[DetectPrediction, ExistingBoxes | None], run: str
    ) -> tuple[Any, str, Sequence[str]]:
        prediction, source = result
        self._refused.update(prediction.refused.values())
        names = [item.label for item in prediction.detections if item.rejected_by is None]
        if self.update_source and source is not None:
            value: Any = labels.source_attributes(prediction, source, run)
        else:
            value = label_documents.detections(
                prediction, run=run, source=source, reject_label=self.reject_label
            )
        if source is not None and not source.boxes_rel:
            return value, NO_PROMPTS, ()
        return value, LABELED if prediction.detections else NOTHING_FOUND, names

    @staticmethod
    def scores(result: tuple[DetectPrediction, ExistingBoxes | None]) -> Sequence[Any]:
        """Of the boxes that have a name, for the run's own judgement."""
        return [item for item in result[0].detections if item.rejected_by is None]


def detect(
    samples: SampleCollection,
    classes: Classes | None,
    *,
    progress: bool | Callable | None = None,
    **kwargs: Any,
) -> RunReport:
    """Finds objects by name, or names boxes that exist, and writes native ``Detections``.

    A Faster R-CNN proposes regions without regard to its own classes, CLIP scores every region
    against the class names, and of overlapping boxes the best one stays (RegionCLIP,
    arXiv 2112.09106, section 3.4; with the sigmoid of the objectness instead of its raw logit).
    ``confidence = p^(1-γ) · objectness^γ`` with γ = ``objectness_weight``.

    Args:
        samples: as :func:`zs_operators.classify`; with ``regions="<field>"`` also a view of patches
        classes: see :func:`zs_operators.classify`
        label_field ("zs_detections"): where to write
        regions ("proposals"): ``"proposals"`` to find boxes, or the name of a field whose boxes
            are to be named; every usable one of them stays, with ``source_id``, ``source_label``
        update_source (False): write ``zs_label``, ``zs_confidence``, ``zs_cosine``, ``zs_margin``
            onto the labels of the ``regions`` field instead of a field of its own
        model ("clip-vit-b-32"), weights (None): CLIP; see :func:`zs_operators.classify`
        templates ("simple"), background (None), head (None): see :func:`zs_operators.classify`;
            a head for boxes is fitted on ``Detections``
        region_embedding ("auto"): ``"roi"`` (RoIAlign on the features of a CLIP ResNet),
            ``"crops"`` (any model), or what suits the model
        proposals ("fasterrcnn_resnet50_fpn_v2"), proposal_weights (None): the proposer; or
            anything that ``detector`` takes: then CLIP names its boxes
        detector (None): finds and names boxes in the place of CLIP and proposer: a folder with a
            zero-shot detector of ``transformers``, its name at Hugging Face, a model of FiftyOne's
            zoo, a FiftyOne ``Model``, or a :class:`TextDetector`; see docs/detectors.md
        proposal_mode ("refined"): ``"refined"`` boxes of the detector's second stage, or ``"rpn"``
        max_regions (300), objectness_weight (0.5), overlap ("agnostic"), overlap_metric ("iou"),
        overlap_threshold (0.5), min_confidence (0.05), max_detections (100), min_margin (None),
        min_cosine (None), min_size_px (0), temperature (None), runners_up (3): see
            :class:`zs_operators.detector.DetectOptions`
        tile_size_px (None), tile_overlap (0.2): look for small objects of images larger than this
            in tiles, too; ``max_regions`` is then of each tile
        reject_label (None): label of an existing box that a rule rejects
        batch_size ("auto"), device ("auto"), precision ("auto"), workers (None),
        overwrite (False), resume (True), on_error ("record"), embeddings ("off"),
        executor ("local"), group_slice (None), frames_per_second (None), frames_dir (None),
        progress (None): see :func:`zs_operators.classify`; stored are boxes, objectness and
            embeddings of regions

    Returns:
        a :class:`RunReport`

    Raises:
        InvalidInputError: if an argument cannot be used, before anything is written
        WeightsError: if weights are missing or do not fit
        RunError: if no sample could be processed
    """
    return show_progress(iter_detect(samples, classes, **kwargs), progress)


@labels_images
def iter_detect(
    samples: SampleCollection,
    classes: Classes | None,
    *,
    label_field: str = DEFAULT_LABEL_FIELD,
    regions: str = PROPOSALS,
    update_source: bool = False,
    model: str | ClipModel = DEFAULT_CLIP,
    weights: str | os.PathLike | None = None,
    templates: str | Sequence[str] = "simple",
    background: Sequence[str] | None = None,
    head: str | os.PathLike | Head | None = None,
    region_embedding: str = "auto",
    proposals: str | Proposer | TextDetector | Any = DEFAULT_PROPOSER,
    proposal_weights: str | os.PathLike | None = None,
    proposal_mode: str = "refined",
    detector: str | os.PathLike | TextDetector | Any | None = None,
    reject_label: str | None = None,
    batch_size: int | str = "auto",
    device: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    overwrite: bool = False,
    resume: bool = True,
    on_error: str = "record",
    embeddings: str = "off",
    executor: str | RayExecutor = "local",
    **options: Any,
) -> Generator[Progress, None, RunReport]:
    """Like :func:`detect`, as a generator that yields :class:`Progress` after each chunk."""
    parameters = recorded(locals())
    from zs_operators.device import BatchBudget, resolve_batch_size

    existing = regions != PROPOSALS
    if existing and samples is not None:
        samples = images_of(samples, regions)
    check_samples(samples)
    check_choice("embeddings", embeddings, MODES)
    parsed = detect_options(**options)
    run_options = RunOptions(workers=workers, overwrite=overwrite, resume=resume, on_error=on_error)
    if detector is not None:
        check_goes_with_detector(finds_boxes=not existing, head=head, embeddings=embeddings)
    head = heads.resolve(samples, head)
    classes = heads.classes_for(head, classes)
    vocabulary = parse_classes(samples, classes, templates=templates, background=background)
    sources = read_boxes(samples, regions) if existing else None
    if update_source and not existing:
        raise InvalidInputError(
            "update_source=True writes onto existing labels: name their field in regions=."
        )
    if update_source:
        path = label_path(samples, regions)
        target: Any = SourceTarget(
            samples,
            regions,
            path,
            [s.label_ids for s in sources],
            run_name=provenance.name_beside(samples, "detect", regions),
        )
    else:
        fields.check_label_field(samples, label_field, "detect", overwrite=overwrite)
        if existing:
            ids = dict(zip(samples.values("id"), (s.label_ids for s in sources), strict=True))
            target = NamedBoxesTarget(samples, label_field, ids)
        else:
            target = FieldTarget(samples, label_field, "Detections")
    resolve_batch_size(batch_size)

    def prepare() -> Prepared:
        begun = time.perf_counter()
        if detector is not None:
            setup = with_detector(detector, vocabulary, parsed, device=device, precision=precision)
        else:
            setup = with_clip(
                vocabulary,
                parsed,
                head,
                find_boxes=not existing,
                model=model,
                weights=weights,
                region_embedding=region_embedding,
                proposals=proposals,
                proposal_weights=proposal_weights,
                proposal_mode=proposal_mode,
                device=device,
                precision=precision,
                embeddings=embeddings,
            )
        loaded = time.perf_counter() - begun
        encoded = setup.detector.vocabulary  # a detector may have its own templates
        decisive, details = prompt_record(encoded)
        stored = None
        if embeddings != "off":
            refresh = embeddings == "refresh"
            proposer = proposer_identity(setup.detector.proposer)
            stored = StoredRegions(setup.detector, proposer, refresh=refresh)
        size = setup.detector.batch_size if batch_size == "auto" else resolve_batch_size(batch_size)
        return Prepared(
            (setup.detector, stored),
            record={
                "task": "detect",
                **decisive,
                **setup.record,
                "options": parsed.decisive(),
                "reject_label": reject_label,
                "regions": regions,
            },
            details={
                **details,
                "parameters": {**parameters, **asdict(parsed)},
                "source": provenance.source(samples, regions) if existing else None,
                **setup.details,
                "embeddings": embeddings,
            },
            budget=BatchBudget(size, device=setup.device),
            run_class=Run,
            seconds={"load": loaded},
            warnings=[*encoded.warnings, *setup.warnings],
            store=None if stored is None else stored.store,
        )

    def make_task(made: Prepared) -> DetectTask:
        ready, stored = made.model
        return DetectTask(
            ready, update_source=update_source, reject_label=reject_label, stored=stored
        )

    job = Job(
        iter_detect,
        parameters,
        {"classes": vocabulary, "head": head},
        samples,
        target,
        run_options,
        prepare,
        make_task,
        sources,
    )
    return (yield from steps_of(job, executor))
