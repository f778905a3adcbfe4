"""Whatever lies on a disk: a label or a named outcome, never a hang, never a lost neighbour.

``ZS_TEST_BAD_INPUTS=10000`` runs the same with as many files.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bad_inputs import EITHER, FAILURE, LABEL, NAMED, sound_files, write_corpus
from zs_operators.errors import MediaError, MediaTooLargeError
from zs_operators.images import read_image, read_size

# Pillow warns about damaged metadata; what counts here is the outcome.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

COUNT = int(os.environ.get("ZS_TEST_BAD_INPUTS", "240"))
FIELD = "guess"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"), COUNT)


class Hangs(BaseException):
    """No mere Exception, which a reader turns into an outcome."""


@pytest.fixture(autouse=True)
def _never_a_hang():
    """Ends a test that waits for what never comes, instead of the whole session."""

    def give_up(*_):
        raise Hangs

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(300 + COUNT // 4)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_the_reader_gives_pixels_or_a_named_error(corpus):
    wrong = []
    for one in corpus:
        try:
            image = read_image(one.path)
        except MediaError as error:
            ended = FAILURE if error.outcome in NAMED and str(error) else "unnamed failure"
        else:
            assert image.pixels.shape == (image.height_px, image.width_px, 3)
            assert image.pixels.dtype == np.uint8
            assert read_size(one.path) == (image.width_px, image.height_px)
            ended = LABEL
        if one.expected not in (EITHER, ended):
            wrong.append((one, ended))
    assert not wrong


@settings(max_examples=max(150, COUNT // 4), deadline=None)
@given(
    suffix=st.sampled_from(sorted(sound_files())),
    at=st.floats(0, 1, exclude_max=True),
    patch=st.binary(min_size=1, max_size=40),
    cut=st.floats(0.02, 1),
    truncated=st.sampled_from(["error", "partial"]),
)
def test_the_reader_with_any_bytes_written_over_a_file(suffix, at, patch, cut, truncated):
    data = bytearray(sound_files()[suffix])
    start = int(at * len(data))
    data[start : start + len(patch)] = patch
    data = bytes(data[: max(1, int(cut * len(data)))])
    try:
        image = read_image(data, truncated=truncated, max_pixels=2_000_000)
    except MediaError as error:
        outcome = error.outcome
    else:
        assert image.pixels.shape == (image.height_px, image.width_px, 3)
        outcome = None
    assert outcome in (None, *NAMED)


def test_names_that_are_no_text(tmp_path):
    """Bytes that are no UTF-8, as the file system hands them over; MongoDB cannot hold them."""
    data = sound_files()["png"]
    path = tmp_path / "\udcff\udcfe.png"
    path.write_bytes(data)
    assert read_image(path).width_px == 40
    path.write_bytes(b"")
    with pytest.raises(MediaError, match="udcff"):
        read_image(path)


def test_a_terabyte_of_nothing_is_not_read(tmp_path):
    path = tmp_path / "sparse.webp"
    path.write_bytes(sound_files()["webp"])
    os.truncate(path, 2**40)
    with pytest.raises(MediaTooLargeError, match=r"sparse\.webp.*shrink"):
        read_image(path)
    jpeg = tmp_path / "sparse.jpg"
    jpeg.write_bytes(sound_files()["jpg"])
    os.truncate(jpeg, 2**40)
    assert read_image(jpeg).width_px == 40, "what follows an image is not looked at"


def _add(dataset, corpus) -> None:
    import fiftyone as fo

    dataset.add_samples([fo.Sample(filepath=one.path) for one in corpus])


def _check(dataset, corpus, values) -> None:
    """Every sample has a value or a reason that names an outcome, as its file deserves."""
    reasons = dataset.values(f"{FIELD}_error")
    wrong = []
    for one, value, reason in zip(corpus, values, reasons, strict=True):
        if reason is None:
            ended = LABEL if value is not None else "nothing at all"
        else:
            ended = FAILURE if value is None and reason.startswith(NAMED) else f"{value} {reason}"
        if ended not in (LABEL, FAILURE) or one.expected not in (EITHER, ended):
            wrong.append((one, ended))
    assert not wrong


def test_classify(dataset, corpus):
    import zs_operators as zs

    _add(dataset, corpus)
    options = {"model": "shapes-tiny", "batch_size": 16, "progress": False, "embeddings": "off"}
    words = ["circle", "square", "triangle"]

    report = zs.classify(dataset, words, label_field=FIELD, **options)

    _check(dataset, corpus, dataset.values(f"{FIELD}.label"))
    assert sum(report.counts.values()) == len(corpus)
    # Neighbours of what is broken get what they would get among themselves
    sound = [
        id_ for id_, one in zip(dataset.values("id"), corpus, strict=True) if one.expected == LABEL
    ]
    alone = dataset.select(sound)
    zs.classify(alone, words, label_field="alone", **options)
    for attribute in ("label", "confidence"):
        among = alone.values(f"{FIELD}.{attribute}")
        expected = alone.values(f"alone.{attribute}")
        if attribute == "label":
            assert among == expected
        else:
            np.testing.assert_allclose(among, expected, atol=1e-5)


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_the_other_tasks(dataset, corpus, task):
    import zs_operators as zs

    part = corpus[: max(60, COUNT // 10)]
    _add(dataset, part)
    options = {"label_field": FIELD, "batch_size": 8, "progress": False, "embeddings": "off"}
    if task == "detect":
        options |= {"model": "shapes-tiny", "proposals": "shapes-tiny", "max_regions": 20}
        zs.detect(dataset, ["circle", "square"], **options)
    else:
        zs.segment(dataset, model="shapes-tiny", points_per_side=4, **options)
    _check(dataset, part, dataset.values(f"{FIELD}.detections"))


def test_files_that_vanish_while_a_run_goes_on(dataset, tmp_path):
    import fiftyone as fo

    import zs_operators as zs

    paths = [tmp_path / f"{number}.png" for number in range(24)]
    for path in paths:
        path.write_bytes(sound_files()["png"])
    dataset.add_samples([fo.Sample(filepath=str(path)) for path in paths])
    steps = zs.iter_classify(
        dataset, ["a", "b"], label_field=FIELD, model="shapes-tiny", embeddings="off", batch_size=4
    )
    next(steps)  # everything is checked and listed, nothing is read
    for path in paths[::3]:
        path.unlink()
    Path(paths[1]).write_bytes(b"")
    for _ in steps:
        pass
    outcomes = [(reason or "").partition(":")[0] for reason in dataset.values(f"{FIELD}_error")]
    expected = ["missing_media" if number % 3 == 0 else "" for number in range(24)]
    expected[1] = "unreadable_media"
    assert outcomes == expected
    labels = dataset.values(f"{FIELD}.label")
    assert [label is None for label in labels] == [bool(outcome) for outcome in expected]
