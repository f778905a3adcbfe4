"""Options of a run that no task and no model is concerned with."""

from __future__ import annotations

from dataclasses import dataclass

from zs_operators.errors import InvalidInputError
from zs_operators.reading import validate_workers


@dataclass
class RunOptions:
    """Options that every run understands; checked on construction.

    Args:
        workers (None): reader threads; 0 reads in the calling thread
        overwrite (False): replace existing labels of the samples
        resume (True): skip samples that an unfinished run with the same settings has done
        on_error ("record"): ``"record"`` notes a failed sample and goes on, ``"raise"`` stops

    Raises:
        InvalidInputError: if an option has no meaning
    """

    workers: int | None = None
    overwrite: bool = False
    resume: bool = True
    on_error: str = "record"

    def __post_init__(self) -> None:
        self.workers = validate_workers(self.workers)
        if self.on_error not in ("record", "raise"):
            raise InvalidInputError(
                f"on_error={self.on_error!r} is unknown: use 'record' to note failures and go "
                "on, or 'raise' to stop at the first."
            )
