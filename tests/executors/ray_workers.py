"""Workers that stand still when told to, and die at an image; they run in Ray's processes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from zs_operators.executors.worker import Worker

#: Named in the path of an image at which a worker dies.
POISON = "poison"


def unruly(folder: str) -> type[Worker]:
    """A class of workers that write and look for files in a folder."""

    class UnrulyWorker(Worker):
        def describe(self):
            found = super().describe()
            (Path(folder) / f"{os.getpid()}.pid").touch()
            self._watch()
            return found

        def _watch(self):
            from zs_operators import images, runner
            from zs_operators.executors.shard_run import ShardRun

            usual, runner.CHUNK_SAMPLES = runner.CHUNK_SAMPLES, 4
            store, opened = ShardRun._store, images._opened
            written = []

            def slow(this, *args):
                gate = Path(folder, "gate")
                while written and gate.exists():  # the first chunk is let through
                    time.sleep(0.01)
                if not gate.exists():
                    runner.CHUNK_SAMPLES = usual
                store(this, *args)
                written.append(1)

            def dying(source):
                if POISON in str(source):
                    os.kill(os.getpid(), signal.SIGKILL)
                return opened(source)

            ShardRun._store, images._opened = slow, dying

    return UnrulyWorker
