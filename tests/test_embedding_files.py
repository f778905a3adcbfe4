"""Shards of embeddings: what was written is read back, and nothing else, whatever happens."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from zs_operators.embedding_files import (
    KEY_BYTES,
    Layout,
    Shard,
    ShardWriter,
    iter_shards,
    remove_shard,
    shard_paths,
)

LAYOUT = Layout(dim=8, itemsize=2, extras=2, facts=1)


def block(seed, records=3, layout=LAYOUT):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, records).astype("u4")
    rows = int(counts.sum())
    return (
        rng.bytes(records * KEY_BYTES),
        counts,
        rng.random((records, layout.facts)),
        rng.random((rows, layout.extras)).astype("f4"),
        rng.random((rows, layout.dim)).astype(layout.dtype),
    )


def assert_holds(found, written):
    keys, counts, facts, extras, vectors = written
    assert found.is_intact
    assert found.keys.tobytes() == keys
    np.testing.assert_array_equal(found.counts, counts)
    np.testing.assert_array_equal(found.facts, facts)
    np.testing.assert_array_equal(found.extras, extras)
    np.testing.assert_array_equal(found.vectors, vectors)


@pytest.mark.parametrize(
    "layout",
    [LAYOUT, Layout(dim=5, itemsize=4), Layout(dim=3, itemsize=2, extras=7, facts=3)],
)
def test_blocks_come_back_as_they_were_written(tmp_path, layout):
    writer = ShardWriter(tmp_path, layout)
    written = [block(seed, layout=layout) for seed in range(4)]
    for one in written:
        writer.append(*one)
    writer.close()

    (shard,) = iter_shards(tmp_path, layout)
    assert len(shard.blocks) == 4
    for found, one in zip(shard.blocks, written, strict=True):
        assert_holds(found, one)


def test_a_file_cut_at_any_byte_holds_its_complete_blocks(tmp_path):
    writer = ShardWriter(tmp_path / "whole", LAYOUT)
    ends, written = [], [block(seed) for seed in range(3)]
    for one in written:
        writer.append(*one)
        ends.append(writer.end)
    writer.close()
    data = writer.path.read_bytes()
    cut = tmp_path / "cut.emb"
    for size in range(len(data) + 1):
        cut.write_bytes(data[:size])
        shard = Shard(cut, LAYOUT)
        complete = sum(end <= size for end in ends)
        assert len(shard.blocks) == complete
        for found, one in zip(shard.blocks, written, strict=False):
            assert_holds(found, one)


def test_no_flipped_byte_gives_wrong_values(tmp_path):
    writer = ShardWriter(tmp_path / "whole", LAYOUT)
    written = [block(seed) for seed in range(2)]
    for one in written:
        writer.append(*one)
    writer.close()
    data = writer.path.read_bytes()
    path = tmp_path / "flipped.emb"
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :])
        for found, one in zip(Shard(path, LAYOUT).blocks, written, strict=False):
            if found.is_intact:
                assert_holds(found, one)


def test_an_unfinished_block_is_cut_off_before_the_next(tmp_path):
    writer = ShardWriter(tmp_path, LAYOUT)
    first, second = block(1), block(2)
    writer.append(*first)
    writer.append(*second)
    writer.close()
    os.truncate(writer.path, writer.end - 10)

    again = ShardWriter(tmp_path, LAYOUT)
    assert again.path == writer.path
    again.append(*second)
    again.close()

    (shard,) = iter_shards(tmp_path, LAYOUT)
    for found, one in zip(shard.blocks, [first, second], strict=True):
        assert_holds(found, one)


def test_two_writers_never_share_a_shard(tmp_path):
    one, two = ShardWriter(tmp_path, LAYOUT), ShardWriter(tmp_path, LAYOUT)
    assert one.path != two.path
    assert not remove_shard(one.path)
    one.close()
    assert remove_shard(one.path)
    assert shard_paths(tmp_path) == [two.path]
    two.close()


def test_a_full_shard_is_not_continued(tmp_path):
    writer = ShardWriter(tmp_path, LAYOUT, max_bytes=64)
    writer.append(*block(1))
    assert writer.is_full
    writer.close()
    other = ShardWriter(tmp_path, LAYOUT, max_bytes=64)
    assert other.path != writer.path
    other.close()


def test_a_block_that_cannot_be_written_leaves_no_trace(tmp_path, monkeypatch):
    writer = ShardWriter(tmp_path, LAYOUT)
    writer.append(*block(1))
    end = writer.end
    real = os.write

    def half(fd, data):
        if fd != writer._fd:
            return real(fd, data)
        real(fd, bytes(data[: len(data) // 2]))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="No space left"):
        writer.append(*block(2))
    monkeypatch.undo()
    assert writer.end == end == writer.path.stat().st_size
    writer.append(*block(3))
    writer.close()
    (shard,) = iter_shards(tmp_path, LAYOUT)
    assert_holds(shard.blocks[1], block(3))


def test_sizes_that_do_not_agree_are_refused(tmp_path):
    writer = ShardWriter(tmp_path, LAYOUT)
    keys, counts, facts, extras, vectors = block(1)
    with pytest.raises(ValueError, match="do not agree"):
        writer.append(keys, counts, facts, extras, vectors[:, :4])
    writer.close()


_WRITE_FOREVER = """
import sys
import numpy as np
from pathlib import Path
from zs_operators.embedding_files import Layout, ShardWriter
layout = Layout(dim=64)
writer = ShardWriter(Path(sys.argv[1]), layout)
number = 0
while True:
    vectors = np.full((500, 64), number % 1000, "<f2")
    keys = number.to_bytes(32, "big") * 500
    writer.append(keys, np.ones(500, "u4"), np.empty((500, 0)), np.empty((500, 0)), vectors)
    number += 1
    print(number, flush=True)
"""


def test_kill_at_random_moments_leaves_every_written_block(tmp_path):
    layout = Layout(dim=64)
    rng = random.Random(5)
    expected = 0
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITE_FOREVER, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        confirmed = process.communicate()[0].split()
        expected += 1 + len(confirmed)
        blocks = [one for shard in iter_shards(tmp_path, layout) for one in shard.blocks]
        # A block may be complete whose number was not printed any more
        assert expected <= len(blocks) <= expected + 1
        expected = len(blocks)
        for one in blocks:
            number = int.from_bytes(one.keys[0].tobytes(), "big")
            assert one.is_intact
            assert (one.vectors == number % 1000).all()
