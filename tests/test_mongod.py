"""A private database starts fast, keeps to itself, and dies with its owner."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from zs_operators.errors import MissingDependencyError, ZeroShotError
from zs_operators.mongod import find_mongod, mongod_version, start_private_mongod


def answers(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_temporary_server_leaves_nothing():
    with start_private_mongod() as server:
        assert server.uri == f"mongodb://127.0.0.1:{server.port}"
        assert answers(server.port)
        assert server.dbpath.is_dir()
    assert not answers(server.port)
    assert not server.dbpath.exists()


def test_data_stay_in_a_folder_that_was_given(tmp_path):
    import pymongo

    for expected in (0, 1):
        with start_private_mongod(tmp_path / "data") as server:
            things = pymongo.MongoClient(server.uri)["db"]["things"]
            assert things.count_documents({}) == expected
            things.insert_one({"x": 1})


def test_server_ends_when_its_owner_is_killed():
    script = (
        "import time\nfrom zs_operators.mongod import start_private_mongod\n"
        "with start_private_mongod() as server:\n    print(server.port, flush=True)\n"
        "    time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as owner:
        port = int(owner.stdout.readline())
        assert answers(port)
        os.kill(owner.pid, signal.SIGKILL)
    assert wait_until(lambda: not answers(port))


def test_folder_in_use_is_reported_at_once(tmp_path):
    with start_private_mongod(tmp_path):
        start = time.monotonic()
        with (
            pytest.raises(ZeroShotError, match=r"ended at once.*lock"),
            start_private_mongod(tmp_path),
        ):
            pass
        assert time.monotonic() - start < 20


def test_version_of_the_binary():
    assert int(mongod_version(find_mongod()).split(".")[0]) >= 6


def test_binary_that_does_not_run(tmp_path):
    broken = tmp_path / "mongod"
    broken.write_text(
        "#!/bin/sh\necho 'libcrypto.so.1.1: cannot open shared object file' >&2\nexit 127\n"
    )
    with pytest.raises(MissingDependencyError, match="does not run here"):
        mongod_version(broken)  # not executable
    broken.chmod(0o755)
    with pytest.raises(MissingDependencyError, match=r"127\): libcrypto"):
        mongod_version(broken)
    with (
        pytest.raises(ZeroShotError, match=r"ended at once.*libcrypto"),
        start_private_mongod(binary=broken),
    ):
        pass


def test_no_binary_anywhere(monkeypatch, tmp_path):
    monkeypatch.setattr("zs_operators.mongod.mongod_in_fiftyone", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="zs doctor --fix"):
        find_mongod()


def test_the_tests_use_a_database_of_their_own():
    import fiftyone as fo

    assert fo.config.database_uri == os.environ["FIFTYONE_DATABASE_URI"]
    assert fo.config.database_uri.startswith("mongodb://127.0.0.1:")
    assert os.environ["HOME"] in fo.config.plugins_dir


def test_the_tests_cannot_reach_the_network():
    for attempt in (
        lambda: socket.create_connection(("example.com", 80), timeout=1),
        lambda: socket.socket().connect(("192.0.2.1", 80)),
        lambda: socket.socket().connect_ex(("192.0.2.1", 80)),
    ):
        with pytest.raises(RuntimeError, match="tests use no network"):
            attempt()
