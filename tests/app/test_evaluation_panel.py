"""The evaluation panel in the real App: what is clicked is what the grid shows."""

from __future__ import annotations

import itertools

import fiftyone as fo
import pytest

import zs_operators as zs
from tests import single_objects
from tests.app_panels import PLOTS, PanelPage

COUNT = itertools.count(1)
#: Words the model does not know; the same as in docs/evaluate-and-fix.md
OWN = {"cyan": "teal", "purple": "violet", "orange": "amber"}


@pytest.fixture
def evaluated(dataset, tmp_path):
    """Scenes of one object, classified by poor names."""
    dataset.name = f"evaluation-{next(COUNT)}"
    single_objects.add(dataset, single_objects.draw(tmp_path, 60))
    names = sorted(set(dataset.values("ground_truth.label")))
    pairs = [name.split() for name in names]
    words = {" ".join(pair): f"{pair[1]} {OWN.get(pair[0], pair[0])}" for pair in pairs}
    zs.classify(dataset, words, model="shapes-tiny", min_margin=0.05, progress=False)
    zs.evaluate(dataset, "zs_classification", "ground_truth", eval_key="check", progress=False)
    return dataset


def test_what_is_clicked_is_shown(app, evaluated):
    app.open(evaluated)
    panel = PanelPage(app)
    panel.open("Zero-shot evaluation")
    panel.button("Confident mistakes").wait_for(timeout=60_000)
    app.page.wait_for_function(f"document.querySelectorAll('{PLOTS} .heatmaplayer image').length")
    app.page.wait_for_timeout(500)
    cells = panel.data(0)
    shape = (len(cells["y"]), len(cells["x"]))
    assert sum(map(sum, cells["z"])) == 60
    wrong = [
        (cells["z"][row][column], row, column)
        for row, truth in enumerate(cells["y"])
        for column, label in enumerate(cells["x"])
        if truth != label
    ]
    count, row, column = max(wrong)
    assert count > 1
    app.screenshot("evaluation-panel", height_px=1500)
    panel.click_cell(0, row, column, shape)
    panel.wait_for_count(count)
    label, truth = cells["x"][column], cells["y"][row]
    shown = evaluated.match(
        (fo.ViewField("ground_truth.label") == truth)
        & (fo.ViewField("zs_classification.label") == label)
    )
    assert len(shown) == count
    app.screenshot("evaluation-clicked", height_px=1000)
    panel.button("All").click()
    panel.wait_for_count(60)
    bars = panel.data(1)
    bins = zs.load_evaluation(evaluated, "check").reliability
    fullest = max(range(len(bins)), key=lambda index: bins[index].count)
    assert bars["x"][fullest] == pytest.approx(
        (bins[fullest].low + bins[fullest].high) / 2, abs=1e-3
    )
    panel.click_bar(1, fullest)
    panel.wait_for_count(bins[fullest].count)
    panel.button("All").click()
    panel.wait_for_count(60)
    mistakes = zs.error_view(evaluated, "confident_mistakes", eval_key="check")
    panel.button("Confident mistakes").click()
    panel.wait_for_count(len(mistakes))
    panel.button("Save as views").click()
    app.toasts.get_by_text("views of errors", exact=False).wait_for()
    evaluated.reload()
    assert "zs_classification: confident mistakes" in evaluated.list_saved_views()


def test_suspicious_labels_are_tagged_and_reviewed(app, evaluated):
    from playwright.sync_api import expect

    app.open(evaluated)
    app.find_operator("Review zero-shot labels")
    app.item("What to do").get_by_text("Tag what is suspicious").wait_for()
    app.wait_until_valid()
    app.screenshot("review-form")
    app.execute()
    app.form.get_by_text("Tag zs_review is on these samples").wait_for()
    doubtful = evaluated.match_tags("zs_review")
    assert len(doubtful)
    app.form.get_by_role("button", name="Close").click()
    page = PanelPage(app)
    page.wait_for_count(len(doubtful))

    app.select(2)
    app.find_operator("Review zero-shot labels")
    app.form.get_by_text("Mark as reviewed").click()
    app.form.get_by_text("They should have another name").click()
    app.fill("The right name", "red heart")
    app.execute()
    app.form.get_by_text("2 labels reviewed", exact=False).wait_for()
    app.form.get_by_role("button", name="Close").click()
    evaluated.reload()
    assert evaluated.count_values("zs_reviewed.label") == {"red heart": 2, None: 58}
    expect(app.page.locator('[data-cy="sidebar-field-zs_reviewed"]')).to_be_visible()
