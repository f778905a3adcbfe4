"""Runs of ``@zs/operators/detect``: called, scripted, delegated, and streamed to the App."""

from __future__ import annotations

import json

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from bson import ObjectId
from PIL import Image

from tests import plugin_runs
from tests.plugin_runs import last_dialog, messages, view_set
from zs_operators.shapes.world import make_scene

URI = "@zs/operators/detect"
CLASSES = ["cyan circle", "purple circle", "red heart", "orange star"]
FIND = {"classes": CLASSES, "model": "shapes-tiny", "proposals": "shapes-tiny"}
NAME = {"classes": CLASSES, "model": "shapes-tiny", "look": "boxes"}


@pytest.fixture
def uri():
    return URI


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """10 scenes with two objects each: paths and (name, box) of the objects."""
    folder = tmp_path_factory.mktemp("drawn")
    found = []
    for seed in range(10):
        scene = make_scene(seed, num_objects=2)
        path = folder / f"{seed:02}.png"
        Image.fromarray(scene.image).save(path)
        height, width = scene.image.shape[:2]
        boxes = []
        for item in scene.objects:
            x1, y1, x2, y2 = item.box_px
            box = [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height]
            boxes.append((item.label, [float(edge) for edge in box]))
        found.append((str(path), boxes))
    return found


@pytest.fixture
def boxed(dataset, drawn):
    dataset.add_samples(
        fo.Sample(
            filepath=path,
            things=fo.Detections(
                detections=[fo.Detection(label=name, bounding_box=box) for name, box in boxes]
            ),
        )
        for path, boxes in drawn
    )
    return dataset


def execute(samples, params, **request):
    return plugin_runs.execute(URI, samples, params, **request)


def select(labels):
    return [{"label_id": i, "sample_id": sample_id, "field": "things"} for sample_id, i in labels]


def test_called_on_a_view(operator, boxed):
    report = operator(boxed.limit(3), CLASSES, model="shapes-tiny", proposals="shapes-tiny")
    assert sum(report.counts.values()) == 3
    assert boxed.exists("zs_detections").values("id") == boxed.limit(3).values("id")


def test_executed_on_the_selection(boxed):
    ids = boxed.skip(5).limit(2).values("id")
    params = {**FIND, "view_target": "SELECTED_SAMPLES"}
    result = execute(boxed, params, selected=ids)
    assert result["task"] == "detect"
    assert boxed.exists("zs_detections").values("id") == ids


def test_form_values_mean_the_same_as_arguments(boxed):
    typed = {
        "class_names": "\n".join(CLASSES),
        "model": "shapes-tiny",
        "look": "proposals",
        "proposals": "shapes-proposals",
        "proposal_mode": "rpn",
        "label_field": "typed",
        "boxes": {
            "min_confidence": 0.2,
            "objectness_weight": 0.3,
            "overlap": "per_class",
            "overlap_metric": "ios",
            "overlap_threshold": 0.4,
            "max_regions": 40,
            "max_detections": 5,
            "min_margin": None,
            "background": "empty background",
        },
        "performance": {"batch_size": 2, "device": "cpu", "precision": "fp32"},
    }
    scripted = {
        **FIND,
        "label_field": "scripted",
        "proposal_mode": "rpn",
        "min_confidence": 0.2,
        "objectness_weight": 0.3,
        "overlap": "per_class",
        "overlap_metric": "ios",
        "overlap_threshold": 0.4,
        "max_regions": 40,
        "max_detections": 5,
        "background": ["empty background"],
        "precision": "fp32",
    }
    view = boxed.limit(4)
    for params in (typed, scripted):
        execute(view, params)
    runs = [boxed.get_run_info(f"zs_detect_{name}").config for name in ("typed", "scripted")]
    # A batch of another size changes no decision; the proposer is known by its registry name
    assert runs[0].signature == runs[1].signature
    assert view.values("typed.detections.label") == view.values("scripted.detections.label")


