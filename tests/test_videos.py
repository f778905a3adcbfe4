"""Videos: their frames are read, labelled and written as fields of frames."""

from __future__ import annotations

import json
import os
from itertools import chain
from pathlib import Path

import cv2
import fiftyone as fo
import numpy as np
import pytest
from fiftyone import ViewField as F

import zs_operators as zs
from tests.run_labels import rest
from tests.tiny_videos import RATE, write_video
from zs_operators.cli import main
from zs_operators.errors import FieldError, InvalidInputError, SamplesError
from zs_operators.report import Progress
from zs_operators.shapes.world import CLASSES, make_scene
from zs_operators.video_files import decoded, video_info
from zs_operators.video_frames import iter_sample_frames

NAMES = list(CLASSES)
FAST = {"progress": False, "workers": 0}


@pytest.fixture(scope="module")
def scenes():
    return [make_scene(seed, num_objects=1) for seed in range(6)]


@pytest.fixture
def videos(dataset, scenes, tmp_path):
    """Two videos of three seconds, each second another scene."""
    for name, part in (("a", scenes[:3]), ("b", scenes[3:])):
        labels = write_video(tmp_path / f"{name}.mp4", part)
        dataset.add_sample(fo.Sample(filepath=str(tmp_path / f"{name}.mp4"), truth=labels))
    return dataset


def images(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.jpg"))


def test_a_video_says_what_it_holds_and_is_read_frame_by_frame(videos):
    path = videos.first().filepath
    info = video_info(path)
    assert (info.frame_rate, info.num_frames) == (RATE, 3 * RATE)
    found = list(decoded(path, [2, 9]))
    assert [number for number, _ in found] == list(range(1, 10))
    assert [number for number, pixels in found if pixels is not None] == [2, 9]
    assert found[1][1].shape == (info.height_px, info.width_px, 3)
    assert np.abs(found[1][1].astype(int) - found[8][1]).mean() > 5  # another scene
    assert video_info(__file__) is None


def test_frames_are_labelled_and_the_videos_have_the_labels(videos, clip, scenes):
    report = zs.classify(
        videos, NAMES, label_field="shape", model=clip, frames_per_second=1, **FAST
    )
    assert report.counts == {"labeled": 6}
    assert "shape" not in videos.get_field_schema()
    assert "shape" in videos.get_frame_field_schema()
    numbers = videos.match_frames(F("shape").exists()).values("frames.frame_number")
    assert numbers == [[1, 9, 17]] * 2
    shown = [[label for label in one if label] for one in videos.values("frames.shape.label")]
    truth = videos.values("truth")
    pairs = list(zip(chain(*shown), chain(*truth), strict=True))
    assert sum(found == true for found, true in pairs) >= 5, pairs
    assert videos.values("metadata.frame_rate") == [RATE] * 2


def test_the_same_frames_as_fiftyone_takes(videos):
    frames = zs.sample_frames(videos, 2.5, progress=False)
    numbers = frames.values("frame_number")
    assert [frames.first().filepath.endswith("a.mp4_frames/000001.jpg")]
    again = videos.to_frames(sample_frames=False, fps=2.5)
    assert again.values("frame_number") == numbers
    assert again.values("id") == frames.values("id")
    assert len(numbers) == 16


def test_the_same_call_goes_on_and_other_settings_are_refused(videos, clip):
    call = {"model": clip, "label_field": "shape", **FAST}
    zs.classify(videos.limit(1), NAMES, frames_per_second=1, **call)
    written = videos.values("frames[].shape.id")
    report = zs.classify(videos, NAMES, frames_per_second=1, **call)
    assert (report.resumed, report.counts) == (3, {"labeled": 3})
    report = zs.classify(videos, NAMES, frames_per_second=2, **call)
    assert (report.resumed, report.counts) == (6, {"labeled": 6})
    assert [one for one in videos.values("frames[].shape.id") if one in written]
    with pytest.raises(FieldError, match=r"other settings|did not write"):
        zs.classify(videos, NAMES[:9], frames_per_second=1, **call)
    report = zs.classify(videos, NAMES[:9], frames_per_second=1, overwrite=True, **call)
    assert report.counts == {"labeled": 6}


def test_labels_of_somebody_else_are_not_written_over(videos, clip):
    frames = zs.sample_frames(videos, 1, progress=False)
    mine = {frames.first().id: fo.Classification(label="mine")}
    frames.set_values("shape", mine, key_field="id")
    with pytest.raises(FieldError, match="holds labels"):
        zs.classify(videos, NAMES, label_field="shape", model=clip, frames_per_second=1, **FAST)
    # also where the view has none of the frames that hold them
    with pytest.raises(FieldError, match="holds labels"):
        zs.classify(
            videos.skip(1), NAMES, label_field="shape", model=clip, frames_per_second=1, **FAST
        )


def test_what_somebody_changes_meanwhile_is_left_alone(videos, clip, monkeypatch):
    monkeypatch.setattr("zs_operators.runner.CHUNK_SAMPLES", 1)
    call = {"model": clip, "label_field": "shape", "batch_size": 1}
    steps = zs.iter_classify(videos, NAMES, frames_per_second=1, **call)
    while next(steps).unit != "images":
        pass
    video = videos.last()
    video.frames[17]["shape"] = fo.Classification(label="mine")
    video.save()
    assert rest(steps).counts == {"labeled": 5, "edited": 1}
    videos.reload()
    assert videos.last().frames[17].shape.label == "mine"


def test_boxes_are_found_named_and_masked(videos, clip):
    options = {"model": clip, "proposals": "shapes-tiny", "frames_per_second": 1, **FAST}
    report = zs.detect(videos, NAMES, label_field="frames.found", **options)
    assert report.label_field == "found"
    boxes = videos.count("frames.found.detections")
    assert boxes >= 6
    again = {"model": clip, "frames_per_second": 1, "regions": "frames.found", **FAST}
    zs.detect(videos, NAMES, update_source=True, **again)
    assert videos.count("frames.found.detections.zs_label") == boxes
    zs.segment(
        videos,
        prompts="found",
        model="shapes-tiny",
        semantic_field="areas",
        frames_per_second=1,
        **FAST,
    )
    assert videos.count("frames.zs_masks.detections.mask") == boxes
    assert videos.count("frames.areas") == 6
    assert videos.mask_targets["frames.areas"]


def test_frames_with_images_need_no_rate(videos, clip):
    zs.sample_frames(videos.limit(1), 1, progress=False)
    report = zs.classify(videos, NAMES, model=clip, **FAST)
    assert report.counts == {"labeled": 3}


def test_images_are_read_once_and_anew_when_a_video_changes(videos, scenes, tmp_path, monkeypatch):
    zs.sample_frames(videos, 1, progress=False)
    assert images(tmp_path) == [
        f"{name}.mp4_frames/{number:06d}.jpg" for name in "ab" for number in (1, 9, 17)
    ]
    read = []
    original = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda path: read.append(path) or original(path))
    zs.sample_frames(videos, 1, progress=False)
    assert read == []
    path = tmp_path / "a.mp4"
    write_video(path, scenes[3:])
    later = os.stat(tmp_path / "a.mp4_frames/000001.jpg").st_mtime + 5
    os.utime(path, (later, later))
    before = cv2.imread(str(tmp_path / "a.mp4_frames/000001.jpg"))
    zs.sample_frames(videos, 1, progress=False)
    assert read == [str(path)]
    assert np.abs(before.astype(int) - cv2.imread(str(tmp_path / "a.mp4_frames/000001.jpg"))).any()


