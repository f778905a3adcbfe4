"""Videos in the real App: a form offers to sample their frames, which are then classified."""

from __future__ import annotations

import itertools

import fiftyone as fo
import pytest

from tests.tiny_videos import metadata, write_video
from zs_operators.shapes.world import make_scene

COUNT = itertools.count(1)
LABEL = "Classify images by text"


@pytest.fixture
def videos(dataset, tmp_path):
    """Two videos of three seconds, each second another scene, whose object is in ``truth``."""
    dataset.name = f"videos-{next(COUNT)}"
    scenes = [make_scene(seed, num_objects=1) for seed in range(6)]
    for name, part in (("a", scenes[:3]), ("b", scenes[3:])):
        path = tmp_path / f"{name}.mp4"
        truth = write_video(path, part)
        dataset.add_sample(fo.Sample(filepath=str(path), metadata=metadata(3), truth=truth))
    return dataset


def test_a_form_offers_the_frames_of_videos(app, videos):
    from playwright.sync_api import expect

    app.open(videos, wait_for_grid=False)
    app.page.locator('[data-cy="entry-counts"]', has_text="2 sample").wait_for()
    app.find_operator(LABEL, with_default=None)
    app.form.get_by_text("These samples are videos").wait_for()
    expect(app.form.get_by_role("button", name="Execute")).to_be_disabled()
    app.form.get_by_role("button", name="Sample frames").click()

    app._wait_for_defaults("Frames per second")
    app.form.get_by_text("About 6 frames").wait_for()
    expect(app.form.get_by_text("These samples are videos")).to_be_hidden()
    app.screenshot("sample-frames")
    app.execute()
    app.dialog.get_by_text("6 frames").wait_for(timeout=120_000)
    app.close_dialog()
    expect(app.tiles).to_have_count(6)

    app.find_operator(LABEL)
    truth = videos.values("truth", unwind=True)
    app.fill("Class names", "\n".join(sorted(set(truth))))
    app.choose("Model", "shapes-tiny")
    app.fill("Label field", "shape")
    app.execute()
    app.dialog.get_by_text("6 of 6 images have a label in shape").wait_for(timeout=120_000)
    app.close_dialog()
    app.page.locator('[data-cy="tag-shape"]').first.wait_for()
    videos.reload()
    assert videos.values("frames.shape.label", unwind=True) == truth
