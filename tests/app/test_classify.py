"""``@zs/operators/classify`` as a person meets it: in the real App, in a real browser."""

from __future__ import annotations

import itertools
import json
import shutil
import threading

import pytest

from tests import single_objects

COUNT = itertools.count(1)
LABEL = "Classify images by text"
CLASSES = "cyan circle\npurple circle\nred heart: red heart, scarlet heart\norange star"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """48 scenes with one object each: paths and the names of the objects."""
    folder = tmp_path_factory.mktemp("pictures")
    return single_objects.draw(folder, 48)


@pytest.fixture
def scenes(dataset, pictures):
    # The server remembers selection and view of a dataset by its name
    dataset.name = f"shapes-{next(COUNT)}"
    single_objects.add(dataset, pictures)
    return dataset


def fill_form(app, *, classes=CLASSES, label_field="shape"):
    app.fill("Class names", classes)
    app.choose("Model", "shapes-tiny")
    app.fill("Label field", label_field)
    app.wait_until_valid()


def finish(app):
    # The first run of a server imports torch
    app.dialog.get_by_text("Images classified").wait_for(timeout=120_000)


def test_three_selected_samples(app, scenes):
    app.open(scenes)
    app.frame(1.2)
    app.select(3)
    app.frame(1.2)
    app.search_operators(LABEL)
    app.frame(1.2)
    app.choose_operator(LABEL)
    app.frame(0.8)
    app.fill("Class names", CLASSES.partition("\n")[0])
    app.frame(0.8)
    fill_form(app)
    assert app.form.locator('input[value="SELECTED_SAMPLES"]').is_checked()
    assert app.form.get_by_text("35 prompts for 4 classes").is_visible()
    assert app.form.get_by_text("a bad photo of the cyan circle.").is_visible()
    app.frame(2)
    app.screenshot("classify-form", height_px=1170)

    app.execute()
    app.dialog.get_by_text("Preparing").wait_for()
    finish(app)
    assert app.dialog.get_by_text("3 of 3 images have a label in shape").is_visible()
    app.frame(1.6)
    app.screenshot("classify-result")
    app.close_dialog()

    app.page.locator('[data-cy="sidebar-field-shape"]').wait_for()
    app.page.locator('[data-cy="tag-shape"]').first.wait_for()
    app.page.mouse.move(0, 0)
    app.frame(2)
    app.animation("classify")
    app.screenshot("classify-grid")

    scenes.reload()
    first_three = scenes.limit(3).values("id")
    assert scenes.exists("shape").values("id") == first_three
    assert scenes.limit(3).values("shape.label") == scenes.limit(3).values("ground_truth.label")


def test_whole_dataset_while_the_page_is_busy(app, browser, scenes, pictures):
    """Requests that reload the dataset during the run must not cost a single label."""
    import fiftyone as fo

    scenes.add_samples(fo.Sample(filepath=path) for _ in range(25) for path, _ in pictures)
    total = len(scenes)
    app.open(scenes)
    app.press_placement("icon-dark")
    app.form.get_by_role("tab", name="From a label field").click()
    app.choose("Label field with the classes", "ground_truth")
    app.choose("Model", "shapes-tiny")
    app.fill("Label field", "shape")
    app.wait_until_valid()
    app.form.get_by_role("button", name="Device and speed").click()
    app.fill("Batch size", "16")
    app.execute()

    app.dialog.get_by_text("images/s").wait_for()
    app.screenshot("classify-progress")
    other = browser.new_page()
    reloads = 0
    while reloads < 5 and not app.dialog.get_by_text("Images classified").is_visible():
        other.goto(f"{app.address}/datasets/{scenes.name}")
        other.locator('[data-cy="looker"]').first.wait_for()
        reloads += 1
    other.close()
    finish(app)

    assert reloads > 0, "the run was over before the page asked for anything"
    assert app.dialog.get_by_text(f"{total:,} of {total:,} images").is_visible()
    scenes.reload()
    assert scenes.count("shape") == total
    assert scenes.count("shape.label") == total


def test_stop_keeps_what_was_written(app, scenes, pictures):
    import fiftyone as fo

    scenes.add_samples(fo.Sample(filepath=path) for _ in range(50) for path, _ in pictures)
    app.open(scenes)
    app.find_operator(LABEL)
    fill_form(app)
    app.form.get_by_role("button", name="Device and speed").click()
    app.fill("Batch size", "1")
    app.execute()
    app.dialog.get_by_text("images/s").wait_for()
    app.dialog.get_by_role("button", name="Stop").click()

    said = app.dialog.get_by_text("Stopped after")
    said.wait_for()
    done = int(said.inner_text().split()[2].replace(",", ""))
    scenes.reload()
    assert 0 < done < len(scenes)
    assert scenes.count("shape") == done


