"""A run whose page is closed, and one that is stopped from another page: in the real App."""

from __future__ import annotations

import itertools
import os
import time

import fiftyone as fo
import pytest

from tests import single_objects

COUNT = itertools.count(1)
LABEL = "Classify images by text"
KEY = "zs_classify_shape"


@pytest.fixture
def many(dataset, tmp_path):
    """3,000 samples of 24 images, classified one by one: more than a minute's work."""
    return filled(dataset, tmp_path, 3_000)


@pytest.fixture
def hours(dataset, tmp_path):
    """As many samples as ZS_TEST_LONG_SAMPLES says."""
    return filled(dataset, tmp_path, int(os.environ["ZS_TEST_LONG_SAMPLES"]))


def filled(dataset, folder, count: int):
    paths = [path for path, _ in single_objects.draw(folder, 24)]
    dataset.name = f"long-{next(COUNT)}"
    turns = itertools.islice(itertools.cycle(paths), count)
    dataset.add_samples((fo.Sample(filepath=path) for path in turns), progress=False)
    return dataset


def start(app, dataset):
    app.open(dataset)
    app.find_operator(LABEL)
    app.fill("Class names", "circle\nheart\nstar")
    app.choose("Model", "shapes-tiny")
    app.fill("Label field", "shape")
    app.wait_until_valid()
    app.form.get_by_role("button", name="Device and speed").click()
    app.fill("Batch size", "1")
    app.execute()
    # The first run of a server imports torch
    app.dialog.get_by_text("images/s").wait_for(timeout=120_000)


def record_of(dataset):
    dataset.reload()
    return dataset.get_run_info(KEY).config


def ended(dataset):
    """The record once it says that the run is over."""
    deadline = time.monotonic() + 30
    while record_of(dataset).state == "running":
        assert time.monotonic() < deadline, "the record says for ever that the run goes on"
        time.sleep(0.1)
    return record_of(dataset)


def test_a_page_that_is_closed_ends_its_run_and_keeps_every_chunk(app, many):
    start(app, many)
    assert record_of(many).state == "running"
    written = many.count("shape")
    app.page.close()

    record = ended(many)
    done = many.count("shape.label")
    assert record.state == "cancelled"
    assert 0 < written <= done < len(many)
    assert record.report["counts"] == {"labeled": done}
    time.sleep(1)
    assert many.count("shape") == done, "something still writes"


def test_a_run_is_stopped_from_another_page(app, browser, many):
    start(app, many)
    other = type(app)(browser.new_page(), app.address)
    other.open(many)
    other.find_operator("Stop a zero-shot run", with_default="Run")
    other.execute()
    other.toasts.filter(has_text="Stopping after the current batch").wait_for()
    other.page.close()

    app.dialog.get_by_text("Stopped after").wait_for()
    record = ended(many)
    assert record.state == "cancelled"
    assert 0 < record.report["counts"]["labeled"] == many.count("shape.label") < len(many)


@pytest.mark.skipif(
    not os.environ.get("ZS_TEST_LONG_SAMPLES"),
    reason="labels as many samples as ZS_TEST_LONG_SAMPLES says, 4,000 a minute or fewer",
)
def test_a_run_of_an_hour_ends_like_a_short_one(app, hours):
    """FiftyOne gives a plain operator ten minutes, and MongoDB gives an idle session thirty."""
    start(app, hours)
    begun = time.monotonic()
    app.dialog.get_by_text(f"{len(hours):,} of {len(hours):,} images have a label").wait_for(
        timeout=6 * 3600_000
    )
    print(f"{len(hours):,} images in {(time.monotonic() - begun) / 60:.1f} minutes")
    record = record_of(hours)
    assert record.state == "complete"
    assert record.report["counts"] == {"labeled": len(hours)}
    assert hours.count("shape.label") == len(hours)
