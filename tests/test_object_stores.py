"""Media in S3 and in Google Cloud Storage: their real clients, and servers that stand in for both.

For those who have ``s3fs`` and ``moto[server]``, or ``gcsfs`` and ``gcp-storage-emulator``.
"""

from __future__ import annotations

import io
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import fsspec
import numpy as np
import pytest
from PIL import Image

import zs_operators as zs
from zs_operators.embeddings import image_key
from zs_operators.errors import MissingMediaError, UnreadableMediaError
from zs_operators.images import read_image, read_size
from zs_operators.shapes.world import make_scene

NAMES = ["red circle", "blue star", "green square"]
OPTIONS = {"model": "shapes-tiny", "device": "cpu", "precision": "fp32", "progress": False}
pytestmark = pytest.mark.usefixtures("store_dir")


class S3:
    """A bucket of moto's server, filled with boto3."""

    scheme, packages = "s3", ("s3fs", "moto")

    def __init__(self, monkeypatch) -> None:
        import boto3
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        address = "http://{}:{}".format(*self._server.get_host_and_port())
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        self._client = boto3.client("s3", endpoint_url=address)
        self._client.create_bucket(Bucket="bucket")

    def put(self, key: str, content: bytes) -> None:
        self._client.put_object(Bucket="bucket", Key=key, Body=content)

    def close(self) -> None:
        self._server.stop()


class Gcs:
    """A bucket of the emulator, filled as its HTTP API says."""

    scheme, packages = "gs", ("gcsfs", "gcp_storage_emulator")

    def __init__(self, monkeypatch) -> None:
        from gcp_storage_emulator.server import create_server

        self._server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
        self._server.start()
        port = self._server._api._httpd.server_address[1]
        self._address = f"http://127.0.0.1:{port}"
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", self._address)
        monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})

    def put(self, key: str, content: bytes) -> None:
        query = urlencode({"uploadType": "media", "name": key})
        request = Request(f"{self._address}/upload/storage/v1/b/bucket/o?{query}", data=content)
        request.add_header("Content-Type", "image/png")
        urlopen(request, timeout=10).close()

    def close(self) -> None:
        self._server.stop()


@pytest.fixture(params=[S3, Gcs], ids=["s3", "gs"])
def store(request, monkeypatch):
    # Kinds of buckets are asked for by gRPC, which the emulator does not speak
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    for package in request.param.packages:
        pytest.importorskip(package)
    found = request.param(monkeypatch)
    fsspec.get_filesystem_class(found.scheme).clear_instance_cache()
    yield found
    fsspec.get_filesystem_class(found.scheme).clear_instance_cache()
    found.close()


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(make_scene(seed).image).save(file, "png")
    return file.getvalue()


def test_an_object_reads_like_a_file(store):
    store.put("folder/a b.png", png(0))
    bucket = f"{store.scheme}://bucket"
    scene = make_scene(0).image
    np.testing.assert_array_equal(read_image(f"{bucket}/folder/a b.png").pixels, scene)
    assert read_size(f"{bucket}/folder/a b.png") == scene.shape[1::-1]
    for address, kind, says in (
        (f"{bucket}/folder/none.png", MissingMediaError, "does not exist"),
        (f"{store.scheme}://no-such-bucket/a.png", MissingMediaError, "does not exist"),
        (f"{bucket}/folder", UnreadableMediaError, "is a folder"),
    ):
        with pytest.raises(kind, match=says):
            read_image(address)


def test_an_object_without_content_is_said_to_be_empty(store):
    if store.scheme == "gs":
        pytest.skip("the emulator takes no empty objects")
    store.put("empty.png", b"")
    with pytest.raises(UnreadableMediaError, match="is empty"):
        read_image("s3://bucket/empty.png")


def test_an_object_that_somebody_replaces_is_another(store):
    address = f"{store.scheme}://bucket/a.png"
    store.put("a.png", png(0))
    first = image_key(address)
    assert image_key(address) == first
    store.put("a.png", png(1))
    assert image_key(address) != first
    np.testing.assert_array_equal(read_image(address).pixels, make_scene(1).image)


def test_a_run_gives_the_labels_of_files(store, dataset, tmp_path):
    import fiftyone as fo

    addresses = [f"{store.scheme}://bucket/{seed}.png" for seed in range(12)]
    paths = [tmp_path / f"{seed}.png" for seed in range(12)]
    for seed, path in enumerate(paths):
        path.write_bytes(png(seed))
        store.put(f"{seed}.png", path.read_bytes())
    dataset.add_samples([fo.Sample(filepath=str(path)) for path in paths])
    zs.classify(dataset, NAMES, label_field="near", embeddings="reuse", **OPTIONS)

    dataset.set_values("filepath", [*addresses[:-1], f"{store.scheme}://bucket/none.png"])
    far = zs.classify(dataset, NAMES, label_field="far", embeddings="reuse", **OPTIONS)
    assert far.counts == {"labeled": 11, "missing_media": 1}
    for field in ("label", "confidence"):
        near, found = (dataset.limit(11).values(f"{one}.{field}") for one in ("near", "far"))
        assert found == near
    again = zs.classify(dataset, NAMES, label_field="again", embeddings="reuse", **OPTIONS)
    assert again.reused == 11
    store.put("0.png", png(99))
    later = zs.classify(dataset, NAMES, label_field="later", embeddings="reuse", **OPTIONS)
    assert later.reused == 10