def test_frames_with_images_of_their_own_keep_them(videos, tmp_path):
    video = videos.first()
    own = tmp_path / "own.jpg"
    cv2.imwrite(str(own), np.zeros((32, 32, 3), np.uint8))
    video.frames[9] = fo.Frame(filepath=str(own), note="mine")
    video.save()
    frames = zs.sample_frames(videos, 1, progress=False)
    assert str(own) in frames.values("filepath")
    assert "a.mp4_frames/000009.jpg" not in images(tmp_path)
    assert videos.first().frames[9].note == "mine"


def test_images_go_to_a_folder_of_their_own(videos, scenes, tmp_path):
    (tmp_path / "other").mkdir()
    write_video(tmp_path / "other/a.mp4", scenes[:1])
    videos.add_sample(fo.Sample(filepath=str(tmp_path / "other/a.mp4")))
    frames = zs.sample_frames(videos, 1, frames_dir=tmp_path / "images", progress=False)
    folders = {Path(path).parent.name for path in frames.values("filepath")}
    assert folders == {f"{Path(one.filepath).stem}-{one.id}" for one in videos}
    assert len(images(tmp_path / "images")) == len(frames) == 7


def test_videos_that_cannot_be_read_are_named_and_cost_no_other(videos, clip, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"\0\0\0 ftypisom" + bytes(2000))
    videos.add_samples(
        [fo.Sample(filepath=str(tmp_path / name)) for name in ("broken.mp4", "gone.mp4")]
    )
    report = zs.classify(videos, NAMES, model=clip, frames_per_second=1, **FAST)
    assert report.counts == {"labeled": 6}
    assert "2 of 4 videos" in report.warnings[0]
    assert "broken.mp4" in report.warnings[0]
    assert "gone.mp4" in report.warnings[0]
    stored = zs.load_run(videos, "zs_classification").record["report"]["warnings"]
    assert stored == list(report.warnings)
    with pytest.raises(SamplesError, match=r"broken\.mp4"):
        zs.classify(videos.skip(2), NAMES, model=clip, frames_per_second=1, **FAST)


def test_a_video_that_ends_early_gives_the_frames_there_are(videos, clip, tmp_path):
    video = videos.first()
    video.metadata = fo.VideoMetadata(frame_rate=RATE, total_frame_count=10 * RATE)
    video.save()
    report = zs.classify(videos.limit(1), NAMES, model=clip, frames_per_second=1, **FAST)
    assert report.counts == {"labeled": 3}


