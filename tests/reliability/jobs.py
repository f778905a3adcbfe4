"""What a worker process does: a run that is watched, and what is needed to check it.

Each job gets plain JSON and gives plain JSON; see :mod:`tests.reliability.workers`.
"""

from __future__ import annotations

import functools
import itertools
import os
import signal
import time
from pathlib import Path

FIELD = "found"
NAMES = ["red circle", "blue star", "green square", "yellow triangle", "a cross"]
FEW = 2  # samples a batch and a chunk, so that there are many writes


@functools.cache
def models():
    """Loaded before the fork, so that a worker starts at once."""
    import zs_operators as zs
    from zs_operators.proposals import load_proposer
    from zs_operators.sam import load_sam

    options = {"device": "cpu", "precision": "fp32"}
    return {
        "clip": zs.load_clip("shapes-tiny", **options),
        "proposer": load_proposer("shapes-tiny", **options),
        "sam": load_sam("shapes-tiny", **options),
    }


def make_dataset(*, name, folder, num_scenes, broken=True):
    """Scenes with boxes; the last file is no image."""
    import fiftyone as fo
    from PIL import Image

    from zs_operators.shapes.world import make_scene

    samples = []
    for seed in range(num_scenes):
        path = os.path.join(folder, f"{seed:03}.png")
        scene = make_scene(seed, num_objects=2)
        Image.fromarray(scene.image).save(path)
        boxes = [[0.1, 0.1, 0.4, 0.4], [0.4, 0.3, 0.5, 0.6]]
        found = [fo.Detection(label="box", bounding_box=box) for box in boxes]
        samples.append(fo.Sample(filepath=path, boxes=fo.Detections(detections=found)))
    if broken:
        with open(samples[-1].filepath, "wb") as file:
            file.write(b"not an image")
    dataset = fo.Dataset(name, persistent=True)
    return dataset.add_samples(samples)


def run(
    *,
    task,
    dataset,
    field=FIELD,
    options=None,
    log=None,
    die=None,
    patience_s=None,
    seconds_a_batch=0,
    stale_s=None,
    store=None,
    gate=None,
):
    """A run of a task to its end: its report, or the type and text of its error.

    Args:
        log: file for a line at each thing that happens, as it happens
        die: ``[where, n]`` for ``kill -9`` at the n-th event of a kind, see :func:`_die_at`
        patience_s: of the database's retries
        seconds_a_batch: added to each
        stale_s: after which a silent run counts as dead
        store: folder of the embeddings
        gate: file without which the run stands still after its second chunk
    """
    import fiftyone as fo

    from zs_operators import database_retries, embeddings, rescoring, run_lease, runner
    from zs_operators.errors import ZeroShotError

    if store:
        os.environ["ZS_STORE_DIR"] = store
    embeddings._BLOCK_ROWS = rescoring.CHUNK_SAMPLES = runner.CHUNK_SAMPLES = FEW
    run_lease.HEARTBEAT_S = 0.2
    if patience_s is not None:
        database_retries.PATIENCE_S = patience_s
    if stale_s is not None:
        run_lease.STALE_S = stale_s
    _watch(log, seconds_a_batch)
    if die:
        _die_at(*die)
    samples = fo.load_dataset(dataset)
    steps = _steps(task, samples, field, dict(options or {}))
    try:
        for number in itertools.count():
            next(steps)
            _note(log, "chunk")
            while gate and number == 2 and not os.path.exists(gate):
                time.sleep(0.005)
    except StopIteration as end:
        return {"report": end.value.to_dict()}
    except ZeroShotError as error:
        return {"error": type(error).__name__, "message": str(error)}


def labels(*, dataset, field=FIELD):
    """All that a run left in the database, by sample id."""
    import fiftyone as fo
    from fiftyone.core.odm import get_db_conn

    from zs_operators import dataset_state, provenance

    samples = fo.load_dataset(dataset)
    dataset_state.refresh(samples)
    documents = {str(one["_id"]): one for one in samples._sample_collection.find({})}
    record = provenance.records(samples)
    return {
        "labels": {one: _plain(document.get(field)) for one, document in documents.items()},
        "errors": {one: document.get(f"{field}_error") for one, document in documents.items()},
        "declared": samples.has_field(field),
        "records": {key: one["state"] for key, one in record.items()},
        "leases": get_db_conn()["zs_run_leases"].count_documents({}),
    }


