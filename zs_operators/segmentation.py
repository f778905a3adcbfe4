"""Segmentation of FiftyOne samples: from boxes, points, class names or nothing to native masks."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from zs_operators import fields, mask_files, mask_labels, provenance
from zs_operators.classification import Classes, parse_classes, prompt_warnings
from zs_operators.embeddings import MODES
from zs_operators.executors.jobs import Job, Prepared, steps_of
from zs_operators.mask_target import PROMPT_IDS, MaskLabels, MaskTarget
from zs_operators.media_views import labels_images
from zs_operators.option_checks import check_choice
from zs_operators.progress import show_progress
from zs_operators.prompt_fields import ExistingPrompts, read_prompts
from zs_operators.proposal_loading import DEFAULT_PROPOSER
from zs_operators.region_fields import images_of
from zs_operators.report import LABELED, NO_PROMPTS, NOTHING_FOUND, Progress, RunReport
from zs_operators.run_options import RunOptions
from zs_operators.run_parameters import recorded
from zs_operators.runner import Run
from zs_operators.sam_loading import DEFAULT_SAM
from zs_operators.samples import check_samples
from zs_operators.segment_setup import load_segmenter, segment_record, split_options
from zs_operators.segmenter import (
    EVERYTHING,
    PROPOSALS,
    Segmenter,
    SegmentItem,
    SegmentPrediction,
)
from zs_operators.semantic_fields import check_semantic_field, mask_targets, names_of
from zs_operators.weights import DEFAULT_CLIP

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

    from zs_operators.clip import ClipModel
    from zs_operators.executors.options import RayExecutor
    from zs_operators.proposals import Proposer
    from zs_operators.sam import SamModel
    from zs_operators.vocabulary import Vocabulary

DEFAULT_LABEL_FIELD = "zs_masks"


class SegmentTask:
    """What the runner does with one image: see :class:`zs_operators.runner.Task`."""

    name = "segment"
    prefetch_batches = 1
    # Masks wait compressed, yet a label is a few bytes and a mask some kilobytes
    chunk_samples = 64

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        label_field: str,
        output_dir: str | None = None,
        semantic_field: str | None = None,
        targets: Mapping[str, int] | None = None,
        num_classes: int | None = None,
    ) -> None:
        self.segmenter = segmenter
        self.num_classes = num_classes
        self.budgets = segmenter.budgets
        self.reused = 0
        self._label_field = label_field
        self._output_dir = output_dir
        self._semantic_field = semantic_field
        self._targets = targets
        self._refused: Counter[str] = Counter()
        self._empty = 0

    @property
    def warnings(self) -> list[str]:
        """What prompts came to nothing, and whether the store could be written."""
        found = [
            f"{count:,} prompts could not be used: {reason}."
            for reason, count in self._refused.most_common()
        ]
        if self._empty:
            found.append(f"{self._empty:,} prompts gave an empty mask, which is left out.")
        store = self.segmenter.store
        return found + (store.warnings if store is not None else [])

    def load(self, source: str | ExistingPrompts) -> tuple[SegmentItem, Any]:
        if isinstance(source, ExistingPrompts):
            return self.segmenter.load(source.filepath, source.given), source
        return self.segmenter.load(source), source

    def infer(self, items: Sequence[tuple[SegmentItem, Any]]) -> Sequence[Any]:
        found = self.segmenter.predict([item for item, _ in items])
        self.reused += sum(item.is_stored for item, _ in items)
        return [
            one if isinstance(one, Exception) else (one, source)
            for one, (_, source) in zip(found, items, strict=True)
        ]

    def label(
        self, result: tuple[SegmentPrediction, str | ExistingPrompts], run: str
    ) -> tuple[MaskLabels, str, Sequence[str]]:
        prediction, given = result
        source = given if isinstance(given, ExistingPrompts) else None
        filepath = given if source is None else source.filepath
        self._refused.update(prediction.refused.values())
        self._empty += prediction.dropped.get("empty", 0)
        value = MaskLabels({})
        paths = None
        if self._output_dir is not None:
            value.folder = mask_files.mask_folder(self._output_dir, self._label_field, filepath)
            paths = self._write_files(prediction, source, value, run)
        value.detections = mask_labels.serialized_detections(
            prediction, run=run, source=source, mask_paths=paths
        )
        if source is not None:
            value.detections[PROMPT_IDS] = list(source.label_ids)
        if self._semantic_field is not None and prediction.height_px:
            value.semantic = mask_labels.serialized_classes(prediction, source, self._targets)
            if self._output_dir is not None:
                value.semantic_path = mask_files.semantic_path(
                    self._output_dir, self._semantic_field, filepath
                )
        if source is not None and not len(source):
            return value, NO_PROMPTS, ()
        names = [mask_labels.class_name(mask, source) for mask in prediction.masks]
        return value, LABELED if names else NOTHING_FOUND, [name for name in names if name]

    def _write_files(
        self,
        prediction: SegmentPrediction,
        source: ExistingPrompts | None,
        value: MaskLabels,
        run: str,
    ) -> list[str]:
        paths = []
        for number, mask in enumerate(prediction.masks):
            # Named by the label that prompted, so that prompting with some more keeps these
            name = f"{number:03d}" if source is None else source.label_ids[mask.index]
            path = mask_files.mask_path(value.folder, run, name)
            mask_files.write_mask(path, mask.mask.pixels)
            paths.append(str(path))
        return paths


def segment(
    samples: SampleCollection, *, progress: bool | Callable | None = None, **kwargs: Any
) -> RunReport:
    """Segments with SAM and writes native ``Detections`` with masks and quality scores.

    Kirillov et al. 2023, arXiv 2304.02643. Every mask has ``predicted_iou`` (the model's guess of
    its IoU), ``stability`` (section 5 of the paper) and ``area_px``. Pasted into its box, a mask is
    the full mask pixel for pixel.

    Args:
        samples: a dataset or view of images; with ``prompts="<field>"`` also a view of patches
        label_field ("zs_masks"): where to write
        prompts ("everything"): ``"everything"`` for a grid of points over the image,
            ``"proposals"`` for the boxes that :func:`zs_operators.detect` finds for ``classes``, or
            the name of a field: each of its boxes, or keypoints (a ``sam_labels`` attribute says 1
            for a point on the object and 0 for one that is not), becomes one mask with its label,
            confidence and index, and its id as ``source_id``
        classes (None): needed for ``"proposals"``; with ``"everything"``, CLIP names each mask
            (in its box, with and without what is around it) and leaves out what no class fits
        model ("sam-vit-b"), weights (None): SAM; see :func:`zs_operators.sam.load_sam`
        clip ("clip-vit-b-32"), clip_weights (None): the CLIP that names; ``model`` and
            ``weights`` of :func:`zs_operators.detect`
        templates ("simple"), background (None), region_embedding ("auto"), proposals
        ("fasterrcnn_resnet50_fpn_v2"), proposal_weights (None), proposal_mode ("refined"): see
            :func:`zs_operators.detect`
        output_dir (None): write masks as PNG files below this folder, in one named after the
            dataset; None keeps them in the database
        semantic_field (None): also write one ``Segmentation`` a sample, with
            ``dataset.mask_targets``; smaller masks lie on larger ones
        embeddings ("off"): ``"reuse"`` takes image embeddings from a store on disk and adds what
            is missing, so that new prompts skip the encoder; ``"refresh"`` computes all anew
        multimask ("best"), min_iou (None), min_stability (None), tight_boxes (True),
        fill_holes_px (0), drop_islands_px (0), max_masks (None), points_per_side (32),
        crop_n_layers (0), box_nms_threshold (0.7): see
            :class:`zs_operators.segment_options.SegmentOptions`
        max_regions, objectness_weight, … with ``classes``: see
            :class:`zs_operators.detector.DetectOptions`; the objectness of a mask of everything
            is ``predicted_iou · stability``
        batch_size ("auto"), device ("auto"), precision ("auto"), workers (None),
        overwrite (False), resume (True), on_error ("record"), executor ("local"),
        group_slice (None), frames_per_second (None), frames_dir (None), progress (None): see
            :func:`zs_operators.classify`

    Returns:
        a :class:`RunReport`

    Raises:
        InvalidInputError: if an argument cannot be used, before anything is written
        WeightsError: if weights are missing or do not fit
        RunError: if no sample could be processed
    """
    return show_progress(iter_segment(samples, **kwargs), progress)


@labels_images
def iter_segment(
    samples: SampleCollection,
    *,
    label_field: str = DEFAULT_LABEL_FIELD,
    prompts: str = EVERYTHING,
    classes: Classes | None = None,
    model: str | SamModel = DEFAULT_SAM,
    weights: str | os.PathLike | None = None,
    clip: str | ClipModel = DEFAULT_CLIP,
    clip_weights: str | os.PathLike | None = None,
    templates: str | Sequence[str] = "simple",
    background: Sequence[str] | None = None,
    region_embedding: str = "auto",
    proposals: str | Proposer = DEFAULT_PROPOSER,
    proposal_weights: str | os.PathLike | None = None,
    proposal_mode: str = "refined",
    output_dir: str | os.PathLike | None = None,
    semantic_field: str | None = None,
    embeddings: str = "off",
    batch_size: int | str = "auto",
    device: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    overwrite: bool = False,
    resume: bool = True,
    on_error: str = "record",
    executor: str | RayExecutor = "local",
    **options: Any,
) -> Generator[Progress, None, RunReport]:
    """Like :func:`segment`, as a generator that yields :class:`Progress` after each chunk."""
    parameters = recorded(locals())
    from zs_operators.device import BatchBudget, resolve_batch_size

    given = prompts not in (EVERYTHING, PROPOSALS)
    if given and samples is not None:
        samples = images_of(samples, prompts, argument="prompts")
    check_samples(samples)
    check_choice("embeddings", embeddings, MODES)
    masks, detect = split_options(prompts, classes, options)
    run_options = RunOptions(workers=workers, overwrite=overwrite, resume=resume, on_error=on_error)
    vocabulary = None
    if classes is not None:
        vocabulary = parse_classes(samples, classes, templates=templates, background=background)
    fields.check_label_field(
        samples, label_field, "segment", overwrite=overwrite, label_type="Detections"
    )
    sources = read_prompts(samples, prompts) if given else None
    targets = None
    if semantic_field is not None:
        check_semantic_field(samples, semantic_field, label_field, overwrite=overwrite)
        names = vocabulary.labels if vocabulary is not None else names_of(sources)
        targets = mask_targets(samples, semantic_field, names)
    if output_dir is not None:
        # a folder for each dataset: a run removes masks that an earlier one has left in its own
        output_dir = str(mask_files.check_output_dir(output_dir) / samples._root_dataset.slug)
    resolve_batch_size(batch_size)
    ids = None
    if sources is not None:
        ids = dict(zip(samples.values("id"), (one.label_ids for one in sources), strict=True))

    def prepare() -> Prepared:
        begun = time.perf_counter()
        segmenter = load_segmenter(
            prompts,
            masks,
            vocabulary,
            detect,
            model=model,
            weights=weights,
            clip=clip,
            clip_weights=clip_weights,
            region_embedding=region_embedding,
            proposals=proposals,
            proposal_weights=proposal_weights,
            proposal_mode=proposal_mode,
            embeddings=embeddings,
            device=device,
            precision=precision,
        )
        detector = segmenter.detector
        loaded = time.perf_counter() - begun
        record, details = segment_record(segmenter, prompts)
        return Prepared(
            segmenter,
            record={**record, "output_dir": output_dir, "semantic_field": semantic_field},
            details={
                **details,
                "parameters": {**parameters, **asdict(masks), **(asdict(detect) if detect else {})},
                "source": provenance.source(samples, prompts) if given else None,
            },
            budget=BatchBudget(
                segmenter.batch_size if batch_size == "auto" else resolve_batch_size(batch_size),
                device=segmenter.sam.device,
            ),
            run_class=Run,
            seconds={"load": loaded},
            warnings=[
                *(vocabulary.warnings if vocabulary is not None else ()),
                *(prompt_warnings(detector.clip, vocabulary) if detector is not None else ()),
            ],
        )

    job = Job(
        iter_segment,
        parameters,
        {"classes": vocabulary},
        samples,
        MaskTarget(
            samples,
            label_field,
            _attributes(given, vocabulary),
            prompt_ids=ids,
            semantic_field=semantic_field,
            mask_targets={value: name for name, value in (targets or {}).items()},
        ),
        run_options,
        prepare,
        lambda made: SegmentTask(
            made.model,
            label_field=label_field,
            output_dir=output_dir,
            semantic_field=semantic_field,
            targets=targets,
            num_classes=None if vocabulary is None else len(vocabulary.labels),
        ),
        sources,
    )
    return (yield from steps_of(job, executor))


def _attributes(given: bool, vocabulary: Vocabulary | None) -> str:
    if given:
        return fields.PROMPTED_MASKS
    return fields.MASKS if vocabulary is None else fields.NAMED_MASKS
