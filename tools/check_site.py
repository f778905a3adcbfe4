"""``make docs``: nothing that a page of the built site loads comes from the network.

Scripts are not read: the theme's load a diagram renderer from elsewhere for pages with diagrams, so
a page with one is refused. Links that a person clicks may lead anywhere.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

_LOADS = {"src", "srcset", "poster", "data"}
_ELSEWHERE = re.compile(r"(?:https?:)?//", re.IGNORECASE)
_STYLE = re.compile(r"(?:url\(|@import)\s*[\"']?\s*((?:https?:)?//[^\s\"')]+)", re.IGNORECASE)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        loads = _LOADS | ({"href"} if tag in ("link", "image", "use") else set())
        self.found += [
            f"<{tag} {name}={value}>"
            for name, value in values.items()
            if name in loads and _ELSEWHERE.match(value.strip())
        ]
        self.found += _STYLE.findall(values.get("style", ""))
        if "mermaid" in values.get("class", "").split():
            self.found.append("a diagram")


def loaded_from_elsewhere(site: Path) -> Iterator[str]:
    """Each thing that a page or style sheet below ``site`` would load from another place."""
    for path in sorted(site.rglob("*")):
        if path.suffix not in (".html", ".css"):
            continue
        text = path.read_text(encoding="utf-8")
        found = _STYLE.findall(text)
        if path.suffix == ".html":
            page = _Page()
            page.feed(text)
            found += page.found
        yield from (f"{path.relative_to(site)}: {what}" for what in found)


def main(folder: str) -> int:
    site = Path(folder)
    pages = len(list(site.rglob("*.html")))
    found = list(loaded_from_elsewhere(site))
    print("".join(f"docs: from the network: {line}\n" for line in found), end="")
    print(f"docs: {pages} pages in {site}/")
    return int(bool(found) or not pages)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
