"""``@zs/operators/segment`` as a person meets it: in the real App, in a real browser."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageFilter

LABEL = "Segment objects"


def fill_form(app, prompts, *, label_field="masks"):
    app.choose("Prompt with", prompts)
    app.choose("Model that segments", "shapes-sam")
    app.fill("Label field", label_field)


def finish(app):
    # The first run of a server imports torch
    app.dialog.get_by_text("Objects segmented").wait_for(timeout=120_000)


def entries(app, text):
    return app.page.locator('[data-cy="entry-counts"]', has_text=text)


def pixels(app, index):
    """RGB pixels of a tile as the browser paints it."""
    tile = app.page.locator('[data-cy="looker"]').nth(index)
    app.page.mouse.move(0, 0)  # a tile under the mouse is drawn otherwise
    app.page.wait_for_timeout(800)
    picture = tile.locator("canvas").first.screenshot()
    return np.asarray(Image.open(BytesIO(picture)).convert("RGB"), dtype=int)


def on_and_off(sample, field, shape):
    """Pixels of a tile that are surely on masks of a sample, and surely on none."""
    with Image.open(sample.filepath) as image:
        size = image.size
    covered = np.zeros(size[::-1], dtype=bool)
    for label in sample[field].detections:
        covered |= label.to_segmentation(frame_size=size).mask > 0
    share = Image.fromarray(covered.astype(np.uint8) * 255).resize(shape[::-1], Image.BOX)
    on, off = share.filter(ImageFilter.MinFilter(5)), share.filter(ImageFilter.MaxFilter(5))
    return np.asarray(on) == 255, np.asarray(off) == 0


def test_boxes_of_three_selected_samples(app, scenes):
    first_three = scenes.limit(3)
    app.open(scenes)
    app.select(3)
    app.find_operator(LABEL)
    fill_form(app, "Boxes of objects")
    app.wait_until_valid()
    assert app.form.locator('input[value="SELECTED_SAMPLES"]').is_checked()
    app.screenshot("segment-form", height_px=1000)
    app.execute()
    finish(app)
    app.dialog.get_by_text("3 of 3 images have masks, written to masks").wait_for()
    app.dialog.get_by_role("button", name="Show masks").click()
    entries(app, "3 samples").wait_for()
    app.close_dialog()

    app.page.locator('[data-cy="sidebar-field-masks"]').wait_for()
    app.screenshot("segment-grid", height_px=520)
    scenes.reload()
    assert scenes.exists("masks").values("id") == first_three.values("id")
    sources = first_three.values("masks.detections.source_id")
    assert sources == first_three.values("objects.detections.id")

    shown = [pixels(app, index) for index in range(3)]
    app.page.locator('[data-cy="checkbox-masks"]').click()  # the sidebar hides the field
    for index, sample in enumerate(first_three):
        changed = np.abs(shown[index] - pixels(app, index)).sum(axis=2) > 30
        on, off = on_and_off(sample, "masks", changed.shape)
        assert on.sum() > 200
        assert changed[on].mean() > 0.9
        assert changed[off].mean() < 0.05  # the outlines of boxes


def test_preview_by_text_then_the_rest(app, scenes):
    names = scenes.distinct("objects.detections.label")
    app.open(scenes)
    app.press_placement("segment-dark")
    fill_form(app, "By text", label_field="found")
    app.fill("Class names", "\n".join(names))
    app.choose("Model that names", "shapes-tiny")
    app.choose("Model that finds boxes", "shapes-proposals")
    app.form.get_by_text("Try on 8 samples first").click()
    app.execute()
    finish(app)
    app.dialog.get_by_text("of 8 images have masks, written to found").wait_for()
    entries(app, "8 samples").wait_for()
    scenes.reload()
    assert scenes.count("found") == 8

    app.dialog.get_by_role("button", name="Run on the other 4").click()
    app.dialog.get_by_text("8 were done by an earlier run and kept").wait_for()
    entries(app, "12 samples").wait_for()
    app.close_dialog()
    scenes.reload()
    assert scenes.count("found") == 12
    assert scenes.count("found.detections.mask") >= 12
    assert set(scenes.distinct("found.detections.label")) <= set(names)


def test_what_cannot_be_run_is_said_in_the_form(app, scenes):
    from playwright.sync_api import expect

    app.open(scenes)
    app.find_operator(LABEL)
    fill_form(app, "Everything")
    app.wait_until_valid()
    app.form.get_by_text("About 1,200 masks on 12 images").wait_for()
    execute = app.form.get_by_role("button", name="Execute")

    app.form.get_by_role("button", name="Storage: files and embeddings").click()
    app.fill("Field for one mask of all classes", "classes")
    app.form.get_by_text("semantic_field needs names for masks").wait_for()
    expect(execute).to_be_disabled()
    app.choose("Prompt with", "Boxes of objects")
    app.form.get_by_text("semantic_field needs names for masks").wait_for(state="hidden")
    app.wait_until_valid()
    app.fill("Folder for masks", "/dev/null/masks")
    app.form.get_by_text("cannot be a folder").wait_for()
    expect(execute).to_be_disabled()
