"""zs.detect on drawn scenes: boxes that exist, boxes that are proposed, and where results go."""

from itertools import chain

import fiftyone as fo
import numpy as np
import pytest
from fiftyone import ViewField as F

import zs_operators as zs
from zs_operators import provenance
from zs_operators.errors import FieldError, InvalidInputError, SamplesError, UnknownModelError
from zs_operators.proposals import load_proposer
from zs_operators.shapes.world import CLASSES

NUM_SCENES = 12

NAMES = list(CLASSES)
BOXES = {"regions": "objects", "progress": False}


@pytest.fixture(scope="module")
def proposer():
    return load_proposer("shapes-tiny", precision="fp32", max_proposals=50)


def names(samples, path):
    return [list(found) for found in samples.values(path)]


def flat(samples, path):
    return list(chain.from_iterable(samples.values(path)))


def test_scenes_are_detected_and_evaluate_natively(scenes, clip, proposer):
    report = zs.detect(
        scenes, NAMES, model=clip, proposals=proposer, min_confidence=0.4, progress=False
    )

    assert report.counts == {"labeled": 12}
    results = scenes.evaluate_detections(
        "zs_detections", gt_field="objects", eval_key="eval", iou=0.5, progress=False
    )
    found = scenes.sum("eval_tp")
    assert found / scenes.count("objects.detections") >= 0.9
    assert results.metrics()["precision"] >= 0.7
    for label in scenes.first().zs_detections.detections:
        assert 0 <= label.confidence <= 1
        assert 0 <= label.objectness <= 1
        assert len(label.runners_up) == 3
        assert label.label not in label.runners_up
        x, y, width, height = label.bounding_box
        assert x >= 0 <= y
        assert 0 < width <= 1 - x + 1e-6
        assert 0 < height <= 1 - y + 1e-6


def test_existing_boxes_are_named_in_place_and_order(scenes, clip):
    zs.detect(scenes, NAMES, model=clip, label_field="named", **BOXES)

    truth = names(scenes, "objects.detections.label")
    found = names(scenes, "named.detections.label")
    right = [a == b for t, f in zip(truth, found, strict=True) for a, b in zip(t, f, strict=True)]
    assert np.mean(right) >= 0.85
    assert names(scenes, "named.detections.source_id") == names(scenes, "objects.detections.id")
    assert names(scenes, "named.detections.source_label") == truth
    for expected, got in zip(
        flat(scenes, "objects.detections.bounding_box"),
        flat(scenes, "named.detections.bounding_box"),
        strict=True,
    ):
        assert got == pytest.approx(expected, abs=1e-5)


def test_only_the_labels_of_a_filtered_view_are_scored(scenes, clip):
    label = scenes.first().objects.detections[0].label
    view = scenes.filter_labels("objects", F("label") == label)
    zs.detect(view, NAMES, model=clip, label_field="named", **BOXES)

    assert set(flat(view, "named.detections.source_label")) == {label}
    assert len(scenes.exists("named")) == len(view)


def test_selected_labels_and_patches_are_targets(scenes, clip):
    ids = [scenes.first().objects.detections[0].id, scenes.last().objects.detections[-1].id]
    selected = scenes.select_labels(ids=ids, fields="objects")
    zs.detect(selected, NAMES, model=clip, label_field="a", **BOXES)
    patches = scenes.to_patches("objects").select_labels(ids=ids, fields="objects")
    zs.detect(patches, NAMES, model=clip, label_field="b", **BOXES)

    for field in ("a", "b"):
        assert sorted(flat(scenes.exists(field), f"{field}.detections.source_id")) == (sorted(ids))


def test_naming_one_more_box_keeps_those_already_named(scenes, clip):
    sample = next(s for s in scenes if len(s.objects.detections) >= 3)
    ids = [label.id for label in sample.objects.detections]
    for chosen in (ids[:1], ids[1:2], ids[:2]):
        view = scenes.select_labels(ids=chosen, fields="objects")
        report = zs.detect(view, NAMES, model=clip, label_field="named", **BOXES)
    named = [label.source_id for label in scenes[sample.id].named.detections]
    assert sorted(named) == sorted(ids[:2])
    # The third call had nothing left to do
    assert report.resumed == 1

    zs.detect(scenes, NAMES, model=clip, label_field="named", **BOXES)
    assert sorted(flat(scenes, "named.detections.source_id")) == sorted(
        flat(scenes, "objects.detections.id")
    )


