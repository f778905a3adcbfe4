"""Processes that can be killed: forks of one that has imported everything and opened nothing.

Importing FiftyOne and torch takes seconds, a fork of a process that has done so takes none.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Workers:
    """Starts jobs of :mod:`tests.reliability.jobs`, each in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        environment = {
            **{name: value for name, value in os.environ.items() if "DATABASE_URI" not in name},
            "FIFTYONE_DISABLE_SERVICES": "1",  # importing it opens no connection then
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }
        self._zygote = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.workers"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, job: str, *, uri: str | None = None, **arguments) -> Worker:
        self._count += 1
        result = self._folder / f"{self._count}.json"
        uri = uri or os.environ["FIFTYONE_DATABASE_URI"]
        order = {"job": job, "uri": uri, "arguments": arguments, "result": str(result)}
        return Worker(int(self._ask(order)), arguments, result, self._ask)

    def at_gate(self, folder: Path, **arguments) -> Worker:
        """A run that has written two chunks and stands still."""
        files = {"log": str(folder / "gate.log"), "gate": str(folder / "gate")}
        worker = self.start("run", **files, **arguments)
        worker.wait_at_gate()
        return worker

    def do(self, job: str, **arguments):
        """The result of a job that is to succeed."""
        return self.start(job, **arguments).result()

    def close(self) -> None:
        self._zygote.stdin.close()
        self._zygote.wait()

    def _ask(self, order) -> str:
        self._zygote.stdin.write(json.dumps(order) + "\n")
        self._zygote.stdin.flush()
        return self._zygote.stdout.readline()


class Worker:
    """One process at work."""

    def __init__(self, pid: int, arguments: dict, path: Path, ask) -> None:
        self.pid = pid
        self.arguments = arguments
        self._path = path
        self._ask = ask
        self._status: int | None = None

    def wait_at_gate(self) -> None:
        """Until the run stands still after its second chunk; see ``gate`` of ``jobs.run``."""
        log = Path(self.arguments["log"])
        wait_until(lambda: log.exists() and log.read_text().count("chunk") == 3, 60)

    def open_gate(self) -> None:
        Path(self.arguments["gate"]).touch()

    def send(self, signal_number: int) -> None:
        os.kill(self.pid, signal_number)

    def wait(self) -> int:
        """Exit status; negative if a signal ended it."""
        if self._status is None:
            self._status = int(self._ask({"wait": self.pid}))
        return self._status

    def kill(self) -> bool:
        """``kill -9``; whether it was still at work."""
        self.send(signal.SIGKILL)  # it stays a zombie until waited for, so the pid is its own
        return self.wait() == -signal.SIGKILL

    def result(self):
        status = self.wait()
        found = json.loads(self._path.read_text()) if self._path.exists() else {}
        if status or "traceback" in found:
            raise AssertionError(found.get("traceback") or f"the worker ended with {status}")
        return found["value"]


def wait_until(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def _serve() -> None:
    import fiftyone
    import torch

    from tests.reliability import jobs

    torch.set_num_threads(1)  # threads do not survive a fork
    jobs.models()
    assert fiftyone.core.odm.database._client is None
    working = set()
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
            working.discard(order["wait"])
        else:
            answer = os.fork()
            if not answer:
                _work(order)
            working.add(answer)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()
    for pid in working:  # of a test that failed
        os.kill(pid, signal.SIGKILL)


def _work(order) -> None:
    import fiftyone as fo

    from tests.reliability import jobs

    fo.config.database_uri = order["uri"]
    try:
        found = {"value": getattr(jobs, order["job"])(**order["arguments"])}
    except BaseException:
        found = {"traceback": traceback.format_exc()}
    Path(order["result"]).write_text(json.dumps(found))
    os._exit(0)  # not the zygote's business: no buffers, no atexit


if __name__ == "__main__":
    _serve()
