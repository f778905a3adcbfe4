"""Reading ahead: order, bounded memory, one failure is one result."""

import threading
import time

import pytest

from zs_operators.errors import InvalidInputError
from zs_operators.reading import read_ahead, validate_workers


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
