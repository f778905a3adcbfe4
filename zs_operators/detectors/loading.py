"""What ``detector=`` and ``proposals=`` may name besides our own models, and how it is loaded."""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zs_operators.detectors import hugging_face_files as hub
from zs_operators.detectors.text_detector import TextDetector
from zs_operators.errors import InvalidInputError, OfflineError, UnknownModelError, WeightsError
from zs_operators.redaction import without_secrets
from zs_operators.torch_models import plan_torch_model
from zs_operators.weights_files import file_sha256, forbidden_downloads, refuse_address

HUGGING_FACE = "Hugging Face"
ZOO = "FiftyOne's zoo"

_OPEN, _PROMPT_FREE = "zero-shot", "prompt-free"
_BOXES = ("detection", "instances")


@dataclass(frozen=True)
class DetectorPlan:
    """What a name means; told without the network and without loading anything.

    Attributes:
        name: as it was given
        source: :data:`HUGGING_FACE` or :data:`ZOO`
        state: "local", "cached" or "download"
        path: of a local or cached folder
        takes_text: whether it looks for any classes
        templates: what makes its prompts unless others are chosen; None where not known yet
        licence, size_mb: None where not known
    """

    name: str
    source: str
    state: str
    path: str | None = None
    takes_text: bool = True
    templates: tuple[str, ...] | None = None
    licence: str | None = None
    size_mb: float | None = None


def plan_detector(detector: str | os.PathLike) -> DetectorPlan:
    """Find out what a detector's name means.

    Args:
        detector: a folder with a zero-shot detector of ``transformers``; a model of FiftyOne's
            zoo; or ``owner/name`` of Hugging Face

    Raises:
        MissingDependencyError: if it takes ``transformers`` and that is not installed
        WeightsError: if a folder holds no such model
        UnknownModelError: if there is nothing of that name; the message has the nearest ones
    """
    text = os.fspath(detector).strip()
    refuse_address(text)
    folder = Path(text).expanduser()
    if folder.is_dir():
        hub.require_transformers(folder.name)
        templates = hub.FAMILIES[hub.read_model_type(folder)]
        hub.weights_of(folder)
        path = str(folder.resolve())
        return DetectorPlan(text, HUGGING_FACE, "local", path, templates=templates)
    if text in _zoo_names():
        return replace(_zoo_plan(text), state="cached" if _is_here(text) else "download")
    if hub.is_hub_name(text):
        hub.require_transformers(text)
        cached = hub.cached_folder(text)
        if cached is None:
            return DetectorPlan(text, HUGGING_FACE, "download")
        templates = hub.FAMILIES[hub.read_model_type(cached)]
        return DetectorPlan(text, HUGGING_FACE, "cached", str(cached), templates=templates)
    near = difflib.get_close_matches(text, _zoo_names(), n=3, cutoff=0.4)
    raise UnknownModelError(
        f"there is no detector {without_secrets(text)!r}: give a folder with a zero-shot detector "
        "of transformers, owner/name of Hugging Face, or a model of FiftyOne's zoo"
        + (f" (nearest: {', '.join(near)})" if near else "")
    )


def names_a_detector(proposals: Any) -> bool:
    """Whether ``proposals`` is a detector of another make rather than one of our proposers."""
    if not isinstance(proposals, str | os.PathLike):
        return isinstance(proposals, TextDetector) or _is_fiftyone_model(proposals)
    from zs_operators.proposal_loading import plan_proposer

    try:
        plan_proposer(os.fspath(proposals))
    except (UnknownModelError, WeightsError):
        try:
            plan_detector(proposals)
        except UnknownModelError:
            return False
        except (WeightsError, ImportError):
            # A folder that is neither: who was meant to read it shows in its config
            return _has_model_type(os.fspath(proposals))
        return True
    return False


def load_text_detector(
    detector: Any,
    *,
    device: str = "auto",
    precision: str = "auto",
    allow_download: bool = True,
) -> TextDetector:
    """Load a detector.

    Args:
        detector: see :func:`plan_detector`; or a FiftyOne model, or a :class:`TextDetector`
        device ("auto"), precision ("auto"): where and how it runs; a model that is loaded already
            stays where it is
        allow_download (True): whether what is not on this machine may be downloaded

    Raises:
        InvalidInputError: if it is none of these
        MissingDependencyError, WeightsError, OfflineError, UnknownModelError, DeviceError
    """
    if isinstance(detector, TextDetector):
        return detector
    if _is_fiftyone_model(detector):
        from zs_operators.detectors.fiftyone_model import of_model

        return of_model(detector)
    if not isinstance(detector, str | os.PathLike):
        raise InvalidInputError(
            f"detector must be a name, a folder, a FiftyOne model or a zs.TextDetector, not "
            f"{type(detector).__name__}"
        )
    plan = plan_detector(detector)
    if plan.source == ZOO:
        return _from_zoo(plan, device, allow_download)
    from zs_operators.detectors.hugging_face import load_hugging_face

    folder = Path(plan.path) if plan.path else None
    if folder is None:
        folder = hub.fetch_folder(plan.name, allow_download=allow_download)
    name = folder.name if plan.state == "local" else plan.name
    return load_hugging_face(folder, name=name, device=device, precision=precision)


