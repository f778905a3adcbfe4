"""Write docs/models.md from the registry: python tools/models_page.py [FILE]."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from zs_operators.model_registry import ModelEntry, models  # noqa: E402

PAGE = ROOT / "docs" / "models.md"

HEAD = """# Models

<!-- Written by tools/models_page.py from zs_operators/data/models-*.yaml: change those. -->

Every name here may be given as `model` (`clip`, `sam`) or as `proposals`. `zs models` lists them with
what of each is on this machine, `zs models --json` with the whole card; `zs pull NAME` downloads one, goes
on after a cut, and checks its sha256. Without network see [Offline](offline.md). These are names for
convenience: any other open_clip architecture with its tag, or a local file or folder, works as well, see
[From Python](python.md), and detectors of other makes are [a page of their own](detectors.md).

```text
zs models --task clip
zs pull clip-vit-b-32 fasterrcnn_resnet50_fpn_v2 sam-vit-b
```

**MB** is what is downloaded once. **Memory** is an estimate, the file and the network at once in 32 bits;
images, boxes and prompts come on top. **ImageNet** is zero-shot accuracy and **COCO** box AP, both as
published on the page that the number links to, not measured here; they say how models compare on
photographs like those, not how good they are on yours: [evaluate](evaluation.md) for that. Read the
licence before you use a model for work: some are not for commercial use.
"""

SECTIONS = {
    "clip": (
        "CLIP: images and words",
        "For `zs.classify` and `zs.detect`. SigLIP and SigLIP 2 are trained with a sigmoid: each class has "
        "a probability of its own.",
    ),
    "proposals": (
        "Proposals: where something is",
        "For `zs.detect` and `zs.segment` with class names. Their own classes are ignored.",
    ),
    "sam": (
        "SAM: masks",
        "For `zs.segment`. MobileSAM, HQ-SAM and SAM 2.1 need a package that is not installed with "
        "zs-operators; their masks are compared with those of that package in `tests/test_sam_variants.py`.",
    ),
}

NEEDS = {
    "mobile_sam": "`pip install git+https://github.com/ChaoningZhang/MobileSAM.git`",
    "segment_anything_hq": "`pip install segment-anything-hq`",
    "sam2": "`pip install sam2`",
    "transformers": "`transformers`",
    "timm": "`timm`",
}


def page() -> str:
    """The page, in Markdown."""
    parts = [HEAD]
    for kind, (title, text) in SECTIONS.items():
        parts.append(f"## {title}\n\n{text}\n\n{_table(kind)}\n")
    return "\n".join(parts)


def _table(kind: str) -> str:
    entries = models(kind)
    columns = {
        "name": _name,
        "MB": lambda one: _number(one.size_mb),
        "memory, MB": lambda one: _number(one.memory_mb),
        "px": lambda one: _number(one.image_px),
        "dim": lambda one: _number(one.embedding_dim),
        "ImageNet, %": lambda one: _accuracy(one.imagenet_top1, one),
        "COCO, AP": lambda one: _accuracy(one.coco_box_ap, one),
        "licence": lambda one: one.licence or "not stated",
        "needs": lambda one: ", ".join(NEEDS[package] for package in one.needs),
        "": lambda one: one.description,
    }
    filled = {title: [cell(one) for one in entries] for title, cell in columns.items()}
    filled = {title: cells for title, cells in filled.items() if any(cells)}
    lines = [f"| {' | '.join(filled)} |", "|---" * len(filled) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in zip(*filled.values(), strict=True)]
    return "\n".join(lines)


def _name(entry: ModelEntry) -> str:
    link = entry.page or ""
    return f"[`{entry.name}`]({link.removeprefix('docs/')})" if link else f"`{entry.name}`"


def _accuracy(value: float | None, entry: ModelEntry) -> str:
    return "" if value is None else f"[{value:.1f}]({entry.accuracy_page})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,}"


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    target.write_text(page(), encoding="utf-8")
