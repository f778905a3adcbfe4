"""Sam's embeddings on disk: found again, bounded, shared by processes, and never in the way."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from zs_operators import sam_store
from zs_operators.errors import InvalidInputError, MissingMediaError
from zs_operators.sam import Prompts, SamEmbedding, load_sam
from zs_operators.sam_store import IDENTITY_NAME, Pruned, SamStore, prune, stored_models

IDENTITY = {"architecture": "vit_b", "weights_sha256": "ab" * 32, "precision": "fp32"}
OTHER = {**IDENTITY, "precision": "bf16"}
DAY_NS = 86_400 * 10**9


def embedding(seed=0, size=(32, 8, 8)):
    generator = torch.Generator().manual_seed(seed)
    return SamEmbedding(torch.randn(size, generator=generator), 640, 480, (6, 8))


def key_of(number):
    return f"{number:064x}"


def same(one, other):
    return torch.equal(one.features, other.features) and (
        (one.width_px, one.height_px, one.frame_size)
        == (other.width_px, other.height_px, other.frame_size)
    )


def files_of(folder):
    return sorted(Path(folder).rglob("*.safetensors"))


def last_used(store, number, days_ago):
    """Pretends that an embedding was used so many days ago."""
    (path,) = store.folder.rglob(f"{key_of(number)}.safetensors")
    os.utime(path, ns=(time.time_ns() - int(days_ago * DAY_NS),) * 2)


@pytest.fixture
def store(tmp_path):
    return SamStore(IDENTITY, folder=tmp_path / "store")


@pytest.fixture(scope="module")
def file_bytes(tmp_path_factory):
    """What one embedding of these tests takes on disk."""
    folder = tmp_path_factory.mktemp("one")
    SamStore(IDENTITY, folder=folder).put(key_of(0), embedding())
    return files_of(folder)[0].stat().st_size


def test_what_comes_back_is_the_embedding_rounded_to_half_precision(store):
    new = embedding()
    assert store.get(key_of(1)) is None
    put = store.put(key_of(1), new)
    assert same(put, SamEmbedding(new.features.half().float(), 640, 480, (6, 8)))
    assert not torch.equal(put.features, new.features)
    found = store.get(key_of(1))
    assert same(found, put)
    assert found.features.dtype == torch.float32
    assert same(store.put(key_of(1), found), found)  # rounding twice changes nothing
    assert store.warnings == []


def test_masks_from_the_store_are_those_of_the_first_pass(tmp_path):
    sam = load_sam("shapes-tiny", precision="fp32")
    pixels = np.random.default_rng(0).integers(0, 255, (150, 200, 3), dtype=np.uint8)
    image = tmp_path / "image.bin"
    image.write_bytes(pixels.tobytes())
    store = SamStore(sam.identity(), folder=tmp_path / "store")
    key = store.key(image)
    (new,) = sam.encode([sam.frame(pixels)])
    first = store.put(key, new)
    later = SamStore(sam.identity(), folder=tmp_path / "store").get(key)
    prompts = Prompts(points_px=[[[50.0, 60.0]], [[120.0, 100.0]]])
    for one, other in zip(sam.decode(first, prompts), sam.decode(later, prompts), strict=True):
        assert torch.equal(one.logits, other.logits)
        assert torch.equal(one.raw_iou, other.raw_iou)


def test_sizes_of_an_image_are_kept(store):
    wide = SamEmbedding(torch.ones(4, 3, 2), 3000, 1, (1, 1024))
    store.put(key_of(1), wide)
    assert same(store.get(key_of(1)), wide)


def test_a_changed_image_is_not_found(store, tmp_path):
    image = tmp_path / "image.jpg"
    image.write_bytes(b"before")
    keys = [store.key(image)]
    assert store.key(str(image)) == keys[0]
    image.write_bytes(b"longer than before")
    keys.append(store.key(image))
    status = image.stat()
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    keys.append(store.key(image))
    image.write_bytes(b"other, but as long")
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns + 2))
    keys.append(store.key(image))
    copy = tmp_path / "copy.jpg"
    copy.write_bytes(image.read_bytes())
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns + 2))
    keys.append(store.key(copy))
    assert len(set(keys)) == 5
    for number, key in enumerate(keys[:-1]):
        store.put(key, embedding(number))
        assert store.get(keys[number + 1]) is None


def test_an_image_that_is_not_there_is_said_to_be_missing(store, tmp_path):
    with pytest.raises(MissingMediaError, match="nowhere"):
        store.key(tmp_path / "nowhere.jpg")


def test_another_model_finds_nothing(store, tmp_path):
    store.put(key_of(1), embedding())
    for changed in (OTHER, {**IDENTITY, "size_px": 512}, {**IDENTITY, "weights_sha256": "cd" * 32}):
        assert SamStore(changed, folder=tmp_path / "store").get(key_of(1)) is None
    again = SamStore(dict(reversed(IDENTITY.items())), folder=tmp_path / "store")
    assert again.get(key_of(1)) is not None


def test_the_least_recently_used_go_first(tmp_path, file_bytes):
    store = SamStore(IDENTITY, folder=tmp_path, max_bytes=4 * file_bytes)
    for number in range(4):
        store.put(key_of(number), embedding(number))
        last_used(store, number, 10 - number)
    assert len(files_of(tmp_path)) == 4
    assert store.get(key_of(0)) is not None  # now the last one used
    store.put(key_of(4), embedding(4))
    there = [number for number in range(5) if store.get(key_of(number)) is not None]
    assert there == [0, 2, 3, 4]


def test_a_store_never_grows_beyond_its_size(tmp_path, file_bytes):
    limit = int(20.5 * file_bytes)
    store = SamStore(IDENTITY, folder=tmp_path, max_bytes=limit)
    for number in range(60):
        store.put(key_of(number), embedding(number))
        used = sum(path.stat().st_size for path in files_of(tmp_path))
        assert used <= limit
        assert store.get(key_of(number)) is not None
        assert [model.bytes for model in stored_models(tmp_path)] == [used]
    assert used > 0.8 * limit
    assert store.warnings == []


def test_all_models_share_the_size(tmp_path, file_bytes):
    for number in range(3):
        SamStore(OTHER, folder=tmp_path).put(key_of(number), embedding(number))
        last_used(SamStore(OTHER, folder=tmp_path), number, 5)
    store = SamStore(IDENTITY, folder=tmp_path, max_bytes=3 * file_bytes)
    store.put(key_of(9), embedding(9))
    assert store.get(key_of(9)) is not None
    assert len(files_of(tmp_path)) == 3


def test_what_never_fits_costs_no_others(tmp_path, file_bytes):
    SamStore(OTHER, folder=tmp_path).put(key_of(1), embedding(1))
    small = SamStore(IDENTITY, folder=tmp_path, max_bytes=file_bytes - 1)
    large = small.put(key_of(2), embedding(2))
    assert torch.equal(large.features, embedding(2).features.half().float())
    assert len(files_of(tmp_path)) == 1
    assert SamStore(OTHER, folder=tmp_path).get(key_of(1)) is not None
    (said,) = small.warnings
    assert "max_bytes" in said
    with pytest.raises(InvalidInputError, match="max_bytes"):
        SamStore(IDENTITY, folder=tmp_path, max_bytes=0)


def test_files_of_others_are_neither_counted_nor_removed(tmp_path, file_bytes):
    store = SamStore(IDENTITY, folder=tmp_path, max_bytes=2 * file_bytes)
    store.put(key_of(0), embedding())
    mine = [
        tmp_path / "thesis.doc",
        tmp_path / "0123456789abcdef" / "ab" / "notes.txt",
        tmp_path / "photos" / "ab" / f"{key_of(5)}.safetensors",
        store.folder / "00" / "model.safetensors",
    ]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 10 * file_bytes)
    assert [model.bytes for model in stored_models(tmp_path)] == [file_bytes]
    for number in range(1, 4):
        store.put(key_of(number), embedding(number))
    store.clear()
    prune(tmp_path, max_bytes=0)
    assert all(path.exists() for path in mine)
    assert store.get(key_of(3)) is None


def _truncated(data):
    return data[: len(data) // 2]


def _zeroed(data):
    return data[:600] + bytes(len(data) - 600)


def _flipped(data):
    return data[:-1] + bytes([data[-1] ^ 1])


def _of_another_size(data):
    return data.replace(b'"width_px":"640"', b'"width_px":"641"')


@pytest.mark.parametrize(
    "damage", [_truncated, _zeroed, _flipped, _of_another_size, lambda data: b"", lambda data: b"x"]
)
def test_a_damaged_file_counts_as_absent_and_goes(store, damage):
    new = store.put(key_of(1), embedding())
    (path,) = files_of(store.folder)
    before = path.read_bytes()
    assert damage(before) != before
    path.write_bytes(damage(before))
    assert store.get(key_of(1)) is None
    assert not path.exists()
    assert same(store.put(key_of(1), embedding()), new)
    assert same(store.get(key_of(1)), new)


def test_a_file_of_another_kind_counts_as_absent_and_goes(store):
    store.put(key_of(1), embedding())
    (path,) = files_of(store.folder)
    sizes = dict.fromkeys(("width_px", "height_px", "frame_rows", "frame_columns"), "1")
    for tensors, metadata in (
        ({"other": torch.ones(3)}, None),
        ({"features": torch.ones(3)}, None),
        ({"features": torch.ones(3)}, {**sizes, "checksum": "00000000"}),
        ({"features": torch.ones(3, dtype=torch.bfloat16)}, {**sizes, "checksum": "00000000"}),
    ):
        save_file(tensors, path, metadata)
        assert store.get(key_of(1)) is None
        assert not path.exists()


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e6])
def test_what_half_precision_cannot_hold_is_returned_and_not_stored(store, value):
    new = embedding()
    new.features[3, 2, 1] = value
    assert store.put(key_of(1), new) is new
    assert store.get(key_of(1)) is None
    assert not store.folder.exists()
    assert store.warnings == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_disk_that_takes_no_more_is_said_once(store, monkeypatch, caplog, code):
    kept = store.put(key_of(0), embedding())
    calls = []

    def refused(path, data):
        calls.append(path)
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(sam_store, "write_whole", refused)
    for number in range(1, 4):
        new = embedding(number)
        put = store.put(key_of(number), new)
        assert torch.equal(put.features, new.features.half().float())
        assert store.get(key_of(number)) is None
    assert len(calls) == 1
    (said,) = store.warnings
    assert os.strerror(code) in said
    assert str(store.folder.parent) in said
    assert [record.getMessage() for record in caplog.records] == [said]
    assert same(store.get(key_of(0)), kept)  # reading goes on


def test_a_file_in_the_way_is_said_once(tmp_path, caplog):
    (tmp_path / "store").write_text("mine")
    store = SamStore(IDENTITY, folder=tmp_path / "store")
    for number in range(3):
        assert store.get(key_of(number)) is None
        assert store.put(key_of(number), embedding(number)) is not None
    assert len(store.warnings) == len(caplog.records) == 1
    assert (tmp_path / "store").read_text() == "mine"
    assert stored_models(tmp_path / "store") == []
    assert prune(tmp_path / "store", max_bytes=0) == Pruned(0, 0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_said_once(store):
    store.put(key_of(0), embedding())
    paths = [store.folder.parent, *store.folder.parent.rglob("*")]
    folders = [path for path in paths if path.is_dir()]
    for path in folders:
        path.chmod(0o500)
    try:
        for number in (256, 512):
            store.put(key_of(number)[::-1], embedding(number))
        assert len(store.warnings) == 1
        assert store.get(key_of(0)) is not None
    finally:
        for path in folders:
            path.chmod(0o700)


def test_a_full_store_whose_files_cannot_be_removed_says_so(tmp_path, file_bytes, monkeypatch):
    store = SamStore(IDENTITY, folder=tmp_path, max_bytes=2 * file_bytes)
    monkeypatch.setattr(sam_store, "_remove", lambda path: False)
    for number in range(5):
        store.put(key_of(number), embedding(number))
    assert len(files_of(tmp_path)) == 2
    assert len(store.warnings) == 1


def test_a_store_that_is_cleared_meanwhile_goes_on(store, monkeypatch):
    store.put(key_of(0), embedding())
    write = sam_store.write_whole

    def cleared(path, data):
        monkeypatch.setattr(sam_store, "write_whole", write)
        store.clear()
        write(path, data)

    monkeypatch.setattr(sam_store, "write_whole", cleared)
    store.put(key_of(1), embedding(1))
    assert store.get(key_of(1)) is None
    put = store.put(key_of(2), embedding(2))
    assert same(store.get(key_of(2)), put)
    assert store.warnings == []
    assert json.loads((store.folder / IDENTITY_NAME).read_text()) == IDENTITY


_WORKER = """
import random, sys, torch
from zs_operators.sam import SamEmbedding
from zs_operators.sam_store import SamStore
torch.set_num_threads(1)
folder, seed, max_bytes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
store = SamStore({"architecture": "vit_b"}, folder=folder, max_bytes=max_bytes)
found, numbers = 0, random.Random(seed)
for turn in range(200):
    number = numbers.randrange(20)
    known = store.get(f"{number:064x}")
    value = torch.full((16, 8, 8), float(number))
    if known is None:
        store.put(f"{number:064x}", SamEmbedding(value, number + 1, 5, (3, 4)))
    else:
        found += 1
        assert torch.equal(known.features, value), number
        assert known.width_px == number + 1
