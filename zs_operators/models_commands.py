"""``zs models``, ``zs pull``, ``zs bundle``: what there is and what is here of it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zs_operators.errors import InvalidInputError
from zs_operators.text_table import print_table


def add_models_commands(commands: Any) -> None:
    """The commands, added to the subparsers of ``zs``."""
    listing = commands.add_parser(
        "models", help="the models that have a name here, and what of them is on this machine"
    )
    kinds = ("clip", "proposals", "sam")
    listing.add_argument("--task", "--kind", dest="kind", choices=kinds, help="only these")
    listing.add_argument("--here", action="store_true", help="only those that can run at once")
    listing.add_argument("--json", action="store_true", help="print the whole cards as JSON")
    listing.set_defaults(run=_models)

    pull = commands.add_parser("pull", help="download models, or unpack them from a bundle")
    pull.add_argument("models", nargs="*", metavar="MODEL", help="of `zs models`")
    pull.add_argument("--from", dest="bundle", type=Path, metavar="FILE", help="a bundle")
    pull.add_argument(
        "--weights-dir", type=Path, metavar="DIR", help="a folder to name in ZS_WEIGHTS_DIR"
    )
    pull.add_argument("--quiet", action="store_true", help="show no progress")
    pull.add_argument("--json", action="store_true", help="print JSON")
    pull.set_defaults(run=_pull)

    bundle = commands.add_parser("bundle", help="write models into one file for an offline machine")
    bundle.add_argument("models", nargs="+", metavar="MODEL", help="of `zs models`")
    bundle.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.zsbundle")
    bundle.add_argument(
        "--weights-dir", type=Path, metavar="DIR", help="take them from this folder"
    )
    bundle.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    bundle.add_argument("--quiet", action="store_true", help="show no progress")
    bundle.set_defaults(run=_bundle)


def _models(args: argparse.Namespace) -> int:
    from zs_operators.model_registry import models
    from zs_operators.model_state import model_state

    rows = [(entry, model_state(entry)) for entry in models(args.kind)]
    if args.here:
        rows = [(entry, state) for entry, state in rows if state.how is None]
    if args.json:
        cards = [
            {**asdict(entry), "memory_mb": entry.memory_mb, "state": asdict(state)}
            for entry, state in rows
        ]
        sys.stdout.write(json.dumps(cards, indent=2, default=str) + "\n")
        return 0
    table = [("NAME", "TASK", "HERE", "MB", "LICENCE", "ACCURACY", "TO GET IT")]
    for entry, state in rows:
        table.append(
            (
                entry.name,
                entry.kind,
                {"missing": "no"}.get(state.weights, state.weights),
                f"{entry.size_mb:,}" if entry.size_mb else "",
                entry.licence or "?",
                accuracy(entry),
                state.how or "",
            )
        )
    print_table(table)
    return 0


def accuracy(entry: Any) -> str:
    """A model's published accuracy, for a table."""
    if entry.imagenet_top1 is not None:
        return f"{entry.imagenet_top1:.1f} % ImageNet"
    return f"{entry.coco_box_ap:.1f} AP COCO" if entry.coco_box_ap is not None else ""


def _pull(args: argparse.Namespace) -> int:
    if bool(args.models) == bool(args.bundle):
        raise InvalidInputError("name the models to pull, or a bundle with --from, and not both")
    show = _Line(quiet=args.quiet)
    if args.bundle is not None:
        from zs_operators.bundle_reading import pull_bundle

        files = pull_bundle(args.bundle, weights_dir=args.weights_dir, on_file=show.file)
    else:
        from zs_operators.model_pull import pull_models

        files = pull_models(args.models, weights_dir=args.weights_dir, on_progress=show.progress)
    show.end()
    if args.json:
        rows = [asdict(file) for file in files]
        sys.stdout.write(json.dumps(rows, indent=2, default=str) + "\n")
        return 0
    for file in files:
        what = "already here" if file.state == "here" else "ready"
        sys.stdout.write(f"{file.model}: {file.path.name}, {_size(file.bytes)}, {what}\n")
        sys.stdout.write(f"  {file.path}\n  sha256 {file.sha256}\n")
    if not files:
        sys.stdout.write("Nothing to do: these models come with zs-operators itself.\n")
    if args.weights_dir is not None:
        sys.stdout.write(f"To use them: export ZS_WEIGHTS_DIR={args.weights_dir.absolute()}\n")
    return 0


def _bundle(args: argparse.Namespace) -> int:
    from zs_operators.bundle_writing import bundle_models

    show = _Line(quiet=args.quiet)
    path = bundle_models(
        args.models,
        args.output,
        weights_dir=args.weights_dir,
        overwrite=args.overwrite,
        on_file=show.file,
    )
    show.end()
    sys.stdout.write(f"Wrote {path}, {_size(path.stat().st_size)}.\n")
    sys.stdout.write(f"On the other machine: zs pull --from {path.name}\n")
    return 0


class _Line:
    """One line on the terminal that says how far a file is."""

    def __init__(self, quiet: bool) -> None:
        self._is_shown = not quiet and sys.stderr.isatty()
        self._names = not quiet and not self._is_shown
        self._name = ""
        self._last = 0.0
        self._begin = (0.0, 0)

    def file(self, name: str, size: int) -> None:
        self.progress(name, 0, size)

    def progress(self, name: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if name != self._name:
            self.end()
            self._name, self._begin = name, (now, done)
            if self._names:
                sys.stderr.write(f"{name}{f', {_size(total)}' if total else ''}\n")
        if not self._is_shown or (now - self._last < 0.2 and done != total):
            return
        self._last = now
        text = f"{name}  {_size(done)}"
        rate = (done - self._begin[1]) / max(now - self._begin[0], 0.01)
        if total:
            text += f" of {_size(total)}"
        if rate:
            text += f", {_size(int(rate))}/s"
        if rate and total:
            text += f", {max(0, total - done) / rate:,.0f} s left"
        sys.stderr.write(f"\r{text:<78}")
        sys.stderr.flush()

    def end(self) -> None:
        if self._is_shown and self._name:
            sys.stderr.write("\n")
        self._name = ""


def _size(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
