"""Every test run has its own database, home and plugin folder, and no way out to the network.

FiftyOne reads its settings once, at import, and a ``mongod`` starts in 0.3 s: so all of it is set
up before the first test module is collected.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_CLEANUP = contextlib.ExitStack()


def pytest_configure(config: pytest.Config) -> None:
    """Point this process, and all it starts, at a private database before FiftyOne is imported."""
    if config.option.help or _only_hands_out_tests(config):
        return
    from zs_operators.errors import ZeroShotError
    from zs_operators.mongod import (
        fiftyone_environment,
        require_fiftyone_not_imported,
        start_private_mongod,
    )

    if hasattr(config, "workerinput"):  # others need the processor too
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    ours = ("FIFTYONE_", "ZS_")
    for name in [name for name in os.environ if name.startswith(ours) and "_TEST_" not in name]:
        del os.environ[name]
    home = Path(tempfile.mkdtemp(prefix="zs-tests-"))
    _CLEANUP.callback(shutil.rmtree, home, ignore_errors=True)
    plugins = home / "plugins"
    plugins.mkdir()
    (plugins / "zs-operators").symlink_to(ROOT, target_is_directory=True)
    try:
        require_fiftyone_not_imported()
        if os.environ.get("ZS_TEST_DATABASE") == "none":  # for tests that need no FiftyOne
            uri = "mongodb://127.0.0.1:9"  # nobody listens there
        else:
            uri = _CLEANUP.enter_context(start_private_mongod()).uri
    except ZeroShotError as error:
        _CLEANUP.close()
        pytest.exit(f"The tests need a database of their own: {error}", returncode=3)
    os.environ.update(fiftyone_environment(uri, plugins_dir=plugins, home=home))
    os.environ["FIFTYONE_SHOW_PROGRESS_BARS"] = "false"
    os.environ["FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS"] = "true"
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["ZS_STORE_DIR"] = str(home / "stores")
    _guard_network()


def pytest_unconfigure() -> None:
    _CLEANUP.close()


def _only_hands_out_tests(config: pytest.Config) -> bool:
    """Whether this is the process that hands tests to those of pytest-xdist."""
    return bool(getattr(config.option, "numprocesses", None)) and not hasattr(config, "workerinput")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """One process takes the tests of a file, or all that drive the App."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        # Not xdist's own groups: pytest 9.2 lets no plugin write them into a test's id
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "tests/app" if file.startswith("tests/app/") else file

    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need a GPU are skipped where there is none."""
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def checkout(tmp_path_factory) -> Path:
    """A copy of the repository as a clone or a download would hold it; do not write into it."""
    copy = tmp_path_factory.mktemp("checkout") / "zs-operators-main"
    ignore = shutil.ignore_patterns(
        ".*_cache", ".git", ".venv", "__pycache__", "build", "dist", "site", "*.egg-info"
    )
    shutil.copytree(ROOT, copy, ignore=ignore)
    return copy


@pytest.fixture(scope="session")
def clip():
    """The tiny trained CLIP, as it is."""
    import zs_operators as zs

    return zs.load_clip("shapes-tiny", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def shapes(request, tmp_path_factory):
    """The shapes dataset with as many scenes as NUM_SCENES of the module says."""
    from zs_operators.shapes.dataset import load_shapes_dataset

    folder = tmp_path_factory.mktemp("shapes")
    count = request.module.NUM_SCENES
    dataset = load_shapes_dataset(request.module.__name__, num_scenes=count, folder=folder)
    yield dataset
    dataset.delete()


@pytest.fixture
def scenes(shapes):
    """A fresh copy of the scenes of ``shapes``."""
    from zs_operators.shapes.dataset import SCENE

    dataset = shapes.match_tags(SCENE).clone()
    yield dataset
    dataset.delete()


@pytest.fixture
def store_dir(tmp_path, monkeypatch) -> Path:
    """Embeddings are stored below this folder, which is empty."""
    monkeypatch.setenv("ZS_STORE_DIR", str(tmp_path / "stores"))
    return tmp_path / "stores"


@pytest.fixture
def dataset():
    """A new empty dataset, deleted afterwards."""
    import fiftyone as fo

    dataset = fo.Dataset()
    yield dataset
    if not dataset.deleted:
        dataset.delete()


def _is_local(host) -> bool:
    if host in (None, "", b"", "localhost", b"localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _guard_network() -> None:
    """Refuse names and addresses outside this machine; a test that needs them is a wrong test."""

    def refuse(host):
        raise RuntimeError(
            f"A test tried to reach {host!r}: tests use no network but 127.0.0.1. "
            "Use local weights or a server started by the test."
        )

    def checked_method(original):
        def connect(self, address):
            if isinstance(address, tuple) and not _is_local(address[0]):
                refuse(address[0])
            return original(self, address)

        return connect

    real_getaddrinfo = socket.getaddrinfo

    def getaddrinfo(host, *args, **kwargs):
        if not _is_local(host):
            refuse(host)
        return real_getaddrinfo(host, *args, **kwargs)

    socket.socket.connect = checked_method(socket.socket.connect)
    socket.socket.connect_ex = checked_method(socket.socket.connect_ex)
    socket.getaddrinfo = getaddrinfo
