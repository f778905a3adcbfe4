"""Forms, dialogs and panels can be read in the App's light theme, and in its dark one."""

from __future__ import annotations

import itertools

import fiftyone as fo
import pytest

import zs_operators as zs
from tests import single_objects
from tests.app_legibility import look
from tests.app_panels import PLOTS, PanelPage
from tests.tiny_videos import metadata, write_video
from zs_operators.shapes.world import make_scene

COUNT = itertools.count(1)
FAST = {"precision": "fp32", "progress": False}
#: Higher than the App's usual page: more of a long form is shown
TALL = {"width": 1400, "height": 1300}
FOLDED = '[role="button"][aria-expanded="false"]'
#: Operators, and an input of their form that has a default
FORMS = {
    "Classify images by text": "Label field",
    "Detect objects by text": "Label field",
    "Segment objects": "Label field",
    "Sharpen with labelled samples": "Name of the head",
    "Evaluate labels": "Evaluation key",
}
#: Operators that ask for runs, which inputs ask for them, and a text that the form has then
FORMS_OF_RUNS = {
    "Run a zero-shot run again": (["Run"], "Compute all labels anew"),
    "Compare two zero-shot runs": (["Run", "Compared with"], "Least overlap"),
    "Delete a zero-shot run": (["Run"], "This cannot be undone"),
    "Export a zero-shot run": (["Run"], "empty: download it"),
    "Import a zero-shot run": ([], "Replace a run of the same key"),
}


class Reader:
    """Looks at parts of the page in both themes, and notes what cannot be read."""

    def __init__(self, app) -> None:
        self.app, self.page = app, app.page
        self.problems: list[str] = []

    def look(self, name: str, part) -> None:
        for theme in ("dark", "light"):
            self.app.use_theme(theme)
            count, problems = look(part)
            assert count > 2, f"{name}: there is nothing to read"
            self.problems += [f"{name}, {theme}: {problem}" for problem in problems]

    def look_at_form(self, name: str) -> None:
        """With all its sections open."""
        folded = self.app.form.locator(FOLDED)
        while folded.count():
            folded.first.click()
        self.page.wait_for_timeout(300)  # until they are open
        self.look(name, self.app.form)

    def cancel(self) -> None:
        self.app.form.get_by_role("button", name="Cancel").click()
        self.app.form.wait_for(state="hidden")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """24 scenes of one object, classified twice, with an evaluation."""
    folder = tmp_path_factory.mktemp("labelled")
    dataset = fo.Dataset(f"themes-{next(COUNT)}")
    single_objects.add(dataset, single_objects.draw(folder, 24))
    names = sorted(set(dataset.values("ground_truth.label")))
    clip = {"model": "shapes-tiny", "embeddings": "reuse", **FAST}
    zs.classify(dataset, names, label_field="first", **clip)
    zs.classify(dataset, names[:4], label_field="second", min_margin=1, **clip)
    zs.evaluate(dataset, "first", "ground_truth", eval_key="check", progress=False)
    yield dataset
    dataset.delete()


@pytest.fixture
def reader(app):
    app.page.set_viewport_size(TALL)
    return Reader(app)


def test_forms(app, reader, labelled):
    app.open(labelled)
    app.use_theme("light")
    for label, with_default in FORMS.items():
        app.find_operator(label, with_default=with_default)
        reader.look_at_form(label)
        reader.cancel()

    app.find_operator("Review zero-shot labels", with_default=None)
    app.form.get_by_text("What to do").wait_for()
    app.wait_until_valid()
    reader.look_at_form("Review zero-shot labels")
    reader.cancel()
    assert not reader.problems, "\n".join(reader.problems)


def test_forms_of_runs(app, reader, labelled):
    app.open(labelled)
    app.use_theme("light")
    for label, (asked, text) in FORMS_OF_RUNS.items():
        app.find_operator(label, with_default=None)
        for name, run in zip(asked, ("first", "second"), strict=False):
            app.choose(name, f"classify → {run}")
        app.form.get_by_text(text).wait_for()
        reader.look_at_form(label)
        reader.cancel()
    assert not reader.problems, "\n".join(reader.problems)


def test_a_result_and_an_error(app, reader, labelled, unreadable_model):
    app.open(labelled)
    app.use_theme("light")
    app.find_operator("Classify images by text")
    app.fill("Class names", "circle\nheart\nstar")
    app.choose("Model", "shapes-tiny")
    app.fill("Label field", "third")
    app.execute()
    app.dialog.get_by_text("24 of 24 images have a label in third").wait_for(timeout=120_000)
    reader.look("result", app.dialog)
    app.close_dialog()

    app.find_operator("Classify images by text")
    app.fill("Class names", "circle\nheart\nstar")
    app.choose("Model", "Another open_clip model")
    app.fill("Weights", str(unreadable_model))
    app.fill("Label field", "fourth")
    app.execute()
    app.dialog.get_by_text("The run has failed").wait_for()
    reader.look("error", app.dialog)
    app.close_dialog()
    assert not reader.problems, "\n".join(reader.problems)


def test_a_video_is_offered_its_frames(app, reader, dataset, tmp_path):
    dataset.name = f"themes-{next(COUNT)}"
    write_video(tmp_path / "a.mp4", [make_scene(1, num_objects=1)])
    dataset.add_sample(fo.Sample(filepath=str(tmp_path / "a.mp4"), metadata=metadata(1)))
    app.open(dataset, wait_for_grid=False)
    app.page.locator('[data-cy="entry-counts"]', has_text="1 sample").wait_for()
    app.use_theme("light")
    app.find_operator("Classify images by text", with_default=None)
    app.form.get_by_text("These samples are videos").wait_for()
    reader.look("refusal", app.form)
    reader.cancel()
    app.find_operator("Sample frames of videos", with_default="Frames per second")
    reader.look_at_form("Sample frames of videos")
    assert not reader.problems, "\n".join(reader.problems)


def test_panels(app, reader, labelled):
    app.open(labelled)
    app.use_theme("light")
    panel = PanelPage(app)
    panel.open("Zero-shot: getting started")
    reader.look("getting started", around(app, "Models that are here", "Check the installation"))
    panel.open("Zero-shot runs")
    reader.look("runs", around(app, "classify → first", "Refresh"))
    panel.open("Zero-shot evaluation")
    app.page.locator(PLOTS).nth(1).locator(".point path").last.wait_for(timeout=60_000)
    reader.look("evaluation", around(app, "Confident mistakes", "Look again"))
    panel.open("Prompt Lab")
    panel.button("Update").wait_for(timeout=60_000)
    app.page.locator("textarea:not([readonly])").first.fill("circle\nheart\nstar")
    app.page.wait_for_timeout(600)
    panel.button("Update").click()
    app.page.get_by_text("Version 1").first.wait_for(timeout=120_000)
    reader.look("prompt lab", around(app, "Class names", "Update"))
    assert not reader.problems, "\n".join(reader.problems)


def around(app, text: str, button: str):
    """The smallest part of the page that has the text and the button."""
    holds = f"xpath=ancestor::*[.//button[contains(., '{button}')]][1]"
    return app.page.get_by_text(text).first.locator(holds)