def test_unreadable_image_is_recorded_and_can_be_shown(app, scenes, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"this is no image")
    sample = scenes.first()
    shutil.copy(sample.filepath, tmp_path / "whole.png")
    sample.filepath = str(broken)
    sample.save()

    app.open(scenes)
    app.find_operator(LABEL)
    fill_form(app)
    app.execute()
    finish(app)
    assert app.dialog.get_by_text("47 of 48 images have a label in shape").is_visible()
    app.screenshot("classify-failures")
    app.dialog.get_by_role("button", name="Show 1 failed").click()
    app.page.locator('[data-cy="entry-counts"]', has_text="1 sample").wait_for()
    app.close_dialog()

    scenes.reload()
    assert scenes.exists("shape_error").values("id") == [sample.id]
    assert "unreadable_media" in scenes[sample.id]["shape_error"]


def test_unusable_inputs_are_named_in_the_form(app, scenes):
    from playwright.sync_api import expect

    app.open(scenes)
    app.find_operator(LABEL)
    fill_form(app)
    execute = app.form.get_by_role("button", name="Execute")

    app.fill("Label field", "ground_truth")
    app.form.get_by_text("exists and holds labels").wait_for()
    expect(execute).to_be_disabled()
    app.fill("Label field", "1st")
    app.form.get_by_text("not usable as a field name").wait_for()
    expect(execute).to_be_disabled()
    app.fill("Label field", "shape")

    app.choose("Prompt templates", "Your own")
    app.fill("Templates", "a photo without a place for the name")
    app.form.get_by_text("has no {}").wait_for()
    expect(execute).to_be_disabled()
    app.fill("Templates", "a drawing of a {}")
    app.form.get_by_text("a drawing of a cyan circle").wait_for()

    app.choose("Model", "Another open_clip model")
    app.fill("Architecture", "ViT-B-23")
    app.form.get_by_text("nearest: ").wait_for()
    expect(execute).to_be_disabled()


def test_an_error_of_the_run_reaches_the_person(app, scenes, unreadable_model):
    app.open(scenes)
    app.find_operator(LABEL)
    fill_form(app)
    app.choose("Model", "Another open_clip model")
    app.fill("Weights", str(unreadable_model))
    app.wait_until_valid()
    app.execute()
    app.dialog.get_by_text("The run has failed").wait_for()
    app.toasts.first.wait_for()
    app.close_dialog()
    scenes.reload()
    assert scenes.count("shape") == 0 if scenes.has_field("shape") else True


def test_classes_from_a_field_and_from_a_file(app, scenes, tmp_path):
    app.open(scenes)
    app.find_operator(LABEL)
    app.form.get_by_role("tab", name="From a label field").click()
    app.choose("Label field with the classes", "ground_truth")
    count = len(scenes.distinct("ground_truth.label"))
    app.form.get_by_text(f"for {count} classes").wait_for()

    words = tmp_path / "words.json"
    words.write_text(json.dumps({"round": ["circle", "ring"], "pointed": ["star"]}))
    app.form.get_by_role("tab", name="From a file").click()
    app.form.locator('input[type="file"]').set_input_files(words)
    app.form.get_by_text("21 prompts for 2 classes").wait_for()


def test_scheduled_run(app, scenes):
    from fiftyone.operators.delegated import DelegatedOperationService

    app.open(scenes)
    app.select(2)
    app.find_operator(LABEL)
    fill_form(app)
    app.form.get_by_role("button", name="Execute").locator("xpath=following::button[1]").click()
    app.page.get_by_role("menuitem").filter(has_text="Schedule").click()
    app.form.get_by_role("button", name="Schedule").click()
    app.toasts.filter(has_text="scheduled").wait_for()

    service = DelegatedOperationService()
    # Playwright keeps an event loop in this thread, which the service needs to start its own
    worker = threading.Thread(target=service.execute_queued_operations)
    worker.start()
    worker.join()
    (operation,) = service.list_operations(operator="@zs/operators/classify")
    assert operation.run_state == "completed"
    assert operation.status.progress == 1.0
    scenes.reload()
    assert scenes.exists("shape").values("id") == scenes.limit(2).values("id")


def test_grouped_dataset_asks_for_the_slice(app, dataset, pictures):
    import fiftyone as fo

    dataset.add_group_field("group", default="left")
    for (left, _), (right, _) in zip(pictures[::2], pictures[1::2], strict=True):
        group = fo.Group()
        dataset.add_samples(
            [
                fo.Sample(filepath=left, group=group.element("left")),
                fo.Sample(filepath=right, group=group.element("right")),
            ]
        )
    app.open(dataset)
    app.find_operator(LABEL)
    app.choose("Group slice", "right")
    fill_form(app)
    app.execute()
    finish(app)
    app.close_dialog()
    dataset.reload()
    assert dataset.select_group_slices("left").count("shape") == 0
    assert dataset.select_group_slices("right").count("shape") == 24
