"""The Prompt Lab panel in the real App: from bad names to written labels."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from PIL import Image

from zs_operators.shapes.world import make_scene

COUNT = itertools.count(1)
BAD = ["circle", "heart"]
PLOTS = ".js-plotly-plot"


@pytest.fixture
def scenes(dataset, tmp_path):
    """60 embedded scenes of one object each."""
    import fiftyone as fo

    import zs_operators as zs

    dataset.name = f"lab-{next(COUNT)}"
    for seed in range(60):
        scene = make_scene(seed, num_objects=1)
        path = tmp_path / f"{seed:03}.png"
        Image.fromarray(scene.image).save(path)
        truth = fo.Classification(label=scene.objects[0].label)
        dataset.add_sample(fo.Sample(filepath=str(path), ground_truth=truth))
    zs.classify(dataset, BAD, model="shapes-tiny", embeddings="reuse", progress=False)
    dataset.delete_sample_field("zs_classification")
    return dataset


class Lab:
    """The panel, in the words of a person who uses it."""

    def __init__(self, app) -> None:
        self.app, self.page = app, app.page

    def open(self) -> None:
        self.page.locator('[data-cy="new-panel-btn"]').first.click()
        self.page.get_by_text("Prompt Lab", exact=True).first.click()
        self.button("Update").wait_for(timeout=60_000)

    def button(self, name: str):
        return self.page.get_by_role("button", name=name, exact=True)

    @property
    def words(self):
        return self.page.locator("textarea:not([readonly])").first

    def update(self, words: list[str], version: int) -> float:
        """Seconds until the plots of the new version are drawn."""
        self.words.fill("\n".join(words))
        self.page.wait_for_timeout(600)  # the App sends what is typed after a moment
        begun = time.perf_counter()
        self.button("Update").click()
        self.wait_for_version(version, words)
        return time.perf_counter() - begun

    def wait_for_version(self, version: int, words: list[str]) -> None:
        # The first one imports torch
        self.page.get_by_text(f"Version {version}", exact=True).wait_for(timeout=120_000)
        self.page.wait_for_function(
            f"""([first, count]) => {{
                const plot = document.querySelectorAll("{PLOTS}")[0];
                return plot?.querySelectorAll(".point path").length === count
                    && plot.querySelector(".xtick text")?.textContent === first;
            }}""",
            arg=[words[0], len(words) + 1],
        )

    def choose(self, label: str, option: str) -> None:
        """The dropdown below a label."""
        place = self.page.locator(".MuiBox-root", has_text=label).locator('[role="combobox"]')
        place.nth({"Model": 0, "Ground truth": 1}[label]).click()
        self.page.get_by_role("option", name=option).first.click()
        self.page.wait_for_timeout(1000)

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


def test_from_bad_names_to_written_labels(app, scenes):
    from playwright.sync_api import expect

    names = sorted(set(scenes.values("ground_truth.label")))
    app.open(scenes)
    lab = Lab(app)
    lab.open()
    lab.choose("Ground truth", "ground_truth")
    lab.update(BAD, 1)
    app.page.get_by_text("0.0% right").wait_for()
    bars = lab.data(0)
    assert bars["x"] == [*BAD, "(rejected)"]
    assert sum(bars["y"]) == len(scenes)
    lab.click_bar(0, 0)
    lab.wait_for_count(bars["y"][0])
    lab.button("All").click()
    lab.wait_for_count(len(scenes))

    lab.update(names, 2)
    app.page.get_by_text("60 changed", exact=False).wait_for()
    expect(app.page.get_by_text("% right")).not_to_contain_text("0.0%")
    cells = lab.data(2)
    assert cells["x"] == [*names, "(rejected)"]
    assert cells["y"] == names
    diagonal = [cells["z"][i][i] for i in range(len(names))]
    assert sum(diagonal) > 0.8 * len(scenes)
    row = int(np.argmax(diagonal))
    app.screenshot("prompt-lab", height_px=1700)
    lab.click_cell(2, row, row, (len(names), len(names) + 1))
    lab.wait_for_count(diagonal[row])
    lab.button("Least certain").click()
    lab.wait_for_count(24)

    lab.button("Undo").click()
    lab.wait_for_version(1, BAD)
    expect(lab.words).to_have_value("\n".join(BAD))
    assert lab.data(0)["y"] == bars["y"]
    lab.update(names, 2)
    lab.button("All").click()
    lab.wait_for_count(len(scenes))
    lab.button("Write labels").click()
    app.toasts.get_by_text("60 labels written to zs_classification").wait_for()
    app.page.locator('[data-cy="sidebar-field-zs_classification"]').wait_for()

    scenes.reload()
    truth, written = scenes.values(["ground_truth.label", "zs_classification.label"])
    assert sum(a == b for a, b in zip(truth, written, strict=True)) == sum(diagonal)

    lab.words.fill("")
    app.page.wait_for_timeout(600)
    lab.button("Update").click()
    app.page.get_by_text("Type at least one class name").first.wait_for()
    app.page.get_by_text("Version 2", exact=True).wait_for()


def test_10000_images_and_100_classes_are_updated(app, dataset, tmp_path):
    import fiftyone as fo

    import zs_operators as zs
    from zs_operators.embeddings import image_key
    from zs_operators.model_stores import image_store

    dataset.name = f"lab-{next(COUNT)}"
    paths = [tmp_path / f"{i}.jpg" for i in range(10_000)]
    for path in paths:
        path.touch()
    clip = zs.load_clip("shapes-tiny")
    vectors = np.random.default_rng(0).normal(size=(len(paths), clip.dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with image_store(clip) as store:
        store.put([image_key(path) for path in paths], vectors)
    dataset.add_samples([fo.Sample(filepath=str(path)) for path in paths])
    app.open(dataset, wait_for_grid=False)
    lab = Lab(app)
    lab.open()
    words = [f"thing {i}" for i in range(100)]
    lab.update(words, 1)
    took = [lab.update(words[i:] + words[:i], i + 1) for i in range(1, 6)]
    print("seconds an update:", took)  # for docs/performance.md; clocks are not tested
    assert sum(lab.data(0)["y"]) == 10_000
