"""``@zs/operators/sample_frames``: the form, and what a run of it gives."""

from __future__ import annotations

import cv2
import fiftyone as fo
import numpy as np
import pytest

from tests.plugin_runs import execute, last_dialog, messages, view_set


@pytest.fixture
def uri():
    return "@zs/operators/sample_frames"


@pytest.fixture
def videos(dataset, tmp_path):
    """A video of three seconds, and one that cannot be read."""
    path = str(tmp_path / "a.mp4")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"mp4v"), 8, (64, 48))
    for level in range(24):
        writer.write(np.full((48, 64, 3), 10 * level, np.uint8))
    writer.release()
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    dataset.add_samples(
        [fo.Sample(filepath=path), fo.Sample(filepath=str(tmp_path / "broken.mp4"))]
    )
    return dataset


def invalid(properties):
    return {name: one.error_message for name, one in properties.items() if one.invalid}


def test_the_form_says_how_many_frames_there_will_be(form, videos):
    properties = form(videos)
    assert invalid(properties) == {}
    assert properties["frames_per_second"].default == 1
    assert "count" not in properties  # nothing is known of their length yet
    for video in videos:
        video.metadata = fo.VideoMetadata(duration=30)
        video.save()
    assert form(videos, {"frames_per_second": 0.5})["count"].view.label == "About 30 frames"


def test_images_and_no_dataset_are_refused(form, scenes):
    assert "Only videos" in invalid(form(scenes))["target_error"]
    assert "Open a dataset" in invalid(form())["target_error"]


def test_the_app_shows_the_frames(operator, context, videos):
    told = messages(operator, context(videos, app=True, params={"frames_per_second": 2}))
    names = [body["operator_uri"] for body in told]
    assert names.index("reload_dataset") < names.index("set_view")
    frames = videos.limit(1).to_frames(sample_frames=False, fps=2)
    assert view_set(videos, told) == frames.values("id")
    _, text = last_dialog(told)
    assert "6 frames" in text
    assert "1 of 2 videos could not be read" in text
    stop = next(body for body in told if body["operator_uri"] == "show_output")
    assert "Frames that were read stay" in str(stop)


def test_called_it_is_a_function(operator, videos, tmp_path):
    view = operator(videos, 1, frames_dir=str(tmp_path / "images"), progress=False)
    assert view.values("frame_number") == [1, 9, 17]
    assert len(list((tmp_path / "images").rglob("*.jpg"))) == 3


def test_a_script_gets_a_count(videos, uri):
    found = execute(uri, videos, {})
    assert found["frames"] == 3
    assert "1 of 2 videos" in found["warnings"][0]
