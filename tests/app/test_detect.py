"""``@zs/operators/detect`` as a person meets it: in the real App, in a real browser."""

from __future__ import annotations

from tests.tiny_detectors import save_owl

LABEL = "Detect objects by text"
BACKGROUND = "empty background"


def fill_form(app, names, *, label_field="found"):
    app.fill("Class names", "\n".join(names))
    app.choose("Model", "shapes-tiny")
    app.choose("Model that finds boxes", "shapes-proposals")
    app.fill("Label field", label_field)
    app.wait_until_valid()


def set_thresholds(app):
    app.form.get_by_role("button", name="Thresholds and overlap").click()
    app.fill("Least confidence", "0.3")
    app.fill("Background prompts", BACKGROUND)


def finish(app):
    # The first run of a server imports torch
    app.dialog.get_by_text("Objects detected").wait_for(timeout=120_000)


def entries(app, text):
    return app.page.locator('[data-cy="entry-counts"]', has_text=text)


def test_three_selected_samples(app, scenes):
    first_three = scenes.limit(3)
    app.open(scenes)
    app.select(3)
    app.find_operator(LABEL)
    fill_form(app, first_three.distinct("objects.detections.label"))
    assert app.form.locator('input[value="SELECTED_SAMPLES"]').is_checked()
    app.screenshot("detect-form", height_px=1290)
    set_thresholds(app)
    app.form.get_by_text("background: empty background").wait_for()
    app.execute()
    finish(app)
    app.dialog.get_by_text("on 3 of 3 images, written to found").wait_for()
    app.dialog.get_by_role("button", name="Show detections").click()
    entries(app, "3 samples").wait_for()
    app.close_dialog()

    app.page.locator('[data-cy="sidebar-field-found"]').wait_for()
    app.screenshot("detect-grid", height_px=520)
    scenes.reload()
    assert scenes.exists("found").values("id") == first_three.values("id")
    found = first_three.values("found.detections.label")
    objects = first_three.values("objects.detections.label")
    assert all(set(names) & set(known) for names, known in zip(found, objects, strict=True))


def test_preview_then_the_rest(app, scenes):
    app.open(scenes)
    app.press_placement("detect-dark")
    fill_form(app, scenes.distinct("objects.detections.label"))
    set_thresholds(app)
    app.form.get_by_text("Try on 8 samples first").click()
    app.execute()
    finish(app)
    app.dialog.get_by_text("on 8 of 8 images, written to found").wait_for()
    entries(app, "8 samples").wait_for()
    app.screenshot("detect-preview")
    scenes.reload()
    assert scenes.count("found") == 8

    app.dialog.get_by_role("button", name="Run on the other 4").click()
    app.dialog.get_by_text("8 were done by an earlier run and kept").wait_for()
    entries(app, "12 samples").wait_for()
    app.close_dialog()
    scenes.reload()
    assert scenes.count("found") == 12


def test_a_detector_of_another_make(app, scenes, tmp_path):
    folder = save_owl(tmp_path / "tiny-owlv2")
    app.open(scenes)
    app.find_operator(LABEL)
    app.fill("Class names", "red circle\nblue star")
    app.choose("Model", "Other detector")
    app.fill("Detector", "yolov8s-wrld-torch")
    app.form.get_by_text("nearest: yolov8s-world-torch").wait_for()
    app.fill("Detector", "google/owlv2-base-patch16-ensemble")
    app.form.get_by_text("are not on this machine, and downloads are switched off").wait_for()
    app.screenshot("detect-other", height_px=1290)
    app.fill("Detector", str(folder))
    app.form.get_by_text("a photo of a red circle").wait_for()
    app.fill("Label field", "found")
    app.execute()
    finish(app)
    app.dialog.get_by_text("on 12 of 12 images, written to found").wait_for()
    app.close_dialog()
    scenes.reload()
    record = scenes.get_run_info("zs_detect_found").config.serialize()
    assert record["model"]["name"] == "tiny-owlv2"
