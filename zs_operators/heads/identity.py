"""Which model and which words heads and statistics are for, and refusing all others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zs_operators.errors import InvalidInputError

if TYPE_CHECKING:
    from zs_operators.clip import ClipModel
    from zs_operators.vocabulary import Vocabulary

IMAGE = "image"
"""What ``embedding`` is for whole images; a description for regions."""


def model_of(clip: ClipModel) -> dict[str, Any]:
    """What makes embeddings comparable. Not the precision: its roundings are far below a label."""
    from zs_operators.model_stores import weights_digest

    return {
        "architecture": clip.architecture,
        "weights_sha256": clip.plan.sha256 or weights_digest(clip),
        "preprocessing": json.loads(json.dumps(clip.preprocessing)),
    }


def words_of(vocabulary: Vocabulary) -> str:
    """16 hex digits of the prompts of each class, the same in whatever order classes come."""
    prompts = sorted([prompt.text, prompt.label or ""] for prompt in vocabulary.prompts())
    labels = sorted([name, vocabulary.label_of(name)] for name in vocabulary.classes)
    content = json.dumps([prompts, labels, vocabulary.merge], ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()[:16]


def check_fits(
    what: str,
    model: Mapping[str, Any],
    words: str,
    columns: Sequence[str],
    clip: ClipModel,
    vocabulary: Vocabulary,
) -> None:
    """Refuses another model, another preprocessing, other classes, or other prompts for them.

    Args:
        what: begins the message
        model, words, columns: what it was made with
        clip, vocabulary: what it is to be used with

    Raises:
        InvalidInputError: which says what differs
    """
    here = model_of(clip)
    check_same_model(what, model, here)
    missing = [name for name in columns if name not in vocabulary.columns]
    unknown = [name for name in vocabulary.columns if name not in columns]
    if missing or unknown:
        parts = [f"does not know {_few(unknown)}"] if unknown else []
        parts += [f"has {_few(missing)} besides"] if missing else []
        raise InvalidInputError(
            f"{what} was made for other classes or background prompts: it {' and '.join(parts)}. "
            "Fit one for these classes, or pass classes=None for its own."
        )
    if words != words_of(vocabulary):
        raise InvalidInputError(
            f"{what} was made with other prompts for these classes (names, templates or merge). "
            "Fit one with these, or pass classes=None for its own."
        )


def check_same_model(what: str, model: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Refuses embeddings of another model.

    Raises:
        InvalidInputError: which says what differs
    """
    for key, name in (
        ("architecture", "another architecture"),
        ("weights_sha256", "other weights"),
        ("preprocessing", "another preprocessing"),
    ):
        if model[key] != other[key]:
            raise InvalidInputError(
                f"{what} was made with {name}: {model[key]}, not {other[key]}. Use the model it "
                "was made with."
            )


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more
