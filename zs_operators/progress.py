"""FiftyOne's progress bar around a run."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zs_operators.report import Progress, RunReport


def show_progress(
    steps: Generator[Progress, None, RunReport], progress: bool | Callable | None
) -> RunReport:
    """Runs ``steps`` to the end behind FiftyOne's progress bar.

    Args:
        steps: a run
        progress: True, False, None for FiftyOne's default, or a callback that gets the bar
    """
    import fiftyone.core.utils as fou

    first = next(steps)
    with fou.ProgressBar(total=first.total, progress=progress) as bar:
        bar.set_iteration(first.done)
        while True:
            try:
                bar.set_iteration(next(steps).done)
            except StopIteration as end:
                return end.value
