"""The runner with a real database and real images, and a task small enough to predict by hand."""

from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

from zs_operators import fields, provenance, runner
from zs_operators.device import BatchBudget
from zs_operators.errors import FieldError, MissingMediaError, RunError
from zs_operators.images import read_image
from zs_operators.report import LABELED, REJECTED
from zs_operators.run_options import RunOptions
from zs_operators.runner import CHUNK_SAMPLES, Run
from zs_operators.targets import FieldTarget

FIELD = "predicted"


class BrightnessTask:
    """Names an image by its mean grey level; black images are rejected."""

    name = "classify"
    prefetch_batches = 2
    chunk_samples = CHUNK_SAMPLES
    warnings = ()

    def __init__(self, fail_on=None, error=None):
        self.fail_on = fail_on
        self.error = error or RuntimeError("bad kernel")
        self.batches = []
        self.loaded = []

    def load(self, filepath):
        self.loaded.append(filepath)
        return int(read_image(filepath).pixels.mean())

    def infer(self, items):
        self.batches.append(len(items))
        if self.fail_on is not None and self.fail_on in items:
            raise self.error
        return list(items)

    def label(self, result, run):
        if result == 0:
            return fo.Classification(run=run), REJECTED, ()
        return fo.Classification(label=f"grey {result}", run=run), LABELED, [f"grey {result}"]


@pytest.fixture
def images(tmp_path):
    paths = []
    for level in range(20):
        path = tmp_path / f"{level:02d}.png"
        Image.fromarray(np.full((4, 4, 3), level, np.uint8)).save(path)
        paths.append(str(path))
    return paths


@pytest.fixture
def dataset(dataset, images):
    dataset.add_samples([fo.Sample(filepath=path) for path in images])
    return dataset


def make_run(samples, task, *, settings="a", batch_size=4, **options):
    return Run(
        samples,
        task,
        FieldTarget(samples, FIELD, "Classification"),
        record={"settings": settings},
        details={"note": "details do not change the signature"},
        budget=BatchBudget(batch_size),
        options=RunOptions(**options),
    )


def finish(run):
    steps = run.steps()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def names(samples):
    return samples.values(f"{FIELD}.label")


EXPECTED = [None] + [f"grey {level}" for level in range(1, 20)]


@pytest.mark.parametrize("batch_size", [1, 3, 4, 7, 64])
@pytest.mark.parametrize("workers", [0, 3])
def test_every_sample_gets_its_own_label(dataset, batch_size, workers):
    task = BrightnessTask()
    report = finish(make_run(dataset, task, batch_size=batch_size, workers=workers))

    assert names(dataset) == EXPECTED
    assert report.counts == {LABELED: 19, REJECTED: 1}
    assert sum(report.labels.values()) == 19
    assert max(task.batches) <= batch_size
    assert len(task.loaded) == 20
    assert report.error_field is None
    assert not dataset.has_field(fields.error_field(FIELD))


def test_one_unreadable_file_costs_one_label(dataset, images):
    images_by_id = dict(zip(dataset.values("id"), images, strict=True))
    broken = dataset.values("id")[7]
    with open(images_by_id[broken], "wb") as file:
        file.write(b"not an image")

    report = finish(make_run(dataset, BrightnessTask(), batch_size=32))

    expected = list(EXPECTED)
    expected[7] = None
    assert names(dataset) == expected
    assert report.counts == {LABELED: 18, REJECTED: 1, "unreadable_media": 1}
    reason = dataset[broken][fields.error_field(FIELD)]
    assert reason.startswith("unreadable_media: ")
    assert report.error_field == fields.error_field(FIELD)
    assert dataset[broken][FIELD] is None


def test_a_failing_batch_is_halved_down_to_the_image_that_fails(dataset):
    report = finish(make_run(dataset, BrightnessTask(fail_on=5), batch_size=16))

    expected = list(EXPECTED)
    expected[5] = None
    assert names(dataset) == expected
    assert report.counts["model_error"] == 1
    assert "bad kernel" in dataset.values(fields.error_field(FIELD))[5]