def test_boxes_named_by_other_settings_are_not_touched(scenes, clip):
    zs.detect(scenes, NAMES, model=clip, label_field="named", **BOXES)
    before = flat(scenes, "named.detections.id")
    one = scenes.select_labels(ids=scenes.first().objects.detections[0].id, fields="objects")
    with pytest.raises(FieldError, match="overwrite"):
        zs.detect(one, NAMES[:5], model=clip, label_field="named", **BOXES)

    assert flat(scenes, "named.detections.id") == before


def test_source_labels_get_attributes_and_nothing_else_changes(scenes, clip):
    before = [d.to_dict() for d in scenes.values("objects")]
    report = zs.detect(scenes, NAMES, model=clip, update_source=True, **BOXES)

    after = [d.to_dict() for d in scenes.values("objects")]
    for old, new in zip(before, after, strict=True):
        for old_label, new_label in zip(old["detections"], new["detections"], strict=True):
            assert new_label.pop("zs_label") in CLASSES
            assert 0 <= new_label.pop("zs_confidence") <= 1
            assert new_label.pop("zs_run")
            kept = {k: v for k, v in new_label.items() if not k.startswith("zs_")}
            assert kept.keys() == old_label.keys()
            assert all(kept[k] == old_label[k] for k in kept if k != "mask")
    assert report.run_key == "zs_detect_objects"
    assert not scenes.has_field("zs_detections")
    again = zs.detect(scenes, NAMES, model=clip, update_source=True, **BOXES)
    assert again.resumed == 12
    with pytest.raises(FieldError, match=r"other settings|did not write"):
        zs.detect(scenes, NAMES[:9], model=clip, update_source=True, **BOXES)


def test_single_detections_are_named_too(scenes, clip):
    singles = [found.detections[0] for found in scenes.values("objects")]
    scenes.set_values("single", [label.copy() for label in singles])
    zs.detect(scenes, NAMES, model=clip, regions="single", label_field="a", progress=False)
    zs.detect(scenes, NAMES, model=clip, regions="single", update_source=True, progress=False)

    assert names(scenes, "a.detections.label") == [[n] for n in scenes.values("single.zs_label")]


def test_a_sample_without_boxes_is_done_and_costs_nobody_else(scenes, clip):
    second, third = scenes.values("id")[1:3]
    scenes.set_values("objects", {second: fo.Detections(), third: None}, key_field="id")
    report = zs.detect(scenes, NAMES, model=clip, label_field="named", **BOXES)

    assert report.counts == {"labeled": 10, "no_prompts": 2}
    assert scenes[second].named.detections == []
    assert scenes[third].named.detections == []


def test_unusable_boxes_are_counted_with_reasons(scenes, clip):
    nan = float("nan")
    bad = [[1.2, 0.2, 0.2, 0.2], [0.1, 0.1, -0.2, 0.1], [nan, 0, 0.5, 0.5], [0.2, 0.2, 0, 0.1]]
    good = [-0.1, 0.1, 0.5, 0.5]
    sample = scenes.values("id")[0]
    labels = [fo.Detection(label="x", bounding_box=box) for box in [*bad, good]]
    scenes.set_values("odd", {sample: fo.Detections(detections=labels)}, key_field="id")
    report = zs.detect(
        scenes, NAMES, model=clip, regions="odd", label_field="named", progress=False
    )

    found = scenes[sample].named.detections
    assert [label.source_id for label in found] == [labels[4].id]
    assert found[0].bounding_box == pytest.approx([0, 0.1, 0.4, 0.5], abs=1e-5)
    assert sum(int(w.split()[0]) for w in report.warnings if "could not be scored" in w) == 4


def test_rejected_boxes_keep_their_place(scenes, clip):
    zs.detect(
        scenes, NAMES, model=clip, label_field="named", min_cosine=0.999, reject_label="?", **BOXES
    )

    assert scenes.distinct("named.detections.label") == ["?"]
    assert scenes.distinct("named.detections.rejected_by") == ["cosine"]
    assert scenes.count("named.detections") == scenes.count("objects.detections")


def test_nothing_found_is_an_empty_label(scenes, clip, proposer):
    report = zs.detect(
        scenes, NAMES, model=clip, proposals=proposer, min_confidence=1.0, progress=False
    )

    assert report.counts == {"nothing_found": 12}
    assert all(found.detections == [] for found in scenes.values("zs_detections"))


def test_results_do_not_depend_on_batches_or_threads(scenes, clip, proposer):
    def run(field, **options):
        zs.detect(
            scenes, NAMES, model=clip, proposals=proposer, label_field=field, progress=False,
            **options,
        )  # fmt: skip
        return names(scenes, f"{field}.detections.label"), np.concatenate(
            [
                np.array(boxes).reshape(-1, 4)
                for boxes in names(scenes, f"{field}.detections.bounding_box")
            ]
        )

    labels, boxes = run("one", batch_size=1, workers=0)
    for n, (batch_size, workers) in enumerate([(4, 4), (7, 1)]):
        other_labels, other_boxes = run(f"other_{n}", batch_size=batch_size, workers=workers)
        assert other_labels == labels
        assert np.abs(other_boxes - boxes).max() < 1e-3


