"""Reading ahead: order, bounded memory, one failure is one result."""

import subprocess
import sys
import threading
import time
from typing import ClassVar

import pytest

from zs_operators import reader_threads
from zs_operators.errors import InvalidInputError, RunError, UnreadableMediaError
from zs_operators.reading import ReadAhead, read_ahead, validate_workers


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_results_come_in_order_whatever_finishes_first(workers):
    def load(n):
        time.sleep(0.002 * (n % 3))
        return n * n

    results = list(read_ahead(range(30), load, workers=workers, ahead=7))

    assert results == [(n, n * n) for n in range(30)]


@pytest.mark.parametrize("workers", [0, 3])
def test_a_failing_item_is_a_result_and_its_neighbours_are_unharmed(workers):
    def load(n):
        if n == 2:
            raise OSError("gone")
        return n

    results = dict(read_ahead(range(5), load, workers=workers, ahead=2))

    assert [results[i] for i in (0, 1, 3, 4)] == [0, 1, 3, 4]
    assert isinstance(results[2], OSError)


def test_no_more_than_ahead_items_are_alive():
    lock, state = threading.Lock(), {"loaded": 0, "taken": 0, "most": 0}

    def load(n):
        with lock:
            state["loaded"] += 1
            state["most"] = max(state["most"], state["loaded"] - state["taken"])
        return n

    for _ in read_ahead(range(100), load, workers=4, ahead=5):
        with lock:
            state["taken"] += 1

    # The consumer holds one item while five more may be loaded
    assert state["most"] <= 6


class Blob:
    """A result of some bytes that counts how many of its kind there are."""

    nbytes = 10_000_000
    alive: ClassVar[set[int]] = set()

    def __init__(self):
        self.alive.add(id(self))

    def __del__(self):
        self.alive.discard(id(self))


@pytest.mark.parametrize(("max_bytes", "waiting"), [(25_000_000, 3), (1, 1), (10**9, 16)])
def test_large_results_lower_the_number_read_ahead_though_never_below_one(max_bytes, waiting):
    workers, most, indices = 2, 0, []
    reader = ReadAhead(range(40), lambda n: Blob(), workers=workers, ahead=16, max_bytes=max_bytes)
    for index, _ in reader:
        indices.append(index)
        time.sleep(0.003)  # the threads go as far as they may
        most = max(most, len(Blob.alive))

    assert indices == list(range(40))
    # besides those that wait: one in each thread, and the consumer's
    assert most <= waiting + workers + 1
    assert most >= min(waiting, 16)
    assert reader.budget.warning is None


def test_after_memory_ran_out_nothing_waits_and_fewer_are_read_ahead():
    failing, log = {7}, []

    def load(n):
        log.append(n)
        if n in failing:
            failing.discard(n)
            return MemoryError()
        return Blob()

    reader = ReadAhead(range(200), load, workers=3, ahead=8)
    indices = []
    for index, item in reader:
        if isinstance(item, MemoryError):
            item = None
            time.sleep(0.02)
            assert len(Blob.alive) > 3
            item = reader.again(index)
            assert len(Blob.alive) == 1
            assert reader.budget.size == 4
        assert isinstance(item, Blob)
        indices.append(index)

    assert indices == list(range(200))
    assert log.count(7) == 2
    assert log.count(9) == 2  # it had been read, and was dropped
    assert reader.budget.size == 8  # it grew back
    assert reader.budget.warning.startswith("Memory ran out once")


def test_memory_that_runs_out_in_the_calling_thread():
    results = iter([1, MemoryError(), 3, 4])
    reader = ReadAhead(range(3), lambda n: next(results), workers=0, ahead=4)
    found = [
        reader.again(index) if isinstance(item, MemoryError) else item for index, item in reader
    ]
    assert found == [1, 3, 4]


def test_closing_stops_reading():
    seen = []
    reader = read_ahead(range(1000), lambda n: seen.append(n) or n, workers=2, ahead=4)
    next(reader)
    reader.close()
    count = len(seen)
    time.sleep(0.05)

    assert len(seen) == count <= 8


@pytest.mark.parametrize("workers", [-1, 1.5, True, "2"])
def test_workers_that_are_no_number_of_threads_are_refused(workers):
    with pytest.raises(InvalidInputError, match="workers"):
        validate_workers(workers)


def test_default_workers_is_at_least_one():
    assert validate_workers(None) >= 1
    assert validate_workers(0) == 0


@pytest.mark.parametrize("workers", [1, 3])
def test_what_never_comes_back_costs_one_result(workers):
    never = threading.Event()

    def load(n):
        if n in (2, 5):
            never.wait()
        return n

    results = dict(read_ahead(range(12), load, workers=workers, ahead=4, seconds_a_file=0.2))

    assert [n for n in results if results[n] != n] == [2, 5]
    assert all(isinstance(results[n], UnreadableMediaError) for n in (2, 5))
    assert "0.2 s" in str(results[2])
    never.set()


def test_a_drive_that_is_gone_ends_the_run(monkeypatch):
    monkeypatch.setattr(reader_threads, "_SECONDS_TO_CLOSE", 0.1)
    monkeypatch.setattr(reader_threads, "MAX_HANGING", 3)
    never = threading.Event()
    results = []
    paths = [f"/mnt/gone/{n}.jpg" for n in range(50)]
    reader = read_ahead(paths, lambda path: never.wait(), workers=2, ahead=4, seconds_a_file=0.1)
    with pytest.raises(RunError, match=r"'/mnt/gone/.*drive answers"):
        results.extend(reader)

    assert len(results) == 3
    never.set()


def test_a_hanging_reader_does_not_keep_the_process_alive():
    code = (
        "import threading\n"
        "from zs_operators import reader_threads\n"
        "from zs_operators.reading import read_ahead\n"
        "reader_threads._SECONDS_TO_CLOSE = 0.1\n"
        "never = threading.Event()\n"
        "load = lambda n: never.wait() if n == 1 else n\n"
        "print([type(r).__name__ for _, r in read_ahead([0, 1, 2], load, workers=1, ahead=2,"
        " seconds_a_file=0.2)])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )

    assert done.stdout.strip() == "['int', 'UnreadableMediaError', 'int']"


def test_what_is_no_exception_of_a_file_reaches_the_caller():
    def load(n):
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        list(read_ahead([1], load, workers=1, ahead=1))
