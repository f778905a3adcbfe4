"""Messages of a long run for a page that may go away at any moment.

FiftyOne abandons a plain generator whose page is closed: what is in its ``finally`` runs when
Python happens to collect it. An asynchronous generator is cancelled, and knows at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fiftyone.operators.message import GeneratedMessage

logger = logging.getLogger(__name__)

#: Proxies cut a connection on which nothing comes, most of them after a minute.
SECONDS_OF_SILENCE = 15.0

_END = object()


async def live(messages: Generator[Any, None, None]) -> AsyncIterator[Any]:
    """Yields messages that are made in a thread of their own, and closes them with the page.

    Then the step that is being made still ends; after it the generator is closed in that thread.

    Args:
        messages: of a run
    """
    loop = asyncio.get_running_loop()
    thread = ThreadPoolExecutor(1, thread_name_prefix="zs-run")
    try:
        while True:
            step = loop.run_in_executor(thread, next, messages, _END)
            while not (await asyncio.wait([step], timeout=SECONDS_OF_SILENCE))[0]:
                yield Blank()
            message = step.result()
            if message is _END:
                return
            yield message
    finally:
        thread.submit(_close, messages)
        thread.shutdown(wait=False)


class Blank(GeneratedMessage):
    """Says nothing: a blank before the next line of JSON, where the App's parser skips it."""

    def to_json_line(self) -> str:
        return " "


def _close(messages: Generator[Any, None, None]) -> None:
    try:
        messages.close()
    except Exception:
        logger.exception("a run could not be closed")