def test_boxes_of_a_field_are_named(boxed, drawn):
    names = sorted({name for _, boxes in drawn for name, _ in boxes})
    execute(boxed, {**NAME, "classes": names, "box_field": "things", "label_field": "named"})
    assert boxed.values("named.detections.source_id") == boxed.values("things.detections.id")
    known = [name for row in boxed.values("things.detections.label") for name in row]
    found = [name for row in boxed.values("named.detections.label") for name in row]
    agree = sum(a == b for a, b in zip(known, found, strict=True))
    assert agree >= 0.8 * len(known)


def test_only_selected_labels_are_named(boxed):
    sample = boxed.skip(3).first()
    label = sample.things.detections[1]
    params = {**FIND, "label_field": "named", "view_target": "SELECTED_LABELS"}
    execute(boxed, params, selected_labels=select([(sample.id, label.id)]))
    assert boxed.values("named.detections.source_id", unwind=True) == [label.id]
    assert boxed.exists("named").values("id") == [sample.id]


def test_samples_of_selected_labels_are_searched(boxed):
    sample = boxed.skip(3).first()
    labels = select([(sample.id, sample.things.detections[1].id)])
    params = {**FIND, "look": "proposals", "view_target": "SELECTED_LABELS"}
    for _ in range(2):
        result = execute(boxed, params, selected_labels=labels)
    assert result["resumed"] == 1
    assert boxed.exists("zs_detections").values("id") == [sample.id]
    assert boxed.count("zs_detections.detections.source_id") == 0


def test_patches_are_named(boxed):
    patches = boxed.to_patches("things").skip(1).limit(2)
    params = {**FIND, "label_field": "named", "view_target": "CURRENT_VIEW"}
    execute(patches, params)
    found = boxed.values("named.detections.source_id", unwind=True)
    assert sorted(found) == sorted(patches.values("things.id"))


def test_names_are_written_onto_the_boxes(boxed):
    before = boxed.values("things.detections.label")
    result = execute(boxed, {**NAME, "update_source": True})
    assert result["label_field"] == "things"
    assert boxed.values("things.detections.label") == before
    names = boxed.values("things.detections.zs_label", unwind=True)
    assert len(names) == 20
    assert set(names) <= set(CLASSES)
    assert not boxed.has_field("zs_detections")


def test_run_errors_are_raised_in_a_script(boxed):
    from fiftyone.operators.executor import ExecutionError

    with pytest.raises(ExecutionError, match="is not a field with boxes"):
        execute(boxed, {**FIND, "regions": "nothing"})
    with pytest.raises(ExecutionError, match="overlap='never'"):
        execute(boxed, {**FIND, "overlap": "never"})


@pytest.mark.parametrize("params", [FIND, NAME])
def test_embeddings_of_an_earlier_run_are_reused(
    operator, context, boxed, params, tmp_path, monkeypatch
):
    monkeypatch.setenv("ZS_STORE_DIR", str(tmp_path))
    params = {**params, "performance": {"embeddings": "reuse"}}
    view = boxed.limit(4)
    first = execute(view, {**params, "label_field": "first"})
    second = execute(view, {**params, "label_field": "second"})
    assert (first["reused"], second["reused"]) == (0, 4)
    assert view.values("first.detections.label") == view.values("second.detections.label")
    told = messages(operator, context(boxed, app=True, params={**params, "label_field": "third"}))
    assert "embeddings of 4 images were reused" in last_dialog(told)[1]


def test_preview_then_the_rest_in_a_script(boxed):
    first = execute(boxed, {**FIND, "preview": True})
    assert boxed.exists("zs_detections").values("id") == boxed.limit(8).values("id")
    assert sum(first["counts"].values()) == 8
    rest = execute(boxed, FIND)
    assert rest["resumed"] == 8
    assert sum(rest["counts"].values()) == 2
    assert len(boxed.exists("zs_detections")) == 10


