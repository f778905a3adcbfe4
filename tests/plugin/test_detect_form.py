"""The form of ``@zs/operators/detect`` in every context it can be opened in."""

from __future__ import annotations

import time

import fiftyone as fo
import pytest

TYPED = {
    "class_names": "cat\ndog: dog, puppy",
    "model": "shapes-tiny",
    "proposals": "shapes-proposals",
}
BOXES = {**TYPED, "look": "boxes"}


@pytest.fixture
def uri():
    return "@zs/operators/detect"


@pytest.fixture
def boxed(dataset, pictures):
    """10 pictures with two boxes each in ``things``, and a field without boxes."""
    for path, name in pictures[:10]:
        boxes = [
            fo.Detection(label=name, bounding_box=[0.1, 0.1, 0.5, 0.5]),
            fo.Detection(label="other", bounding_box=[0.5, 0.5, 0.4, 0.4]),
        ]
        things = fo.Detections(detections=boxes)
        one = fo.Detection(label="one", bounding_box=[0.2, 0.2, 0.6, 0.6])
        image = fo.Classification(label=name)
        dataset.add_sample(fo.Sample(filepath=path, things=things, single=one, image=image))
    return dataset


def invalid(properties):
    """Messages of the inputs that keep the form from being executed, by name."""
    return {name: prop.error_message for name, prop in properties.items() if prop.invalid}


def selected(sample, field="things"):
    label = sample[field].detections[0]
    return {"label_id": label.id, "sample_id": sample.id, "field": field}


def test_complete_form_can_be_executed(form, boxed):
    properties = form(boxed, TYPED)
    assert invalid(properties) == {}
    assert properties["look"].default == "proposals"
    assert properties["label_field"].default == "zs_detections"
    assert properties["prompts"].view.label == "21 prompts for 2 classes"
    for name in ("box_field", "update_source", "overwrite", "cost"):
        assert name not in properties


def test_no_dataset(form):
    properties = form()
    assert "Open a dataset" in invalid(properties)["target_error"]
    assert "look" not in properties


def test_samples_without_boxes_are_only_searched(form, scenes):
    properties = form(scenes, TYPED)
    assert invalid(properties) == {}
    assert "look" not in properties
    assert "proposals" in properties


def test_boxes_of_a_field(form, boxed):
    properties = form(boxed, BOXES)
    assert invalid(properties) == {}
    assert properties["box_field"].type.values == ["things", "single"]
    assert properties["box_field"].default == "things"
    # Existing boxes need no proposer and no overlap, and all of them stay
    assert "proposals" not in properties
    within = properties["boxes"].type.properties
    assert set(within) == {"min_margin", "min_cosine", "background", "reject_label"}


def test_selected_labels_are_named_by_default(form, boxed):
    request = {"selected_labels": [selected(boxed.first())]}
    # The App asks for the form before its default target has arrived, and again with it
    for properties in (
        form(boxed, TYPED, app=True, **request),
        form(boxed, TYPED, app=True, view_target="SELECTED_LABELS", **request),
    ):
        assert invalid(properties) == {}
        assert properties["view_target"].default == "SELECTED_LABELS"
        assert properties["look"].default == "boxes"
        assert properties["box_field"].default == "things"


def test_samples_of_selected_labels_can_be_searched(form, boxed):
    params = {**TYPED, "look": "proposals"}
    labels = [selected(boxed.first())]
    properties = form(boxed, params, view_target="SELECTED_LABELS", selected_labels=labels)
    assert invalid(properties) == {}
    assert "proposals" in properties


def test_class_names_come_from_all_labels_not_from_the_selected_ones(form, boxed):
    params = {**BOXES, "class_source": "field", "class_field": "things"}
    labels = [selected(boxed.first())]
    properties = form(boxed, params, view_target="SELECTED_LABELS", selected_labels=labels)
    assert properties["prompts"].view.label == "14 prompts for 2 classes"


def test_patches_are_named(form, boxed):
    view = boxed.to_patches("things")
    properties = form(boxed, TYPED, view=view._serialize())
    assert invalid(properties) == {}
    assert "things" in properties["look_notice"].view.label
    assert "look" not in properties
    assert "proposals" not in properties


def test_video_dataset_is_refused_with_the_way_out(form, dataset):
    dataset.add_sample(fo.Sample(filepath="clip.mp4"))
    properties = form(dataset, TYPED)
    assert "Their frames" in invalid(properties)["target_error"]
    assert properties["sample_frames"].view.operator == "@zs/operators/sample_frames"


