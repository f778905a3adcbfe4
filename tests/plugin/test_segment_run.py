"""Runs of ``@zs/operators/segment``: called, scripted, delegated, and streamed to the App."""

from __future__ import annotations

import json
import re
from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types
import numpy as np
import pytest
from bson import ObjectId
from fiftyone.operators.executor import ExecutionError

from tests import plugin_runs
from tests.plugin_runs import each_message, last_dialog, messages, view_set
from zs_operators.errors import InvalidInputError
from zs_operators.shapes.dataset import SCENE

pytestmark = pytest.mark.usefixtures("store_dir")
NUM_SCENES = 10

URI = "@zs/operators/segment"
CLASSES = ["cyan circle", "purple circle", "red heart", "orange star"]
OBJECTS = {"model": "shapes-tiny", "prompts": "objects"}
NAMERS = {"model": "shapes-tiny", "clip": "shapes-tiny", "proposals": "shapes-tiny"}
TEXT = {**NAMERS, "prompts": "proposals", "classes": CLASSES}
GRID = {"points_per_side": 8, "min_iou": 0.6, "min_stability": 0.8}
EVERYTHING = {"model": "shapes-tiny", "prompts": "everything", **GRID}


@pytest.fixture
def uri():
    return URI


@pytest.fixture
def scenes(shapes):
    """10 scenes with their objects in ``objects`` and a keypoint on each in ``points``."""
    dataset = shapes.match_tags(SCENE).clone()
    for sample in dataset.iter_samples(autosave=True):
        sample["points"] = fo.Keypoints(
            keypoints=[
                fo.Keypoint(label=one.label, points=[point_on(one)])
                for one in sample.objects.detections
            ]
        )
    yield dataset
    dataset.delete()


def point_on(label):
    """A point of the object's mask, as fractions of the image."""
    rows, columns = np.nonzero(label.mask)
    middle = len(rows) // 2
    x, y, width, height = label.bounding_box
    across, down = (columns[middle] + 0.5) / label.mask.shape[1], (rows[middle] + 0.5)
    return (x + width * across, y + height * down / label.mask.shape[0])


def overlap(label, known):
    """IoU of two masks of one sample."""
    size = (256, 256)

    def pixels(one):
        return one.to_segmentation(frame_size=size).mask > 0

    first, second = pixels(label), pixels(known)
    return (first & second).sum() / (first | second).sum()


def execute(samples, params, **request):
    return plugin_runs.execute(URI, samples, params, **request)


def select(labels, field="objects"):
    return [{"label_id": i, "sample_id": sample_id, "field": field} for sample_id, i in labels]


def test_called_on_a_view(operator, scenes):
    report = operator(scenes.limit(3), prompts="objects", model="shapes-tiny", label_field="masks")
    assert report.counts == {"labeled": 3}
    assert scenes.exists("masks").values("id") == scenes.limit(3).values("id")
    for sample in scenes.limit(3):
        for label, known in zip(sample.masks.detections, sample.objects.detections, strict=True):
            assert label.label == known.label
            assert overlap(label, known) > 0.7


def test_called_with_class_names(operator, scenes):
    report = operator(scenes.limit(2), CLASSES, prompts="proposals", **NAMERS)
    assert sum(report.counts.values()) == 2
    assert set(report.labels) <= set(CLASSES)
    with pytest.raises(InvalidInputError, match="classes cannot be given"):
        operator(scenes, CLASSES, prompts="objects", model="shapes-tiny")
    with pytest.raises(InvalidInputError, match="needs classes"):
        operator(scenes, prompts="proposals", **NAMERS)


def test_executed_on_the_selection(scenes):
    ids = scenes.skip(5).limit(2).values("id")
    params = {**OBJECTS, "view_target": "SELECTED_SAMPLES"}
    result = execute(scenes, params, selected=ids)
    assert result["task"] == "segment"
    assert scenes.exists("zs_masks").values("id") == ids