def test_out_of_memory_of_one_image_is_recorded_as_such(dataset):
    task = BrightnessTask(fail_on=3, error=RuntimeError("CUDA out of memory"))
    report = finish(make_run(dataset, task, batch_size=8))

    assert report.counts["out_of_memory"] == 1
    assert names(dataset)[4:] == EXPECTED[4:]


def test_on_error_raise_stops_at_the_first_failure_and_keeps_what_was_done(dataset, images):
    import os

    os.remove(images[9])
    with pytest.raises(MissingMediaError):
        finish(make_run(dataset, BrightnessTask(), batch_size=4, on_error="raise"))

    assert names(dataset)[1:8] == EXPECTED[1:8]
    assert provenance.find(dataset, "classify", FIELD)["state"] == provenance.FAILED


def test_a_run_where_everything_fails_raises_and_says_why(dataset, images):
    import os

    for path in images:
        os.remove(path)
    with pytest.raises(RunError, match=r"20 missing_media.*predicted_error"):
        finish(make_run(dataset, BrightnessTask()))

    assert provenance.find(dataset, "classify", FIELD)["state"] == provenance.FAILED


def test_cancelled_run_keeps_flushed_chunks_and_resumes_without_repeating(dataset, monkeypatch):
    monkeypatch.setattr(runner, "CHUNK_SAMPLES", 5)
    steps = make_run(dataset, BrightnessTask(), batch_size=5).steps()
    next(steps)  # starting
    progress = next(steps)
    steps.close()

    assert progress.done == 5
    assert names(dataset) == EXPECTED[:5] + [None] * 15
    record = provenance.find(dataset, "classify", FIELD)
    assert record["state"] == provenance.CANCELLED
    assert record["report"]["cancelled"] is True

    task = BrightnessTask()
    report = finish(make_run(dataset, task))

    assert names(dataset) == EXPECTED
    assert len(task.loaded) == 15
    assert report.resumed == 5
    assert sum(report.counts.values()) == 15
    assert provenance.find(dataset, "classify", FIELD)["state"] == provenance.COMPLETE


def test_rejected_samples_are_done_and_failed_ones_are_tried_again(dataset, images):
    good = Path(images[3]).read_bytes()
    Path(images[3]).write_bytes(b"")
    finish(make_run(dataset, BrightnessTask()))
    error_field = fields.error_field(FIELD)
    assert dataset.values(error_field)[3].startswith("unreadable_media")

    with open(images[3], "wb") as file:
        file.write(good)
    task = BrightnessTask()
    report = finish(make_run(dataset, task))

    assert task.loaded == [images[3]]
    assert report.resumed == 19
    assert names(dataset) == EXPECTED
    assert dataset.values(error_field) == [None] * 20


def test_the_same_settings_extend_a_field_to_further_samples(dataset):
    finish(make_run(dataset[:3], BrightnessTask()))
    assert names(dataset) == EXPECTED[:3] + [None] * 17
    report = finish(make_run(dataset, BrightnessTask()))

    assert names(dataset) == EXPECTED
    assert report.resumed == 3


def test_other_settings_are_refused_unless_overwriting(dataset):
    finish(make_run(dataset, BrightnessTask()))
    with pytest.raises(FieldError, match="overwrite"):
        make_run(dataset, BrightnessTask(), settings="b")

    task = BrightnessTask()
    report = finish(make_run(dataset[:4], task, settings="b", overwrite=True))

    assert len(task.loaded) == 4
    assert report.resumed == 0
    marks = dataset.values(f"{FIELD}.{fields.RUN_ATTRIBUTE}")
    assert len(set(marks[:4])) == 1 == len(set(marks[4:]))
    assert marks[0] != marks[4]


def test_overwriting_does_not_touch_samples_outside_the_view(dataset):
    finish(make_run(dataset, BrightnessTask()))
    before = dataset.values(FIELD)[4:]
    finish(make_run(dataset[:4], BrightnessTask(), settings="b", overwrite=True))

    assert [label.id for label in dataset.values(FIELD)[4:]] == [label.id for label in before]