def test_writing_onto_the_boxes_needs_no_label_field(form, boxed):
    properties = form(boxed, {**BOXES, "update_source": True})
    assert invalid(properties) == {}
    assert "label_field" not in properties
    assert "overwrite" not in properties
    boxed.add_sample_field("things.detections.zs_run", fo.StringField)
    assert "overwrite" in form(boxed, {**BOXES, "update_source": True})


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
    errors = invalid(form(boxed, {**TYPED, "label_field": name}))
    assert message in errors["label_field"]


def test_existing_field_may_be_overwritten(form, boxed):
    params = {**TYPED, "label_field": "things", "overwrite": True}
    assert invalid(form(boxed, params)) == {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_confidence": 1.5}, "min_confidence=1.5"),
        ({"objectness_weight": -1}, "objectness_weight=-1"),
        ({"overlap": "sometimes"}, "overlap='sometimes'"),
        ({"max_regions": 0}, "max_regions=0"),
        ({"min_cosine": 2}, "min_cosine=2"),
    ],
)
def test_unusable_thresholds(form, boxed, values, message):
    assert message in invalid(form(boxed, {**TYPED, "boxes": values}))["boxes_error"]


def test_downloads_are_announced(form, boxed):
    view = form(boxed, {**TYPED, "proposals": None})["proposals_state"].view
    assert "167 MB" in view.label
    assert "BSD-3-Clause" in view.description


def test_local_proposer(form, boxed, tmp_path):
    from zs_operators.proposal_loading import plan_proposer

    local = {**TYPED, "proposals": "custom"}
    assert "path" in invalid(form(boxed, local))["proposals_state_error"]
    missing = {**local, "proposal_path": str(tmp_path / "none.pth")}
    assert "none.pth" in invalid(form(boxed, missing))["proposals_state_error"]
    empty = {**local, "proposal_path": str(tmp_path)}
    assert "config.json" in invalid(form(boxed, empty))["proposals_state_error"]
    folder = plan_proposer("shapes-tiny").path
    assert invalid(form(boxed, {**local, "proposal_path": folder})) == {}


def test_large_models_on_a_cpu_are_announced_as_slow(form, boxed):
    params = {**TYPED, "model": "clip-vit-l-14", "performance": {"device": "cpu"}}
    properties = form(boxed, params)
    assert "10 take" in properties["cost"].view.label
    fewer = form(boxed, {**params, "boxes": {"max_regions": 10}})
    assert fewer["cost"].view.label != properties["cost"].view.label
    assert "cost" not in form(boxed, {**params, "performance": {"device": "cuda"}})
    assert "cost" in form(boxed, {**params, "look": "boxes", "box_field": "single"})


@pytest.mark.parametrize("params", [TYPED, BOXES])
def test_embeddings_can_be_kept(form, boxed, params):
    properties = form(boxed, {**params, "performance": {"embeddings": "reuse"}})
    assert invalid(properties) == {}
    choice = properties["performance"].type.properties["embeddings"]
    assert choice.type.values == ["off", "reuse", "refresh"]
    assert choice.default == "off"
    assert "a box" in choice.view.description


def test_preview_is_offered_where_there_is_more_to_run(form, boxed):
    assert "preview" in form(boxed, TYPED)
    few = boxed.limit(8)
    assert "preview" not in form(boxed, TYPED, view=few._serialize(), view_target="CURRENT_VIEW")


def test_replacing_earlier_names_of_the_same_samples_is_announced(form, boxed):
    request = {"selected_labels": [selected(boxed.first())], "view_target": "SELECTED_LABELS"}
    boxed.add_sample_field(
        "zs_detections", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections
    )
    assert "replaces" in form(boxed, {**TYPED, "overwrite": True}, **request)
    assert "replaces" not in form(boxed, TYPED, **request)
    assert "replaces" not in form(boxed, {**BOXES, "overwrite": True})


def test_form_is_quick_on_ten_thousand_patches(form, dataset):
    boxes = [[0, 0, 0.1, 0.1 * i] for i in range(1, 6)]
    dataset.add_samples(
        fo.Sample(
            filepath=f"{i}.png",
            things=fo.Detections(
                detections=[fo.Detection(label="a", bounding_box=box) for box in boxes]
            ),
        )
        for i in range(2_000)
    )
    view = dataset.to_patches("things")
    request = {"view": view._serialize(), "view_target": "BASE_VIEW"}
    form(dataset, TYPED, **request)
    begun = time.perf_counter()
    form(dataset, TYPED, **request)
    seconds = time.perf_counter() - begun
    assert seconds < 1  # 0.04 s when nothing else runs
