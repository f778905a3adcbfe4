"""The input for a head: what labelled samples have taught of the classes that are typed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fiftyone.operators.types as types

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

    from zs_operators.vocabulary import Vocabulary
    from zs_operators.weights import WeightsPlan

#: Choice of the picker that stands for zero-shot.
NO_HEAD = "(none)"


def head(
    inputs: types.Object,
    ctx,
    samples: SampleCollection,
    vocabulary: Vocabulary | None,
    plan: WeightsPlan | None,
) -> None:
    """Offers the saved heads that fit the words and the model, where there are any.

    Args:
        inputs: the form
        ctx: the execution context
        samples: what is processed
        vocabulary: the words that were typed, None if they are not usable yet
        plan: of the model, None if it is not usable yet
    """
    from zs_operators.heads.identity import words_of
    from zs_operators.heads.saved import heads_for, list_heads

    saved = list_heads(samples)
    if not saved or vocabulary is None or plan is None:
        return
    fitting = heads_for(
        samples, vocabulary.columns, words_of(vocabulary), plan.sha256, plan.architecture
    )
    if not fitting:
        names = ", ".join(saved[:3])
        inputs.view(
            "head_notice",
            types.Notice(
                label=f"No saved head is for these words and this model ({names} "
                f"{'is' if len(saved) == 1 else 'are'} for others)",
            ),
        )
        return
    view = types.DropdownView()
    view.add_choice(NO_HEAD, label="None: zero-shot")
    for name in fitting:
        view.add_choice(name, label=name)
    inputs.enum(
        "head",
        view.values(),
        default=NO_HEAD,
        label="Head",
        description="What was learned from labelled samples (Sharpen with labelled samples)",
        view=view,
    )


def argument(found: dict[str, Any]) -> dict[str, Any]:
    """Arguments without a head where none was chosen."""
    return {name: value for name, value in found.items() if (name, value) != ("head", NO_HEAD)}
