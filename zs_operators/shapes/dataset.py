"""The shapes world as a FiftyOne dataset: scenes, boxes, masks and cut-out objects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zs_operators.errors import InvalidInputError
from zs_operators.shapes.world import SEEN, Scene, SceneObject, make_scene

if TYPE_CHECKING:
    import fiftyone as fo

#: Scenes of this dataset begin here: no training, validation or test scene has these seeds.
FIRST_SEED = 970_000_000
#: Tags of the two kinds of samples.
SCENE, OBJECT = "scene", "object"
#: An object is cut out with this much of its surroundings: its box, scaled about its centre.
CROP_CONTEXT = 1.25

_VERSION = 1


def load_shapes_dataset(
    name: str = "zs-demo",
    *,
    num_scenes: int = 60,
    folder: str | Path | None = None,
    fresh: bool = False,
) -> fo.Dataset:
    """Makes the dataset, or loads it if it was made before with the same number of scenes.

    Samples tagged ``"scene"`` hold 1-6 objects with ``objects`` (``Detections`` with masks);
    samples tagged ``"object"`` are those objects cut out, with ``ground_truth``
    (``Classification``). Both are also tagged ``"seen"`` or ``"unseen"``; a scene is unseen if
    any of its objects is of a class that no model of this package was trained on.

    Args:
        name ("zs-demo"): name of the dataset
        num_scenes (60): number of scenes
        folder (None): where images are written; a folder of that name in FiftyOne's default
            dataset folder if None
        fresh (False): delete and make it anew

    Raises:
        InvalidInputError: if ``num_scenes`` is below 1, or a dataset of that name exists and was
            not made by this function
    """
    import fiftyone as fo

    if num_scenes < 1:
        raise InvalidInputError(f"num_scenes={num_scenes} must be at least 1.")

    made = {"made_by": "zs_operators.shapes", "version": _VERSION, "num_scenes": num_scenes}
    if fo.dataset_exists(name):
        dataset = fo.load_dataset(name)
        if dataset.info.get("made_by") != made["made_by"]:
            raise InvalidInputError(
                f"A dataset called {name!r} exists and is not the demo: choose another name."
            )
        if not fresh and all(dataset.info.get(key) == value for key, value in made.items()):
            return dataset
        dataset.delete()

    folder = Path(folder or Path(fo.config.default_dataset_dir) / name)
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for seed in range(FIRST_SEED, FIRST_SEED + num_scenes):
        samples += _scene_samples(make_scene(seed), folder)
    dataset = fo.Dataset(name)
    dataset.add_samples(samples, progress=False)
    dataset.add_dynamic_sample_fields()
    dataset.info = made
    dataset.persistent = True
    dataset.save()
    return dataset


def _scene_samples(scene: Scene, folder: Path) -> list[fo.Sample]:
    import fiftyone as fo

    height_px, width_px = scene.image.shape[:2]
    path = _save(scene.image, folder / f"scene-{scene.seed}.png")
    sample = fo.Sample(
        filepath=path,
        tags=[SCENE, _split(scene.objects)],
        caption=scene.caption,
        objects=fo.Detections(
            detections=[_detection(o, width_px, height_px) for o in scene.objects]
        ),
    )
    samples = [sample]
    for index, item in enumerate(scene.objects):
        path = _save(cut_out(scene, item), folder / f"object-{scene.seed}-{index}.png")
        samples.append(
            fo.Sample(
                filepath=path,
                tags=[OBJECT, _split([item])],
                ground_truth=fo.Classification(
                    label=item.label, color=item.color, shape=item.shape, texture=item.texture
                ),
            )
        )
    return samples


def _detection(item: SceneObject, width_px: int, height_px: int) -> fo.Detection:
    import fiftyone as fo

    x1, y1, x2, y2 = (int(edge) for edge in item.box_px)
    return fo.Detection(
        label=item.label,
        bounding_box=[
            x1 / width_px,
            y1 / height_px,
            (x2 - x1) / width_px,
            (y2 - y1) / height_px,
        ],
        mask=item.mask[y1:y2, x1:x2],
        texture=item.texture,
    )


def cut_out(scene: Scene, item: SceneObject):
    height_px, width_px = scene.image.shape[:2]
    x1, y1, x2, y2 = item.box_px
    pad_x, pad_y = ((x2 - x1) * (CROP_CONTEXT - 1) / 2, (y2 - y1) * (CROP_CONTEXT - 1) / 2)
    left, top = max(0, round(x1 - pad_x)), max(0, round(y1 - pad_y))
    right, bottom = min(width_px, round(x2 + pad_x)), min(height_px, round(y2 + pad_y))
    return scene.image[top:bottom, left:right]


def _split(objects) -> str:
    return "seen" if all(item.label in SEEN for item in objects) else "unseen"


def _save(pixels, path: Path) -> str:
    from PIL import Image

    Image.fromarray(pixels).save(path)
    return str(path)
