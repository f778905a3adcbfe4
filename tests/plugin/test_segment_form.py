"""The form of ``@zs/operators/segment`` in every context it can be opened in."""

from __future__ import annotations

import importlib
import time

import fiftyone as fo
import pytest
from PIL import Image

MODELS = {"model": "shapes-sam", "clip": "shapes-tiny", "proposals": "shapes-proposals"}
TEXT = {**MODELS, "prompt_with": "proposals", "class_names": "cat\ndog: dog, puppy"}
THINGS = {**MODELS, "prompt_with": "things"}


@pytest.fixture
def uri():
    return "@zs/operators/segment"


@pytest.fixture
def boxed(dataset, pictures):
    """10 pictures with two boxes in ``things``, one in ``single`` and a keypoint in ``points``."""
    for path, name in pictures[:10]:
        boxes = [
            fo.Detection(label=name, bounding_box=[0.1, 0.1, 0.5, 0.5]),
            fo.Detection(label="other", bounding_box=[0.5, 0.5, 0.4, 0.4]),
        ]
        sample = fo.Sample(
            filepath=path,
            image=fo.Classification(label=name),
            things=fo.Detections(detections=boxes),
            single=fo.Detection(label="one", bounding_box=[0.2, 0.2, 0.6, 0.6]),
            points=fo.Keypoints(keypoints=[fo.Keypoint(label=name, points=[(0.3, 0.3)])]),
            lines=fo.Polylines(polylines=[fo.Polyline(points=[[(0, 0), (1, 1), (0, 1)]])]),
        )
        dataset.add_sample(sample)
    return dataset


def invalid(properties):
    """Messages of the inputs that keep the form from being executed, by name."""
    return {name: prop.error_message for name, prop in properties.items() if prop.invalid}


def selected(sample, field="things"):
    value = sample[field]
    label = (value.detections if field == "things" else value.keypoints)[0]
    return {"label_id": label.id, "sample_id": sample.id, "field": field}


def choices(prop):
    return {choice.value: choice.label for choice in prop.view.choices}


def test_no_dataset(form):
    properties = form()
    assert "Open a dataset" in invalid(properties)["target_error"]
    assert "prompt_with" not in properties


def test_only_fields_that_can_prompt_are_offered(form, boxed):
    properties = form(boxed, MODELS)
    assert invalid(properties) == {}
    assert choices(properties["prompt_with"]) == {
        "everything": "Everything: a grid of points",
        "proposals": "By text: objects found by class names",
        "things": "Boxes of things",
        "single": "Boxes of single",
        "points": "Points of points",
    }
    assert properties["prompt_with"].default == "everything"
    assert properties["label_field"].default == "zs_masks"


def test_samples_without_labels_offer_what_needs_none(form, scenes):
    properties = form(scenes, MODELS)
    assert invalid(properties) == {}
    assert set(choices(properties["prompt_with"])) == {"everything", "proposals"}


def test_everything_takes_class_names_and_needs_none(form, boxed):
    properties = form(boxed, MODELS)
    assert invalid(properties) == {}
    assert "class_names" in properties
    for name in ("templates", "clip", "proposals", "naming", "boxes"):
        assert name not in properties
    assert set(properties["grid"].type.properties) == {
        "points_per_side",
        "crop_n_layers",
        "box_nms_threshold",
    }
    assert "multimask" not in properties["masks"].type.properties

    properties = form(boxed, {**MODELS, "class_names": "cat\ndog"})
    assert invalid(properties) == {}
    assert properties["prompts"].view.label == "14 prompts for 2 classes"
    assert {"templates", "clip", "naming", "grid"} <= set(properties)
    assert not {"proposals", "boxes"} & set(properties)
    named = set(properties["naming"].type.properties)
    assert {"min_confidence", "overlap", "min_cosine", "background"} <= named
    assert not {"max_regions", "min_size_px"} & named


def test_text_needs_class_names(form, boxed):
    properties = form(boxed, TEXT)
    assert invalid(properties) == {}
    assert {"templates", "clip", "proposals", "boxes"} <= set(properties)
    assert not {"naming", "grid"} & set(properties)
    assert "multimask" in properties["masks"].type.properties
    properties = form(boxed, {**TEXT, "class_names": " "})
    assert "at least one class name" in invalid(properties)["class_names"]


@pytest.mark.parametrize("field", ["things", "single", "points"])
def test_labels_of_a_field_need_no_names(form, boxed, field):
    # Class names and a grid that were typed before for other prompts are left alone
    before = {"class_names": "cat", "grid": {"points_per_side": 0}, "naming": {"min_cosine": 7}}
    properties = form(boxed, {**MODELS, **before, "prompt_with": field})
    assert invalid(properties) == {}
    for name in ("class_names", "templates", "clip", "proposals", "naming", "boxes", "grid"):
        assert name not in properties
    assert {"multimask", "tight_boxes"} <= set(properties["masks"].type.properties)