def test_apply_model_writes_the_same_boxes(scenes, clip, proposer):
    zs.detect(scenes, NAMES, model=clip, proposals=proposer, batch_size=4, progress=False)
    model = zs.RegionDetector(NAMES, model=clip, proposals=proposer)
    scenes.apply_model(model, "theirs", batch_size=4, num_workers=0, progress=False)
    named = zs.RegionDetector(NAMES, model=clip, regions="objects")
    scenes.apply_model(named, "named", batch_size=4, num_workers=0, progress=False)
    zs.detect(scenes, NAMES, model=clip, label_field="ours_named", **BOXES)

    for a, b in (("zs_detections", "theirs"), ("ours_named", "named")):
        assert names(scenes, f"{a}.detections.label") == names(scenes, f"{b}.detections.label")
        for x, y in zip(
            flat(scenes, f"{a}.detections.confidence"),
            flat(scenes, f"{b}.detections.confidence"),
            strict=True,
        ):
            assert x == pytest.approx(y, abs=1e-5)


def test_one_unreadable_scene_costs_one_label(scenes, clip, proposer, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    scenes.add_sample(fo.Sample(filepath=str(broken)))
    report = zs.detect(scenes, NAMES, model=clip, proposals=proposer, progress=False)

    assert report.counts == {"labeled": 12, "unreadable_media": 1}
    assert scenes.last().zs_detections is None
    assert scenes.last().zs_detections_error.startswith("unreadable_media")


def test_boxes_lie_on_the_upright_image(scenes, clip, proposer, dataset, tmp_path):
    """A photo stored sideways gets the boxes of the picture that the App shows."""
    from PIL import Image

    upright = Image.open(scenes.first().filepath)
    sideways = tmp_path / "sideways.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(sideways, exif=exif)
    dataset.add_sample(fo.Sample(filepath=str(sideways)))
    for samples in (scenes.limit(1), dataset):
        zs.detect(samples, NAMES, model=clip, proposals=proposer, progress=False)

    expected, found = (s.first().zs_detections.detections for s in (scenes, dataset))
    assert [d.label for d in found] == [d.label for d in expected]
    for a, b in zip(found, expected, strict=True):
        assert a.bounding_box == pytest.approx(b.bounding_box, abs=0.01)


def test_the_record_names_the_proposer(scenes, clip, proposer):
    zs.detect(scenes, NAMES, model=clip, proposals=proposer, progress=False)

    record = provenance.find(scenes, "detect", "zs_detections")
    assert len(record["proposer"]["weights_sha256"]) == 64
    assert record["region_embedding"] == "crops"
    assert record["options"]["objectness_weight"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"regions": "nothing"}, FieldError, "objects"),
        ({"regions": "tags"}, FieldError, "bounding boxes"),
        ({"overlap": "some"}, InvalidInputError, "overlap"),
        ({"objectness_weight": 2}, InvalidInputError, "objectness_weight"),
        ({"max_regions": 0}, InvalidInputError, "max_regions"),
        ({"iou": 0.5}, InvalidInputError, "iou"),
        ({"update_source": True}, InvalidInputError, "regions="),
        ({"label_field": "objects"}, FieldError, "overwrit"),
        ({"label_field": "caption"}, FieldError, "StringField"),
        ({"proposals": "fasterrcnn_resnet_v2"}, UnknownModelError, "fasterrcnn_resnet50_fpn_v2"),
        ({"region_embedding": "roy"}, InvalidInputError, "roi"),
        ({"batch_size": 0}, InvalidInputError, "batch_size"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    scenes, clip, arguments, error, message
):
    schema = set(scenes.get_field_schema(flat=True))
    with pytest.raises(error, match=message):
        zs.detect(
            scenes, NAMES, **{"model": clip, "proposals": "shapes-tiny", "progress": False}
            | arguments,
        )  # fmt: skip

    assert set(scenes.get_field_schema(flat=True)) == schema
    assert scenes.list_runs() == []


def test_patches_of_another_field_are_refused(scenes, clip):
    scenes.clone_sample_field("objects", "copies")
    with pytest.raises(SamplesError, match="copies"):
        zs.detect(scenes.to_patches("copies"), NAMES, model=clip, **BOXES)
