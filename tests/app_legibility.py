"""Whether text on the App's page can be read: against what is behind it, and beside other text."""

from __future__ import annotations

from pathlib import Path

#: WCAG's least contrast of large text and of parts of controls
LEAST_CONTRAST = 3.0
#: Pixels by which boxes of text may overlap: lines are set closer than they are high
_SLACK_PX = 3
_LOOK = Path(__file__).with_suffix(".js")


def look(part) -> tuple[int, list[str]]:
    """Reads all text of a part of the page.

    Args:
        part: a locator of one element

    Returns:
        how many pieces of text are shown, and what is wrong with any: too little contrast with
        what is behind it (but for FiftyOne's own orange), cut off at the side, or over other text
    """
    found = part.evaluate(_LOOK.read_text(encoding="utf-8"), [LEAST_CONTRAST, _SLACK_PX])
    return found["count"], found["problems"]
