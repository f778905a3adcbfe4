"""Stages of a run: each second counts once a thread, under the innermost name."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from zs_operators import stage_times
from zs_operators.stage_times import StageTimes, stage


@pytest.fixture
def clock(monkeypatch):
    """Goes on when it is told to."""

    class Clock:
        now = 0.0

        def perf_counter(self):
            return self.now

        def wait(self, seconds):
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(stage_times, "time", clock)
    return clock


def test_a_stage_within_another_counts_once(clock):
    seconds = Counter(model=1.0)
    times = StageTimes(seconds)
    with times.measuring("model"):
        clock.wait(2)
        with stage("score"):
            clock.wait(3)
            with stage("labels"):
                clock.wait(4)
            clock.wait(5)
        clock.wait(6)
    clock.wait(7)
    assert seconds == {"model": 9.0, "score": 8.0, "labels": 4.0}


def test_what_fails_is_timed_as_well(clock):
    seconds = Counter()
    with suppress(KeyError), StageTimes(seconds).measuring("model"), stage("score"):
        clock.wait(2)
        raise KeyError
    assert seconds == {"score": 2.0, "model": 0.0}


def test_stages_are_free_where_nobody_measures(clock):
    seconds = Counter()
    with stage("score"):
        clock.wait(1)
    with StageTimes(seconds).measuring():
        clock.wait(2)
        with stage("decode"):
            clock.wait(4)
    assert seconds == {"decode": 4.0}


def test_runs_within_runs_do_not_mix(clock):
    outer, inner = Counter(), Counter()
    with StageTimes(outer).measuring("model"):
        clock.wait(1)
        with StageTimes(inner).measuring("model"), stage("score"):
            clock.wait(2)
        with stage("score"):
            clock.wait(4)
    assert inner == {"model": 0.0, "score": 2.0}
    assert outer["score"] == 4.0


def test_threads_add_up():
    seconds = Counter()
    times = StageTimes(seconds)

    def load(_):
        with times.measuring(), stage("decode"):
            pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(load, range(200)))
    assert seconds["decode"] > 0