def test_what_another_prompt_had_wrong_does_not_count(form, boxed):
    wrong = {"naming": {"min_cosine": 7}, "grid": {"points_per_side": 0}}
    assert invalid(form(boxed, {**TEXT, **wrong})) == {}
    wrong = {"boxes": {"max_regions": 0}}
    assert invalid(form(boxed, {**TEXT, **wrong, "prompt_with": "everything"})) == {}


def test_a_field_that_cannot_prompt_is_refused(form, boxed):
    assert "choose again" in invalid(form(boxed, {**MODELS, "prompt_with": "lines"}))["prompt_with"]
    assert (
        "'lines' is not a field"
        in invalid(form(boxed, {**MODELS, "prompts": "lines"}))["prompts_error"]
    )


def test_class_names_of_a_script_do_not_go_with_a_field(form, boxed):
    params = {**MODELS, "prompts": "things", "classes": ["cat"]}
    assert "keeps the names" in invalid(form(boxed, params))["classes_error"]


def test_selected_labels_prompt_by_default(form, boxed):
    for field in ("things", "points"):
        request = {"selected_labels": [selected(boxed.first(), field)]}
        # The App asks for the form before its default target has arrived, and again with it
        for more in ({"app": True}, {"app": True, "view_target": "SELECTED_LABELS"}):
            properties = form(boxed, MODELS, **request, **more)
            assert invalid(properties) == {}
            assert properties["prompt_with"].default == field
            # Nothing of other fields was chosen
            assert set(choices(properties["prompt_with"])) == {"everything", "proposals", field}
            assert "grid" not in properties


def test_samples_of_selected_labels_can_be_searched(form, boxed):
    request = {"selected_labels": [selected(boxed.first())], "view_target": "SELECTED_LABELS"}
    properties = form(boxed, TEXT, **request)
    assert invalid(properties) == {}
    assert "proposals" in properties
    assert "on 1 image," in properties["cost"].view.label
    params = {**TEXT, "class_source": "field", "class_field": "things"}
    assert properties["prompts"].view.label == "21 prompts for 2 classes"
    assert form(boxed, params, **request)["prompts"].view.label == "14 prompts for 2 classes"


def test_patches_prompt(form, boxed):
    view = boxed.to_patches("things")
    properties = form(boxed, MODELS, view=view._serialize())
    assert invalid(properties) == {}
    assert "things" in properties["prompts_notice"].view.label
    assert "20 masks on 10 images" in properties["cost"].view.label
    assert not {"prompt_with", "class_names", "grid"} & set(properties)


def test_patches_that_cannot_prompt_are_refused(form, boxed):
    lines = boxed.to_patches("lines")._serialize()
    assert "no boxes" in invalid(form(boxed, MODELS, view=lines))["prompts_error"]
    things = boxed.to_patches("things")._serialize()
    params = {**MODELS, "prompts": "everything"}
    assert "patches of 'things'" in invalid(form(boxed, params, view=things))["prompts_error"]


def test_video_dataset_is_refused_with_the_way_out(form, dataset):
    dataset.add_sample(fo.Sample(filepath="clip.mp4"))
    properties = form(dataset, MODELS)
    assert "Their frames" in invalid(properties)["target_error"]
    assert properties["sample_frames"].view.operator == "@zs/operators/sample_frames"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("things", "exists and holds labels"),
        ("image", "holds Classification, not Detections"),
        ("filepath", "reserved"),
        ("1st", "not usable"),
    ],
)
def test_unusable_label_fields(form, boxed, name, message):
    assert message in invalid(form(boxed, {**THINGS, "label_field": name}))["label_field"]


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("masks", {"min_iou": 1.5}, "min_iou=1.5"),
        ("masks", {"min_stability": -1}, "min_stability=-1"),
        ("masks", {"max_masks": 0}, "max_masks=0"),
        ("masks", {"fill_holes_px": -1}, "fill_holes_px=-1"),
        ("masks", {"multimask": "all"}, "multimask='all'"),
        ("grid", {"points_per_side": 0}, "points_per_side=0"),
        ("grid", {"crop_n_layers": -1}, "crop_n_layers=-1"),
        ("grid", {"box_nms_threshold": 2}, "box_nms_threshold=2"),
    ],
)
def test_unusable_mask_options(form, boxed, section, values, message):
    assert message in invalid(form(boxed, {**MODELS, section: values}))["masks_error"]


@pytest.mark.parametrize(
    ("section", "params"),
    [("boxes", TEXT), ("naming", {**TEXT, "prompt_with": "everything"})],
)
def test_unusable_thresholds(form, boxed, section, params):
    errors = invalid(form(boxed, {**params, section: {"min_confidence": 1.5}}))
    assert "min_confidence=1.5" in errors[f"{section}_error"]


