"""Stored embeddings, registered as a similarity index: the App's own text search finds images."""

from __future__ import annotations

import pytest

from tests import single_objects

NAME = "text-search"


@pytest.fixture
def registered(dataset, tmp_path):
    """30 embedded scenes of one object each, and an index of their embeddings."""

    import zs_operators as zs

    dataset.name = NAME
    single_objects.add(dataset, single_objects.draw(tmp_path, 30))
    clip = zs.load_clip("shapes-tiny")
    zs.classify(dataset, ["thing"], model=clip, embeddings="reuse", progress=False)
    dataset.delete_sample_field("zs_classification")
    zs.register_index(dataset, clip, "by_text")
    return dataset


def test_the_app_searches_by_text(app, registered):
    from playwright.sync_api import expect

    words = registered.first().ground_truth.label
    expected = registered.sort_by_similarity(words, k=25, brain_key="by_text")
    assert expected.first().ground_truth.label == words
    app.open(registered)
    app.page.locator('[data-cy="action-sort-by-similarity"]').click()
    box = app.page.get_by_placeholder("Type anything!")
    box.fill(words)
    box.press("Enter")
    # The first search imports torch and loads the model
    done = app.page.get_by_text("25 results")
    done.wait_for(timeout=180_000)
    # The row says that it cannot be dragged, which Playwright takes for a button that is off
    app.page.get_by_label("Show results", exact=True).click(force=True)
    app.page.locator('[data-cy="entry-counts"]').get_by_text("25 samples").wait_for()
    app.tiles.first.wait_for()
    expect(app.page.locator('[data-cy="looker"]').first).to_contain_text(words)
