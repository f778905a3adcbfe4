"""From the panel for beginners to labels, with the keyboard alone, and the form the second time."""

from __future__ import annotations

from tests.app_panels import PanelPage

FORM = '[data-cy="operators-prompt-modal"]'


def focus(page) -> str:
    """Text of the part of the form that has the focus, or of the button."""
    return page.evaluate(
        "(() => { const e = document.activeElement; const item = e.closest('.MuiGrid-item');"
        " return e.tagName === 'BUTTON' ? e.textContent : item ? item.textContent : ''; })()"
    )


def tab_to(page, text: str) -> None:
    for _ in range(80):
        if focus(page).startswith(text):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"the keyboard does not get to {text!r}")


def test_classified_without_the_mouse(app, scenes):
    from playwright.sync_api import expect

    app.open(scenes)
    keyboard = app.page.keyboard
    keyboard.press("Backquote")
    app.page.locator('[data-cy="operators-browser-search"]').wait_for()
    keyboard.type("Classify images by text")
    app.page.wait_for_timeout(300)
    keyboard.press("Enter")
    app._wait_for_defaults()
    tab_to(app.page, "Class names")
    keyboard.type("circle\nheart\nstar")
    tab_to(app.page, "Model")
    keyboard.press("Enter")
    keyboard.type("shapes")
    keyboard.press("Enter")
    app.wait_until_valid()
    tab_to(app.page, "Execute")
    keyboard.press("Enter")
    app.dialog.get_by_text("12 of 12 images have a label in zs_classification").wait_for()
    tab_to(app.page, "Done")
    keyboard.press("Enter")
    app.dialog.wait_for(state="hidden")
    scenes.reload()
    assert scenes.count("zs_classification") == 12

    panel = PanelPage(app)
    panel.open("Zero-shot: getting started")
    app.page.get_by_text("labels in", exact=False).wait_for()
    app.page.get_by_text("Text and images: shapes-tiny").wait_for()
    app.screenshot("getting-started", height_px=820)
    panel.button("Classify…").click()
    # the settings of the run before
    expect(app.item("Class names").locator("textarea").first).to_have_value("circle\nheart\nstar")
    app.form.get_by_text("Filled in as in the last run on this dataset").wait_for()
    app.wait_until_valid()
    app.screenshot("form-remembered")
