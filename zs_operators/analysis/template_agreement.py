"""Whether templates agree: each alone against all together, on stored embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zs_operators.errors import InvalidInputError

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

#: Images that are looked at, and templates that are tried
MAX_IMAGES = 2_000
MAX_TEMPLATES = 20


def template_agreement(
    samples: SampleCollection, record: Mapping[str, Any], *, max_images: int = MAX_IMAGES
) -> dict[str, float]:
    """For each template the share of images that it alone gives the label of all together.

    No image is read: samples without a stored embedding are left out. The model is loaded for its
    text tower.

    Args:
        samples: a dataset or view of images
        record: of a run of :func:`zs_operators.classify`
        max_images (2000): look at so many images, drawn from all of them

    Raises:
        InvalidInputError: if the run has a single template, or no image an embedding
        WeightsError: if the run's model is not here
    """
    from zs_operators.prompt_lab import PromptLab
    from zs_operators.vocabulary import Vocabulary

    vocabulary = Vocabulary.parse(record["vocabulary"])
    if len(vocabulary.templates) < 2:
        raise InvalidInputError("the run has a single template")
    model = record["model"]
    if len(samples) > max_images:
        samples = samples.take(max_images, seed=0)
    parameters = record.get("parameters") or {}
    lab = PromptLab(
        samples,
        model=model["name"],
        weights=parameters.get("weights"),
        precision=model["precision"],
    )
    if lab.clip.plan.sha256 != model.get("weights_sha256"):
        raise InvalidInputError(f"{model['name']!r} has other weights here than the run had")
    together = lab.score(vocabulary).labels
    found = {}
    for template in vocabulary.templates[:MAX_TEMPLATES]:
        alone = lab.score(vocabulary, templates=[template]).labels
        found[template] = float((alone == together).mean())
    return found
