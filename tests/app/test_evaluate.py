"""``@zs/operators/evaluate`` as a person meets it: in the real App, in a real browser."""

from __future__ import annotations

import random

import fiftyone as fo
import pytest

import zs_operators as zs

LABEL = "Evaluate labels"


@pytest.fixture
def found(scenes):
    """The boxes of ``objects`` again in ``found``, some misnamed, some misshapen."""
    names = sorted(scenes.distinct("objects.detections.label"))
    draw = random.Random(4)
    for sample in scenes.iter_samples(autosave=True):
        boxes = []
        for number, item in enumerate(sample.objects.detections):
            x, y, width, height = item.bounding_box
            boxes.append(
                fo.Detection(
                    label=draw.choice(names) if number % 3 == 1 else item.label.title(),
                    bounding_box=[x, y, width, height * (0.3 if number % 3 == 2 else 1)],
                    confidence=draw.random(),
                )
            )
        sample["found"] = fo.Detections(detections=boxes)
    return scenes


def finish(app):
    app.dialog.get_by_text("Labels evaluated").wait_for(timeout=120_000)


def test_from_the_menu_to_the_evaluation_panel(app, found):
    from playwright.sync_api import expect

    app.open(found)
    app.find_operator(LABEL, with_default="Evaluation key")
    # The one with confidences is evaluated against the one without
    expect(app.item("Labels").locator("input")).to_have_value("found")
    expect(app.item("Ground truth").locator("input")).to_have_value("objects")
    app.fill("Evaluation key", "shapes")
    app.form.get_by_text("12 of 12 samples").wait_for()
    # Names that differ are shown before anything runs
    app.form.get_by_text("counts as").first.wait_for()
    app.screenshot("evaluate-form", height_px=1100)
    app.execute()
    finish(app)
    found.reload()
    report = zs.load_evaluation(found, "shapes")
    app.dialog.get_by_text(f"{report.metrics['mAP']:.3f} mean average precision").wait_for()
    app.screenshot("evaluate-result", height_px=1100)
    app.dialog.get_by_role("button", name="Open in Model Evaluation").click()
    app.close_dialog()

    # The panel shows this evaluation, not the list of all
    app.page.get_by_text("Metric Performance").first.wait_for(timeout=90_000)
    expect(app.page.get_by_text("2 Model Evaluations")).to_be_hidden()
    found.reload()
    assert found.list_evaluations() == ["shapes", "shapes_any_class"]
    assert report.localisation.name_accuracy < 1
    # Fields keep their own names
    assert any(name[0].isupper() for name in found.distinct("found.detections.label"))


def test_what_cannot_be_evaluated_is_said_in_the_form(app, found):
    from playwright.sync_api import expect

    zs.evaluate(found, "found", "objects", eval_key="first", compute_mAP=False)
    app.open(found)
    app.find_operator(LABEL, with_default="Evaluation key")
    execute = app.form.get_by_role("button", name="Execute")
    app.fill("Evaluation key", "first")
    app.form.get_by_text("'first' exists").wait_for()
    expect(execute).to_be_disabled()
    app.form.get_by_text("Overwrite", exact=True).click()
    app.wait_until_valid()
    app.fill("Names that mean the same (optional)", "nothing")
    app.form.get_by_text("must be a predicted name, a colon").first.wait_for()
    expect(execute).to_be_disabled()