def weights_sha256(detector: str | os.PathLike) -> str | None:
    """Of the files a name means now; None if they are not here, or FiftyOne's zoo keeps them.

    Raises:
        WeightsError, UnknownModelError, MissingDependencyError: see :func:`plan_detector`
    """
    plan = plan_detector(detector)
    if plan.path is None:
        return None
    return hub.weights_digest(hub.weights_of(Path(plan.path)))


def _from_zoo(plan: DetectorPlan, device: str, allow_download: bool) -> TextDetector:
    import fiftyone.zoo as foz

    from zs_operators.detectors.fiftyone_model import FiftyOneDetector
    from zs_operators.device import resolve_device

    reason = forbidden_downloads(allow_download)
    if reason is not None and not _keeps_to(plan.name):
        raise OfflineError(
            f"the zoo's {plan.name!r} gets its weights from Hugging Face and {reason}: give the "
            "folder of its model instead"
        )
    device = resolve_device(device)

    def load(classes: Sequence[str]) -> Any:
        options: dict[str, Any] = {"device": device}
        if plan.takes_text:
            options["classes"] = list(classes)
        try:
            return foz.load_zoo_model(
                plan.name, download_if_necessary=reason is None, cache=False, **options
            )
        except Exception as error:  # of whichever library the model is
            if reason is not None and "not downloaded" in str(error):
                raise OfflineError(f"{error} and {reason}") from error
            raise WeightsError(
                f"FiftyOne's zoo does not give {plan.name!r}: "
                f"{type(error).__name__}: {without_secrets(str(error))}"
            ) from error

    return FiftyOneDetector(
        plan.name,
        load,
        takes_text=plan.takes_text,
        device=device,
        find_sha256=lambda: _zoo_file_sha256(plan.name),
    )


def _keeps_to(name: str) -> bool:
    """Whether the zoo itself downloads the weights, and so can be kept from it."""
    import fiftyone.zoo as foz

    # Others ask Hugging Face, whose client obeys this variable alone
    return foz.get_zoo_model(name).manager is not None or bool(os.environ.get("HF_HUB_OFFLINE"))


def _is_here(name: str) -> bool:
    """Whether FiftyOne's zoo has downloaded a model."""
    import fiftyone as fo
    import fiftyone.zoo as foz

    entry = foz.get_zoo_model(name)
    return entry.manager is not None and entry.is_in_dir(fo.config.model_zoo_dir)


def _zoo_file_sha256(name: str) -> str | None:
    import fiftyone.zoo as foz

    path = foz.find_zoo_model(name) if _is_here(name) else None
    return file_sha256(path) if path is not None and os.path.isfile(path) else None


@functools.lru_cache(maxsize=1)
def _zoo_names() -> tuple[str, ...]:
    """The models of FiftyOne's zoo that find boxes; which takes a second to tell."""
    import fiftyone.zoo as foz

    return tuple({name for tag in _BOXES for name in foz.list_zoo_models(tags=tag)})


@functools.lru_cache(maxsize=8)
def _zoo_plan(name: str) -> DetectorPlan:
    import fiftyone.zoo as foz

    entry = foz.get_zoo_model(name)
    return DetectorPlan(
        name,
        ZOO,
        "download",
        takes_text=entry.has_tag(_OPEN) and not entry.has_tag(_PROMPT_FREE),
        templates=TextDetector.templates,
        licence=entry.license,
        size_mb=entry.size_bytes / 1e6 if entry.size_bytes else None,
    )


def _is_fiftyone_model(value: Any) -> bool:
    import fiftyone.core.models as fom

    return isinstance(value, fom.Model)


def _has_model_type(folder: str) -> bool:
    try:
        plan_torch_model("proposals", folder)
    except WeightsError as error:
        return "architecture" in str(error)
    except UnknownModelError:
        return False
    return False
