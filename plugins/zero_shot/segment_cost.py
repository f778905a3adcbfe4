"""What a segmentation costs: time on a CPU and bytes of masks, roughly, before anything is loaded.

Times are seconds of one core of a Xeon with AVX-512 in fp32; bytes were measured on masks of the
shapes world in images of 640 x 480 and 1920 x 1080 px. Both are right within a factor of about
three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import detect_cost, segment_target

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

#: Core seconds to encode an image: vit_b was measured, the others have 3.1 and 6.1 times its
#: multiply-adds (486, 1493 and 2981 billion, by torch's FlopCounterMode).
ENCODE_SECONDS = {"sam-vit-b": 11.5, "sam-vit-l": 35.0, "sam-vit-h": 70.0, "shapes-sam": 0.01}

#: Core seconds to decode a prompt, whose decoder is the same for all three, and to resize its mask.
PROMPT_SECONDS = {"sam-vit-b": 0.09, "sam-vit-l": 0.09, "sam-vit-h": 0.09, "shapes-sam": 0.005}

#: Masks of everything in a photo: SA-1B has about 100 an image (arXiv 2304.02643, section 5).
MASKS_OF_EVERYTHING = 100

#: Width and height of an object where its box is not known yet, as a fraction of the image's.
TYPICAL_SIDE = 0.2

#: Bytes a pixel around a mask's box: 0.95 and 1.07 in the database, as PNG 1.26 and 1.36.
BYTES_PER_PX = 1.0
PNG_BYTES_PER_PX = 1.3

#: Of a stored embedding: 256 x 64 x 64 of float16.
EMBEDDING_BYTES = 2 * 2**20

# CLIP sees a box in two contexts, and what is in the mask
_CROPS_PER_MASK = detect_cost.CROPS_PER_REGION + 1

_LABELS_LOOKED_AT = 100  # images whose boxes are averaged


@dataclass(frozen=True)
class Cost:
    """Of one image.

    Attributes:
        masks: number of masks
        at_most: whether that is a limit, not an expectation
        bytes: of its masks as they are stored; None if no image could be looked at
        cpu_seconds: None if nothing is known about a model
    """

    masks: float
    at_most: bool
    bytes: float | None
    cpu_seconds: float | None


def per_image(
    values: Mapping[str, Any],
    prompts: str,
    chosen: SampleCollection,
    total: int,
    *,
    is_naming: bool,
) -> Cost:
    """Estimate of a run.

    Args:
        values: arguments of the engine, as far as they are given
        prompts: ``"everything"``, ``"proposals"`` or a field
        chosen: what is segmented, patches included
        total: number of images
        is_naming: whether masks are named with CLIP
    """
    from zs_operators.proposal_loading import DEFAULT_PROPOSER
    from zs_operators.weights import DEFAULT_CLIP

    sides = (TYPICAL_SIDE, TYPICAL_SIDE)
    at_most = False
    images, decoded = 1, 0.0
    naming: float | None = 0.0
    clip = values.get("clip", DEFAULT_CLIP)
    if prompts == segment_target.EVERYTHING:
        images, decoded = everything(
            int(values.get("points_per_side", 32)), int(values.get("crop_n_layers", 0))
        )
        masks = float(min(MASKS_OF_EVERYTHING, 3 * decoded))
        if is_naming:
            naming = detect_cost.cpu_seconds_per_image(
                clip, None, masks * _CROPS_PER_MASK / detect_cost.CROPS_PER_REGION
            )
            masks, at_most = min(masks, float(values.get("max_detections", 100))), True
    elif prompts == segment_target.PROPOSALS:
        masks = decoded = float(values.get("max_detections", 100))
        at_most = True
        naming = detect_cost.cpu_seconds_per_image(
            clip,
            values.get("proposals", DEFAULT_PROPOSER),
            float(values.get("max_regions", 300)),
        )
    else:
        masks = decoded = segment_target.count_prompts(chosen, prompts) / max(total, 1)
        sides = _sides(chosen, prompts) or sides
    masks = min(masks, float(values.get("max_masks") or masks))
    return Cost(
        masks,
        at_most,
        _bytes(values, chosen, masks, sides),
        _cpu_seconds(values, images, decoded, naming),
    )


def everything(points_per_side: int, crop_n_layers: int) -> tuple[int, int]:
    """Images that are encoded and points that are decoded for one image, of usual proportions.

    As :func:`zs_operators.everything.count_work` says it, which needs torch.
    """
    crops = sum(4**layer for layer in range(crop_n_layers + 1))
    return crops, crops * points_per_side**2


def _cpu_seconds(
    values: Mapping[str, Any], images: int, decoded: float, naming: float | None
) -> float | None:
    from zs_operators.sam_loading import DEFAULT_SAM

    model = values.get("model", DEFAULT_SAM)
    if model == "shapes-tiny":
        model = "shapes-sam"
    if model not in ENCODE_SECONDS or naming is None:
        return None
    work = images * ENCODE_SECONDS[model] + decoded * PROMPT_SECONDS[model]
    return work / detect_cost.cores_used() + naming


def _bytes(
    values: Mapping[str, Any],
    chosen: SampleCollection,
    masks: float,
    sides: tuple[float, float],
) -> float | None:
    size = _size_px(chosen)
    if size is None:
        return None
    around_px = 2 * (sides[0] * size[0] + sides[1] * size[1])
    one = around_px * (PNG_BYTES_PER_PX if values.get("output_dir") else BYTES_PER_PX)
    # The outlines of all masks are also those of the one mask of all classes
    return masks * one * (2 if values.get("semantic_field") else 1)


def _size_px(samples: SampleCollection) -> tuple[int, int] | None:
    """Width and height of the first image; None if it cannot be read."""
    from zs_operators.errors import ZeroShotError
    from zs_operators.images import read_size

    try:
        return read_size(samples.limit(1).values("filepath")[0])
    except ZeroShotError:
        return None


def _sides(samples: SampleCollection, field: str) -> tuple[float, float] | None:
    """Mean width and height of the first boxes, as fractions; None if there are none."""
    from zs_operators.prompt_fields import read_prompts

    first = read_prompts(samples.limit(_LABELS_LOOKED_AT), field)
    boxes = [box for one in first for box in one.given.boxes_rel or ()]
    known = [box[2:] for box in boxes if 0 <= box[2] <= 1 and 0 <= box[3] <= 1]
    if not known:
        return None
    widths, heights = zip(*known, strict=True)
    return sum(widths) / len(known), sum(heights) / len(known)
