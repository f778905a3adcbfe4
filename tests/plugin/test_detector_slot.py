"""Detectors of other makes in the form of ``@zs/operators/detect``, and runs with them."""

from __future__ import annotations

import pytest

from tests import plugin_runs
from tests.tiny_detectors import save_owl

OTHER = "other-detector"
TYPED = {"class_names": "red circle\nblue star"}
WHOLE = {**TYPED, "model": OTHER}
PROPOSING = {**TYPED, "model": "shapes-tiny", "proposals": OTHER}


@pytest.fixture
def uri():
    return "@zs/operators/detect"


@pytest.fixture(scope="module")
def owl(tmp_path_factory):
    return str(save_owl(tmp_path_factory.mktemp("detectors") / "tiny-owlv2"))


def invalid(properties):
    return {name: prop.error_message for name, prop in properties.items() if prop.invalid}


def test_pickers_offer_it(form, scenes):
    properties = form(scenes, TYPED)
    for name in ("model", "proposals"):
        assert OTHER in [choice.value for choice in properties[name].view.choices]
    assert "detector" not in properties


def test_it_takes_the_place_of_proposer_and_head(form, scenes, owl):
    assert invalid(form(scenes, WHOLE)) == {"detector": "Name a detector"}
    properties = form(scenes, {**WHOLE, "detector": owl})
    assert invalid(properties) == {}
    assert "detector_templates" in properties
    # as they will be encoded, not as for a CLIP
    assert properties["prompts"].view.label == "2 prompts for 2 classes"
    assert "a photo of a red circle" in properties["prompts"].view.description
    assert "proposals" not in properties
    assert "embeddings" not in properties["performance"].type.properties
    assert "detector_state" not in properties


def test_it_may_take_the_place_of_the_proposer_alone(form, scenes, owl):
    assert invalid(form(scenes, PROPOSING)) == {"proposal_detector": "Name a detector"}
    properties = form(scenes, {**PROPOSING, "proposal_detector": owl})
    assert invalid(properties) == {}
    assert "proposal_mode" not in properties
    assert "embeddings" in properties["performance"].type.properties


@pytest.mark.parametrize(
    ("name", "message"),
    [("yolov8s-wrld-torch", "yolov8s-world-torch"), ("/no/such/folder", "there is no detector")],
)
@pytest.mark.parametrize("place", ["detector", "proposal_detector"])
def test_what_is_wrong_shows_as_it_is_typed(form, scenes, name, message, place):
    given = WHOLE if place == "detector" else PROPOSING
    assert message in invalid(form(scenes, {**given, place: name}))[place]


def test_downloads_and_licences_show_before_a_run(form, scenes):
    properties = form(scenes, {**WHOLE, "detector": "yolov8s-world-torch"})
    assert invalid(properties) == {}
    assert "27 MB" in properties["detector_state"].view.label
    assert "AGPL-3.0" in properties["detector_state"].view.description
    fixed = form(scenes, {**WHOLE, "detector": "faster-rcnn-resnet50-fpn-coco-torch"})
    assert "list of classes of its own" in fixed["detector_classes"].view.label


def test_what_to_install_shows(form, scenes, owl, monkeypatch):
    monkeypatch.setattr("zs_operators.detectors.hugging_face_files.find_spec", lambda name: None)
    properties = form(scenes, {**WHOLE, "detector": owl})
    assert "pip install 'zs-operators[hf]'" in invalid(properties)["detector"]
    assert "zs-operators[hf]" in properties["detector"].view.description


def test_it_is_not_offered_for_boxes_that_exist(form, scenes, owl):
    import fiftyone as fo

    box = fo.Detections(detections=[fo.Detection(label="a", bounding_box=[0, 0, 1, 1])])
    scenes.set_values("things", [box] * len(scenes))
    properties = form(scenes, {**TYPED, "model": "shapes-tiny", "look": "boxes"})
    assert OTHER not in [choice.value for choice in properties["model"].view.choices]


def test_a_run_from_the_form(scenes, owl):
    few = scenes.limit(3)
    # What was chosen for a CLIP before does not come along
    hidden = {"performance": {"embeddings": "reuse"}}
    params = {**WHOLE, **hidden, "detector": owl, "boxes": {"min_confidence": 0.2}}
    result = plugin_runs.execute("@zs/operators/detect", few, params)
    assert result["task"] == "detect"
    record = scenes.get_run_info("zs_detect_zs_detections").config.serialize()
    assert record["model"]["name"] == "tiny-owlv2"
    assert record["prompts"][0] == ["a photo of a red circle", "red circle"]
    params = {**PROPOSING, "proposal_detector": owl, "label_field": "named"}
    plugin_runs.execute("@zs/operators/detect", few, params)
    record = scenes.get_run_info("zs_detect_named").config.serialize()
    assert (record["model"]["name"], record["proposer"]["name"]) == ("shapes-tiny", "tiny-owlv2")


def test_called_with_a_detector(operator, scenes, owl):
    report = operator(scenes.limit(2), ["red circle", "blue star"], detector=owl)
    assert sum(report.counts.values()) == 2
