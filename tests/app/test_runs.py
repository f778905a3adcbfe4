"""The panel of runs in the real App: two are compared, a change is shown, one is deleted."""

from __future__ import annotations

import json

import pytest

import zs_operators as zs

FAST = {"model": "shapes-tiny", "precision": "fp32", "progress": False}


@pytest.fixture
def named(scenes):
    """The boxes of ``objects`` named twice, the second time without two of the names."""
    names = sorted(scenes.distinct("objects.detections.label"))
    for field, words in (("first", names), ("second", [*names[:-2], "white star"])):
        zs.detect(scenes, words, regions="objects", label_field=field, embeddings="reuse", **FAST)
    return scenes


class Runs:
    """The panel, in the words of a person who uses it."""

    def __init__(self, app) -> None:
        self.app, self.page = app, app.page

    def open(self) -> None:
        self.page.locator('[data-cy="new-panel-btn"]').first.click()
        self.page.get_by_text("Zero-shot runs", exact=True).first.click()
        self.button("Refresh").wait_for(timeout=60_000)

    def button(self, name: str):
        return self.page.get_by_role("button", name=name, exact=True)

    def row(self, cell: str):
        found = self.page.get_by_role("cell", name=cell, exact=True)
        return self.page.locator("tbody tr").filter(has=found)

    def wait_for_count(self, count: int) -> None:
        counts = self.page.locator('[data-cy="entry-counts"]')
        counts.get_by_text(f"{count:,} sample", exact=False).wait_for()


def test_two_runs_are_compared_and_one_is_deleted(app, named):
    from playwright.sync_api import expect

    comparison = zs.compare_runs(zs.load_run(named, "first"), zs.load_run(named, "second"))
    flip = comparison.flips[0]
    assert 0 < len(flip.ids) < len(named)
    app.open(named)
    runs = Runs(app)
    runs.open()
    runs.row("detect → first").get_by_role("cell").first.click()
    app.page.locator("strong", has_text="detect → first ·").wait_for()
    runs.row("detect → second").get_by_role("button").click()
    # The first one imports torch
    agreement = app.page.get_by_text(f"{comparison.agreement:.1%} agreement")
    agreement.wait_for(timeout=120_000)
    app.page.get_by_text("Settings that differ").wait_for()
    app.screenshot("runs-panel", height_px=1000)
    runs.row(f"{flip.before} → {flip.after}").get_by_role("cell").first.click()
    runs.wait_for_count(len(flip.ids))
    runs.button(f"Changed ({len(comparison.changed_ids)})").click()
    runs.wait_for_count(len(comparison.changed_ids))
    runs.button("All").click()
    runs.wait_for_count(len(named))

    with app.page.expect_download() as saved:
        runs.button("Export").click()
    assert saved.value.suggested_filename == "zs_detect_first.json"
    content = json.loads(saved.value.path().read_text())
    assert content["record"]["signature"] == zs.load_run(named, "first").signature

    runs.button("Delete…").click()
    app.form.get_by_text("Labels of 12 images in first", exact=False).wait_for()
    app.form.get_by_text("Delete what it wrote too").click()
    app.page.wait_for_timeout(500)
    app.form.get_by_role("button", name="Delete").click()
    app.toasts.get_by_text("Deleted run zs_detect_first", exact=False).wait_for()
    expect(runs.row("detect → first")).to_have_count(0)
    expect(runs.row("detect → second")).to_have_count(1)
    expect(app.page.locator('[data-cy="sidebar-field-first"]')).to_have_count(0)
    named.reload()
    assert [run.key for run in zs.runs(named)] == ["zs_detect_second"]
    assert not named.has_field("first")
    assert named.count("second.detections") == named.count("objects.detections")
