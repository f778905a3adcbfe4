"""Everything once, on the smallest data: what ``make matrix`` runs in each environment.

Needs the package and a ``mongod``, and leaves nothing behind: ``python tools/smoke.py``.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from zs_operators.mongod import fiftyone_environment, start_private_mongod

SHOWN = ("fiftyone", "open_clip_torch", "torch", "torchvision", "numpy", "scikit-learn", "pillow")


def main() -> int:
    with (
        tempfile.TemporaryDirectory(prefix="zs-smoke-") as folder,
        start_private_mongod() as server,
    ):
        home = Path(folder)
        os.environ.update(
            fiftyone_environment(server.uri, plugins_dir=home / "plugins", home=home),
            HF_HUB_OFFLINE="1",
            ZS_STORE_DIR=str(home / "stores"),
        )
        _plugin_registers(home / "plugins")
        _tasks_label(home)
    versions = {name: version(name) for name in SHOWN}
    print(json.dumps({"python": platform.python_version(), **versions}))
    return 0


def _plugin_registers(plugins: Path) -> None:
    import yaml

    from zs_operators.cli import main as zs

    _check(zs(["install"]) == 0, "zs install failed")
    from fiftyone.operators.registry import OperatorRegistry

    registry = OperatorRegistry()
    ours = {one.uri for one in registry.list_operators() if one.uri.startswith("@zs/operators/")}
    manifest = yaml.safe_load((plugins / "@zs" / "operators" / "fiftyone.yml").read_text())
    asked = {f"@zs/operators/{name}" for name in manifest["operators"] + manifest["panels"]}
    _check(not registry.list_errors(), f"the plugin does not load: {registry.list_errors()}")
    _check(asked == ours, f"not registered: {sorted(asked - ours)}")


def _tasks_label(folder: Path) -> None:
    import zs_operators as zs
    from zs_operators.shapes.dataset import OBJECT, SCENE, load_shapes_dataset
    from zs_operators.shapes.world import CLASSES

    dataset = load_shapes_dataset("smoke", num_scenes=8, folder=folder / "data", fresh=True)
    objects, scenes = dataset.match_tags(OBJECT).clone("objects"), dataset.match_tags(SCENE)
    quiet = {"model": "shapes-tiny", "progress": False}

    zs.classify(objects, CLASSES, label_field="quick", **quiet)
    found = zs.evaluate(objects, "quick", "ground_truth", eval_key="ev", progress=False)
    _check(found.metrics["accuracy"] > 0.5, f"accuracy {found.metrics['accuracy']}")
    zs.detect(scenes, CLASSES, label_field="boxes", proposals="shapes-tiny", **quiet)
    _check(scenes.count("boxes.detections") > 8, "too few boxes")
    zs.segment(scenes, prompts="boxes", label_field="masks", **quiet)
    _check(
        scenes.count("masks.detections") == scenes.count("boxes.detections"), "masks are missing"
    )
    head = zs.fit_head(objects, CLASSES, "ground_truth", method="logistic_regression", **quiet)
    zs.classify(objects, None, head=head, label_field="sharp", **quiet)
    _check(objects.count("sharp") == len(objects), "labels of a head are missing")
    objects.apply_model(zs.ClipClassifier(CLASSES, model="shapes-tiny"), "native")
    _check(objects.values("native.label") == objects.values("quick.label"), "apply_model differs")


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise SystemExit(f"smoke: {what}")


if __name__ == "__main__":
    sys.exit(main())
