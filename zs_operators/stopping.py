"""Stopping a run from elsewhere: another thread, another process, another machine.

The wish stands beside the run's record in the database, and the run looks for it after each chunk.
It names the run by when it began, so that an old wish never stops a later run.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from zs_operators import provenance

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

    from zs_operators.run_history import StoredRun

#: A run looks this often at most, whatever the size of its chunks.
SECONDS_BETWEEN_LOOKS = 1.0

#: Of the run's document, outside its record, which the run itself saves as a whole.
_FIELD = "zs_stop_requested"


class Stopped(Exception):
    """Ends a run that was asked to stop; not an error."""


def stop_run(run: StoredRun) -> bool:
    """Asks a run that is going on to stop after its current chunk, wherever it runs.

    Its labels so far are kept, its record says ``cancelled``, and the same call goes on from there.

    Args:
        run: of :func:`zs_operators.runs` or :func:`zs_operators.load_run`

    Returns:
        whether there was something to stop; False if the run is over, or was killed

    Raises:
        InvalidInputError: if ``run`` is none
    """
    from zs_operators.run_history.stored_run import check_run
    from zs_operators.run_lease import is_going_on

    run = check_run(run)
    if not is_going_on(run.dataset, run.key):
        return False
    going_on = {**_document(run.dataset, run.key), "config.state": provenance.RUNNING}
    found = _runs().find_one(going_on, {"config.started": True})
    if found is None:
        return False
    wish = {"$set": {_FIELD: found["config"].get("started")}}
    return _runs().update_one(going_on, wish).matched_count > 0


class StopSign:
    """Whether somebody wants a run to stop.

    Args:
        samples: of the run
        key: of the run
        started: when it began, as its record says
    """

    def __init__(self, samples: SampleCollection, key: str, started: float) -> None:
        self._document = _document(samples, key)
        self._started = started
        self._looked = time.monotonic()

    def heed(self) -> None:
        """Looks, unless it did a moment ago.

        Raises:
            Stopped: if somebody does
        """
        if time.monotonic() - self._looked < SECONDS_BETWEEN_LOOKS:
            return
        found = _runs().find_one(self._document, {_FIELD: True})
        self._looked = time.monotonic()
        if found is not None and found.get(_FIELD) == self._started:
            raise Stopped

    def show(self) -> None:
        """Has all that looks for it stop: the other processes of the same run."""
        _runs().update_one(self._document, {"$set": {_FIELD: self._started}})


def _document(samples: SampleCollection, key: str) -> dict[str, Any]:
    return {"_dataset_id": samples._root_dataset._doc.id, "key": key}


def _runs() -> Any:
    """The collection of FiftyOne's run documents."""
    from fiftyone.core.odm import get_db_conn

    return get_db_conn()["runs"]
