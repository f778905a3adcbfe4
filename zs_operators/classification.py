"""Zero-shot classification of FiftyOne samples with CLIP."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zs_operators import fields, label_documents, provenance
from zs_operators.class_files import has_known_suffix
from zs_operators.classifier import ClassifyOptions, ZeroShotClassifier
from zs_operators.embeddings import MODES, EmbeddingStore, image_key
from zs_operators.errors import VocabularyError
from zs_operators.executors.jobs import Job, Prepared, steps_of
from zs_operators.heads import saved as heads
from zs_operators.heads.identity import IMAGE
from zs_operators.media_views import labels_images
from zs_operators.model_stores import image_store, with_stored_texts
from zs_operators.option_checks import check_choice
from zs_operators.progress import show_progress
from zs_operators.report import LABELED, REJECTED, Progress, RunReport
from zs_operators.rescoring import RescoringRun
from zs_operators.run_options import RunOptions
from zs_operators.run_parameters import recorded
from zs_operators.runner import CHUNK_SAMPLES, Run
from zs_operators.samples import check_samples, class_names
from zs_operators.saved_vocabularies import list_vocabularies, load_vocabulary
from zs_operators.targets import FieldTarget
from zs_operators.vocabulary import Vocabulary
from zs_operators.weights import DEFAULT_CLIP

if TYPE_CHECKING:
    import fiftyone as fo
    from fiftyone.core.collections import SampleCollection

    from zs_operators.clip import ClipModel
    from zs_operators.executors.options import RayExecutor
    from zs_operators.heads.head import Head

DEFAULT_LABEL_FIELD = "zs_classification"
MAX_RECORDED_PROMPTS = 2_000

Classes = Sequence[str] | Mapping[str, Any] | str | os.PathLike | Vocabulary


class ClassifyTask:
    """What the runner does with one image: see :class:`zs_operators.runner.Task`."""

    name = "classify"
    prefetch_batches = 3
    chunk_samples = CHUNK_SAMPLES

    def __init__(
        self,
        classifier: ZeroShotClassifier,
        reject_label: str | None,
        store: EmbeddingStore | None = None,
    ) -> None:
        self.classifier = classifier
        self.reject_label = reject_label
        self.store = store
        self.reused = 0
        self.num_classes = len(classifier.vocabulary.labels)
        self.budgets = classifier.budgets

    @property
    def warnings(self) -> Sequence[str]:
        """Why the store stopped writing, if it did; what waits is written first."""
        if self.store is None:
            return ()
        self.store.flush()
        return self.store.warnings

    def load(self, filepath: str) -> tuple[bytes | None, Any]:
        # The key of what is read: a file that changes meanwhile is not found under its new one
        key = image_key(filepath) if self.store is not None else None
        return key, self.classifier.load(filepath)

    def infer(self, items: Sequence[tuple[bytes | None, Any]]) -> Sequence[Any]:
        keys, pixels = zip(*items, strict=True)
        embeddings = self.classifier.embed(pixels)
        if self.store is not None:
            embeddings = self.store.put(keys, embeddings)
        return self.classifier.predict_embeddings(embeddings)

    def label(self, result: Any, run: str) -> tuple[fo.Label, str, Sequence[str]]:
        is_list = self.classifier.options.is_list
        build = label_documents.classifications if is_list else label_documents.classification
        label = build(result, run=run, reject_label=self.reject_label)
        outcome = REJECTED if result.rejected_by is not None else LABELED
        return label, outcome, [score.label for score in result.kept]

    @staticmethod
    def scores(result: Any) -> Sequence[Any]:
        """Of the label that wins, for the run's own judgement."""
        return () if result.rejected_by is not None else (result.best,)


