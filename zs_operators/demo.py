"""``zs demo``: zero-shot labels on a dataset with known answers, from nothing, in a minute."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zs_operators.shapes.dataset import OBJECT, SCENE, load_shapes_dataset
from zs_operators.shapes.world import CLASSES, SEEN, UNSEEN

if TYPE_CHECKING:
    import fiftyone as fo

    from zs_operators.report import RunReport

LABEL_FIELD = "zs_classification"
EVAL_KEY = "zs_classification_eval"
DETECTION_FIELD = "zs_detections"
DETECTION_EVAL_KEY = "zs_detections_eval"
MASK_FIELD = "zs_masks"
MASK_EVAL_KEY = "zs_masks_eval"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the demo; see ``zs demo --help``."""
    parser = argparse.ArgumentParser(
        prog="zs demo",
        description="Make the shapes dataset, label it zero-shot with the bundled models, "
        "evaluate against its ground truth and say where to look.",
    )
    parser.add_argument("--name", default="zs-demo", help="name of the dataset (zs-demo)")
    parser.add_argument("--scenes", type=int, default=60, help="number of scenes (60)")
    parser.add_argument("--fresh", action="store_true", help="make the dataset anew")
    parser.add_argument("--app", action="store_true", help="open the FiftyOne App on the result")
    options = parser.parse_args(argv)

    # FiftyOne would greet people with a warning about the version of its own database
    os.environ.setdefault("FIFTYONE_DATABASE_VALIDATION", "false")
    # and repeats every line of its evaluation in its log
    logging.getLogger("fiftyone").setLevel(logging.WARNING)
    say = sys.stdout.write
    say("Making the shapes dataset …\n")
    dataset = load_shapes_dataset(options.name, num_scenes=options.scenes, fresh=options.fresh)
    objects = dataset.match_tags(OBJECT)
    say(f"{dataset.name}: {len(dataset) - len(objects)} scenes, {len(objects)} objects\n\n")

    say(f"{classify_objects(dataset)}\n\n")
    say(f"{detect_objects(dataset)}\n\n")
    say(f"{segment_objects(dataset)}\n\n")
    accuracy = evaluate_objects(dataset)
    boxes = evaluate_instances(dataset, DETECTION_FIELD, DETECTION_EVAL_KEY)
    masks = evaluate_instances(dataset, MASK_FIELD, MASK_EVAL_KEY, use_masks=True)
    save_views(dataset)
    say(format_results(accuracy, boxes, masks, num_classes=len(CLASSES)))
    say("\n" + where_to_look(dataset.name))
    if options.app:
        import fiftyone as fo

        session = fo.launch_app(dataset, view=dataset.load_saved_view("scenes"))
        session.wait(-1)
    return 0


def where_to_look(name: str) -> str:
    """How to open the result, with commands that work from here."""
    from zs_operators.install import find_installed

    folder = Path(sys.executable).parent
    on_path = shutil.which("zs") is not None
    prefix = "" if on_path else f"{os.path.relpath(folder)}{os.sep}"
    lines = [
        f"Open it:     {prefix}zs demo --app     (or: {prefix}fiftyone app launch {name})",
        "Saved views: 'scenes' (boxes and masks), 'objects' and 'mistakes' (classified)",
    ]
    if find_installed():
        lines.append("Your turn:   press ` in the App and choose 'Classify images by text'")
    else:
        lines.append(
            f"Your turn:   {prefix}zs install, then press ` in the App and choose "
            "'Classify images by text'"
        )
    return "\n".join(lines) + "\n"


def classify_objects(dataset: fo.Dataset) -> RunReport:
    """Labels every cut-out object with the one of 64 class names that the bundled CLIP prefers."""
    from zs_operators.classification import classify

    return classify(
        dataset.match_tags(OBJECT),
        list(CLASSES),
        label_field=LABEL_FIELD,
        model="shapes-tiny",
        overwrite=dataset.has_field(LABEL_FIELD),
        progress=False,
    )