def test_storage_is_checked(form, boxed, tmp_path):
    def errors(params=THINGS, **storage):
        return invalid(form(boxed, {**params, "storage": storage}))

    folder = tmp_path / "not" / "there" / "yet"
    assert errors(output_dir=str(folder), semantic_field="classes", embeddings="reuse") == {}
    assert not folder.parent.exists()
    file = tmp_path / "file"
    file.write_text("")
    assert "cannot be a folder" in errors(output_dir=str(file))["output_dir_error"]
    assert "both 'zs_masks'" in errors(semantic_field="zs_masks")["semantic_field_error"]
    assert "not Segmentation" in errors(semantic_field="image")["semantic_field_error"]
    assert "reserved" in errors(semantic_field="filepath")["semantic_field_error"]
    everything = {**MODELS, "prompt_with": "everything"}
    assert "needs names" in errors(everything, semantic_field="classes")["semantic_field_error"]
    assert errors({**everything, "class_names": "cat"}, semantic_field="classes") == {}


def test_existing_semantic_field_may_be_overwritten(form, boxed):
    sample = boxed.first()
    sample["classes"] = fo.Segmentation(mask_path="somewhere.png")
    sample.save()
    params = {**THINGS, "storage": {"semantic_field": "classes"}}
    properties = form(boxed, params)
    assert "holds labels" in invalid(properties)["semantic_field_error"]
    assert "classes" in properties["overwrite"].view.description
    assert invalid(form(boxed, {**params, "overwrite": True})) == {}


def test_downloads_are_announced(form, boxed):
    params = {"prompt_with": "things"}
    view = form(boxed, params)["model_state"].view
    assert "375 MB" in view.label
    assert "clip_state" not in form(boxed, params)


def test_local_sam(form, boxed, tmp_path):
    local = {**THINGS, "model": "custom"}
    assert "path" in invalid(form(boxed, local))["model_state_error"]
    missing = {**local, "sam_path": str(tmp_path / "none.pth")}
    assert "none.pth" in invalid(form(boxed, missing))["model_state_error"]


def test_costs_are_told_before_the_run(form, boxed, tmp_path):
    def cost(**params):
        return form(boxed, {**params, "performance": {"device": "cpu"}})["cost"].view

    boxes = cost(prompt_with="things", model="sam-vit-b")
    assert boxes.label.startswith("About 20 masks on 10 images, ")
    assert boxes.label.endswith(" kB in the database")
    assert "10 take" in boxes.description
    everything = cost(model="sam-vit-b")
    assert everything.label.startswith("About 1,000 masks")
    assert type(everything) is type(boxes)  # a warning: both take seconds an image
    assert type(cost(prompt_with="things", model="shapes-sam")) is not type(boxes)
    assert (
        "Embeddings: 21 MB"
        in cost(
            prompt_with="things", model="sam-vit-b", storage={"embeddings": "reuse"}
        ).description
    )
    assert "in files" in cost(prompt_with="things", storage={"output_dir": str(tmp_path)}).label
    assert (
        "GPU" in form(boxed, {**THINGS, "performance": {"device": "cuda"}})["cost"].view.description
    )
    assert "not known" in cost(prompt_with="things", model="custom").description


def test_estimated_work_is_that_of_the_engine(operator):
    from zs_operators.everything import EverythingOptions, count_work

    package = type(operator).__module__.rpartition(".")[0]
    estimated = importlib.import_module(f"{package}.segment_cost").everything
    for points, layers in ((32, 0), (8, 1), (5, 2)):
        options = EverythingOptions(points_per_side=points, crop_n_layers=layers)
        assert estimated(points, layers) == count_work(options, 640, 480)


def test_preview_is_offered_where_there_is_more_to_run(form, boxed):
    assert "preview" in form(boxed, THINGS)
    few = boxed.limit(8)
    request = {"view": few._serialize(), "view_target": "CURRENT_VIEW"}
    assert "preview" not in form(boxed, THINGS, **request)


def test_replacing_earlier_masks_of_the_same_samples_is_announced(form, boxed):
    request = {"selected_labels": [selected(boxed.first())], "view_target": "SELECTED_LABELS"}
    boxed.add_sample_field("zs_masks", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    assert "replaces" in form(boxed, {**MODELS, "overwrite": True}, **request)
    assert "replaces" not in form(boxed, MODELS, **request)
    assert "replaces" not in form(boxed, {**THINGS, "overwrite": True})


def test_form_is_quick_on_ten_thousand_patches(form, dataset, tmp_path):
    path = tmp_path / "one.png"
    Image.new("RGB", (64, 64)).save(path)
    boxes = [[0, 0, 0.1, 0.1 * i] for i in range(1, 6)]
    dataset.add_samples(
        fo.Sample(
            filepath=str(path) if i == 0 else f"{i}.png",
            things=fo.Detections(
                detections=[fo.Detection(label="a", bounding_box=box) for box in boxes]
            ),
        )
        for i in range(2_000)
    )
    patches = {"view": dataset.to_patches("things")._serialize(), "view_target": "BASE_VIEW"}
    for request in (patches, {}):
        form(dataset, THINGS, **request)
        begun = time.perf_counter()
        properties = form(dataset, THINGS, **request)
        assert time.perf_counter() - begun < 1  # 0.1 s when nothing else runs
        assert "10,000 masks on 2,000 images" in properties["cost"].view.label