def test_an_image_that_is_gone_is_a_failure_with_a_reason(videos, clip, tmp_path):
    frames = zs.sample_frames(videos, 1, progress=False)
    Path(frames.first().filepath).unlink()
    report = zs.classify(videos, NAMES, model=clip, **FAST)
    assert report.counts == {"labeled": 5, "missing_media": 1}
    reasons = [one for one in videos.values("frames[].zs_classification_error") if one]
    assert len(reasons) == 1
    run = zs.load_run(videos, "zs_classification")
    assert run.failed().values("id") == [videos.first().id]
    # with the rate it is read again
    report = zs.classify(videos, NAMES, model=clip, frames_per_second=1, **FAST)
    assert report.counts == {"labeled": 1}
    assert not any(videos.values("frames[].zs_classification_error"))


def test_clips_take_frames_of_their_part(videos, clip):
    part = [fo.TemporalDetection(support=[9, 24])]
    for video in videos:
        video["events"] = fo.TemporalDetections(detections=[one.copy() for one in part])
        video.save()
    clips = videos.to_clips("events")
    report = zs.classify(clips, NAMES, model=clip, frames_per_second=1, **FAST)
    assert report.counts == {"labeled": 4}
    labelled = videos.match_frames(F("zs_classification").exists())
    assert labelled.values("frames.frame_number") == [[9, 17]] * 2


def test_a_slice_of_videos(dataset, scenes, clip, tmp_path):
    write_video(tmp_path / "a.mp4", scenes[:2])
    picture = tmp_path / "a.png"
    cv2.imwrite(str(picture), scenes[0].image)
    dataset.add_group_field("group", default="photo")
    group = fo.Group()
    dataset.add_sample(fo.Sample(filepath=str(picture), group=group.element("photo")))
    dataset.add_sample(fo.Sample(filepath=str(tmp_path / "a.mp4"), group=group.element("film")))
    call = {"model": clip, "label_field": "shape", **FAST}
    report = zs.classify(dataset, NAMES, group_slice="film", frames_per_second=1, **call)
    assert report.counts == {"labeled": 2}
    assert zs.classify(dataset, NAMES, group_slice="all", **call).counts == {"labeled": 1}
    with pytest.raises(SamplesError, match="two runs"):
        zs.classify(dataset, NAMES, group_slice=["film", "photo"], **call)


def test_the_run_is_recorded_and_repeated(videos):
    report = zs.classify(videos, NAMES, model="shapes-tiny", frames_per_second=1, **FAST)
    run = zs.load_run(videos, report.run_key)
    assert "ToFrames" in json.dumps(run.record["samples"])
    again = zs.rerun(run, label_field="again", progress=False)
    assert again.counts == {"labeled": 6}
    assert zs.compare_runs(run, zs.load_run(videos, "again")).agreement == 1
    assert zs.delete_run(run, fields=True).fields == ("frames.zs_classification",)
    assert "zs_classification" not in videos.get_frame_field_schema()


def test_the_command_takes_videos(videos, tmp_path, capsys):
    videos.persistent = True
    command = ["classify", videos.name, "--classes", "red circle", "blue star"]
    command += ["--frames-per-second", "1", "--frames-dir", str(tmp_path / "images")]
    assert main([*command, "--model", "shapes-tiny", "--quiet"]) == 0
    assert len(images(tmp_path / "images")) == 6
    videos.reload()
    assert videos.count("frames.zs_classification") == 6


def test_progress_counts_videos_first_and_reading_can_be_cut_short(videos, tmp_path):
    steps = iter_sample_frames(videos, 1)
    first = next(steps)
    assert first == Progress(0, 2, "reading videos", unit="videos")
    assert next(steps).done == 1
    steps.close()
    assert images(tmp_path) == [f"a.mp4_frames/{number:06d}.jpg" for number in (1, 9, 17)]
    assert videos.first().frames[9].filepath.endswith("000009.jpg")
    units = [one.unit for one in iter_sample_frames(videos, 1)]
    assert set(units) == {"videos"}


def test_no_room_for_images_is_said(videos, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SamplesError, match="frames_dir="):
        zs.sample_frames(videos, 1, frames_dir=tmp_path / "file", progress=False)


@pytest.mark.parametrize("rate", [0, -1, True, "1", float("nan")])
def test_rates_without_meaning_are_refused(videos, rate):
    with pytest.raises(InvalidInputError, match="frames_per_second"):
        zs.sample_frames(videos, rate, progress=False)


def test_videos_without_a_rate_and_images_with_one_are_refused(videos, clip, tmp_path):
    with pytest.raises(SamplesError, match="frames_per_second=1"):
        zs.classify(videos, NAMES, model=clip, **FAST)
    with pytest.raises(InvalidInputError, match="frames_dir"):
        zs.classify(videos, NAMES, model=clip, frames_dir=tmp_path, **FAST)
    with pytest.raises(SamplesError, match="no samples"):
        zs.classify(videos.limit(0), NAMES, model=clip, frames_per_second=1, **FAST)
    frames = zs.sample_frames(videos, 1, progress=False)
    with pytest.raises(InvalidInputError, match="for videos"):
        zs.classify(frames, NAMES, model=clip, frames_per_second=1, **FAST)
    assert videos.list_runs() == []