def classify(
    samples: SampleCollection,
    classes: Classes | None,
    *,
    progress: bool | Callable | None = None,
    **kwargs: Any,
) -> RunReport:
    """Labels images with the class whose text CLIP finds nearest, and writes native labels.

    Args:
        samples: a dataset or view of images, of groups that hold some, or of videos
        classes: class names as a list; a mapping ``{"car": ["car", "sedan"]}`` of synonyms; a
            ``.txt``, ``.yaml``, ``.json`` or ``.csv`` file; a :class:`Vocabulary`; or the name of
            a vocabulary saved with the dataset or of a label field whose labels are the classes;
            None with a head, for the classes it was fitted for
        label_field ("zs_classification"): where to write ``Classification`` labels, or
            ``Classifications`` with ``top_k`` or ``multi_label``
        model ("clip-vit-b-32"): a registry name, an open_clip architecture or a loaded model
        weights (None): an open_clip pretrained tag, or a local file or folder, which never
            touches the network; None for the model's own
        templates ("simple"): a template set (``"none"``, ``"simple"``, ``"openai_imagenet"``),
            a list of templates with ``{}``, or a file of them
        background (None): prompts for what is none of the classes; an image they win is rejected
        top_k (None): write the k best classes
        multi_label (False): score each class on its own and write all that pass
        min_confidence (None): reject below this probability, in [0, 1]
        min_margin (None): reject where the best logit leads the next by less
        min_cosine (None): reject below this cosine between image and class
        reject_label (None): label for rejected images; None writes a label without a name
        temperature (None): divide logits by this before softmax or sigmoid
        store_logits (False): keep all class logits, in the order of the classes
        head (None): what labelled samples taught, of :func:`zs_operators.fit_head`: its name, its
            file, or itself; for the same model, classes and prompts
        batch_size ("auto"): images per forward pass
        device ("auto"): ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``
        precision ("auto"): ``"fp32"``, ``"bf16"``, ``"fp16"``; of the image tower's weights
        workers (None): reader threads; 0 reads in the calling thread
        overwrite (False): allow replacing existing labels
        resume (True): continue an unfinished run with the same settings
        on_error ("record"): ``"record"`` notes failures in ``<label_field>_error``, ``"raise"``
            stops at the first
        embeddings ("off"): ``"reuse"`` takes embeddings of images and prompts from a store on disk
            and adds what is missing, ``"refresh"`` computes and stores all again; see
            docs/embeddings.md
        executor ("local"): who does the work: this process, or with ``"ray"`` or a
            :class:`RayExecutor` many processes on this machine or a cluster; see docs/scale-out.md
        group_slice (None): of a grouped dataset: a slice, several, or ``"all"`` that hold images;
            None is the active slice
        frames_per_second (None): of videos: how many frames of a second to label, above 0. Their
            images are read once, and labels go to ``frames.<label_field>``; None takes the frames
            that have an image (``filepath``) already
        frames_dir (None): where images of frames are written; None is beside each video
        progress (None): True, False, None for FiftyOne's default, or a callback that gets the
            progress bar

    Returns:
        a :class:`RunReport`

    Raises:
        InvalidInputError: if an argument cannot be used, before anything is written
        WeightsError: if weights are missing or do not fit
        RunError: if no sample could be labelled
    """
    return show_progress(iter_classify(samples, classes, **kwargs), progress)


@labels_images
def iter_classify(
    samples: SampleCollection,
    classes: Classes | None,
    *,
    label_field: str = DEFAULT_LABEL_FIELD,
    model: str | ClipModel = DEFAULT_CLIP,
    weights: str | os.PathLike | None = None,
    templates: str | Sequence[str] = "simple",
    background: Sequence[str] | None = None,
    top_k: int | None = None,
    multi_label: bool = False,
    min_confidence: float | None = None,
    min_margin: float | None = None,
    min_cosine: float | None = None,
    reject_label: str | None = None,
    temperature: float | None = None,
    store_logits: bool = False,
    head: str | os.PathLike | Head | None = None,
    batch_size: int | str = "auto",
    device: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    overwrite: bool = False,
    resume: bool = True,
    on_error: str = "record",
    embeddings: str = "off",
    executor: str | RayExecutor = "local",
) -> Generator[Progress, None, RunReport]:
    """Like :func:`classify`, as a generator that yields :class:`Progress` after each chunk.

    Everything yielded so far is in the database; closing the generator cancels the run. The
    generator's return value is the :class:`RunReport`.
    """
    parameters = recorded(locals())
    from zs_operators.clip import load_clip
    from zs_operators.device import BatchBudget, resolve_batch_size

    check_samples(samples)
    check_choice("embeddings", embeddings, MODES)
    options = ClassifyOptions(
        top_k=top_k,
        multi_label=multi_label,
        min_confidence=min_confidence,
        min_margin=min_margin,
        min_cosine=min_cosine,
        temperature=temperature,
        store_logits=store_logits,
    )
    run_options = RunOptions(workers=workers, overwrite=overwrite, resume=resume, on_error=on_error)
    head = heads.resolve(samples, head)
    classes = heads.classes_for(head, classes)
    vocabulary = parse_classes(samples, classes, templates=templates, background=background)
    label_type = "Classifications" if options.is_list else "Classification"
    fields.check_label_field(
        samples, label_field, "classify", overwrite=overwrite, label_type=label_type
    )
    resolve_batch_size(batch_size)

    def prepare() -> Prepared:
        begun = time.perf_counter()
        clip = load_clip(model, weights, device=device, precision=precision)
        weighed = with_neutral_prompts(vocabulary, clip, options)
        loaded = time.perf_counter()
        texts = with_stored_texts(clip, embeddings)
        classifier = ZeroShotClassifier(texts, weighed, options, head=head)
        encoded = time.perf_counter()
        decisive, details = prompt_record(weighed)
        store = None if embeddings == "off" else image_store(clip)
        return Prepared(
            classifier,
            record={
                "task": "classify",
                **decisive,
                **heads.decisive(head),
                "options": vars(options),
                "reject_label": reject_label,
                "model": model_identity(clip),
            },
            details={
                **details,
                "vocabulary": vocabulary.to_dict(),
                "parameters": parameters,
                "model_details": clip.describe(),
                "head_details": heads.described(head),
                "embeddings": embeddings,
            },
            budget=BatchBudget(
                resolve_batch_size(batch_size, clip.device, clip.precision), device=clip.device
            ),
            run_class=RescoringRun if embeddings == "reuse" else Run,
            seconds={"load": loaded - begun, "text": encoded - loaded},
            warnings=[
                *weighed.warnings,
                *prompt_warnings(clip, weighed),
                *heads.head_warnings(head, IMAGE),
            ],
            store=store,
        )

    job = Job(
        iter_classify,
        parameters,
        {"classes": vocabulary, "head": head},
        samples,
        FieldTarget(samples, label_field, label_type),
        run_options,
        prepare,
        lambda made: ClassifyTask(made.model, reject_label, made.store),
    )
    return (yield from steps_of(job, executor))