@pytest.mark.parametrize(
    ("typed", "scripted"),
    [
        (  # what was typed for other prompts before is left alone
            {
                "prompt_with": "objects",
                "class_names": "cat",
                "naming": {"min_confidence": 0.9},
                "grid": {"points_per_side": 4},
                "masks": {
                    "multimask": "best_of_three",
                    "tight_boxes": False,
                    "fill_holes_px": 3,
                    "min_iou": None,
                    "max_masks": 2,
                },
                "storage": {"output_dir": None, "semantic_field": "", "embeddings": "off"},
            },
            {
                "prompts": "objects",
                "multimask": "best_of_three",
                "tight_boxes": False,
                "fill_holes_px": 3,
                "max_masks": 2,
            },
        ),
        (
            {
                **NAMERS,
                "prompt_with": "proposals",
                "class_names": "\n".join(CLASSES),
                "proposals": "shapes-proposals",
                "grid": {"points_per_side": 4},
                "naming": {"min_confidence": 0.9},
                "boxes": {"min_confidence": 0.2, "max_regions": 40, "background": "empty"},
            },
            {**TEXT, "min_confidence": 0.2, "max_regions": 40, "background": ["empty"]},
        ),
        (
            {
                **NAMERS,
                "prompt_with": "everything",
                "class_names": "\n".join(CLASSES),
                "boxes": {"min_confidence": 0.9},
                "naming": {"min_confidence": 0.2, "overlap": "none"},
                "grid": {"points_per_side": 6, "crop_n_layers": 0, "box_nms_threshold": 0.6},
                "masks": {"min_iou": 0.6, "min_stability": 0.8},
            },
            {
                **NAMERS,
                **EVERYTHING,
                "classes": CLASSES,
                "min_confidence": 0.2,
                "overlap": "none",
                "points_per_side": 6,
                "box_nms_threshold": 0.6,
            },
        ),
    ],
    ids=["field", "text", "everything"],
)
def test_form_values_mean_the_same_as_arguments(scenes, typed, scripted):
    view = scenes.limit(2)
    performance = {"batch_size": 2, "device": "cpu", "precision": "fp32"}
    form = {"model": "shapes-sam", **typed, "performance": performance}
    execute(view, {**form, "label_field": "typed"})
    arguments = {"model": "shapes-tiny", "precision": "fp32", **scripted}
    execute(view, {**arguments, "label_field": "scripted"})
    runs = [scenes.get_run_info(f"zs_segment_{name}").config for name in ("typed", "scripted")]
    assert runs[0].signature == runs[1].signature
    assert scenes.count("typed.detections") > 0
    for path in ("label", "area_px", "bounding_box"):
        assert view.values(f"typed.detections.{path}") == view.values(f"scripted.detections.{path}")


def test_class_names_are_kept_for_another_run(form, scenes):
    view = scenes.limit(1)
    typed = {**NAMERS, "prompt_with": "proposals", "class_names": "\n".join(CLASSES)}
    assert "save_as" in form(scenes, typed)
    execute(view, {**typed, "save_as": "four", "boxes": {"background": "empty"}})
    saved = {**NAMERS, "prompt_with": "everything", "class_source": "saved", "class_saved": "four"}
    assert form(scenes, saved)["prompts"].view.label == "29 prompts for 4 classes"
    result = execute(view, {**saved, **GRID, "label_field": "again"})
    assert result["labels"]
    assert set(result["labels"]) <= set(CLASSES)
    config = scenes.get_run_info("zs_segment_again").config
    assert "empty" in json.dumps(config.serialize())


def test_keypoints_become_masks(scenes):
    view = scenes.limit(4)
    execute(view, {"model": "shapes-tiny", "prompt_with": "points"})
    overlaps = []
    for sample in view.select_fields(["zs_masks", "objects", "points"]):
        sources = [label.source_id for label in sample.zs_masks.detections]
        assert sources == [point.id for point in sample.points.keypoints]
        overlaps += map(overlap, sample.zs_masks.detections, sample.objects.detections)
    assert np.mean(overlaps) > 0.6


def test_everything_needs_no_names(operator, context, scenes):
    view = scenes.limit(2)
    params = {k: v for k, v in EVERYTHING.items() if k != "prompts"}
    request = {"view": view._serialize(), "view_target": "CURRENT_VIEW"}
    told = messages(operator, context(scenes, app=True, params=params, **request))
    properties, texts = last_dialog(told)
    masks = view.count("zs_masks.detections")
    assert masks >= 2
    assert f"{masks} masks on these images" in texts
    assert "labels" not in properties
    assert view.distinct("zs_masks.detections.label") == []


def test_only_selected_labels_prompt(scenes):
    sample = scenes.skip(3).first()
    label = sample.objects.detections[-1]
    params = {"model": "shapes-tiny", "view_target": "SELECTED_LABELS"}
    execute(scenes, params, selected_labels=select([(sample.id, label.id)]))
    assert scenes.values("zs_masks.detections.source_id", unwind=True) == [label.id]
    assert scenes.exists("zs_masks").values("id") == [sample.id]


def test_selected_labels_are_added_to_those_done_before(scenes):
    sample = next(one for one in scenes if len(one.objects.detections) > 1)
    labels = [label.id for label in sample.objects.detections[:2]]
    for label in labels:
        params = {"model": "shapes-tiny", "view_target": "SELECTED_LABELS"}
        execute(scenes, params, selected_labels=select([(sample.id, label)]))
    assert scenes.values("zs_masks.detections.source_id", unwind=True) == labels


