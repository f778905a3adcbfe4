"""The Prompt Lab panel in the real App: from bad names to written labels."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from tests import single_objects
from tests.app_panels import PLOTS, PanelPage

COUNT = itertools.count(1)
BAD = ["circle", "heart"]
#: The heading and the bars of the first plot are those of a version
DRAWN = f"""([version, first, count]) => {{
    const heading = [...document.querySelectorAll("strong")].some(e => e.textContent === version);
    const plot = document.querySelector("{PLOTS}");
    return heading && plot?.querySelectorAll(".point path").length === count
        && plot.querySelector(".xtick text")?.textContent === first;
}}"""
#: From the moment of the next click until after the frame that shows what is waited for
SECONDS = """(drawn) => new Promise((done, fail) => {
    setTimeout(() => fail(new Error("the new plots were not drawn in two minutes")), 120_000);
    let clicked = null;
    const note = (event) => { clicked ??= event.timeStamp; };
    document.addEventListener("click", note, {capture: true, once: true});
    const look = () => {
        if (clicked === null || !drawn()) return requestAnimationFrame(look);
        requestAnimationFrame(() => {
            const channel = new MessageChannel();
            channel.port1.onmessage = () => done((performance.now() - clicked) / 1000);
            channel.port2.postMessage(null);
        });
    };
    requestAnimationFrame(look);
})"""


@pytest.fixture
def scenes(dataset, tmp_path):
    """60 embedded scenes of one object each."""

    import zs_operators as zs

    dataset.name = f"lab-{next(COUNT)}"
    single_objects.add(dataset, single_objects.draw(tmp_path, 60))
    zs.classify(dataset, BAD, model="shapes-tiny", embeddings="reuse", progress=False)
    dataset.delete_sample_field("zs_classification")
    return dataset


class Lab(PanelPage):
    """The panel, in the words of a person who uses it."""

    def open(self) -> None:
        super().open("Prompt Lab")
        self.button("Update").wait_for(timeout=60_000)

    @property
    def words(self):
        return self.page.locator("textarea:not([readonly])").first

    def update(self, words: list[str], version: int) -> float:
        """Seconds from the click until the plots of the new version are drawn and painted."""
        self.words.fill("\n".join(words))
        self.page.wait_for_timeout(600)  # the App sends what is typed after a moment
        self.page.evaluate(f"void (window.updated = ({SECONDS})({self._drawn(version, words)}))")
        self.button("Update").click()
        # The first one imports torch
        return self.page.evaluate("window.updated")

    def wait_for_version(self, version: int, words: list[str]) -> None:
        self.page.wait_for_function(self._drawn(version, words), timeout=120_000)

    def _drawn(self, version: int, words: list[str]) -> str:
        """Whether this version is all there, in JavaScript."""
        wanted = json.dumps([f"Version {version}", words[0], len(words) + 1])
        return f"(() => ({DRAWN})({wanted}))"

    def item(self, label: str):
        """The part of the panel with this label."""
        exact = self.page.get_by_text(label, exact=True)
        return self.page.locator(".MuiGrid-item").filter(has=exact).last

    def fill(self, label: str, text: str) -> None:
        self.item(label).locator("input, textarea:not([readonly])").first.fill(text)
        self.page.wait_for_timeout(600)  # the App sends what is typed after a moment

    def choose(self, label: str, option: str) -> None:
        self.item(label).get_by_role("combobox").click()
        self.page.get_by_role("option", name=option).first.click()
        self.page.wait_for_timeout(1000)

    def unfold(self, label: str) -> None:
        self.page.get_by_role("button", name=label).click()


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
    app.dialog.get_by_text("Images classified").wait_for(timeout=120_000)
    app.dialog.get_by_text("60 of 60 images have a label in zs_classification").wait_for()
    app.close_dialog()
    app.page.locator('[data-cy="sidebar-field-zs_classification"]').wait_for()

    scenes.reload()
    truth, written = scenes.values(["ground_truth.label", "zs_classification.label"])
    assert sum(a == b for a, b in zip(truth, written, strict=True)) == sum(diagonal)

    lab.words.fill("")
    app.page.wait_for_timeout(600)
    lab.button("Update").click()
    app.page.get_by_text("Type at least one class name").first.wait_for()
    app.page.get_by_text("Version 2", exact=True).wait_for()


def test_settings_and_saved_vocabularies(app, scenes):
    from playwright.sync_api import expect

    import zs_operators as zs

    names = sorted(set(scenes.values("ground_truth.label")))
    app.open(scenes)
    lab = Lab(app)
    lab.open()
    lab.update(names, 1)
    lab.unfold("More settings")
    lab.choose("Prompt templates", "Your own")
    lab.fill("Templates", "{}")
    lab.fill("Background prompts", "a white circle")
    lab.fill("Least margin", "2")
    lab.choose("Score shown", "Confidence")
    app.page.locator(PLOTS).nth(1).get_by_text("Confidence", exact=True).wait_for()
    assert max(lab.data(1)["x"]) <= 1
    lab.button("Update").click()
    lab.wait_for_version(2, names)
    rejected = lab.data(0)["y"][-1]
    assert rejected > 0
    app.screenshot("prompt-lab-settings", height_px=1500)

    lab.unfold("Saved vocabularies")
    lab.fill("Name", "first try")
    lab.button("Save").click()
    app.toasts.get_by_text(f"{len(names)} classes saved with the dataset").wait_for()
    scenes.reload()
    saved = zs.load_vocabulary(scenes, "first try")
    assert (saved.templates, saved.background) == (("{}",), ("a white circle",))

    lab.button("Undo").click()
    lab.wait_for_version(1, names)
    expect(lab.item("Background prompts").locator("textarea").first).to_have_value("")
    lab.update(BAD, 2)
    lab.choose("Saved with this dataset", "first try")
    lab.button("Load").click()
    lab.wait_for_version(3, names)
    expect(lab.words).to_have_value("\n".join(names))
    expect(lab.item("Prompt templates").get_by_role("combobox")).to_contain_text("None")
    # thresholds of a run are not part of a vocabulary
    assert 0 < lab.data(0)["y"][-1] <= rejected


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
    took = [round(lab.update(words[i:] + words[:i], i + 1), 2) for i in range(1, 7)]
    print("seconds an update:", took)  # for docs/performance.md; clocks are not tested
    assert sum(lab.data(0)["y"]) == 10_000
