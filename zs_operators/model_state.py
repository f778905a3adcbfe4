"""What of the registry can run here now, and what the rest lacks; cheap enough for every keystroke.

No torch, no network: files are looked up in caches, packages are looked for and not imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from zs_operators.model_files import missing_files
from zs_operators.model_pull import how_to_fetch_by_hand
from zs_operators.model_registry import ModelEntry, models
from zs_operators.weights_files import is_offline

#: What to install for a package of ``needs``, where its name on PyPI differs
_INSTALL = {
    "transformers": "transformers sentencepiece",
    "segment_anything_hq": "segment-anything-hq",
    "mobile_sam": "git+https://github.com/ChaoningZhang/MobileSAM.git",
}


@dataclass(frozen=True)
class ModelState:
    """Whether a model can run here.

    Attributes:
        name: of the model
        weights: "bundled", "here" or "missing"
        lacks: packages that are not installed
        can_run: at once, or after a download that is allowed
        how: what to do if it cannot run at once, in one line; else None
    """

    name: str
    weights: str
    lacks: tuple[str, ...]
    can_run: bool
    how: str | None


def model_state(entry: ModelEntry) -> ModelState:
    """What a model lacks here."""
    if entry.folder is not None:
        weights = "bundled"
    else:
        weights = "missing" if missing_files(entry) else "here"
    lacks = tuple(package for package in entry.needs if find_spec(package) is None)
    is_by_hand = entry.file is not None
    can_fetch = not is_by_hand and not is_offline()
    steps = []
    if lacks:
        steps.append("pip install " + " ".join(_INSTALL.get(one, one) for one in lacks))
    if weights == "missing":
        if is_by_hand:
            steps.append(how_to_fetch_by_hand(entry))
        elif is_offline():
            steps.append(f"zs pull {entry.name}, or zs pull --from BUNDLE: downloads are off")
        else:
            steps.append(f"zs pull {entry.name}")
    return ModelState(
        entry.name,
        weights,
        lacks,
        can_run=not lacks and (weights != "missing" or can_fetch),
        how="; ".join(steps) or None,
    )


def model_states(kind: str | None = None) -> tuple[ModelState, ...]:
    """Of all models, or of those of one kind, in the registry's order."""
    return tuple(model_state(entry) for entry in models(kind))
