"""The store of embeddings: found again, kept apart by model, shared, limited, never wrong."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from zs_operators.cli import main
from zs_operators.embedding_upkeep import prune, stored_models
from zs_operators.embeddings import EmbeddingStore, derived_key, image_key
from zs_operators.errors import InvalidInputError, MissingMediaError

DIM = 16
MODEL = {"kind": "image", "architecture": "tiny", "weights_sha256": "aa", "preprocessing": {"s": 8}}


def open_store(folder, identity=MODEL, **options):
    return EmbeddingStore(identity, DIM, folder=folder, **options)


def keys_of(*numbers):
    return [derived_key(number) for number in numbers]


def vectors_of(*numbers):
    rng = [np.random.default_rng(number) for number in numbers]
    return np.stack([one.standard_normal(DIM) for one in rng]).astype(np.float32)


def fill(folder, *numbers, **options):
    with open_store(folder, **options) as store:
        return store.put(keys_of(*numbers), vectors_of(*numbers))


def assert_has(store, *numbers):
    vectors, readable = store.vectors(store.find(keys_of(*numbers)))
    assert readable.all()
    np.testing.assert_array_equal(vectors, vectors_of(*numbers).astype("f2"))


@pytest.mark.parametrize(("dtype", "itemsize"), [("float16", 2), ("float32", 4)])
def test_what_is_put_is_found_as_it_was_rounded(tmp_path, dtype, itemsize):
    rounded = fill(tmp_path, 1, 2, 3, dtype=dtype)

    store = open_store(tmp_path, dtype=dtype)
    assert len(store) == 3
    vectors, readable = store.vectors(store.find(keys_of(3, 9, 1)))
    assert readable.tolist() == [True, False, True]
    np.testing.assert_array_equal(vectors[[0, 2]], rounded[[2, 0]])
    np.testing.assert_array_equal(rounded, vectors_of(1, 2, 3).astype(f"f{itemsize}"))


def test_records_of_many_rows_keep_their_extras_and_facts(tmp_path):
    with open_store(tmp_path, extras=2, facts=3) as store:
        store.put(
            keys_of(1, 2, 3),
            vectors_of(1, 2, 3),
            counts=[2, 0, 1],
            extras=[[1, 2], [3, 4], [5, 6]],
            facts=[[1, 2, 3], [4, 5, 6], [7, 8, 0.1]],
        )
    store = open_store(tmp_path, extras=2, facts=3)
    one, none, other = (store.read(record) for record in store.find(keys_of(1, 2, 3)))
    np.testing.assert_array_equal(one.vectors, vectors_of(1, 2).astype("f2"))
    assert one.extras.tolist() == [[1, 2], [3, 4]]
    assert none.vectors.shape == (0, DIM)
    assert none.facts.tolist() == [4, 5, 6]
    assert other.extras.tolist() == [[5, 6]]
    assert other.facts.tolist() == [7, 8, 0.1]


def test_the_newest_record_of_a_key_counts(tmp_path):
    fill(tmp_path, 1, 2)
    with open_store(tmp_path) as store:
        store.put(keys_of(1), vectors_of(7))
    store = open_store(tmp_path)
    vectors, _ = store.vectors(store.find(keys_of(1, 2)))
    np.testing.assert_array_equal(vectors, vectors_of(7, 2).astype("f2"))


@pytest.mark.parametrize(
    "change",
    [
        {"weights_sha256": "bb"},
        {"architecture": "other"},
        {"preprocessing": {"s": 9}},
        {"kind": "region"},
    ],
)
def test_another_model_or_preprocessing_finds_nothing(tmp_path, change):
    fill(tmp_path, 1)
    other = open_store(tmp_path, {**MODEL, **change})
    assert other.find(keys_of(1)).tolist() == [-1]


def test_another_rounding_finds_nothing(tmp_path):
    fill(tmp_path, 1)
    assert open_store(tmp_path, dtype="float32").find(keys_of(1)).tolist() == [-1]


def test_an_image_has_another_key_when_it_moves_or_changes(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    first = image_key(path)
    assert image_key(str(path)) == first
    os.utime(path, ns=(1, 1))
    touched = image_key(path)
    path.write_bytes(b"other")
    os.utime(path, ns=(1, 1))
    grown = image_key(path)
    moved = path.rename(tmp_path / "b.png")
    assert len({first, touched, grown, image_key(moved)}) == 4
    with pytest.raises(MissingMediaError):
        image_key(path)


def test_vectors_that_are_not_finite_are_not_stored(tmp_path):
    vectors = vectors_of(1, 2, 3)
    vectors[0, 0] = np.nan
    vectors[1, 0] = 1e9  # beyond float16
    with open_store(tmp_path) as store:
        store.put(keys_of(1, 2, 3), vectors)
    assert (open_store(tmp_path).find(keys_of(1, 2, 3)) >= 0).tolist() == [False, False, True]


def test_a_damaged_block_counts_as_absent_and_its_neighbours_do_not(tmp_path):
    fill(tmp_path, 1)
    fill(tmp_path, 2)
    (path,) = tmp_path.glob("*/*.emb")
    size = path.stat().st_size // 2
    with open(path, "r+b") as file:
        file.seek(size - 60)  # the vector of the first of two blocks
        file.write(b"\xff")
    store = open_store(tmp_path)
    _, readable = store.vectors(store.find(keys_of(1, 2)))
    assert readable.tolist() == [False, True]
    assert store.read(store.find(keys_of(1))[0]) is None
    assert_has(store, 2)


def test_two_stores_write_at_once(tmp_path):
    one, two = open_store(tmp_path), open_store(tmp_path)
    for number in range(0, 40, 2):
        one.put(keys_of(number), vectors_of(number))
        two.put(keys_of(number + 1), vectors_of(number + 1))
        one.flush()
        two.flush()
    one.close()
    two.close()
    assert_has(open_store(tmp_path), *range(40))


_WRITER = """
import sys
sys.path[:0] = ["tests"]
from pathlib import Path
from test_embeddings import fill, keys_of, open_store, vectors_of
store, number = open_store(Path(sys.argv[1])), int(sys.argv[2])
stop = number + int(sys.argv[3])
while number < stop:
    store.put(keys_of(number), vectors_of(number))
    store.flush()
    number += 1
    print(number, flush=True)
