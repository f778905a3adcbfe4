"""FiftyOne's progress bar around a run."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from zs_operators.report import Progress

Result = TypeVar("Result")


def show_progress(
    steps: Generator[Progress, None, Result], progress: bool | Callable | None
) -> Result:
    """Runs ``steps`` to the end behind FiftyOne's progress bar, one for each unit of progress.

    Args:
        steps: a run
        progress: True, False, None for FiftyOne's default, or a callback that gets the bar
    """
    import fiftyone.core.utils as fou

    step = next(steps)
    while True:
        unit = step.unit
        with fou.ProgressBar(total=step.total, progress=progress) as bar:
            try:
                while step.unit == unit:
                    bar.set_iteration(step.done)
                    step = next(steps)
            except StopIteration as end:
                return end.value
