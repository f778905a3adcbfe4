"""Masks as files: names that any file system takes, whole files, and what FiftyOne reads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zs_operators import mask_files
from zs_operators.errors import InvalidInputError
from zs_operators.mask_files import (
    check_output_dir,
    mask_folder,
    mask_path,
    remove_stale,
    semantic_path,
    write_classes,
    write_mask,
)

RUN, OTHER = "0123456789ab", "fedcba987654"
LABEL_ID = "6650f1b2c3d4e5f6a7b8c9d0"

STEMS = [
    "image",
    "東京 café 🐱",
    "a" * 250,
    "é" * 120,
    "line\nbreak\ttab",
    'q"<>:|?*\\',
    ".hidden",
    "...",
    "trailing. ",
    "CON",
    "\udcff\udcfe",  # bytes that are no UTF-8, as the file system hands them over
    "\u202eright to left",
    "%20#&;$(x)",
]


def stripes(height, width):
    return (np.arange(height * width).reshape(height, width) // 3) % 2 == 0


def test_folders_say_which_image_and_field(tmp_path):
    folder = mask_folder(tmp_path, "zs_masks", "/data/cats/felix.jpg")
    assert folder.parent == tmp_path / "zs_masks"
    assert folder.name.startswith("felix-")
    assert semantic_path(tmp_path, "zs_classes", "/data/cats/felix.jpg") == (
        tmp_path / "zs_classes" / f"{folder.name}.png"
    )
    assert mask_path(folder, RUN, "007").name == "01234567-007.png"
    assert mask_path(folder, RUN, LABEL_ID).name == f"01234567-{LABEL_ID}.png"
    assert not folder.exists()


def test_images_of_the_same_name_have_folders_of_their_own(tmp_path):
    paths = ["/a/x.jpg", "/b/x.jpg", "/a/x.png", "/a/X.jpg"]
    assert len({mask_folder(tmp_path, "f", path) for path in paths}) == 4
    assert len({semantic_path(tmp_path, "f", path) for path in paths}) == 4


def test_the_same_image_has_one_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    absolute = mask_folder("out", "f", str(tmp_path / "a" / "x.jpg"))
    assert mask_folder("out", "f", "a/x.jpg") == absolute
    assert mask_folder("out", "f", "a/../a/./x.jpg") == absolute


@pytest.mark.parametrize("stem", STEMS)
def test_any_name_of_an_image_becomes_a_name_that_can_be_written(tmp_path, stem):
    filepath = f"/data/{stem}.jpg"
    folder = mask_folder(tmp_path, "zs_masks", filepath)
    assert folder.parent == tmp_path / "zs_masks"
    assert len(folder.name.encode()) < 120
    assert folder.name.isprintable()
    assert not set(folder.name) & set('<>:"/\\|?*')
    assert folder.name[0] != "."
    pixels = stripes(5, 9)
    path = mask_path(folder, RUN, "000")
    write_mask(path, pixels)
    assert [one.name for one in folder.parent.iterdir()] == [folder.name]
    np.testing.assert_array_equal(np.array(Image.open(path)) > 0, pixels)
    write_classes(semantic_path(tmp_path, "zs_classes", filepath), pixels.astype(np.uint8))


def test_a_name_that_would_never_be_removed_is_a_mistake(tmp_path):
    for name in ("7", "../x", "object", ""):
        with pytest.raises(ValueError, match="never be removed"):
            mask_path(tmp_path, RUN, name)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (37, 53), (480, 640)])
def test_fiftyone_reads_a_mask(tmp_path, shape):
    import fiftyone as fo

    pixels = stripes(*shape)
    path = tmp_path / "deep" / "er" / "mask.png"
    write_mask(path, pixels)
    with Image.open(path) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "L", shape[::-1])
    found = fo.Detection(mask_path=str(path), bounding_box=[0, 0, 1, 1]).get_mask()
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.where(pixels, 255, 0))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_fiftyone_reads_a_semantic_mask(tmp_path, dtype):
    import fiftyone as fo

    classes = np.linspace(0, np.iinfo(dtype).max, 35 * 21).astype(dtype).reshape(35, 21)
    path = tmp_path / "field" / "image.png"
    write_classes(path, classes)
    found = fo.Segmentation(mask_path=str(path)).get_mask()
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, classes)


def test_fiftyone_reads_from_a_path_with_odd_names(tmp_path):
    import fiftyone as fo

    for stem in STEMS:
        path = mask_path(mask_folder(tmp_path, "zs_masks", f"/data/{stem}.jpg"), RUN, "000")
        write_mask(path, stripes(8, 8))
        found = fo.Detection(mask_path=str(path), bounding_box=[0, 0, 1, 1])
        sample = fo.Sample(filepath=f"/{len(stem)}.jpg", masks=fo.Detections(detections=[found]))
        assert sample.masks.detections[0].get_mask().any()


def test_a_mask_cut_from_a_larger_one_is_written_as_it_is(tmp_path):
    whole = stripes(40, 60)
    cut = whole[5:20:2, 7:31:3]
    assert not cut.flags.c_contiguous
    write_mask(tmp_path / "mask.png", cut)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "mask.png")) == 255, cut)


def test_classes_of_another_type_are_refused(tmp_path):
    with pytest.raises(TypeError, match="float64"):
        write_classes(tmp_path / "x.png", np.zeros((2, 2)))
    assert not list(tmp_path.iterdir())


def test_a_mask_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "mask.png"
    write_mask(path, stripes(6, 6))
    before = path.read_bytes()

    def full(self, data):
        with open(self, "wb") as file:
            file.write(data[:20])
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_mask(path, ~stripes(6, 6))
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["mask.png"]


def test_only_masks_of_other_runs_are_removed(tmp_path):
    folder = tmp_path / "image-0123456789abcdef"
    kept = [mask_path(folder, RUN, name) for name in ("000", "1234", LABEL_ID)]
    stale = [mask_path(folder, OTHER, name) for name in ("000", "001", LABEL_ID)]
    for path in kept + stale:
        write_mask(path, stripes(3, 3))
    foreign = ["notes.txt", "fedcba98-000.jpg", "fedcba98-0.png", "mine-000.png", "000.png"]
    for name in foreign:
        (folder / name).write_text("mine")
    (folder / "fedcba98-999.png").mkdir()
    remove_stale(folder, RUN)
    assert {path.name for path in folder.iterdir()} == {
        *(path.name for path in kept),
        *foreign,
        "fedcba98-999.png",
    }
    remove_stale(folder, RUN)
    assert all(path.exists() for path in kept)


def test_a_folder_without_masks_goes_too(tmp_path):
    folder = tmp_path / "image-0123456789abcdef"
    remove_stale(folder, RUN)
    write_mask(mask_path(folder, OTHER, "000"), stripes(3, 3))
    remove_stale(folder, RUN)
    assert not folder.exists()


def test_a_folder_that_can_be_created_is_taken_and_not_created(tmp_path, monkeypatch):
    assert check_output_dir(tmp_path) == tmp_path
    deep = tmp_path / "a" / "b"
    assert check_output_dir(str(deep)) == deep
    assert not (tmp_path / "a").exists()
    monkeypatch.chdir(tmp_path)
    assert check_output_dir("masks") == tmp_path / "masks"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert check_output_dir("~/masks") == tmp_path / "masks"


def test_what_cannot_be_a_folder_is_refused_by_name(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere" / "at all")
    for path, said in (
        (file, "file' is none"),
        (file / "below" / "it", "file' is none"),
        (dangling, "dangling' is none"),
        ("", "empty"),
        ("  ", "empty"),
        ("bad\0path", "null"),
        (tmp_path / ("x" * 300), "too long"),
        ("~no_such_user_here/masks", "home"),
    ):
        with pytest.raises(InvalidInputError, match=f"output_dir.*{said}"):
            check_output_dir(path)
    assert file.read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    if os.geteuid():
        tmp_path.chmod(0o500)
    else:  # root may write anywhere
        monkeypatch.setattr(mask_files.os, "access", lambda path, mode: False)
    with pytest.raises(InvalidInputError, match="no permission to write") as caught:
        check_output_dir(tmp_path / "masks")
    assert repr(str(tmp_path)) in str(caught.value)
    tmp_path.chmod(0o700)


def test_no_torch_is_needed():
    code = (
        "import sys, numpy as np, pathlib, tempfile; from zs_operators import mask_files as m; "
        "d = m.mask_folder(tempfile.mkdtemp(), 'f', 'x.jpg'); "
        "m.write_mask(m.mask_path(d, '0' * 12, '000'), np.ones((2, 2), bool)); "
        "print(sorted({'torch', 'fiftyone'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"