store.close()
"""


def start_writer(folder, first, count, root):
    command = [sys.executable, "-c", _WRITER, str(folder), str(first), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)


def test_two_processes_write_at_once(tmp_path, root):
    processes = [start_writer(tmp_path, first, 300, root) for first in (0, 1000)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert_has(open_store(tmp_path), *range(300), *range(1000, 1300))


def test_kill_at_random_moments_loses_nothing_that_was_flushed(tmp_path, root):
    rng = random.Random(3)
    for attempt in range(5):
        first = attempt * 100_000
        process = start_writer(tmp_path, first, 100_000, root)
        process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.1))
        process.send_signal(signal.SIGKILL)
        stop = first + 1 + len(process.communicate()[0].split())
        assert_has(open_store(tmp_path), *range(first, stop))


_LIMITED = """
import resource, signal, sys
sys.path[:0] = ["tests"]
from pathlib import Path
from test_embeddings import keys_of, open_store, vectors_of
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
store = open_store(Path(sys.argv[1]))
for number in range(200):
    rounded = store.put(keys_of(number), vectors_of(number))
    assert (rounded == vectors_of(number).astype("f2")).all()
    store.flush()
store.close()
assert len(store.warnings) == 1, store.warnings
print(store.warnings[0])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs limits on file sizes")
def test_a_full_disk_ends_writing_with_a_warning_and_keeps_what_is_there(tmp_path, root):
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(tmp_path)], capture_output=True, text=True, cwd=root
    )
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stdout
    assert "labels are not affected" in done.stdout
    store = open_store(tmp_path)
    assert 20 < len(store) < 200
    assert_has(store, *range(len(store)))


def test_the_limit_removes_what_was_not_used_for_longest(tmp_path):
    old = {**MODEL, "weights_sha256": "old"}
    fill(tmp_path, *range(500), identity=old)
    (old_shard,) = tmp_path.glob("*/*.emb")
    os.utime(old_shard, ns=(1, 1))
    fill(tmp_path, *range(500), max_bytes=50_000)
    assert not old_shard.exists()
    assert_has(open_store(tmp_path), *range(500))


def test_what_never_fits_costs_no_others(tmp_path):
    fill(tmp_path, 1, 2)
    with open_store(tmp_path, max_bytes=100) as store:
        store.put(keys_of(3), vectors_of(3))
        store.flush()
        assert "no room" in store.warnings[0]
    assert_has(open_store(tmp_path), 1, 2)


@pytest.mark.parametrize("options", [{"dtype": "float64"}, {"max_bytes": 0}, {"max_bytes": 1.5}])
def test_options_without_meaning_are_refused(tmp_path, options):
    with pytest.raises(InvalidInputError):
        open_store(tmp_path, **options)


def test_a_store_that_is_only_read_makes_no_files(tmp_path):
    open_store(tmp_path / "none").close()
    assert not (tmp_path / "none").exists()


def test_list_and_prune(tmp_path):
    fill(tmp_path, 1, 2, 3)
    other = {**MODEL, "weights_sha256": "bb"}
    fill(tmp_path, 1, identity=other)
    models = stored_models(tmp_path)
    assert sorted(model.records for model in models) == [1, 3]
    assert {model.identity["weights_sha256"] for model in models} == {"aa", "bb"}

    first = next(model for model in models if model.records == 3)
    done = prune(tmp_path, max_bytes=0, model=first.key)
    assert (done.files, done.bytes) == (1, first.bytes)
    assert open_store(tmp_path).find(keys_of(1)).tolist() == [-1]
    assert_has(open_store(tmp_path, other), 1)
    assert prune(tmp_path, unused_days=1).files == 0
    (shard,) = tmp_path.glob("*/*.emb")
    os.utime(shard, ns=(1, 1))
    assert prune(tmp_path, unused_days=1).files == 1
    assert list(tmp_path.iterdir()) == []


def test_a_shard_being_written_is_not_pruned(tmp_path):
    store = open_store(tmp_path)
    store.put(keys_of(1), vectors_of(1))
    store.flush()
    assert prune(tmp_path, max_bytes=0).files == 0
    store.close()
    assert prune(tmp_path, max_bytes=0).files == 1


def test_prune_needs_to_know_by_what(tmp_path):
    with pytest.raises(InvalidInputError, match="nothing to prune by"):
        prune(tmp_path)
    with pytest.raises(InvalidInputError, match="no model"):
        prune(tmp_path, max_bytes=0, model="0" * 16)


def test_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ZS_STORE_DIR", str(tmp_path))
    fill(tmp_path / "embeddings", 1, 2)
    assert main(["embeddings", "list"]) == 0
    listed = capsys.readouterr().out
    assert "tiny" in listed
    assert str(tmp_path) in listed
    assert main(["embeddings", "prune", "--max-gb", "0"]) == 0
    assert "Removed 1 files" in capsys.readouterr().out
    assert main(["embeddings", "prune"]) == 2
    assert "nothing to prune by" in capsys.readouterr().err
