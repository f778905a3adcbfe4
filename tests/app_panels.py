"""A panel of ours in the App's page, with plots that can be clicked."""

from __future__ import annotations

PLOTS = ".js-plotly-plot"


class PanelPage:
    """What a person does in a panel."""

    def __init__(self, app) -> None:
        self.app, self.page = app, app.page

    def open(self, label: str) -> None:
        self.page.locator('[data-cy="new-panel-btn"]').first.click()
        self.page.get_by_text(label, exact=True).first.click()

    def button(self, name: str):
        return self.page.get_by_role("button", name=name, exact=True)

    def data(self, plot: int) -> dict:
        return self.page.evaluate(
            f"(() => {{ const d = document.querySelectorAll('{PLOTS}')[{plot}].data[0];"
            " return {x: d.x, y: d.y, z: d.z}; })()"
        )

    def click_bar(self, plot: int, bar: int) -> None:
        found = self.page.locator(PLOTS).nth(plot).locator(".point path").nth(bar)
        found.scroll_into_view_if_needed()
        box = found.bounding_box()
        self._click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)

    def click_cell(self, plot: int, row: int, column: int, shape: tuple[int, int]) -> None:
        found = self.page.locator(PLOTS).nth(plot).locator(".heatmaplayer image").first
        found.scroll_into_view_if_needed()
        box = found.bounding_box()
        rows, columns = shape
        self._click(
            box["x"] + box["width"] * (column + 0.5) / columns,
            box["y"] + box["height"] * (1 - (row + 0.5) / rows),
        )

    def _click(self, x: float, y: float) -> None:
        self.page.mouse.move(x - 2, y)
        self.page.mouse.move(x, y)
        self.page.wait_for_timeout(300)
        self.page.mouse.click(x, y)

    def wait_for_count(self, count: int) -> None:
        self.page.locator('[data-cy="entry-counts"]').get_by_text(
            f"{count:,} sample", exact=False
        ).wait_for()
