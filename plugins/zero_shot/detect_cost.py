"""How long detection takes on a CPU: a rough estimate before anything is loaded."""

from __future__ import annotations

import os
from typing import Any

#: Billions of multiply-adds: of one crop through CLIP's image tower, and of one image through a
#: proposer, as open_clip and torchvision publish them. Bundled models are too small to matter.
GMACS = {
    "clip-vit-b-32": 4.4,
    "clip-vit-b-16": 17.6,
    "clip-vit-l-14": 81.0,
    "siglip2-b-16": 17.6,
    # Of a region through the last stage; the features of the image are computed once
    "clip-rn50": 2.8,
    "regionclip-rn50": 2.8,
    "regionclip-rn50x4": 9.0,
    "fasterrcnn_resnet50_fpn_v2": 280.0,
    "fasterrcnn_resnet50_fpn": 134.0,
    "fasterrcnn_mobilenet_v3_large_fpn": 4.5,
    "maskrcnn_resnet50_fpn": 134.0,
    "maskrcnn_resnet50_fpn_v2": 333.0,
}
_BY_REGION = ("clip-rn50", "regionclip-rn50", "regionclip-rn50x4")
CROPS_PER_REGION = 2

#: Billions of multiply-adds a second that one core of a recent processor does in fp32.
GMACS_PER_CORE_SECOND = 60.0
_MOST_CORES_USED = 16


def cpu_seconds_per_image(
    model: str, proposals: str | None, regions_per_image: float
) -> float | None:
    """Seconds for one image on this machine's CPU, right within a factor of about three.

    Args:
        model: name of the CLIP model
        proposals: name of the proposer, None where boxes exist
        regions_per_image: regions that are scored

    Returns:
        None if nothing is known about one of the models
    """
    per_region = _gmacs(model)
    proposing = 0.0 if proposals is None else _gmacs(proposals)
    if per_region is None or proposing is None:
        return None
    crops = 1 if model in _BY_REGION else CROPS_PER_REGION
    total = proposing + regions_per_image * crops * per_region
    return total / (GMACS_PER_CORE_SECOND * cores_used())


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cores_used() -> int:
    """Of those, how many make a model faster."""
    return min(cores(), _MOST_CORES_USED)


def runs_on_cpu(values: dict[str, Any], devices: list[str]) -> bool:
    """Whether the chosen device is a CPU, as far as can be told without importing torch."""
    chosen = values.get("device", "auto")
    return chosen == "cpu" or (chosen == "auto" and not {"cuda", "mps"} & set(devices))


def _gmacs(name: str) -> float | None:
    return 0.0 if name.startswith("shapes-") else GMACS.get(name)