assert not store.warnings, store.warnings
print(found)
"""


@pytest.mark.parametrize("images", [8, 1000])
def test_processes_share_a_store(tmp_path, images):
    max_bytes = images * 2400
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(tmp_path), str(seed), str(max_bytes)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(3)
    ]
    done = [worker.communicate(timeout=180) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], done
    assert all(int(out) > 0 for out, _ in done)
    left = files_of(tmp_path)
    assert len(left) == 20 if images == 1000 else 0 < len(left) <= 8 + 3
    assert not list(tmp_path.rglob(".*.tmp"))


def test_what_is_stored_can_be_listed(tmp_path, file_bytes):
    assert stored_models(tmp_path / "nowhere") == []
    one, other = (SamStore(identity, folder=tmp_path) for identity in (IDENTITY, OTHER))
    for number in range(3):
        one.put(key_of(number), embedding(number))
        last_used(one, number, 3)
    other.put(key_of(7), embedding(7))
    first, second = stored_models(tmp_path)
    assert (first.identity, first.images, first.bytes) == (OTHER, 1, file_bytes)
    assert (second.identity, second.images, second.bytes) == (IDENTITY, 3, 3 * file_bytes)
    assert second.key == one.folder.name
    assert second.used == pytest.approx(time.time() - 3 * 86_400, abs=60)
    one.get(key_of(0))
    assert [model.images for model in stored_models(tmp_path)] == [3, 1]
    (one.folder / IDENTITY_NAME).write_text("{torn")
    assert {model.images: model.identity for model in stored_models(tmp_path)} == {3: {}, 1: OTHER}


def test_pruning_by_size_removes_the_least_recently_used(tmp_path, file_bytes):
    one, other = (SamStore(identity, folder=tmp_path) for identity in (IDENTITY, OTHER))
    for number in range(4):
        for store in (one, other):
            store.put(key_of(number), embedding(number))
            last_used(store, number, 10 - number)
    assert prune(tmp_path, max_bytes=3 * file_bytes) == Pruned(5, 5 * file_bytes)
    there = [number for number in range(4) if one.get(key_of(number)) is not None]
    assert there in ([2, 3], [3])
    assert prune(tmp_path, max_bytes=3 * file_bytes) == Pruned(0, 0)
    assert prune(tmp_path, max_bytes=0) == Pruned(3, 3 * file_bytes)
    assert list(tmp_path.iterdir()) == []  # nor empty folders


def test_pruning_by_age_keeps_what_is_used(store, file_bytes):
    for number in range(3):
        store.put(key_of(number), embedding(number))
        last_used(store, number, 10 * number)
    root = store.folder.parent
    assert prune(root, unused_days=30) == Pruned(0, 0)
    assert prune(root, unused_days=15) == Pruned(1, file_bytes)
    assert store.get(key_of(1)) is not None
    assert prune(root, unused_days=5) == Pruned(0, 0)  # that was a use
    last_used(store, 1, 10)
    assert prune(root, unused_days=5, max_bytes=1) == Pruned(2, 2 * file_bytes)


@pytest.mark.parametrize(
    "wrong", [{}, {"max_bytes": -1}, {"unused_days": -1}, {"unused_days": float("nan")}]
)
def test_pruning_by_nothing_is_refused(store, wrong):
    store.put(key_of(0), embedding())
    with pytest.raises(InvalidInputError, match=r"unused_days|max_bytes"):
        prune(store.folder.parent, **wrong)
    assert store.get(key_of(0)) is not None


def test_clearing_removes_one_model_s_files(tmp_path):
    one, other = (SamStore(identity, folder=tmp_path) for identity in (IDENTITY, OTHER))
    for store in (one, other):
        store.put(key_of(1), embedding())
    one.clear()
    assert not one.folder.exists()
    assert other.get(key_of(1)) is not None
    SamStore(IDENTITY, folder=tmp_path / "nowhere").clear()


def test_leftovers_of_a_crash_are_counted_and_pruned(store, file_bytes):
    store.put(key_of(0), embedding())
    (path,) = files_of(store.folder)
    leftover = path.with_name(f".{'0a' * 16}.tmp")
    leftover.write_bytes(b"x" * 100)
    (model,) = stored_models(store.folder.parent)
    assert (model.images, model.bytes) == (1, file_bytes + 100)
    assert prune(store.folder.parent, max_bytes=0) == Pruned(2, file_bytes + 100)


def test_the_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("ZS_STORE_DIR", str(tmp_path / "mine"))
    SamStore(IDENTITY).put(key_of(0), embedding())
    assert [model.images for model in stored_models()] == [1]
    assert len(files_of(tmp_path / "mine" / "sam")) == 1
    assert prune(max_bytes=0).files == 1
