"""Grouped datasets: which slices are labelled, whatever is the active one."""

from __future__ import annotations

import json

import fiftyone as fo
import pytest

import zs_operators as zs
from tests.run_labels import rest
from zs_operators.errors import FieldError, InvalidInputError, SamplesError
from zs_operators.shapes.world import CLASSES

NUM_SCENES = 4
NAMES = list(CLASSES)
FAST = {"progress": False, "workers": 0}


@pytest.fixture
def grouped(dataset, shapes):
    """4 groups of an image left, another right, and a point cloud."""
    dataset.add_group_field("group", default="left")
    pictures = list(shapes.match_tags("scene"))
    for left, right in zip(pictures, pictures[1:] + pictures[:1], strict=True):
        group = fo.Group()
        dataset.add_samples(
            [
                fo.Sample(
                    filepath=one.filepath, objects=one.objects.copy(), group=group.element(name)
                )
                for name, one in (("left", left), ("right", right))
            ]
            + [fo.Sample(filepath="/nowhere/points.pcd", group=group.element("scan"))]
        )
    return dataset


def labelled(dataset, field="zs_classification"):
    """How many samples of each slice have a label."""
    return {
        name: len(dataset.select_group_slices(name).exists(field))
        for name in dataset.group_slices
        if dataset.has_field(field)
    }


@pytest.mark.parametrize(
    ("group_slice", "counts"),
    [
        (None, {"left": 4, "right": 0, "scan": 0}),
        ("right", {"left": 0, "right": 4, "scan": 0}),
        (["right", "left"], {"left": 4, "right": 4, "scan": 0}),
        ("all", {"left": 4, "right": 4, "scan": 0}),
    ],
)
def test_labels_go_to_the_samples_of_the_slices(grouped, clip, group_slice, counts):
    chosen = {} if group_slice is None else {"group_slice": group_slice}
    report = zs.classify(grouped, NAMES, model=clip, **chosen, **FAST)
    assert report.counts == {"labeled": sum(counts.values())}
    assert labelled(grouped) == counts
    assert grouped.group_slice == "left"


def test_the_active_slice_is_the_default(grouped, clip):
    grouped.group_slice = "right"
    zs.classify(grouped, NAMES, model=clip, **FAST)
    assert labelled(grouped) == {"left": 0, "right": 4, "scan": 0}


def test_stages_of_the_view_are_kept(grouped, clip):
    first = grouped.first().id
    report = zs.classify(grouped.select(first), NAMES, model=clip, group_slice="all", **FAST)
    assert report.counts == {"labeled": 2}
    done = grouped.select_group_slices(["left", "right"]).exists("zs_classification")
    assert len(set(done.values("group.id"))) == 1
    assert first in done.values("id")


def test_a_slice_that_is_not_active_resumes_and_is_not_overwritten(grouped, clip):
    for _ in range(2):
        report = zs.classify(grouped, NAMES, model=clip, group_slice="right", **FAST)
    assert report.resumed == 4
    with pytest.raises(FieldError, match=r"other settings|did not write"):
        zs.classify(grouped, NAMES[:9], model=clip, group_slice="right", **FAST)
    # labels of the other slice are of the same field
    report = zs.classify(grouped, NAMES, model=clip, group_slice="all", **FAST)
    assert report.resumed == 4
    assert report.counts == {"labeled": 4}


def test_what_somebody_changes_meanwhile_is_left_alone(grouped, clip, monkeypatch):
    monkeypatch.setattr("zs_operators.runner.CHUNK_SAMPLES", 1)
    run = zs.iter_classify(grouped, NAMES, model=clip, group_slice="right", batch_size=1)
    next(run)
    right = grouped.select_group_slices("right")
    last = right.last()
    last["zs_classification"] = fo.Classification(label="mine")
    last.save()
    assert rest(run).counts == {"labeled": 3, "edited": 1}
    assert grouped[last.id].zs_classification.label == "mine"


def test_boxes_of_another_slice_are_named_and_masked(grouped, clip):
    named = {"model": clip, "regions": "objects", "group_slice": "right", **FAST}
    report = zs.detect(grouped, NAMES, label_field="named", **named)
    assert report.counts == {"labeled": 4}
    zs.detect(grouped, NAMES, update_source=True, **named)
    assert zs.detect(grouped, NAMES, update_source=True, **named).resumed == 4
    zs.segment(grouped, prompts="objects", model="shapes-tiny", group_slice="right", **FAST)
    right = grouped.select_group_slices("right")
    count = right.count("objects.detections")
    assert right.count("named.detections") == right.count("objects.detections.zs_label") == count
    assert right.count("zs_masks.detections.mask") == count
    assert grouped.count("named.detections") == 0


def test_the_run_is_recorded_with_its_slices_and_repeated(grouped, clip):
    report = zs.classify(grouped, NAMES, model="shapes-tiny", group_slice="right", **FAST)
    run = zs.load_run(grouped, report.run_key)
    assert "right" in json.dumps(run.record["samples"])
    again = zs.rerun(run, label_field="again", progress=False)
    assert again.counts == {"labeled": 4}
    assert labelled(grouped, "again") == {"left": 0, "right": 4, "scan": 0}


@pytest.mark.parametrize(
    ("group_slice", "error", "message"),
    [
        ("scan", SamplesError, "'scan' holds 'point-cloud'.*'left', 'right'"),
        (["left", "scan"], SamplesError, "'scan'"),
        ("middle", SamplesError, "'middle' is not there.*'left', 'right'"),
        ([], InvalidInputError, "group_slice"),
        ([1], InvalidInputError, "group_slice"),
    ],
)
def test_other_slices_are_refused(grouped, clip, group_slice, error, message):
    with pytest.raises(error, match=message):
        zs.classify(grouped, NAMES, model=clip, group_slice=group_slice, **FAST)
    assert grouped.list_runs() == []


def test_a_slice_of_images_without_groups_is_refused(shapes, clip):
    with pytest.raises(SamplesError, match="not grouped"):
        zs.classify(shapes, NAMES, model=clip, group_slice="left", **FAST)


def test_an_active_slice_of_point_clouds_is_refused(grouped, clip):
    grouped.group_slice = "scan"
    with pytest.raises(SamplesError, match="group_slice="):
        zs.classify(grouped, NAMES, model=clip, **FAST)
