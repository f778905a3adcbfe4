"""Who may write to a field: one run at a time, until it ends, dies or falls silent.

A lease is a document in the database beside FiftyOne's own. Taking it over is one conditional
update, and ages are measured by the clock of the server, so it holds between machines too.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zs_operators.errors import BusyFieldError

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

COLLECTION = "zs_run_leases"
#: A run says this often that it lives.
HEARTBEAT_S = 5.0
#: A lease whose run was silent for so long is free.
STALE_S = 60.0
#: What killed processes left of datasets that are gone is removed by the server after this time.
_FORGOTTEN_S = 7 * 24 * 3600
#: No name of a field.
_SCHEMA = "(schema)"
#: Threads of this process that keep leases alive.
_THREAD_NAME = "zs-lease"


class RunLease:
    """The right to write to some fields of a dataset, once taken kept alive by a thread.

    Args:
        samples: dataset or view
        fields: names of the fields
        run_key: of the run, for those that come second

    Attributes:
        owner: says whose it is
    """

    def __init__(self, samples: SampleCollection, fields: Sequence[str], run_key: str) -> None:
        self.owner = uuid.uuid4().hex
        self._ids = [_lease_id(samples, name) for name in sorted(set(fields))]
        self._run_key = run_key
        self._ended = threading.Event()

    def take(self) -> None:
        """Takes all fields or none; may be tried again after a failure.

        Raises:
            BusyFieldError: if another run that lives has one of them
        """
        self._ended.clear()
        _leases().create_index("heartbeat", expireAfterSeconds=_FORGOTTEN_S)
        try:
            for one in self._ids:
                self._take(one)
        except BusyFieldError:
            _leases().delete_many(self._mine)
            raise
        self._keep_alive()

    def renew(self, *, journaled: bool = False) -> None:
        """Says that the run lives.

        Args:
            journaled (False): return only when this, and with it all that was written before, is
                in the server's journal; a server that is killed forgets what is not

        Raises:
            BusyFieldError: if another run has taken a field over meanwhile
        """
        leases = _journaled(_leases()) if journaled else _leases()
        found = leases.update_many(self._mine, [{"$set": {"heartbeat": "$$NOW"}}])
        if found.matched_count < len(self._ids):
            raise BusyFieldError(
                f"Run {self._run_key} was silent for more than {STALE_S:g} s, because its process "
                "or machine was suspended for example, and another run has taken over its field: "
                "nothing more is written here. Make the same call again when that one is over."
            )

    def release(self) -> None:
        """Lets others write; does nothing the second time, or if the lease was lost."""
        if not self._ended.is_set():
            self._ended.set()
            _leases().delete_many(self._mine)

    @property
    def _mine(self) -> dict[str, Any]:
        return {"_id": {"$in": self._ids}, "owner": self.owner}

    def _take(self, lease_id: str) -> None:
        from pymongo.errors import DuplicateKeyError

        values = {**_this_process(), "owner": self.owner, "run_key": self._run_key}
        take = [{"$set": {**values, "since": "$$NOW", "heartbeat": "$$NOW"}}]
        while True:
            with contextlib.suppress(DuplicateKeyError):
                # Also if an earlier try of ours came through without our hearing of it
                _leases().update_one({"_id": lease_id, "owner": self.owner}, take, upsert=True)
                return
            held = _read(lease_id)
            if held is None:
                continue
            if is_alive(held):
                raise BusyFieldError(_refusal(held))
            # Only from the one that was seen dead
            seen = {name: held[name] for name in ("_id", "owner", "heartbeat")}
            if _leases().update_one(seen, take).matched_count:
                return

    def _keep_alive(self) -> None:
        threading.Thread(target=self._beat, name=_THREAD_NAME, daemon=True).start()

    def _beat(self) -> None:
        from pymongo.errors import PyMongoError

        while not self._ended.wait(HEARTBEAT_S):
            # An outage is noticed, and a lost lease reported, where the run writes
            with contextlib.suppress(PyMongoError, BusyFieldError):
                self.renew()


class SharedLease(RunLease):
    """The lease of a run whose work is done by several processes, in one that has not taken it.

    It neither keeps the lease alive nor gives it back: if the process that has taken it is gone,
    the field falls free, and what is left of the run writes no more.

    Args:
        samples: dataset or view
        fields: names of the fields
        run_key: of the run
        owner: of the lease that was taken
    """

    def __init__(
        self, samples: SampleCollection, fields: Sequence[str], run_key: str, owner: str
    ) -> None:
        super().__init__(samples, fields, run_key)
        self.owner = owner

    def take(self) -> None:
        """Looks whether the run still has it.

        Raises:
            BusyFieldError: if it has not
        """
        self.renew()

    def renew(self, *, journaled: bool = False) -> None:
        leases = _leases()
        if journaled:
            # What is in the journal after this, all that was written before is as well
            written = [{"$set": {"written": "$$NOW"}}]
            found = _journaled(leases).update_many(self._mine, written).matched_count
        else:
            found = leases.count_documents(self._mine)
        if found < len(self._ids):
            raise BusyFieldError(
                f"Run {self._run_key} is over, or another one has taken its field: this part of it "
                "writes no more."
            )

    def release(self) -> None:
        """It belongs to another process."""


class SchemaTurn(RunLease):
    """The right to change fields and runs of a dataset, for the moment of a ``with`` block.

    FiftyOne saves the list of all fields at once: the later of two processes that add some at the
    same time would undo what the other did.

    Args:
        samples: dataset or view
    """

    def __init__(self, samples: SampleCollection) -> None:
        super().__init__(samples, [_SCHEMA], _SCHEMA)

    def __enter__(self) -> SchemaTurn:
        from retrying import retry

        @retry(
            retry_on_exception=lambda error: isinstance(error, BusyFieldError),
            wait_random_min=5,
            wait_random_max=50,
            stop_max_delay=2000 * STALE_S,
        )
        def take() -> None:
            self.take()

        take()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _keep_alive(self) -> None:
        """It is over before a heartbeat is due."""


def check_free(samples: SampleCollection, fields: Sequence[str]) -> None:
    """Refuses while a run is going on.

    Args:
        samples: dataset or view
        fields: that somebody wants to change otherwise

    Raises:
        BusyFieldError: if a run that lives writes to one of them
    """
    for name in fields:
        held = _read(_lease_id(samples, name))
        if held is not None and is_alive(held):
            raise BusyFieldError(_refusal(held))


def is_going_on(samples: SampleCollection, run_key: str) -> bool:
    """Whether a run lives, as its record alone does not tell: a run that is killed leaves it."""
    of_dataset = {"$regex": f"^{samples._root_dataset._doc.id}/"}
    ids = _leases().distinct("_id", {"_id": of_dataset, "run_key": run_key})
    return any(is_alive(held) for held in map(_read, ids) if held is not None)


def is_alive(held: dict[str, Any]) -> bool:
    """Whether the run of a lease still goes on, as far as can be seen from here."""
    if held["silent_s"] > STALE_S:
        return False
    ours = _this_process()
    if (held["host"], held["namespace"]) != (ours["host"], ours["namespace"]):
        return True  # nothing is known of processes elsewhere but their heartbeat
    started = _started(held["pid"])
    # Two seconds, because a clock that is set moves the beginnings of all processes
    return started is not None and abs(started - held["process_started"]) < 2


def _read(lease_id: str) -> dict[str, Any] | None:
    """A lease with ``silent_s`` and ``age_s``, by the clock of the server."""

    def seconds(name: str) -> dict[str, Any]:
        return {"$divide": [{"$subtract": ["$$NOW", f"${name}"]}, 1000]}

    ages = {"silent_s": seconds("heartbeat"), "age_s": seconds("since")}
    return next(iter(_leases().aggregate([{"$match": {"_id": lease_id}}, {"$set": ages}])), None)


def _refusal(held: dict[str, Any]) -> str:
    field = held["_id"].partition("/")[2]
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() - held["age_s"]))
    return (
        f"Field {field!r} is being written by run {held['run_key']}, in process {held['pid']} on "
        f"{held['host']} since {since}: wait for it or stop it, or choose another field. If that "
        f"process is gone, the field is free {STALE_S:g} s after its last sign of life, which was "
        f"{held['silent_s']:.0f} s ago."
    )


def _lease_id(samples: SampleCollection, field: str) -> str:
    place = "frames." if samples._dataset._is_generated else ""
    return f"{samples._root_dataset._doc.id}/{place}{field}"


def _this_process() -> dict[str, Any]:
    namespace = ""
    with contextlib.suppress(OSError):  # containers may share a name, and count processes anew
        namespace = os.readlink("/proc/self/ns/pid")
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "namespace": namespace,
        "pid": pid,
        "process_started": _started(pid),
    }


def _started(pid: int) -> float | None:
    """When a process of this machine began, as numbers are used again; None if there is none."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def _journaled(leases: Any) -> Any:
    from pymongo import WriteConcern

    return leases.with_options(write_concern=WriteConcern(w=1, j=True))


def _leases() -> Any:
    from fiftyone.core.odm import get_db_conn

    return get_db_conn()[COLLECTION]
