"""Patience with a database that is away: wait and try again for a while, then say so.

MongoDB's driver repeats a read once and, without a replica set, a write never. Here each step of a
run is repeated as a whole, so only what gives the same result twice belongs here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from zs_operators.errors import DatabaseError
from zs_operators.redaction import without_secrets

logger = logging.getLogger(__name__)

#: How long a step is tried again; the driver itself waits up to 30 s for a server at each try.
PATIENCE_S = 120.0
FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 5.0

Result = TypeVar("Result")


def patiently(step: Callable[[], Result], *, kept: Callable[[], str] | None = None) -> Result:
    """Does a step of which it does not matter if it is done twice, again while nobody answers.

    Args:
        step: may fail half way
        kept (None): gives a sentence for the error: what is safe in the database

    Returns:
        what ``step`` returns

    Raises:
        DatabaseError: if the database was away for :data:`PATIENCE_S`; all other errors of
            ``step`` at once, as they are
    """
    from retrying import Retrying

    def wait(attempts: int, _: int) -> float:
        if attempts == 1:
            logger.warning("The database does not answer; trying again for %g s", PATIENCE_S)
        return 1000 * min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (attempts - 1))

    patience = Retrying(
        retry_on_exception=is_outage, stop_max_delay=1000 * PATIENCE_S, wait_func=wait
    )
    try:
        return patience.call(step)
    except Exception as error:
        if not is_outage(error):
            raise
        raise DatabaseError(_gave_up(error, kept() if kept else "")) from error


def is_outage(error: BaseException) -> bool:
    """Whether an error says that the database could not be reached, not what it answered."""
    from pymongo.errors import ConnectionFailure

    # Of a server that shuts down or steps back, too: the driver raises a kind of this one
    return isinstance(error, ConnectionFailure)


def _gave_up(error: Exception, kept: str) -> str:
    import fiftyone as fo

    where = "FiftyOne's own database"
    again = "Start a new Python process, which starts the database"
    if fo.config.database_uri:
        where = f"The database at {without_secrets(fo.config.database_uri)}"
        again = "When it is back"
    reason = without_secrets(str(error)).partition(", Timeout:")[0][:300]
    parts = [f"{where} did not answer for {PATIENCE_S:g} s ({type(error).__name__}: {reason})."]
    if kept:
        parts.append(kept)
    parts.append(f"{again}, and make the same call again.")
    return " ".join(parts)