def detect_objects(dataset: fo.Dataset) -> RunReport:
    """Finds and names the objects of every scene with the bundled proposer and CLIP."""
    from zs_operators.detection import detect

    return detect(
        dataset.match_tags(SCENE),
        list(CLASSES),
        label_field=DETECTION_FIELD,
        model="shapes-tiny",
        proposals="shapes-tiny",
        max_regions=50,
        min_confidence=0.1,
        overwrite=dataset.has_field(DETECTION_FIELD),
        progress=False,
    )


def segment_objects(dataset: fo.Dataset) -> RunReport:
    """Turns the boxes that were found into masks with the bundled SAM."""
    from zs_operators.segmentation import segment

    return segment(
        dataset.match_tags(SCENE),
        label_field=MASK_FIELD,
        prompts=DETECTION_FIELD,
        model="shapes-tiny",
        overwrite=dataset.has_field(MASK_FIELD),
        progress=False,
    )


def evaluate_objects(dataset: fo.Dataset) -> dict[str, tuple[int, float]]:
    """Number of objects and top-1 accuracy by split, from FiftyOne's own evaluation."""
    objects = dataset.match_tags(OBJECT)
    if dataset.has_evaluation(EVAL_KEY):
        dataset.delete_evaluation(EVAL_KEY)
    objects.evaluate_classifications(LABEL_FIELD, gt_field="ground_truth", eval_key=EVAL_KEY)
    accuracy = {}
    for split in ("seen", "unseen"):
        right = objects.match_tags(split).values(EVAL_KEY)
        accuracy[split] = (len(right), sum(right) / max(1, len(right)))
    return accuracy


def evaluate_instances(
    dataset: fo.Dataset, label_field: str, eval_key: str, *, use_masks: bool = False
) -> dict[str, float]:
    """AP at IoU 0.5 by split, the mean over its classes, from FiftyOne's own evaluation."""
    if dataset.has_evaluation(eval_key):
        dataset.delete_evaluation(eval_key)
    results = dataset.match_tags(SCENE).evaluate_detections(
        label_field,
        gt_field="objects",
        eval_key=eval_key,
        use_masks=use_masks,
        compute_mAP=True,
        iou_threshs=[0.5],
        classes=list(CLASSES),
        progress=False,
    )
    return {"seen": results.mAP(classes=list(SEEN)), "unseen": results.mAP(classes=list(UNSEEN))}


def save_views(dataset: fo.Dataset) -> None:
    """Saves the views that the closing message names."""
    from fiftyone import ViewField as F

    objects = dataset.match_tags(OBJECT)
    dataset.save_view("objects", objects, overwrite=True)
    dataset.save_view("mistakes", objects.match(~F(EVAL_KEY)), overwrite=True)
    scenes = dataset.match_tags(SCENE).select_fields(["objects", DETECTION_FIELD, MASK_FIELD])
    dataset.save_view("scenes", scenes, overwrite=True)


def format_results(
    accuracy: dict[str, tuple[int, float]],
    boxes: dict[str, float],
    masks: dict[str, float],
    num_classes: int,
) -> str:
    """Accuracy and average precision as a small table, with harmonic means."""
    tops = {split: top for split, (_, top) in accuracy.items()}
    columns = (("top-1", tops), ("AP50 boxes", boxes), ("AP50 masks", masks))

    def row(name: str, count: str, cells: list[str]) -> str:
        return f"{name:<26}{count:>8}" + "".join(f"{cell:>12}" for cell in cells)

    rows = [row("", "objects", [name for name, _ in columns])]
    for split, name in (("seen", "seen in training"), ("unseen", "never seen in training")):
        cells = [f"{values[split]:.3f}" for _, values in columns]
        rows.append(row(name, str(accuracy[split][0]), cells))
    means = [f"{_harmonic(values['seen'], values['unseen']):.3f}" for _, values in columns]
    rows.append(row("harmonic mean", "", means))
    rows.append(
        f"top-1: cut-out objects named by one of {num_classes} class names (chance "
        f"{1 / num_classes:.3f}); AP50: objects found and named in scenes."
    )
    return "\n".join(rows) + "\n"


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b > 0 else 0.0