def test_samples_of_selected_labels_are_segmented_by_text(scenes):
    sample = scenes.skip(3).first()
    labels = select([(sample.id, sample.objects.detections[0].id)])
    params = {**TEXT, "view_target": "SELECTED_LABELS"}
    for _ in range(2):
        result = execute(scenes, params, selected_labels=labels)
    assert result["resumed"] == 1
    assert scenes.exists("zs_masks").values("id") == [sample.id]
    assert not scenes.has_field("zs_masks.detections.source_id")


def test_patches_prompt(scenes):
    patches = scenes.to_patches("objects").skip(1).limit(2)
    execute(patches, {"model": "shapes-tiny", "view_target": "CURRENT_VIEW"})
    found = scenes.values("zs_masks.detections.source_id", unwind=True)
    assert sorted(found) == sorted(patches.values("objects.id"))


def test_patches_are_no_prompts_of_another_kind(scenes):
    patches = scenes.to_patches("objects").limit(2)
    with pytest.raises(ExecutionError, match="patches of 'objects'"):
        execute(patches, {**EVERYTHING, "view_target": "CURRENT_VIEW"})


def test_run_errors_are_raised_in_a_script(scenes):
    with pytest.raises(ExecutionError, match="is not a field with boxes or keypoints"):
        execute(scenes, {**OBJECTS, "prompts": "nothing"})
    with pytest.raises(ExecutionError, match="classes cannot be given"):
        execute(scenes, {**OBJECTS, "classes": CLASSES})
    with pytest.raises(ExecutionError, match="unknown option 'min_confidence'"):
        execute(scenes, {**OBJECTS, "min_confidence": 0.5})


def test_masks_in_files_and_one_mask_of_all_classes(scenes, tmp_path):
    storage = {"output_dir": str(tmp_path / "masks"), "semantic_field": "classes"}
    view = scenes.limit(2)
    execute(view, {**OBJECTS, "storage": {**storage, "embeddings": "reuse"}})
    paths = [Path(path) for path in view.values("zs_masks.detections.mask_path", unwind=True)]
    assert len(paths) == view.count("objects.detections")
    assert all(path.is_file() and path.is_relative_to(tmp_path / "masks") for path in paths)
    assert view.count("classes") == 2
    assert list((tmp_path / "stores").rglob("*.safetensors"))


def test_estimated_bytes_are_those_that_are_stored(form, scenes, tmp_path):
    """Of boxes that are known; within the factor of three that is promised."""
    for folder in (None, str(tmp_path / "masks")):
        params = {**OBJECTS, "overwrite": True, "storage": {"output_dir": folder}}
        said = form(scenes, params)["cost"].view.label
        estimated = float(said.split(", ")[1].split()[0]) * 1e3
        execute(scenes, params)
        if folder is None:
            masks = scenes._dataset._sample_collection.find({}, {"zs_masks.detections.mask": 1})
            stored = sum(len(x["mask"]) for one in masks for x in one["zs_masks"]["detections"])
        else:
            stored = sum(path.stat().st_size for path in Path(folder).rglob("*.png"))
        assert stored / 3 < estimated < stored * 3


def test_samples_without_prompts_are_told_and_can_be_shown(operator, context, scenes, tmp_path):
    gone, empty, none = scenes.limit(3)
    gone.filepath = str(tmp_path / "gone.png")
    empty.objects.detections = []
    none["objects"] = None
    for sample in (gone, empty, none):
        sample.save()
    told = messages(operator, context(scenes, app=True, params=OBJECTS))
    properties, texts = last_dialog(told)
    assert "7 of 10 images have masks, written to zs_masks" in texts
    found = {}
    for kind in ("failed", "found", "nothing_found"):
        button = properties[f"show_{kind}"]["view"]
        ctx = context(scenes, params=button["params"])
        foo.get_operator(button["operator"]).execute(ctx)
        triggered = {r.operator_uri: r.params for r in ctx.executor._requests}
        view = fo.DatasetView._build(scenes, triggered["set_view"]["view"])
        found[kind] = set(view.values("id"))
    assert found["failed"] == {gone.id}
    assert found["nothing_found"] == {empty.id, none.id}
    assert len(found["found"]) == 7


def test_empty_boxes_are_reported(operator, context, scenes):
    sample = scenes.first()
    sample.objects.detections[0].bounding_box = [0.5, 0.5, -0.2, 0.1]
    sample.save()
    told = messages(operator, context(scenes, app=True, params=OBJECTS))
    assert "1 prompts could not be used" in last_dialog(told)[1]


