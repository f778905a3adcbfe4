"""Media by address, through the file systems of fsspec that need no network."""

from __future__ import annotations

import datetime
import importlib
import os

import fsspec
import numpy as np
import pytest
from PIL import Image

import zs_operators as zs
from zs_operators import remote_media
from zs_operators.embeddings import image_key
from zs_operators.errors import (
    MediaTooLargeError,
    MissingMediaError,
    UnreadableMediaError,
    UnsupportedMediaError,
)
from zs_operators.images import read_image, read_size
from zs_operators.shapes.world import make_scene


@pytest.fixture
def bucket():
    """A store in memory; the path of its only image."""
    system = fsspec.filesystem("memory")
    put(system, "/bucket/a.png", 0)
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def put(system, path, seed):
    with system.open(path, "wb") as file:
        Image.fromarray(make_scene(seed).image).save(file, "png")


@pytest.mark.parametrize(
    "address",
    [
        "memory://bucket/a.png",
        "/somewhere/memory:/bucket/a.png",  # after FiftyOne took it for a path
        "memory:/bucket/a.png",
    ],
)
def test_an_address_reads_like_a_path(bucket, address):
    scene = make_scene(0).image
    np.testing.assert_array_equal(read_image(address).pixels, scene)
    assert read_size(address) == scene.shape[1::-1]


def test_a_local_file_by_its_address(tmp_path):
    path = tmp_path / "a b.png"
    Image.fromarray(make_scene(1).image).save(path)
    for address in (f"file://{path}", f"{os.getcwd()}/file:{path}"):
        np.testing.assert_array_equal(read_image(address).pixels, make_scene(1).image)


def test_a_folder_that_is_called_like_a_store_is_a_folder(tmp_path):
    folder = tmp_path / "memory:"
    folder.mkdir()
    Image.fromarray(make_scene(2).image).save(folder / "a.png")
    np.testing.assert_array_equal(read_image(folder / "a.png").pixels, make_scene(2).image)


def test_errors_have_the_names_of_those_of_files(bucket, monkeypatch):
    bucket.pipe("/bucket/empty.png", b"")
    bucket.pipe("/bucket/text.png", b"no image")
    for address, kind, says in (
        ("memory://bucket/none.png", MissingMediaError, "does not exist"),
        ("memory://bucket/empty.png", UnreadableMediaError, "is empty"),
        ("memory://bucket/text.png", UnreadableMediaError, "not an image"),
        ("memory://bucket", UnreadableMediaError, "is a folder"),
        ("ssh://host/a.png", MissingMediaError, "a kind that is not read"),
        ("https://host/a.png", MissingMediaError, "a kind that is not read"),
    ):
        with pytest.raises(kind, match=says) as caught:
            read_image(address)
        assert address in str(caught.value)
    monkeypatch.setattr(remote_media, "MAX_BYTES", 5)
    with pytest.raises(MediaTooLargeError, match="bytes"):
        read_image("memory://bucket/a.png")


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (PermissionError("Forbidden"), UnreadableMediaError, "check the credentials"),
        (TimeoutError(), UnreadableMediaError, "TimeoutError"),
        (RuntimeError("https://me:hunter2@host said no"), UnreadableMediaError, "said no"),
    ],
)
def test_what_a_store_says_comes_with_the_address(bucket, monkeypatch, error, kind, says):
    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr(type(bucket), "cat_file", refuse)
    with pytest.raises(kind, match=says) as caught:
        read_image("memory://bucket/a.png")
    assert "memory://bucket/a.png" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_package_that_is_missing_is_named(monkeypatch):
    missing = {"class": "no_such_package.S3", "err": "Install s3fs to access S3"}
    known = importlib.import_module("fsspec.registry")  # as an attribute it is something else
    monkeypatch.setitem(known.known_implementations, "s3", missing)
    monkeypatch.delitem(known._registry, "s3", raising=False)
    with pytest.raises(UnsupportedMediaError, match="Install s3fs") as caught:
        read_image("s3://bucket/a.png")
    assert caught.value.outcome == "unsupported_media"
    monkeypatch.setenv(remote_media.VARIABLE, "nosuchstore")
    with pytest.raises(UnsupportedMediaError, match="nosuchstore"):
        read_image("nosuchstore://bucket/a.png")


def test_only_kinds_that_are_allowed_are_reached(bucket, monkeypatch):
    monkeypatch.setenv(remote_media.VARIABLE, "s3, gs")
    with pytest.raises(MissingMediaError, match="not read"):
        read_image("memory://bucket/a.png")


def test_an_object_that_changes_is_another(bucket):
    first = image_key("memory://bucket/a.png")
    assert image_key("/x/memory:/bucket/a.png") == first
    bucket.store["/bucket/a.png"].created += datetime.timedelta(seconds=1)
    assert image_key("memory://bucket/a.png") != first
    with pytest.raises(MissingMediaError):
        image_key("memory://bucket/none.png")


def test_a_run_on_addresses_gives_the_labels_of_files(bucket, dataset, tmp_path):
    import fiftyone as fo

    paths = []
    for seed in range(5):
        path = tmp_path / f"{seed}.png"
        Image.fromarray(make_scene(seed).image).save(path)
        put(bucket, f"/bucket/{seed}.png", seed)
        paths.append(str(path))
    missing = "memory://bucket/none.png"
    # The first way makes a local path of it, the second keeps it
    dataset.add_samples([fo.Sample(filepath=f"memory://bucket/{i}.png") for i in range(5)])
    dataset.add_sample(fo.Sample(filepath=str(tmp_path / "soon.png")))
    last = dataset.last()
    dataset.set_values("filepath", {last.id: missing}, key_field="id")
    names = ["red circle", "blue star", "green square"]
    options = {"model": "shapes-tiny", "device": "cpu", "precision": "fp32"}
    first = zs.classify(dataset, names, label_field="far", embeddings="reuse", **options)
    again = zs.classify(dataset, names, label_field="again", embeddings="reuse", **options)

    assert first.counts == {"labeled": 5, "missing_media": 1}
    assert again.reused == 5
    dataset.set_values(
        "filepath", dict(zip(dataset.values("id"), paths, strict=False)), key_field="id"
    )
    zs.classify(dataset.limit(5), names, label_field="near", embeddings="refresh", **options)
    for field in ("label", "confidence"):
        far, near = (dataset.limit(5).values(f"{one}.{field}") for one in ("far", "near"))
        assert far == near
