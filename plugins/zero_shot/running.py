"""Long runs: one engine generator shown live in the App, or run through when delegated or scripted.

FiftyOne drops an exception that a generator operator raises in the App, and drops the return value
of a generator everywhere. So the App gets messages, errors among them; everyone else gets the
report, or the exception.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import fiftyone.operators.types as types

from zs_operators.errors import InvalidInputError, ZeroShotError

if TYPE_CHECKING:
    from collections.abc import Generator

    from zs_operators.report import Progress, RunReport

    Steps = Generator[Progress, None, RunReport]
    Message = Any

logger = logging.getLogger(__name__)

#: The App re-renders at every message; more than a few a second make it sluggish.
SECONDS_BETWEEN_MESSAGES = 0.3

#: A delegated run asks the database this often whether it was marked as failed, which stops it.
SECONDS_BETWEEN_CANCEL_CHECKS = 2.0

#: What a run counts while it labels; before that it may count something else.
IMAGES = "images"

STOP_OPERATOR = "@zs/operators/stop_shown_run"

_STOP: dict[str, threading.Event] = {}


def is_app_request(ctx) -> bool:
    """Whether the App is waiting for this very execution (only its requests name the operator)."""
    return not ctx.delegated and "operator_uri" in ctx.request_params


def request_stop(token: str) -> bool:
    """Asks the run with this token to stop after its current chunk; False if it is over."""
    event = _STOP.get(token)
    if event is None:
        return False
    event.set()
    return True


def stream(
    ctx,
    start: Callable[[], Steps],
    *,
    title: str,
    summarize: Callable[[RunReport], tuple[types.Property, dict]],
    after: Callable[[Any], Iterable[Message]] = lambda report: (),
    preparing: str = "reading the model…",
    kept: str | None = None,
) -> Iterator[Message]:
    """Runs ``start()`` for the App: progress with a stop button, then a summary or the error.

    Args:
        ctx: the execution context
        start: begins the run; all its checks happen before its first progress
        title: heading of the progress dialog
        summarize: report -> output schema and data of the summary dialog
        after (none): report -> messages to send before the summary
        preparing: what happens before the first progress, for people
        kept (None): what remains of a run that did not end; None for the labels so far
    """
    token = uuid.uuid4().hex
    stop = _STOP[token] = threading.Event()
    steps = None
    last = None
    try:
        show = partial(_show_progress, ctx, title, token, preparing=preparing, kept=kept)
        yield show(None)
        steps = start()
        shown = 0.0
        while True:
            try:
                last = next(steps)
            except StopIteration as done:
                report = done.value
                break
            if stop.is_set():
                steps.close()
                report = None
                break
            if time.monotonic() - shown >= SECONDS_BETWEEN_MESSAGES:
                yield show(last)
                shown = time.monotonic()
        yield ctx.ops.reload_dataset()
        if report is None or getattr(report, "cancelled", False):
            yield _show(ctx, stopped(last, kept))
            yield ctx.ops.notify(f"Stopped after {_of(last)}", variant="warning")
            return
        outputs, results = summarize(report)
        yield from after(report)
        yield ctx.ops.show_output(outputs=outputs.to_json(), results=results)
    except Exception as error:
        logger.exception("%s failed", title)
        if last is not None:
            yield ctx.ops.reload_dataset()
        yield _show(ctx, failed(error, last, kept))
        yield ctx.ops.notify(_first_line(error), variant="error")
    finally:
        _STOP.pop(token, None)
        if steps is not None:
            steps.close()  # the page is gone


def run_through(ctx, start: Callable[[], Steps]) -> dict:
    """Runs ``start()`` to its end and returns the report as plain Python values.

    Raises:
        ZeroShotError: whatever the run raises, and if a delegated run was stopped, which FiftyOne
            can only mark as failed
    """
    progress = None
    steps = start()
    checked = time.monotonic()
    while True:
        try:
            progress = next(steps)
        except StopIteration as done:
            if ctx.delegated and getattr(done.value, "cancelled", False):
                raise ZeroShotError(f"Stopped after {_of(progress)}.") from None
            return done.value.to_dict()
        now = time.monotonic()
        if ctx.delegated:
            ctx.set_progress(progress=fraction(progress), label=describe(progress))
            if now - checked >= SECONDS_BETWEEN_CANCEL_CHECKS:
                checked = now
                if _marked_as_failed(ctx):
                    steps.close()
                    raise ZeroShotError(f"Stopped from outside after {_of(progress)}.")


def describe(progress: Progress) -> str:
    """``"Classifying: 120 of 240 images · 28.1 images/s · 4 s left"``."""
    parts = [f"{progress.stage[:1].upper()}{progress.stage[1:]}: {_of(progress)}"]
    if progress.seconds_left is not None:
        parts.append(f"{progress.images_per_second:.1f} images/s")
        parts.append(f"{duration(progress.seconds_left)} left")
    return " · ".join(parts)


def fraction(progress: Progress) -> float:
    """Done part of the run in [0, 1]."""
    return float(progress.done / progress.total) if progress.total else 0.0


def duration(seconds: float) -> str:
    """``"4.2 s"``, ``"3 min 20 s"``, ``"2 h 5 min"``."""
    if seconds < 9.95:
        return f"{float(seconds):.1f} s"
    seconds = round(float(seconds))
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def stopped(progress: Progress | None, kept: str | None = None) -> types.Object:
    """Dialog after a stopped run."""
    what = "labels" if progress is None or progress.unit == IMAGES else "frames"
    outputs = types.Object()
    outputs.view(
        "stopped",
        types.Warning(
            label=f"Stopped after {_of(progress)}",
            description=kept
            or f"Their {what} are kept. Run again with the same settings to go on from there.",
        ),
    )
    return outputs


def failed(error: Exception, progress: Progress | None, kept: str | None = None) -> types.Object:
    """Dialog after an error: what is wrong in words, and a traceback only for surprises."""
    outputs = types.Object()
    description = str(error) or type(error).__name__
    if progress is not None and progress.done and progress.unit == IMAGES:
        description += f"\n\n{kept or f'The labels of the first {_of(progress)} are kept.'}"
    outputs.view("error", types.Error(label="The run has failed", description=description))
    if not isinstance(error, ZeroShotError):
        outputs.str(
            "traceback",
            label="Traceback",
            default=traceback.format_exc(),
            view=types.CodeView(language="python", read_only=True),
        )
    return outputs


def _show_progress(
    ctx, title: str, token: str, progress: Progress | None, *, preparing: str, kept: str | None
) -> Message:
    outputs = types.Object()
    outputs.view("title", types.Header(label=title, divider=False))
    label = f"Preparing: {preparing}" if progress is None else describe(progress)
    outputs.define_property(
        "progress", types.Number(float=True), view=types.ProgressView(label=label)
    )
    outputs.view(
        "stop",
        types.Button(
            label="Stop",
            description=kept or "Stop after the current batch; labels written so far are kept",
            operator=STOP_OPERATOR,
            params={"token": token},
            variant="outlined",
        ),
    )
    results = {} if progress is None else {"progress": fraction(progress)}
    return ctx.ops.show_output(outputs=types.Property(outputs).to_json(), results=results)


def _show(ctx, outputs: types.Object) -> Message:
    return ctx.ops.show_output(outputs=types.Property(outputs).to_json(), results={})


def _marked_as_failed(ctx) -> bool:
    from fiftyone.operators.delegated import DelegatedOperationService
    from fiftyone.operators.executor import ExecutionRunState

    run = ctx.request_params.get("run_doc")
    if run is None:
        return False
    return DelegatedOperationService().get(run).run_state == ExecutionRunState.FAILED


def _of(progress: Progress | None) -> str:
    return f"{progress.done:,} of {progress.total:,} {progress.unit}" if progress else "0 images"


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def delegate(uri: str, samples, arguments: dict[str, Any]) -> str:
    """Queues ``uri`` on ``samples`` and returns the id of the delegated operation.

    Raises:
        InvalidInputError: if an argument is not plain JSON, which a queue cannot keep
    """
    import fiftyone.operators as foo

    try:
        json.dumps(arguments)
    except TypeError as error:
        raise InvalidInputError(
            f"A delegated run keeps its arguments as JSON: {error}. Pass names, lists and paths "
            "instead of objects."
        ) from error
    context = {"dataset": samples._root_dataset, "view": samples.view(), "params": arguments}
    # In a notebook's running loop FiftyOne hands back a task that never raises, so use a thread
    with ThreadPoolExecutor(max_workers=1) as thread:
        result = thread.submit(foo.execute_operator, uri, context, request_delegation=True).result()
    result.raise_exceptions()
    return str(result.result["id"])
