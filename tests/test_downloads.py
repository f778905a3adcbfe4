"""Downloads from a server on this machine that cuts, lies and refuses."""

from __future__ import annotations

import errno
import hashlib
from collections import namedtuple

import pytest

from tests.model_server import serve
from zs_operators import downloads
from zs_operators.downloads import check_space, download
from zs_operators.errors import OfflineError, WeightsError

CONTENT = bytes(range(256)) * 8192  # 2 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(downloads, "_WAIT_S", 0)
    with serve() as served:
        yield served


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole(server, tmp_path):
    seen = []
    target = tmp_path / "new" / "w.pt"
    url = server.put("/w.pt", CONTENT)
    assert download(url, target, sha256=SHA256[:8], on_progress=lambda *at: seen.append(at))
    assert target.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [at for at, _ in seen] == sorted(at for at, _ in seen)
    assert left_in(target.parent) == ["w.pt"]


def test_a_cut_download_goes_on(server, tmp_path):
    server.cut_after = [HALF, 1000]
    url = server.put("/w.pt", CONTENT)
    download(url, tmp_path / "w.pt", sha256=SHA256)
    assert (tmp_path / "w.pt").read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={HALF}-", f"bytes={HALF + 1000}-"]


def test_a_later_call_goes_on_where_an_earlier_one_was_killed(server, tmp_path, monkeypatch):
    url = server.put("/w.pt", CONTENT)
    server.cut_after = [HALF] + [0] * 10
    with pytest.raises(OfflineError, match=rf"{HALF:,} bytes are kept, run it again"):
        download(url, tmp_path / "w.pt", sha256=SHA256)
    assert not (tmp_path / "w.pt").exists()
    server.cut_after, server.asked = [], []
    download(url, tmp_path / "w.pt", sha256=SHA256)
    assert server.ranges == [f"bytes={HALF}-"]
    assert (tmp_path / "w.pt").read_bytes() == CONTENT


def test_without_ranges_it_begins_anew(server, tmp_path):
    server.has_ranges = False
    server.cut_after = [HALF]
    download(server.put("/w.pt", CONTENT), tmp_path / "w.pt")
    assert (tmp_path / "w.pt").read_bytes() == CONTENT


@pytest.mark.parametrize("has_tags", [True, False])
def test_parts_of_two_files_are_never_joined(server, tmp_path, has_tags):
    server.has_tags = has_tags
    url = server.put("/w.pt", CONTENT)
    server.cut_after = [HALF] + [0] * 10
    with pytest.raises(OfflineError):
        download(url, tmp_path / "w.pt")
    server.cut_after = []
    other = CONTENT[::-1]
    server.put("/w.pt", other)
    assert download(url, tmp_path / "w.pt").read_bytes() == other


def test_a_file_that_became_shorter(server, tmp_path):
    server.has_tags = False
    url = server.put("/w.pt", CONTENT)
    server.cut_after = [HALF] + [0] * 10
    short = CONTENT[:1000]
    digest = hashlib.sha256(short).hexdigest()
    with pytest.raises(OfflineError):
        download(url, tmp_path / "w.pt", sha256=digest)
    server.cut_after = []
    server.put("/w.pt", short)
    assert download(url, tmp_path / "w.pt", sha256=digest).read_bytes() == short


def test_a_wrong_file_is_removed(server, tmp_path):
    url = server.put("/w.pt", b"not what was published")
    with pytest.raises(WeightsError, match=rf"expected {SHA256}; it was removed"):
        download(url, tmp_path / "w.pt", sha256=SHA256)
    assert left_in(tmp_path) == []
    server.put("/w.pt", CONTENT)
    assert download(url, tmp_path / "w.pt", sha256=SHA256).read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "error"), [(403, WeightsError), (404, WeightsError)])
def test_what_is_not_there_is_asked_for_once(server, tmp_path, status, error):
    server.status = status
    with pytest.raises(error, match=f"answers {status}"):
        download(f"{server.url}/w.pt", tmp_path / "w.pt")
    assert len(server.asked) == 1


def test_a_server_that_is_busy_is_asked_again(server, tmp_path):
    server.status = 503
    with pytest.raises(OfflineError, match="503"):
        download(f"{server.url}/w.pt", tmp_path / "w.pt")
    assert len(server.asked) == downloads._TRIES


def test_nobody_answers(server, tmp_path):
    with pytest.raises(OfflineError, match="failed"):
        download("http://127.0.0.1:9/w.pt?token=hunter2", tmp_path / "w.pt")
    with pytest.raises(OfflineError) as error:
        download("http://127.0.0.1:9/w.pt?token=hunter2", tmp_path / "w.pt")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/w.pt", "/etc/passwd"])
def test_only_the_web(tmp_path, url):
    with pytest.raises(WeightsError, match="no address of the web"):
        download(url, tmp_path / "w.pt")


def test_a_disk_without_room_is_seen_before_it_is_full(server, tmp_path, monkeypatch):
    free = len(CONTENT) - 1
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda path: Usage(10**9, 0, free))
    with pytest.raises(WeightsError, match=r"GB free and .* GB are needed"):
        download(server.put("/w.pt", CONTENT), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="--weights-dir"):
        check_space(tmp_path / "not" / "there", len(CONTENT))
    check_space(tmp_path, free // 2)


def test_a_disk_that_gets_full_keeps_what_came(server, tmp_path, monkeypatch):
    copy = downloads._copy

    def full(answer, file, *args):
        file.write(answer.read(HALF))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(downloads, "_copy", full)
    url = server.put("/w.pt", CONTENT)
    with pytest.raises(WeightsError, match=r"No space left on device; what came is kept"):
        download(url, tmp_path / "w.pt", sha256=SHA256)
    monkeypatch.setattr(downloads, "_copy", copy)
    server.asked = []
    download(url, tmp_path / "w.pt", sha256=SHA256)
    assert server.ranges == [f"bytes={HALF}-"]


def test_two_do_not_write_one_file(server, tmp_path):
    url = server.put("/w.pt", CONTENT)

    def meanwhile(done, total):
        with pytest.raises(WeightsError, match="another process"):
            download(url, tmp_path / "w.pt")

    download(url, tmp_path / "w.pt", on_progress=meanwhile)
    assert (tmp_path / "w.pt").read_bytes() == CONTENT
    assert left_in(tmp_path) == ["w.pt"]
