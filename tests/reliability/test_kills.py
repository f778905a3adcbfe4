"""``kill -9`` at any moment: the same call goes on, and ends as if nothing had happened.

``ZS_TEST_KILLS=100`` kills each task a hundred times; the suite does so a few times.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from collections import Counter

import pytest

from tests.reliability import jobs
from tests.reliability.workers import wait_until

KILLS = int(os.environ.get("ZS_TEST_KILLS", "2"))
TASKS = ("classify", "detect", "segment")
NUM_SCENES = 13  # the last one is no image
STORE = {"embeddings": "reuse"}
PLACES = [
    ("classify", {}, "before a write", 1),
    ("classify", {}, "half way through a write", 3),
    ("classify", STORE, "in the embedding store", 2),
    ("detect", {}, "after a write", 6),
    ("detect", STORE, "before the record", 2),
    ("segment", {}, "half way through a write", 7),
    ("segment", {"files": True}, "in a file of its own", 4),
]


@pytest.fixture(scope="module")
def dataset(workers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    name = f"kills-{os.getpid()}"
    workers.do("make_dataset", name=name, folder=str(folder), num_scenes=NUM_SCENES)
    yield name
    import fiftyone as fo

    fo.delete_dataset(name)


@pytest.fixture(scope="module")
def references(workers, dataset):
    """What an uninterrupted run leaves, and how many seconds it takes, by task and options."""
    found = {}

    def reference(task, options, folder):
        key = task, json.dumps(sorted(options))
        if key not in found:
            story = Story(
                workers, dataset, task, options, folder / "reference", f"ref_{len(found)}"
            )
            worker = story.start()
            begun = story.wait_for("todo")
            report = worker.result()["report"]
            seconds = time.monotonic() - begun
            assert report["counts"] == {**report["counts"], "unreadable_media": 1}
            found[key] = story.left(), seconds
        return found[key]

    return reference


class Story:
    """One field from its first call until it is whole, whatever happens in between."""

    def __init__(self, workers, dataset, task, options, folder, field):
        folder.mkdir()
        self.workers, self.task, self.field = workers, task, field
        self.dataset, self.folder = dataset, folder
        self.options = {**options}
        if self.options.pop("files", False):
            self.options |= {"output_dir": str(folder / "masks"), "semantic_field": f"{field}_all"}
        self.log = folder / "log.txt"
        self.inferred = Counter()

    def start(self, **how):
        self.log.write_text("")
        arguments = {"task": self.task, "dataset": self.dataset, "field": self.field}
        store = str(self.folder / "store")
        log, options = str(self.log), self.options
        return self.workers.start("run", **arguments, options=options, log=log, store=store, **how)

    def wait_for(self, word):
        """When it was noted."""
        wait_until(lambda: word in self.log.read_text(), 60)
        return time.monotonic()

    def left(self):
        found = jobs.labels(dataset=self.dataset, field=self.field)
        return found["labels"], found["errors"], found

    def noted(self, word):
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [one for first, *rest in lines if first == word for one in rest]

    def check_attempt(self, marked):
        """It set out to do what had no mark, and nothing else was inferred."""
        todo = self.noted("todo")
        if todo:
            everything = set(self.left()[0])
            assert set(todo) == everything - marked
        assert set(self.noted("inferred")) <= set(todo)
        self.inferred.update(self.noted("inferred"))

    def marked(self):
        labels = self.left()[0]
        return {one for one, label in labels.items() if label and label["run"]}


def same(ours, theirs):
    """Equal but for the last digits, which depend on what shares a batch."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs.keys() - {"run", "mask_path"}:
            same(ours[key], theirs[key])
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            same(mine, other)
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, abs=1e-5)
    else:
        assert ours == theirs


def check_end(story, reference):
    """All that can be seen of the run is as if it had never been interrupted."""
    labels, errors, found = story.left()
    same(labels, reference[0])
    assert list(map(bool, errors.values())) == list(map(bool, reference[1].values()))
    assert len({label["run"] for label in labels.values() if label}) == 1
    assert found["records"][f"zs_{story.task}_{story.field}"] == "complete"
    assert found["leases"] == 0
    assert not [path for path in story.folder.rglob(".*.tmp") if "masks" in path.parts]
    check_store(story)


def check_store(story):
    """Whatever a killed process left in the store is whole, or is not seen."""
    paths = list(story.folder.glob("store/embeddings/*/*.emb"))
    assert bool(paths) == (story.options.get("embeddings") == "reuse" and story.task != "segment")
    for path in paths:
        assert jobs.broken_blocks(path=path) == 0


@pytest.mark.parametrize(("task", "options", "where", "n"), PLACES)
def test_killed_at_a_given_place(workers, dataset, references, tmp_path, task, options, where, n):
    reference, _ = references(task, options, tmp_path)
    story = Story(
        workers, dataset, task, options, tmp_path / "story", f"at_{where}_{n}".replace(" ", "_")
    )
    worker = story.start(die=[where, n])
    assert worker.wait() == -9, worker.result()
    story.check_attempt(marked=set())
    marked = story.marked()
    assert len(marked) < NUM_SCENES
    report = story.start().result()["report"]
    story.check_attempt(marked)
    assert report["resumed"] == len(marked)
    check_end(story, reference)


@pytest.mark.parametrize("task", TASKS)
def test_killed_at_any_moment(workers, dataset, references, tmp_path, task, record_property):
    """Again and again until the field is whole, then another field, until there were enough."""
    options = {"classify": STORE, "detect": STORE, "segment": {"files": True}}[task]
    reference, seconds = references(task, options, tmp_path)
    dice = random.Random(f"{task} {KILLS}")
    kills, moments = 0, Counter()
    for number in itertools.count():
        story = Story(
            workers, dataset, task, options, tmp_path / f"{number}", f"any_{task}_{number}"
        )
        marked, is_whole = set(), False
        while not is_whole:
            worker = story.start()
            if kills < KILLS:
                if dice.random() < 0.9:  # else while it connects and looks what is to do
                    story.wait_for("todo")
                time.sleep(dice.uniform(0, 1.1 * seconds))
                is_whole = not worker.kill()
                kills += not is_whole
            else:
                worker.result()
                is_whole = True
            story.check_attempt(marked)
            if not is_whole:
                marked = story.marked()
                moments[moment(story, marked)] += 1
        check_end(story, reference)
        # Twice only what a killed process had inferred and not yet written
        again = sum(story.inferred.values()) - len(story.inferred)
        assert again <= 4 * (sum(moments.values()) + 1)
        if kills >= KILLS:
            break
    assert sum(moments.values()) == KILLS
    record_property("moments", dict(moments))
    print(f"\n{task}: {KILLS} kills in {number + 1} fields: {dict(moments)}")


def moment(story, marked):
    if not story.noted("todo"):
        return "before the run"
    if not marked:
        return "before the first write"
    return "in the middle" if len(marked) < NUM_SCENES - 1 else "after the last label"