def broken_blocks(*, path):
    """Blocks of a file of embeddings whose vectors are not those that were written."""
    from zs_operators.embedding_files import _HEADER, Layout, Shard

    with open(path, "rb") as file:
        header = _HEADER.unpack(file.read(_HEADER.size))
    shard = Shard(path, Layout(*header[3:7]))
    assert shard.blocks
    assert shard.end == os.path.getsize(path)
    return sum(not block.is_intact for block in shard.blocks)


def add_fields(*, dataset, names, start_at):
    """Adds fields to the schema at a set time, as several runs that begin together do."""
    import fiftyone as fo

    from zs_operators import dataset_state, fields
    from zs_operators.run_lease import SchemaTurn

    samples = fo.load_dataset(dataset)
    turn = SchemaTurn(samples)
    time.sleep(max(0, start_at - time.time()))
    for name in names:
        with turn:
            dataset_state.refresh(samples)
            fields.declare(samples, name, "Classification", "a test")


def _steps(task, samples, field, options):
    import zs_operators as zs

    clip, proposer, sam = (models()[one] for one in ("clip", "proposer", "sam"))
    options = {"label_field": field, "batch_size": FEW, "workers": 1, **options}
    if task == "classify":
        return zs.iter_classify(samples, NAMES, model=clip, **options)
    if task == "detect":
        return zs.iter_detect(samples, NAMES, model=clip, proposals=proposer, **options)
    return zs.iter_segment(samples, model=sam, **{"prompts": "boxes", **options})


def _watch(log, seconds_a_batch):
    """Notes what a run sets out to do and what it infers."""
    from zs_operators import inference, runner

    steps, collect = runner.Run._steps, runner.Run._collect
    infer = inference.Inference._infer

    def noted_steps(self):
        _note(log, "todo", *self.todo_ids)
        return steps(self)

    def slow_infer(self, items):
        time.sleep(seconds_a_batch)
        return infer(self, items)

    def noted_collect(self, chunk, sample_id, result):
        _note(log, "inferred", sample_id)
        return collect(self, chunk, sample_id, result)

    runner.Run._steps = noted_steps
    inference.Inference._infer = slow_infer
    runner.Run._collect = noted_collect


def _note(log, *words):
    if log:
        with open(log, "a") as file:
            file.write(" ".join(words) + "\n")


def _die_at(where, n):
    """Has this process killed at the n-th time that it comes to a place."""
    from pymongo.collection import Collection

    from zs_operators import embedding_files, provenance

    def dying(original, *, half=None, after=False):
        seen = []

        def call(*args, **kwargs):
            seen.append(1)
            if len(seen) < n:
                return original(*args, **kwargs)
            if half is not None:
                half(*args, **kwargs)
            if after:
                original(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)
            return None

        return call

    def half_the_block(fd, data, at):
        os.pwrite(fd, data[: len(data) // 2], at)

    def half_the_file(path, data):
        original_bytes(path, data[: len(data) // 2])

    def half_the_operations(self, operations, **kwargs):
        if len(operations) > 1:
            original_write(self, operations[: len(operations) // 2], **kwargs)

    original_write, original_bytes = Collection.bulk_write, Path.write_bytes
    if where == "before a write":
        Collection.bulk_write = dying(original_write)
    elif where == "half way through a write":
        Collection.bulk_write = dying(original_write, half=half_the_operations)
    elif where == "after a write":
        Collection.bulk_write = dying(original_write, after=True)
    elif where == "before the record":
        provenance.save = dying(provenance.save)
    elif where == "in the embedding store":
        embedding_files._write_all = dying(embedding_files._write_all, half=half_the_block)
    elif where == "in a file of its own":
        Path.write_bytes = dying(original_bytes, half=half_the_file)
    else:
        raise ValueError(where)


def _plain(value):
    """A label without what differs between two runs: the ids."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if k not in ("_id", "source_id")}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