def test_preview_then_the_rest_in_a_script(scenes):
    first = execute(scenes, {**OBJECTS, "preview": True})
    assert scenes.exists("zs_masks").values("id") == scenes.limit(8).values("id")
    assert sum(first["counts"].values()) == 8
    rest = execute(scenes, OBJECTS)
    assert rest["resumed"] == 8
    assert sum(rest["counts"].values()) == 2
    assert len(scenes.exists("zs_masks")) == 10


@pytest.mark.parametrize("target", ["DATASET", "SELECTED_SAMPLES", "SELECTED_LABELS", "PATCHES"])
def test_preview_offers_the_rest_of_the_same_target(operator, context, scenes, target):
    nine = scenes.skip(1)
    params = {"model": "shapes-tiny", "label_field": "found", "preview": True}
    samples = scenes
    request = {"view_target": target}
    if target in ("DATASET", "SELECTED_SAMPLES"):
        params["prompt_with"] = "objects"
    if target == "SELECTED_SAMPLES":
        request["selected"] = nine.values("id")
        samples = nine
    elif target == "SELECTED_LABELS":
        firsts = [sample.objects.detections[0].id for sample in nine]
        request["selected_labels"] = select(zip(nine.values("id"), firsts, strict=True))
        samples = nine
    elif target == "PATCHES":
        request.update(view=scenes.to_patches("objects")._serialize(), view_target="BASE_VIEW")

    told = messages(operator, context(scenes, app=True, params=params, **request))
    properties, texts = last_dialog(told)
    first_eight = samples.limit(8).values("id")
    assert view_set(scenes, told) == first_eight
    assert scenes.exists("found").values("id") == first_eight
    button = properties["step_0"]["view"]
    assert button["label"] == f"Run on the other {len(samples) - 8}"
    assert button["operator"] == URI

    # The App shows other samples by now and may have lost the selection
    json.dumps(button["params"])
    shown = scenes.limit(1)._serialize()
    told = messages(operator, context(scenes, app=True, params=button["params"], view=shown))
    properties, texts = last_dialog(told)
    assert "8 were done by an earlier run" in texts
    assert "step_0" not in properties
    assert scenes.exists("found").values("id") == samples.values("id")
    sources = len(scenes.values("found.detections.source_id", unwind=True))
    total = scenes.count("objects.detections")
    expected = {"SELECTED_LABELS": 9, "PATCHES": total, "DATASET": total}
    assert sources == expected.get(target, nine.count("objects.detections"))
    (stages,) = [body["params"]["view"] for body in told if body["operator_uri"] == "set_view"]
    assert stages == request.get("view", [])


def test_stopping_keeps_what_was_written(operator, context, scenes):
    """The button of the progress dialog, pressed while the second chunk runs."""
    originals = list(scenes)
    scenes.add_samples(
        fo.Sample(filepath=one.filepath, objects=one.objects.copy())
        for _ in range(20)
        for one in originals
    )
    total = len(scenes)
    ctx = context(scenes, app=True, params=OBJECTS)
    told = []
    for body in each_message(operator, ctx):
        told.append(body)
        properties = body["params"].get("outputs", {}).get("type", {}).get("properties", {})
        if "stop" in properties and len(scenes.exists("zs_masks").limit(1)):
            stop = properties["stop"]["view"]
            foo.get_operator(stop["operator"]).execute(context(scenes, params=stop["params"]))
    said = re.search(rf"Stopped after (\d+) of {total} images", last_dialog(told)[1])
    done = int(said[1])
    assert len(scenes.exists("zs_masks")) == done < total
    report = execute(scenes, OBJECTS)
    assert report["resumed"] == done
    assert len(scenes.exists("zs_masks")) == total


def test_app_is_told_what_went_wrong(operator, context, scenes):
    assert "no dataset" in last_dialog(messages(operator, context(app=True, params=OBJECTS)))[1]
    params = {**OBJECTS, "prompts": "nothing"}
    told = messages(operator, context(scenes, app=True, params=params))
    assert "not a field with boxes or keypoints" in last_dialog(told)[1]


def test_delegated_run(operator, scenes):
    from fiftyone.operators.delegated import DelegatedOperationService

    queued = operator(scenes.limit(4), prompts="objects", model="shapes-tiny", delegate=True)
    service = DelegatedOperationService()
    service.execute_operation(service.get(ObjectId(queued)))
    done = service.get(ObjectId(queued))
    assert done.run_state == "completed", done.result.error
    assert done.status.progress == 1.0
    assert scenes.exists("zs_masks").values("id") == scenes.limit(4).values("id")


def test_button_above_the_grid(operator, context, scenes):
    placement = operator.resolve_placement(context(scenes))
    assert placement.place == types.Places.SAMPLES_GRID_SECONDARY_ACTIONS
    assert placement.view.label == "Segment objects"
