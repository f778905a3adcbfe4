"""The ``zs`` command. Each subcommand imports what it needs when it runs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from zs_operators.errors import ZeroShotError
from zs_operators.version import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0, 1 (``doctor`` found something missing), 2 (bad input) or 130."""
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    if rest and not getattr(args, "passes_rest", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    if args.run is None:
        parser.print_help()
        return 0
    try:
        return args.run(args) or 0
    except ZeroShotError as error:
        if args.traceback or os.environ.get("ZS_DEBUG") not in (None, "", "0"):
            raise
        print(f"zs: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("zs: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    parser = argparse.ArgumentParser(prog="zs", description="Zero-shot vision for FiftyOne.")
    parser.add_argument("--version", action="version", version=f"zs-operators {__version__}")
    parser.set_defaults(run=None, traceback=False)
    _add_traceback(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    demo = commands.add_parser(
        "demo", help="label a synthetic dataset and evaluate it", add_help=False
    )
    demo.set_defaults(run=_demo, passes_rest=True)

    doctor = commands.add_parser(
        "doctor", help="what is installed, what is missing, how to mend it"
    )
    from zs_operators.doctor import add_arguments, run

    add_arguments(doctor)
    doctor.set_defaults(run=run)

    install = commands.add_parser("install", help="link the plugin into FiftyOne's plugin folder")
    install.add_argument("--copy", action="store_true", help="copy the files, do not link them")
    install.add_argument("--force", action="store_true", help="replace what is in the way")
    install.set_defaults(run=_install)

    uninstall = commands.add_parser("uninstall", help="remove what `zs install` made")
    uninstall.add_argument("--force", action="store_true", help="even if it was made otherwise")
    uninstall.set_defaults(run=_uninstall)

    models = commands.add_parser("models", help="the models that have a name here")
    models.add_argument("--kind", choices=("clip", "proposals", "sam"), help="only this kind")
    models.add_argument("--json", action="store_true", help="print JSON")
    models.set_defaults(run=_models)

    from zs_operators.task_commands import add_task_commands

    add_task_commands(commands)
    for command in commands.choices.values():
        _add_traceback(command)
    return parser


def _add_traceback(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--traceback",
        action="store_true",
        default=argparse.SUPPRESS,  # so that a command does not undo what stood before it
        help="show where an error came from",
    )


def _demo(args: argparse.Namespace) -> int:
    from zs_operators import demo

    return demo.main(args.rest)


def _install(args: argparse.Namespace) -> int:
    from zs_operators.install import install

    done, changed = install(copy=args.copy, force=args.force)
    arrow = f" -> {done.target}" if done.kind == "link" else ""
    verb = {"link": "Linked", "copy": "Copied"}.get(done.kind, "Found")
    print(f"{verb if changed else 'Already there:'} {done.path}{arrow}")
    if changed:
        print("An App that is open must be restarted to load it.")
    return 0


def _uninstall(args: argparse.Namespace) -> int:
    from zs_operators.install import plugins_dir, uninstall

    removed = uninstall(force=args.force)
    print(f"Removed {removed}" if removed else f"Nothing to remove in {plugins_dir()}")
    return 0


def _models(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from zs_operators.weights import models

    entries = models(args.kind)
    if args.json:
        print(json.dumps([asdict(entry) for entry in entries], indent=2, default=str))
        return 0
    rows = [("NAME", "KIND", "ARCHITECTURE", "WEIGHTS", "MB", "LICENCE")]
    for entry in entries:
        weights = "bundled" if entry.folder else entry.pretrained or "-"
        size = f"{entry.size_mb:.0f}" if entry.size_mb else "-"
        row = (entry.name, entry.kind, entry.architecture, weights, size, entry.licence or "?")
        rows.append(tuple(map(str, row)))
    print_table(rows)
    return 0


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text in columns as wide as their longest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


if __name__ == "__main__":
    sys.exit(main())
