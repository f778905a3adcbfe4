"""Hooks of mkdocs: pages outside docs/, links between both, and the help of the command line."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]

#: Pages of the repository that are on the site as well.
ELSEWHERE = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "skills/zero-shot-labelling/SKILL.md",
)
COMMANDS = "<!-- commands -->"
WIDTH = 90

_LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name in ELSEWHERE:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    uri = page.file.src_uri
    place = uri if uri in ELSEWHERE else f"docs/{uri}"
    if COMMANDS in markdown:
        markdown = markdown.replace(COMMANDS, command_line())
    return _LINK.sub(lambda match: f"]({_on_site(match[1], place, uri)}{match[2] or ''})", markdown)


def command_line() -> str:
    """``zs COMMAND --help`` of every command, as Markdown."""
    from zs_operators.cli import build_parser

    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(WIDTH)  # what argparse breaks its lines at
    try:
        return "\n".join(_help_of(build_parser(), level=2))
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns


def _help_of(parser: argparse.ArgumentParser, level: int) -> list[str]:
    parts = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    text = _demo_help() if parser.prog == "zs demo" else parser.format_help()
    lines = [f"{'#' * level} {parser.prog}", "", "```text", text.rstrip(), "```", ""]
    for part in parts:
        for below in part.choices.values():
            lines += _help_of(below, min(level + 1, 4))
    return lines


def _demo_help() -> str:
    # reads its own arguments, so that its module is imported only when it runs
    from zs_operators import demo

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        demo.main(["--help"])
    return said.getvalue()


def _on_site(target: str, place: str, uri: str) -> str:
    """A link from ``place``, a path in the repository, as one between pages of the site."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(place), target))
    if path == "README.md":
        path = "docs/index.md"
    if path not in ELSEWHERE and not path.startswith("docs/"):
        return target  # nowhere on the site: mkdocs says so
    return posixpath.relpath(path.removeprefix("docs/"), posixpath.dirname(uri) or ".")
