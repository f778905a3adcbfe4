"""Docstrings as Markdown for the site: lists of arguments and errors, roles as links."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import griffe

#: The page that shows public names, one ``::: name`` a line.
REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "python.md"

TITLES = {"Args": "Arguments", "Attributes": "Attributes", "Raises": "Raises"}
TITLES |= {"Returns": "Returns", "Yields": "Yields"}

_SECTION = re.compile(rf"^({'|'.join(TITLES)}):\n((?:[ ]+.*\n|\n)*)", re.MULTILINE)
_ARGUMENT = re.compile(r"(?<![\w`])(\*{0,2}[a-zA-Z_]\w*)(?: \(((?:[^()]|\([^()]*\))*)\))?(?=,|$)")
_ROLE = re.compile(r":\w+:`[~.]?([\w.]+)`")


class MarkdownDocstrings(griffe.Extension):
    """Rewrites each docstring of the package before it is shown."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(docstring: str) -> str:
    """A docstring in Google's style; text outside its sections stays as it is."""
    text = _SECTION.sub(lambda found: _section(found[1], found[2]), docstring + "\n")
    return _ROLE.sub(_linked, text).rstrip()


def _section(name: str, body: str) -> str:
    body = textwrap.dedent(body).strip()
    if name in ("Returns", "Yields"):
        return f"**{TITLES[name]}** {' '.join(body.split())}\n\n"
    return "\n".join([f"**{TITLES[name]}**", "", *map(_item, _entries(body)), "", ""])


def _entries(body: str) -> Iterator[str]:
    """Each "names: text" of a section, however many lines its names take."""
    entry = ""
    for line in body.splitlines():
        if entry and not line.startswith(" ") and ": " in f"{entry} ":
            yield entry
            entry = ""
        entry = f"{entry} {line.strip()}".strip()
    if entry:
        yield entry


def _item(entry: str) -> str:
    names, colon, text = entry.partition(": ")
    return f"- {_ARGUMENT.sub(_named, names)}{colon}{text}"


def _named(found: re.Match) -> str:
    name, default = found.groups()
    if default is None:
        return f"`{name}`"
    return f"`{name}` ({default if ' ' in default else f'`{default}`'})"


def _linked(found: re.Match) -> str:
    """A role as code, which is a link if the page has the name."""
    name = found[1].removeprefix("zs_operators.")
    first = name.partition(".")[0]
    if f"zs_operators.{name}" in _shown() and "." in name:
        return f"[`{name.rpartition('.')[2]}`][zs_operators.{name}]"
    if f"zs_operators.{first}" in _shown():
        return f"[`zs.{name}`][zs_operators.{first}]"
    return f"`{name}`"


@cache
def _shown() -> frozenset[str]:
    lines = REFERENCE.read_text(encoding="utf-8").splitlines()
    return frozenset(line[4:] for line in lines if line.startswith("::: "))
