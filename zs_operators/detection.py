"""Open-vocabulary detection of FiftyOne samples: proposals or existing boxes, named by CLIP."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from zs_operators import fields, label_documents, labels, provenance
from zs_operators.classification import (
    Classes,
    model_identity,
    parse_classes,
    prompt_record,
    prompt_warnings,
)
from zs_operators.detector import (
    DetectItem,
    DetectOptions,
    DetectPrediction,
    Regions,
    ZeroShotDetector,
)
from zs_operators.embeddings import MODES
from zs_operators.errors import InvalidInputError
from zs_operators.heads import saved as heads
from zs_operators.model_stores import with_stored_texts
from zs_operators.option_checks import check_choice
from zs_operators.progress import show_progress
from zs_operators.proposal_loading import DEFAULT_PROPOSER
from zs_operators.region_fields import ExistingBoxes, images_of, label_path, read_boxes
from zs_operators.report import LABELED, NO_PROMPTS, NOTHING_FOUND, Progress, RunReport
from zs_operators.run_parameters import recorded
from zs_operators.runner import CHUNK_SAMPLES, Run, RunOptions
from zs_operators.samples import check_samples
from zs_operators.stored_regions import StoredRegions
from zs_operators.targets import FieldTarget, NamedBoxesTarget, SourceTarget
from zs_operators.weights import DEFAULT_CLIP

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

    from zs_operators.clip import ClipModel
    from zs_operators.heads.head import Head
    from zs_operators.proposals import Proposer
    from zs_operators.vocabulary import Vocabulary

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
        return stopped + [
            f"{count:,} boxes could not be scored: {reason}."
            for reason, count in self._refused.most_common()
        ]

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
        samples: a dataset or view of images; with ``regions="<field>"`` also a view of patches
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
        proposals ("fasterrcnn_resnet50_fpn_v2"), proposal_weights (None): the proposer
        proposal_mode ("refined"): ``"refined"`` boxes of the detector's second stage, or ``"rpn"``
        max_regions (300), objectness_weight (0.5), overlap ("agnostic"), overlap_metric ("iou"),
        overlap_threshold (0.5), min_confidence (0.05), max_detections (100), min_margin (None),
        min_cosine (None), min_size_px (0), temperature (None), runners_up (3): see
            :class:`zs_operators.detector.DetectOptions`
        reject_label (None): label of an existing box that a rule rejects
        batch_size ("auto"), device ("auto"), precision ("auto"), workers (None),
        overwrite (False), resume (True), on_error ("record"), embeddings ("off"),
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
    proposals: str | Proposer = DEFAULT_PROPOSER,
    proposal_weights: str | os.PathLike | None = None,
    proposal_mode: str = "refined",
    reject_label: str | None = None,
    batch_size: int | str = "auto",
    device: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    overwrite: bool = False,
    resume: bool = True,
    on_error: str = "record",
    embeddings: str = "off",
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

    begun = time.perf_counter()
    detector = load_detector(
        vocabulary,
        parsed,
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
        head=head,
    )
    loaded = time.perf_counter() - begun
    clip, proposer = detector.clip, detector.proposer
    decisive, details = prompt_record(vocabulary)
    stored = None
    if embeddings != "off":
        refresh = embeddings == "refresh"
        stored = StoredRegions(detector, proposer_identity(proposer), refresh=refresh)
    run = Run(
        samples,
        DetectTask(detector, update_source=update_source, reject_label=reject_label, stored=stored),
        target,
        sources=sources,
        record={
            "task": "detect",
            **decisive,
            **heads.decisive(head),
            "options": asdict(parsed),
            "reject_label": reject_label,
            "regions": regions,
            "region_embedding": detector.encoder.method,
            "contexts": list(detector.encoder.contexts),
            "model": model_identity(clip),
            "proposer": proposer_identity(proposer),
        },
        details={
            **details,
            "parameters": {**parameters, **asdict(parsed)},
            "source": provenance.source(samples, regions) if existing else None,
            "model_details": clip.describe(),
            "head_details": heads.described(head),
            "proposer_details": proposer.describe() if proposer else None,
            "embeddings": embeddings,
        },
        budget=BatchBudget(
            detector.batch_size if batch_size == "auto" else resolve_batch_size(batch_size),
            device=clip.device,
        ),
        options=run_options,
        seconds={"load": loaded},
        warnings=[
            *vocabulary.warnings,
            *prompt_warnings(clip, vocabulary),
            *heads.head_warnings(head, detector.encoder.describe()),
        ],
    )
    with contextlib.nullcontext() if stored is None else stored.store:
        return (yield from run.steps())


def load_detector(
    vocabulary: Vocabulary,
    options: DetectOptions,
    *,
    find_boxes: bool,
    model: str | ClipModel,
    weights: str | os.PathLike | None,
    region_embedding: str,
    proposals: str | Proposer,
    proposal_weights: str | os.PathLike | None,
    proposal_mode: str,
    device: str,
    precision: str,
    embeddings: str = "off",
    head: Head | None = None,
) -> ZeroShotDetector:
    """CLIP, and a proposer if boxes are to be found, ready to predict."""
    from zs_operators.clip import load_clip
    from zs_operators.proposals import Proposer, load_proposer
    from zs_operators.regions import RegionEncoder

    clip = load_clip(model, weights, device=device, precision=precision)
    encoder = RegionEncoder(clip, region_embedding)
    proposer = None
    if find_boxes and isinstance(proposals, Proposer):
        proposer = proposals
    elif find_boxes:
        proposer = load_proposer(
            proposals,
            proposal_weights,
            device=device,
            precision=precision,
            mode=proposal_mode,
            max_proposals=options.max_regions,
            min_size_px=options.min_size_px,
        )
    clip = with_stored_texts(clip, embeddings)
    return ZeroShotDetector(
        clip, vocabulary, options, proposer=proposer, encoder=encoder, head=head
    )


def detect_options(**options: Any) -> DetectOptions:
    """Checked options; an unknown name is an error that says which."""
    try:
        return DetectOptions(**options)
    except TypeError as error:
        raise InvalidInputError(f"detect got an unknown option: {error}.") from error


def proposer_identity(proposer: Proposer | None) -> dict[str, Any] | None:
    """What of a proposer decides boxes."""
    if proposer is None:
        return None
    return {
        "name": proposer.name,
        "weights_sha256": proposer.plan.sha256,
        "precision": proposer.precision,
        "options": asdict(proposer.options),
    }