def parse_classes(
    samples: SampleCollection | None,
    classes: Classes,
    *,
    templates: str | Sequence[str] = "simple",
    background: Sequence[str] | None = None,
) -> Vocabulary:
    """The vocabulary meant by ``classes``: a file if its name ends like one, else one that is
    saved with the dataset, else a label field.

    Raises:
        VocabularyError: if no usable class names come of it
    """
    if isinstance(classes, str) and not has_known_suffix(classes):
        if samples is None:
            raise VocabularyError(f"classes={classes!r} is not a file: pass a list of names.")
        if classes in list_vocabularies(samples):
            classes = load_vocabulary(samples, classes)
        else:
            classes = class_names(samples, None if classes == "default_classes" else classes)
    return Vocabulary.parse(classes, templates=templates, background=background)


def with_neutral_prompts(
    vocabulary: Vocabulary, clip: ClipModel, options: ClassifyOptions
) -> Vocabulary:
    """Adds what classes are weighed against one by one where a softmax model needs it."""
    from zs_operators.scoring import NEUTRAL_PROMPTS

    if not options.multi_label or clip.is_sigmoid or vocabulary.background:
        return vocabulary
    return Vocabulary.parse(vocabulary, background=NEUTRAL_PROMPTS)


def prompt_record(vocabulary: Vocabulary) -> tuple[dict[str, Any], dict[str, Any]]:
    """What of a vocabulary decides labels, and what a run keeps of it besides."""
    prompts = [[prompt.text, prompt.label] for prompt in vocabulary.prompts()]
    decisive = {
        "prompts_digest": provenance.signature({"prompts": prompts}),
        "columns": list(vocabulary.columns),
    }
    if settings := vocabulary.scoring_settings():
        decisive["scoring_digest"] = provenance.signature(settings)
    details = {
        "vocabulary": vocabulary.to_dict(),
        # A document has its limits; the vocabulary gives back longer lists
        "prompts": prompts if len(prompts) <= MAX_RECORDED_PROMPTS else None,
        "num_prompts": len(prompts),
    }
    return decisive, details


def prompt_warnings(clip: ClipModel, vocabulary: Vocabulary) -> list[str]:
    """Names the prompts that the model's text tower would cut off."""
    too_long = clip.too_long([prompt.text for prompt in vocabulary.prompts()])
    if not too_long:
        return []
    shown = "; ".join(repr(text) for text in too_long[:3])
    more = f" and {len(too_long) - 3} more" if len(too_long) > 3 else ""
    return [
        f"{len(too_long)} prompts are longer than the model's {clip.context_length} tokens and "
        f"are cut off: {shown}{more}."
    ]


def model_identity(clip: ClipModel) -> dict[str, Any]:
    """What of a model decides labels: not its device, its versions or where its file lies."""
    return {
        "name": clip.name,
        "architecture": clip.architecture,
        "weights_sha256": clip.plan.sha256,
        "pretrained": clip.plan.pretrained,
        "precision": clip.precision,
        "preprocessing": clip.preprocessing,
        "logit_scale": clip.logit_scale,
        "logit_bias": clip.logit_bias,
    }
