"""What the App's plots and tables draw, and a version of the Prompt Lab in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import forms

if TYPE_CHECKING:
    from zs_operators.prompt_versions import LabVersion, Stealing

BINS = 20
#: What can be shown of how sure labels are, and what it is called
SCORES = {
    "margin": "Lead of the label (logits)",
    "confidence": "Confidence",
    "cosine": "Cosine of image and label",
}
_PROMPTS_SHOWN = 10
COLOR = "#ff6d04"
#: From nothing to the App's orange, on a page of any colour
SHADES = [[0, "rgba(255, 109, 4, 0.04)"], [0.01, "rgba(255, 109, 4, 0.3)"], [1, COLOR]]


def name_of(label: str | None) -> str:
    """A label as plots name it."""
    return "(rejected)" if label is None else label


def labels(version: LabVersion) -> list[dict[str, Any]]:
    """Bars: images of each label, rejected ones last."""
    histogram = version.histogram()
    names = [name_of(label) for label in histogram]
    return [bars(names, list(histogram.values()))]


def scores(version: LabVersion, by: str) -> list[dict[str, Any]]:
    """Bars: how sure labels are."""
    counts, edges = version.distribution(by, BINS)
    middles = (edges[:-1] + edges[1:]) / 2
    return [bars([round(float(x), 3) for x in middles], counts.tolist())]


def confusion(version: LabVersion) -> list[dict[str, Any]]:
    """Cells: ground truth down, labels across."""
    found = version.confusion()
    return heatmap(found.counts.tolist(), list(map(name_of, found.labels)), list(found.truth))


def stealing(pairs: list[Stealing]) -> list[dict[str, Any]]:
    """Rows of the table of suggestions."""
    return [
        {"labels": " / ".join(pair.labels), "close": pair.close, "share": f"{pair.share:.0%}"}
        for pair in pairs
    ]


def never(version: LabVersion) -> str:
    """The names that win no image, in a sentence of Markdown; empty if there are none."""
    prompts = version.never_win()
    if not prompts:
        return ""
    names = [
        f"{text} ({label})" if text != label else text for text, label in prompts[:_PROMPTS_SHOWN]
    ]
    more = f" and {len(prompts) - _PROMPTS_SHOWN:,} more" if len(prompts) > _PROMPTS_SHOWN else ""
    return f"Never the nearest to an image: {', '.join(map(forms.escaped, names))}{more}."


def size(part: list[dict[str, Any]]) -> str:
    """What tells plots or tables of different sizes apart."""
    if not part or "type" not in part[0]:
        return str(len(part))
    shown = part[0]
    return f"{len(shown['x'])}x{len(shown['y'])}"


def layout(title: str, height: int = 280) -> dict[str, Any]:
    """Arguments of a plot with a heading."""
    return {
        "layout": {
            "title": {"text": title, "font": {"size": 14}},
            "margin": {"t": 36, "b": 40, "l": 40, "r": 8},
            "bargap": 0.05,
        },
        "config": {"displayModeBar": False, "scrollZoom": False},
        "height": height,
    }


def heatmap(z: list[list[int]], x: list[str], y: list[str]) -> list[dict[str, Any]]:
    """Cells that can be clicked: rows ``y`` from below, columns ``x``."""
    look = {"colorscale": SHADES, "showscale": False}
    return [{"type": "heatmap", "z": z, "x": x, "y": y, **look}]


def bars(x: list, y: list[float]) -> dict[str, Any]:
    return {"type": "bar", "x": x, "y": y, "marker": {"color": COLOR}}
