"""What a run and the FiftyOne model of a Sam have in common: options, loading, the record."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import fields as dataclass_fields
from typing import TYPE_CHECKING, Any

from zs_operators.classification import Classes, model_identity, prompt_record
from zs_operators.detection import detect_options, load_detector, proposer_identity
from zs_operators.errors import InvalidInputError
from zs_operators.segment_options import SegmentOptions
from zs_operators.segmenter import EVERYTHING, GIVEN, PROPOSALS, Segmenter

if TYPE_CHECKING:
    from zs_operators.clip import ClipModel
    from zs_operators.detect_options import DetectOptions
    from zs_operators.proposals import Proposer
    from zs_operators.sam import SamModel
    from zs_operators.vocabulary import Vocabulary


def split_options(
    prompts: str, classes: Classes | None, options: Mapping[str, Any]
) -> tuple[SegmentOptions, DetectOptions | None]:
    """Options of masks, and with classes those of what names them.

    Raises:
        InvalidInputError: if the classes do not go with the prompts, or an option is unknown or
            has no meaning
    """
    if prompts == PROPOSALS and classes is None:
        raise InvalidInputError(
            "prompts='proposals' needs classes: the names of what is to be segmented."
        )
    if prompts not in (EVERYTHING, PROPOSALS) and classes is not None:
        raise InvalidInputError(
            f"prompts={prompts!r} keeps the names of its labels, so classes cannot be given: name "
            "the masks afterwards with zs.detect(..., regions=...), or use prompts='proposals'."
        )
    names = {field.name for field in dataclass_fields(SegmentOptions)}
    masks = SegmentOptions(**{name: options[name] for name in options if name in names})
    others = {name: value for name, value in options.items() if name not in names}
    if classes is not None:
        return masks, detect_options(**others)
    if others:
        raise InvalidInputError(
            f"segment got the unknown option {next(iter(others))!r}; without classes it takes "
            f"{', '.join(sorted(names))}."
        )
    return masks, None


def load_segmenter(
    prompts: str,
    masks: SegmentOptions,
    vocabulary: Vocabulary | None,
    detect: DetectOptions | None,
    *,
    model: str | SamModel,
    weights: str | os.PathLike | None,
    clip: str | ClipModel,
    clip_weights: str | os.PathLike | None,
    region_embedding: str,
    proposals: str | Proposer,
    proposal_weights: str | os.PathLike | None,
    proposal_mode: str,
    embeddings: str,
    device: str,
    precision: str,
) -> Segmenter:
    """A Sam, with a vocabulary also what names its masks, and the stores if they are to be used."""
    from zs_operators.sam import load_sam
    from zs_operators.sam_store import SamStore

    sam = load_sam(model, weights, device=device, precision=precision)
    detector = None
    if vocabulary is not None:
        detector = load_detector(
            vocabulary,
            detect,
            find_boxes=prompts == PROPOSALS,
            model=clip,
            weights=clip_weights,
            region_embedding=region_embedding,
            proposals=proposals,
            proposal_weights=proposal_weights,
            proposal_mode=proposal_mode,
            device=device,
            precision=precision,
            embeddings=embeddings,
        )
    return Segmenter(
        sam,
        masks,
        source=prompts if prompts in (EVERYTHING, PROPOSALS) else GIVEN,
        detector=detector,
        store=None if embeddings == "off" else SamStore(sam.identity()),
        refresh=embeddings == "refresh",
    )


def segment_record(segmenter: Segmenter, prompts: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What decides masks, and what else is worth keeping of how they were made."""
    sam, detector = segmenter.sam, segmenter.detector
    record: dict[str, Any] = {
        "task": "segment",
        "prompts": prompts,
        "masks": asdict(segmenter.options),
        "model": {"name": sam.name, **sam.identity()},
        "features": "float32" if segmenter.store is None else "float16",
    }
    details: dict[str, Any] = {"model_details": sam.describe()}
    if detector is not None:
        decisive, recorded = prompt_record(detector.vocabulary)
        record |= {
            **decisive,
            "options": detector.options.decisive(),
            "region_embedding": detector.encoder.method,
            "contexts": list(detector.encoder.contexts),
            "clip": model_identity(detector.clip),
            "proposer": proposer_identity(detector.proposer),
        }
        details |= {**recorded, "clip_details": detector.clip.describe()}
        if detector.proposer is not None:
            details["proposer_details"] = detector.proposer.describe()
    return record, details
