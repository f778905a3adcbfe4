"""What a run of detection is made of: its options, its models, and what a record says of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from zs_operators.classification import model_identity, prompt_warnings
from zs_operators.detect_options import DetectOptions
from zs_operators.detector import ZeroShotDetector
from zs_operators.detectors.loading import load_text_detector, names_a_detector
from zs_operators.detectors.proposing import DetectorProposer
from zs_operators.detectors.whole import WholeDetector
from zs_operators.errors import InvalidInputError
from zs_operators.heads import saved as heads
from zs_operators.model_stores import with_stored_texts

if TYPE_CHECKING:
    from zs_operators.clip import ClipModel
    from zs_operators.detectors.text_detector import TextDetector
    from zs_operators.heads.head import Head
    from zs_operators.proposals import Proposer
    from zs_operators.vocabulary import Vocabulary


class DetectSetup(NamedTuple):
    """Who detects, and what is recorded of it.

    Attributes:
        detector: finds, scores and chooses boxes
        record: what of the models decides labels
        details: what else is worth keeping
        warnings: in sentences
        device: where most of it runs
    """

    detector: Any
    record: dict[str, Any]
    details: dict[str, Any]
    warnings: list[str]
    device: str


def with_clip(
    vocabulary: Vocabulary, options: DetectOptions, head: Head | None, **models: Any
) -> DetectSetup:
    """CLIP names boxes; ``models`` are further arguments of :func:`load_detector`."""
    detector = load_detector(vocabulary, options, head=head, **models)
    clip, encoder, proposer = detector.clip, detector.encoder, detector.proposer
    return DetectSetup(
        detector,
        record={
            **heads.decisive(head),
            "region_embedding": encoder.method,
            "contexts": list(encoder.contexts),
            "model": model_identity(clip),
            "proposer": proposer_identity(proposer),
        },
        details={
            "model_details": clip.describe(),
            "head_details": heads.described(head),
            "proposer_details": proposer.describe() if proposer else None,
        },
        warnings=[
            *prompt_warnings(clip, vocabulary),
            *heads.head_warnings(head, encoder.describe()),
        ],
        device=clip.device,
    )


def with_detector(
    given: str | os.PathLike | TextDetector | Any,
    vocabulary: Vocabulary,
    options: DetectOptions,
    *,
    device: str,
    precision: str,
) -> DetectSetup:
    """A detector of another make does all of it."""
    text_detector = load_text_detector(given, device=device, precision=precision)
    whole = WholeDetector(text_detector, vocabulary, options)
    return DetectSetup(
        whole,
        # Its confidences are sigmoids, as those of CLIPs with a logit bias
        record={"model": {"kind": "detector", "logit_bias": 0.0, **text_detector.identity()}},
        details={"model_details": text_detector.describe()},
        warnings=whole.warnings,
        device=text_detector.device,
    )


def check_goes_with_detector(*, finds_boxes: bool, head: Any, embeddings: str) -> None:
    """Refuses what only CLIP can do.

    Raises:
        InvalidInputError: saying what to leave out
    """
    if not finds_boxes:
        raise InvalidInputError(
            "detector= finds boxes of its own, and regions= names boxes there are: give one of them"
        )
    if head is not None:
        raise InvalidInputError("a head adds to CLIP's scores, so it does not go with detector=")
    if embeddings != "off":
        raise InvalidInputError(
            f"embeddings={embeddings!r} stores embeddings of CLIP, and detector= has none: use "
            "embeddings='off', or the detector as proposals="
        )


def load_detector(
    vocabulary: Vocabulary,
    options: DetectOptions,
    *,
    find_boxes: bool,
    model: str | ClipModel,
    weights: str | os.PathLike | None,
    region_embedding: str,
    proposals: str | Proposer | TextDetector | Any,
    proposal_weights: str | os.PathLike | None,
    proposal_mode: str,
    device: str,
    precision: str,
    embeddings: str = "off",
    head: Head | None = None,
) -> ZeroShotDetector:
    """CLIP, and a proposer if boxes are to be found, ready to predict."""
    from zs_operators.clip import load_clip
    from zs_operators.proposals import ProposalOptions, Proposer, load_proposer
    from zs_operators.regions import RegionEncoder

    clip = load_clip(model, weights, device=device, precision=precision)
    encoder = RegionEncoder(clip, region_embedding)
    limits = {"max_proposals": options.max_regions, "min_size_px": options.min_size_px}
    proposer: Any = None
    if find_boxes and isinstance(proposals, Proposer | DetectorProposer):
        proposer = proposals
    elif find_boxes and proposal_weights is None and names_a_detector(proposals):
        found = load_text_detector(proposals, device=device, precision=precision)
        proposer = DetectorProposer(found, vocabulary, ProposalOptions(**limits))
    elif find_boxes:
        proposer = load_proposer(
            proposals,
            proposal_weights,
            device=device,
            precision=precision,
            mode=proposal_mode,
            **limits,
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


def proposer_identity(proposer: Proposer | DetectorProposer | None) -> dict[str, Any] | None:
    """What of a proposer decides boxes."""
    return None if proposer is None else proposer.identity()
