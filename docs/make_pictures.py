"""Draws docs/images/{detection,segmentation}-steps.png: what happens, step by step, to one scene;
and evaluate-and-fix.png: mistakes that other words put right.

python docs/make_pictures.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from zs_operators.classifier import ZeroShotClassifier
from zs_operators.clip import load_clip
from zs_operators.detect_options import DetectOptions
from zs_operators.detections import DetectItem
from zs_operators.detector import ZeroShotDetector
from zs_operators.images import UprightImage
from zs_operators.proposals import load_proposer
from zs_operators.sam import load_sam
from zs_operators.sam_prompts import GivenPrompts
from zs_operators.segment_options import SegmentOptions
from zs_operators.segmenter import Segmenter
from zs_operators.shapes.dataset import FIRST_SEED, _cut_out
from zs_operators.shapes.world import CLASSES, make_scene
from zs_operators.vocabulary import Vocabulary

SEED = 970_000_651
SCALE = 2
GAP, TITLE = 24, 44
MIN_CONFIDENCE = 0.4
COLORS = ("#ff6d04", "#00a3ff", "#b400ff", "#00b36b", "#ff2d6f", "#8a6d00")


def main() -> None:
    draw_detection()
    draw_segmentation()
    draw_mistakes()


def draw_detection(proposals: str = "shapes-tiny") -> None:
    clip = load_clip("shapes-tiny", precision="fp32")
    proposer = load_proposer(proposals, max_proposals=40)
    vocabulary = Vocabulary.parse(CLASSES, background=["empty background"])
    detector = ZeroShotDetector(
        clip, vocabulary, DetectOptions(min_confidence=MIN_CONFIDENCE), proposer=proposer
    )
    scene = make_scene(SEED, num_objects=4)
    height, width = scene.image.shape[:2]
    item = DetectItem(UprightImage(scene.image, width, height))

    (proposed,) = proposer.propose([item.image])
    open_detector = ZeroShotDetector(
        clip,
        vocabulary,
        DetectOptions(overlap="none", min_confidence=0.02),
        proposer=proposer,
    )
    (scored,) = open_detector.predict([item])
    (final,) = detector.predict([item])

    panels = [
        _panel(
            scene.image,
            f"1  {len(proposed)} proposals, by objectness",
            [
                (box, None, _shade(score))
                for box, score in zip(
                    proposed.boxes_px.tolist(), proposed.objectness.tolist(), strict=True
                )
            ][::-1],
        ),
        _panel(
            scene.image,
            f"2  {len(scored.detections)} are named by CLIP",
            [
                (d.box_px, None, COLORS[CLASSES.index(d.label) % len(COLORS)])
                for d in reversed(scored.detections)
            ],
        ),
        _panel(
            scene.image,
            f"3  the best of overlapping boxes, above {MIN_CONFIDENCE}",
            [
                (
                    d.box_px,
                    f"{d.label} {d.confidence:.2f}",
                    COLORS[CLASSES.index(d.label) % len(COLORS)],
                )
                for d in final.detections
            ],
        ),
    ]
    _save(panels, "detection-steps.png")


def draw_segmentation() -> None:
    sam = load_sam("shapes-tiny", precision="fp32")
    scene = make_scene(SEED, num_objects=4)
    height, width = scene.image.shape[:2]
    image = UprightImage(scene.image, width, height)
    boxes = [item.box_px for item in scene.objects]
    relative = [
        (x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height) for x1, y1, x2, y2 in boxes
    ]
    prompted = Segmenter(sam)
    (from_boxes,) = prompted.predict([prompted.prepare(image, GivenPrompts(boxes_rel=relative))])
    everything = Segmenter(
        sam, SegmentOptions(min_iou=0.65, min_stability=0.8), source="everything"
    )
    (found,) = everything.predict([everything.prepare(image)])
    panels = [
        _panel(
            scene.image,
            "1  boxes that prompt",
            [
                (box, item.label, COLORS[i % len(COLORS)])
                for i, (box, item) in enumerate(zip(boxes, scene.objects, strict=True))
            ],
        ),
        _mask_panel(scene.image, "2  a mask for each, with its quality", from_boxes),
        _mask_panel(scene.image, f"3  everything: {len(found.masks)} masks, no names", found),
    ]
    _save(panels, "segmentation-steps.png")


def draw_mistakes(count: int = 6) -> None:
    """The most confident mistakes of the story in docs/evaluate-and-fix.md."""
    clip = load_clip("shapes-tiny", precision="fp32")
    crops = [
        (_cut_out(scene, item), item.label)
        for scene in map(make_scene, range(FIRST_SEED, FIRST_SEED + 60))
        for item in scene.objects
    ]
    names = sorted({label for _, label in crops})
    own = {"cyan": "teal", "purple": "violet", "orange": "amber"}
    words = {}
    for name in names:
        color, shape = name.split()
        words[name] = f"{shape} {own.get(color, color)}"
    pixels = [
        clip.preprocess(UprightImage(crop, crop.shape[1], crop.shape[0])) for crop, _ in crops
    ]
    first, renamed = (
        ZeroShotClassifier(clip, Vocabulary.parse(spec)).predict(pixels) for spec in (words, names)
    )
    found = sorted(
        (-said.best.confidence, index)
        for index, ((_, truth), said) in enumerate(zip(crops, first, strict=True))
        if said.best.label != truth
    )
    shown: dict[str, int] = {}  # one of each class, or all would be the same few
    for _, index in found:
        shown.setdefault(crops[index][1], index)
    panels = []
    for truth, index in list(shown.items())[:count]:
        panel = _panel(np.asarray(Image.fromarray(crops[index][0]).resize((120, 120))), "", [])
        draw = ImageDraw.Draw(panel)
        for row, said in enumerate((first[index].best, renamed[index].best)):
            color = "#2e7d32" if said.label == truth else "#c62828"
            text = f"{said.label} {said.confidence:.2f}"
            draw.text((0, 21 * row), text, fill=color, font=ImageFont.load_default(19))
        panels.append(panel)
    _save(panels, "evaluate-and-fix.png")


def _mask_panel(image, title, prediction):
    pixels = image.astype(float)
    labels = []
    for i, mask in enumerate(prediction.masks):
        color = COLORS[i % len(COLORS)]
        x1, y1, x2, y2 = mask.mask.box_px
        part = pixels[y1:y2, x1:x2]
        inside = mask.mask.pixels
        rgb = np.array([int(color[k : k + 2], 16) for k in (1, 3, 5)])
        part[inside] = 0.35 * part[inside] + 0.65 * rgb
        text = f"IoU {mask.predicted_iou:.2f}, stable {mask.stability:.2f}"
        labels.append(((x1, y1, x2, y2), text, color))
    return _panel(pixels.astype(np.uint8), title, labels)


def _save(panels, name):
    sheet = Image.new(
        "RGB",
        (sum(p.width for p in panels) + GAP * (len(panels) + 1), panels[0].height + 2 * GAP),
        "white",
    )
    left = GAP
    for panel in panels:
        sheet.paste(panel, (left, GAP))
        left += panel.width + GAP
    sheet.save(Path(__file__).parent / "images" / name, optimize=True)


def _panel(image, title, boxes):
    picture = Image.fromarray(image).resize(
        (image.shape[1] * SCALE, image.shape[0] * SCALE), Image.LANCZOS
    )
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(18)
    for box, text, color in boxes:
        x1, y1, x2, y2 = (edge * SCALE for edge in box)
        draw.rectangle((x1, y1, x2, y2), outline=color, width=3)
        if text:
            left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
            y = max(0, y1 - (bottom - top) - 8)
            x = min(x1, picture.width - (right - left) - 8)
            draw.rectangle((x, y, x + right - left + 8, y + bottom - top + 8), fill=color)
            draw.text((x + 4, y + 2 - top / 2), text, fill="white", font=font)
    framed = Image.new("RGB", (picture.width, picture.height + TITLE), "white")
    framed.paste(picture, (0, TITLE))
    ImageDraw.Draw(framed).text((0, 8), title, fill="black", font=ImageFont.load_default(22))
    return framed


def _shade(score: float) -> tuple[int, int, int]:
    """From light grey for 0 to the App's orange for 1."""
    low, high = (205, 205, 205), (255, 109, 4)
    return tuple(round(a + (b - a) * score) for a, b in zip(low, high, strict=True))


if __name__ == "__main__":
    main()