def test_labels_that_no_run_wrote_are_never_replaced(dataset):
    dataset.set_values(FIELD, [fo.Classification(label="mine")] * 20)
    with pytest.raises(FieldError, match="overwrite"):
        make_run(dataset, BrightnessTask())

    assert names(dataset) == ["mine"] * 20


def test_a_label_edited_by_hand_survives_a_resumed_run(dataset):
    finish(make_run(dataset, BrightnessTask()))
    dataset.set_values(f"{FIELD}.label", ["edited"] * 20)
    finish(make_run(dataset, BrightnessTask()))

    assert names(dataset) == ["edited"] * 20


def test_resume_false_computes_again_only_when_overwriting(dataset):
    finish(make_run(dataset, BrightnessTask()))
    with pytest.raises(FieldError, match="resume=False"):
        make_run(dataset, BrightnessTask(), resume=False)
    task = BrightnessTask()
    finish(make_run(dataset, task, resume=False, overwrite=True))

    assert len(task.loaded) == 20


def test_an_interrupted_overwrite_continues_where_it_stopped(dataset, monkeypatch):
    monkeypatch.setattr(runner, "CHUNK_SAMPLES", 5)
    finish(make_run(dataset, BrightnessTask(), settings="a"))
    steps = make_run(dataset, BrightnessTask(), settings="b", batch_size=5, overwrite=True).steps()
    next(steps), next(steps)
    steps.close()
    task = BrightnessTask()
    report = finish(make_run(dataset, task, settings="b", overwrite=True))

    assert report.resumed == 5
    assert len(task.loaded) == 15


def test_progress_never_claims_what_is_not_in_the_database(dataset, monkeypatch):
    monkeypatch.setattr(runner, "CHUNK_SAMPLES", 3)
    for progress in make_run(dataset, BrightnessTask(), batch_size=3).steps():
        assert len(dataset.exists(FIELD)) == progress.done
        assert progress.total == 20
    assert progress.done == 20


def test_extra_attributes_are_in_the_schema(dataset):
    finish(make_run(dataset, BrightnessTask()))

    schema = dataset.get_field_schema(flat=True)
    assert {f"{FIELD}.cosine", f"{FIELD}.margin", f"{FIELD}.run"} <= set(schema)
    assert "zs_classify_predicted" in dataset.get_field(FIELD).description


def test_report_is_plain_json(dataset):
    import json

    report = finish(make_run(dataset, BrightnessTask()))

    assert json.loads(report.to_json())["counts"] == {LABELED: 19, REJECTED: 1}
    assert "labeled" in str(report)
    record = provenance.find(dataset, "classify", FIELD)
    assert record["report"] == json.loads(report.to_json())
    assert record["environment"]["fiftyone"]


def test_samples_deleted_during_the_run_are_not_brought_back(dataset, monkeypatch):
    monkeypatch.setattr(runner, "CHUNK_SAMPLES", 5)
    steps = make_run(dataset, BrightnessTask(), batch_size=5).steps()
    next(steps), next(steps)
    dataset.delete_samples(dataset.values("id")[-3:])
    for _ in steps:
        pass

    assert len(dataset) == 17
    assert names(dataset) == EXPECTED[:17]


def test_frame_views_copy_labels_to_their_videos_frames(images):
    video = fo.Sample(filepath="/nowhere/clip.mp4")
    for number, path in enumerate(images[:4], start=1):
        video.frames[number] = fo.Frame(filepath=path)
    dataset = fo.Dataset()
    dataset.add_sample(video)
    try:
        frames = dataset.to_frames(sample_frames=False)
        finish(make_run(frames, BrightnessTask()))

        assert frames.values(f"{FIELD}.label") == EXPECTED[:4]
        assert dataset.values(f"frames.{FIELD}.label") == [EXPECTED[:4]]
    finally:
        dataset.delete()
