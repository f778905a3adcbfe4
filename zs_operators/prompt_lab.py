"""Try words for the classes on images whose embeddings are stored: no image is read.

>>> lab = PromptLab(dataset, gt_field="ground_truth")
>>> lab.score(["bird", "boat"]).histogram()
>>> lab.score({"bird": ["bird", "gull"], "boat": None}).changed_ids
>>> lab.undo()
>>> lab.write("names")
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from zs_operators.classification import Classes, iter_classify, parse_classes
from zs_operators.classifier import ClassifyOptions, ZeroShotClassifier
from zs_operators.embedding_upkeep import stored_models
from zs_operators.embeddings import EmbeddingStore
from zs_operators.errors import FieldError, InvalidInputError, WeightsError
from zs_operators.model_stores import image_store, with_stored_texts
from zs_operators.progress import show_progress
from zs_operators.prompt_versions import LabVersion, changed_labels, prompt_rows, seconds
from zs_operators.rescoring import CHUNK_SAMPLES, image_keys
from zs_operators.samples import check_samples
from zs_operators.stored_scores import kind_of
from zs_operators.weights import DEFAULT_CLIP, models, plan_weights

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

    from zs_operators.clip import ClipModel
    from zs_operators.report import Progress, RunReport
    from zs_operators.vocabulary import Vocabulary


class PromptLab:
    """Versions of a vocabulary on a collection, each scored from stored embeddings.

    Args:
        samples: a dataset or view of images
        model ("clip-vit-b-32"), weights (None), device ("auto"), precision ("auto"): see
            :func:`zs_operators.classify`; those of the run that stored the embeddings
        gt_field (None): a field of ``Classification`` labels to compare with

    Attributes:
        ids: (N,) object, of the samples with a stored embedding
        num_missing: samples without one; they take no part until they are written
        versions: from the first to the current one

    Raises:
        InvalidInputError: if no sample has a stored embedding, or ``gt_field`` cannot be used
        WeightsError: if weights are missing or do not fit
    """

    def __init__(
        self,
        samples: SampleCollection,
        *,
        model: str | ClipModel = DEFAULT_CLIP,
        weights: str | os.PathLike | None = None,
        gt_field: str | None = None,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        from zs_operators.clip import load_clip

        check_samples(samples)
        if gt_field is not None and kind_of(samples, gt_field) != "Classification":
            raise FieldError(f"gt_field={gt_field!r} must hold a Classification.")
        self.samples = samples
        self.gt_field = gt_field
        self.clip = load_clip(model, weights, device=device, precision=precision)
        self.versions: list[LabVersion] = []
        self._store = image_store(self.clip)
        self._texts = with_stored_texts(self.clip, "reuse")
        ids, paths = samples.values(["id", "filepath"])
        records = self._store.find(image_keys(paths))
        known = records >= 0
        if not known.any():
            raise InvalidInputError(
                f"No embedding of these samples by {self.clip.name!r} is stored: run zs.classify "
                "with embeddings='reuse' first."
            )
        self.ids = np.array(ids, dtype=object)[known]
        self.num_missing = int((~known).sum())
        self._records = records[known]
        truth = [None] * len(ids) if gt_field is None else samples.values(f"{gt_field}.label")
        self._truth = np.array([*truth, None], dtype=object)[:-1][known]

    @property
    def version(self) -> LabVersion | None:
        """The current one."""
        return self.versions[-1] if self.versions else None

    def score(
        self,
        classes: Classes,
        *,
        templates: str | Sequence[str] = "simple",
        background: Sequence[str] | None = None,
        min_confidence: float | None = None,
        min_margin: float | None = None,
        min_cosine: float | None = None,
    ) -> LabVersion:
        """Labels of all images under other words, as a new version.

        Args:
            classes, templates, background, min_confidence, min_margin, min_cosine: see
                :func:`zs_operators.classify`; labels are those it writes with its other options
                left alone

        Raises:
            InvalidInputError: if the words or thresholds cannot be used; versions stay as they were
        """
        vocabulary = parse_classes(
            self.samples, classes, templates=templates, background=background
        )
        limits = {
            name: value
            for name, value in (
                ("min_confidence", min_confidence),
                ("min_margin", min_margin),
                ("min_cosine", min_cosine),
            )
            if value is not None
        }
        columns = self._score(vocabulary, ClassifyOptions(**limits))
        before = self.version
        version = LabVersion(
            vocabulary=vocabulary,
            ids=self.ids,
            **columns,
            truth=self._truth,
            changed=np.zeros(len(self.ids), bool),
            limits=limits,
        )
        version = replace(
            version,
            changed=changed_labels(version.labels, None if before is None else before.labels),
        )
        self.versions.append(version)
        return version

    def undo(self) -> LabVersion:
        """Forgets the current version and returns the one before it.

        Raises:
            InvalidInputError: if there is none before it
        """
        if len(self.versions) < 2:
            raise InvalidInputError("There is no earlier version to go back to.")
        self.versions.pop()
        return self.versions[-1]

    def write(
        self,
        label_field: str,
        *,
        overwrite: bool = False,
        reject_label: str | None = None,
        progress: bool | None = None,
    ) -> RunReport:
        """Stores the labels of the current version, as a run of :func:`zs_operators.classify`.

        Samples without a stored embedding are embedded first, so that all get a label.

        Args:
            label_field: where to write ``Classification`` labels
            overwrite (False): allow replacing existing labels
            reject_label (None): label for rejected images
            progress (None): see :func:`zs_operators.classify`

        Raises:
            InvalidInputError: if nothing was scored yet, or the field cannot be written to
        """
        steps = self.iter_write(label_field, overwrite=overwrite, reject_label=reject_label)
        return show_progress(steps, progress)

    def iter_write(
        self, label_field: str, *, overwrite: bool = False, reject_label: str | None = None
    ) -> Generator[Progress, None, RunReport]:
        """Like :meth:`write`, as a generator: see ``zs_operators.iter_classify``."""
        if self.version is None:
            raise InvalidInputError("There is no version to write: score some words first.")
        return (
            yield from iter_classify(
                self.samples,
                self.version.vocabulary,
                **self.version.limits,
                label_field=label_field,
                model=self.clip,
                overwrite=overwrite,
                reject_label=reject_label,
                embeddings="reuse",
            )
        )

    def _score(self, vocabulary: Vocabulary, options: ClassifyOptions) -> dict[str, np.ndarray]:
        """Columns of a version, computed in chunks so that memory does not grow."""
        classifier = ZeroShotClassifier(self._texts, vocabulary, options)
        rows = self._prompt_vectors(classifier)
        parts: list[dict[str, np.ndarray]] = []
        wins = np.zeros(len(rows), np.int64)
        for start in range(0, len(self._records), CHUNK_SAMPLES):
            vectors, _ = self._store.vectors(self._records[start : start + CHUNK_SAMPLES])
            scores, decisions = classifier.decide(vectors)
            best = decisions.order[:, 0]
            parts.append(
                {
                    "best": best,
                    "second": seconds(scores.logits, best),
                    "confidence": decisions.confidence[:, 0],
                    "margin": decisions.margin[:, 0],
                    "cosine": decisions.cosine[:, 0],
                    "rejected_by": decisions.rejected_by,
                }
            )
            wins += np.bincount((vectors @ rows.T).argmax(axis=1), minlength=len(rows))
            self._store.release()
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return {**columns, "prompt_wins": wins}

    def _prompt_vectors(self, classifier: ZeroShotClassifier) -> np.ndarray:
        """(R, D) float32, a vector for each name and each description."""
        vocabulary = classifier.vocabulary
        count = len(prompt_rows(vocabulary))
        if vocabulary.merge == "max" or count == len(vocabulary.classes):
            return classifier.vectors[:count].numpy()
        alone = replace(vocabulary, merge="max")
        return self._texts.class_vectors(alone)[:count].numpy()


def embedded_models(samples: SampleCollection) -> dict[str, int]:
    """How many of these images each model at hand has embeddings of; no model is loaded.

    Files of weights are not read: other weights of the same architecture count too.

    Returns:
        names of registered CLIP models whose weights are on this machine, most images first
    """
    keys = image_keys(samples.values("filepath"))
    found: dict[str, int] = {}
    for stored in stored_models():
        identity = dict(stored.identity)
        if identity.get("kind") != "image":
            continue
        dim, dtype, extras, facts = identity.pop("vectors")
        del identity["format"]
        store = EmbeddingStore(identity, dim, extras=extras, facts=facts, dtype=dtype)
        count = int((store.find(keys) >= 0).sum())
        for name in _models_of(identity) if count else ():
            found[name] = max(count, found.get(name, 0))
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _models_of(identity: Mapping[str, Any]) -> Iterator[str]:
    for entry in models("clip"):
        with contextlib.suppress(WeightsError):  # some have to be fetched by hand
            plan = plan_weights("clip", entry.name)
            known = plan.sha256 in (None, identity["weights_sha256"])
            if plan.state != "download" and known and plan.architecture == identity["architecture"]:
                yield entry.name