@pytest.mark.parametrize("target", ["DATASET", "SELECTED_SAMPLES", "SELECTED_LABELS", "PATCHES"])
def test_preview_offers_the_rest_of_the_same_target(operator, context, boxed, target):
    nine = boxed.skip(1)
    request = {"params": {**FIND, "label_field": "found", "preview": True}, "view_target": target}
    samples = boxed
    if target == "SELECTED_SAMPLES":
        request["selected"] = nine.values("id")
        samples = nine
    elif target == "SELECTED_LABELS":
        firsts = [sample.things.detections[0].id for sample in nine]
        request["selected_labels"] = select(zip(nine.values("id"), firsts, strict=True))
        samples = nine
    elif target == "PATCHES":
        request.update(view=boxed.to_patches("things")._serialize(), view_target="BASE_VIEW")

    told = messages(operator, context(boxed, app=True, **request))
    properties, texts = last_dialog(told)
    first_eight = samples.limit(8).values("id")
    assert view_set(boxed, told) == first_eight
    assert boxed.exists("found").values("id") == first_eight
    button = properties["step_0"]["view"]
    assert button["label"] == f"Run on the other {len(samples) - 8}"
    assert button["operator"] == URI

    # The App shows other samples by now and may have lost the selection
    json.dumps(button["params"])
    shown = boxed.limit(1)._serialize()
    told = messages(operator, context(boxed, app=True, params=button["params"], view=shown))
    properties, texts = last_dialog(told)
    if target in ("DATASET", "SELECTED_SAMPLES"):
        assert "8 were done by an earlier run" in texts
    assert "step_0" not in properties
    assert boxed.exists("found").values("id") == samples.values("id")
    sources = boxed.count("found.detections.source_id")
    assert sources == {"SELECTED_LABELS": 9, "PATCHES": 20}.get(target, 0)
    (stages,) = [body["params"]["view"] for body in told if body["operator_uri"] == "set_view"]
    assert stages == request.get("view", [])


def test_buttons_of_the_summary_show_the_samples(operator, context, boxed, tmp_path):
    sample = boxed.first()
    sample.filepath = str(tmp_path / "gone.png")
    sample.save()
    params = {**FIND, "min_confidence": 0.9}
    properties, texts = last_dialog(messages(operator, context(boxed, app=True, params=params)))
    boxes = boxed.count("zs_detections.detections")
    assert f"{boxes} boxes on" in texts
    found = {}
    for kind in ("failed", "found", "nothing_found"):
        if f"show_{kind}" not in properties:
            continue
        button = properties[f"show_{kind}"]["view"]
        ctx = context(boxed, params=button["params"])
        foo.get_operator(button["operator"]).execute(ctx)
        triggered = {r.operator_uri: r.params for r in ctx.executor._requests}
        found[kind] = fo.DatasetView._build(boxed, triggered["set_view"]["view"])
    assert found["failed"].values("id") == [sample.id]
    lengths = {kind: view.values("zs_detections.detections") for kind, view in found.items()}
    assert all(lengths["found"])
    assert not any(lengths.get("nothing_found", []))
    assert sum(len(view) for view in found.values()) == 10


def test_boxes_that_cannot_be_scored_are_reported(operator, context, boxed):
    sample = boxed.first()
    sample.things.detections[0].bounding_box = [0.5, 0.5, -0.2, 0.1]
    sample.save()
    told = messages(operator, context(boxed, app=True, params=NAME))
    assert "could not be scored" in last_dialog(told)[1]


def test_app_without_a_dataset_is_told_so(operator, context):
    told = messages(operator, context(app=True, params=FIND))
    assert "no dataset" in last_dialog(told)[1]


def test_delegated_run(operator, boxed):
    from fiftyone.operators.delegated import DelegatedOperationService

    queued = operator(boxed.limit(4), CLASSES, model="shapes-tiny", regions="things", delegate=True)
    service = DelegatedOperationService()
    service.execute_operation(service.get(ObjectId(queued)))
    done = service.get(ObjectId(queued))
    assert done.run_state == "completed", done.result.error
    assert done.status.progress == 1.0
    assert boxed.exists("zs_detections").values("id") == boxed.limit(4).values("id")
    assert boxed.count("zs_detections.detections.source_id") == 8
