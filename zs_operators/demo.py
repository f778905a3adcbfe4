"""``zs demo``: zero-shot labels on a dataset with known answers, from nothing, in a minute."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from zs_operators.shapes.dataset import OBJECT, load_shapes_dataset
from zs_operators.shapes.world import CLASSES

if TYPE_CHECKING:
    import fiftyone as fo

    from zs_operators.report import RunReport

LABEL_FIELD = "zs_classification"
EVAL_KEY = "zs_classification_eval"


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

    say = sys.stdout.write
    say("Making the shapes dataset …\n")
    dataset = load_shapes_dataset(options.name, num_scenes=options.scenes, fresh=options.fresh)
    objects = dataset.match_tags(OBJECT)
    say(f"{dataset.name}: {len(dataset) - len(objects)} scenes, {len(objects)} objects\n\n")

    report = classify_objects(dataset)
    say(f"{report}\n\n")
    accuracy = evaluate_objects(dataset)
    save_views(dataset)
    say(format_accuracy(accuracy, num_classes=len(CLASSES)))
    say(
        f"\nLook at it:  fiftyone app launch {dataset.name}    (or: zs demo --app)\n"
        "In the App: saved views 'objects' and 'mistakes'; press ` and choose "
        "'Classify images by text' to label samples with class names of your own.\n"
    )
    if options.app:
        import fiftyone as fo

        session = fo.launch_app(dataset, view=objects)
        session.wait(-1)
    return 0


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


def evaluate_objects(dataset: fo.Dataset) -> dict[str, tuple[int, float]]:
    """Number of objects and top-1 accuracy by split, from FiftyOne's own evaluation."""
    objects = dataset.match_tags(OBJECT)
    if dataset.has_evaluation(EVAL_KEY):
        dataset.delete_evaluation(EVAL_KEY)
    objects.evaluate_classifications(LABEL_FIELD, gt_field="ground_truth", eval_key=EVAL_KEY)
    accuracy = {}
    for split in ("seen", "unseen"):
        view = objects.match_tags(split)
        right = view.values(EVAL_KEY)
        accuracy[split] = (len(right), sum(right) / max(1, len(right)))
    return accuracy


def save_views(dataset: fo.Dataset) -> None:
    """Saves the views that the closing message names."""
    from fiftyone import ViewField as F

    objects = dataset.match_tags(OBJECT)
    dataset.save_view("objects", objects, overwrite=True)
    dataset.save_view("mistakes", objects.match(~F(EVAL_KEY)), overwrite=True)


def format_accuracy(accuracy: dict[str, tuple[int, float]], num_classes: int) -> str:
    """The accuracies as a small table, with the harmonic mean of seen and unseen."""
    seen, unseen = accuracy["seen"][1], accuracy["unseen"][1]
    harmonic = 2 * seen * unseen / (seen + unseen) if seen + unseen else 0.0
    rows = [
        f"{'classes':<34}{'objects':>8}{'top-1':>8}",
        f"{'seen in training':<34}{accuracy['seen'][0]:>8}{seen:>8.3f}",
        f"{'never seen in training':<34}{accuracy['unseen'][0]:>8}{unseen:>8.3f}",
        f"{'harmonic mean':<34}{'':>8}{harmonic:>8.3f}",
        f"Each object was named by one of {num_classes} class names; chance is "
        f"{1 / num_classes:.3f}.",
    ]
    return "\n".join(rows) + "\n"
