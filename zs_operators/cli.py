"""The ``zs`` command. Each subcommand imports what it needs when it runs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from zs_operators.errors import ZeroShotError
from zs_operators.text_table import print_table
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

    from zs_operators.models_commands import add_models_commands

    add_models_commands(commands)
    _add_embeddings(commands)

    from zs_operators.task_commands import add_task_commands

    add_task_commands(commands)
    from zs_operators.sweep_command import add_sweep_command

    add_sweep_command(commands)
    from zs_operators.evaluate_command import add_evaluate_command

    add_evaluate_command(commands)
    from zs_operators.head_commands import add_head_commands

    add_head_commands(commands)
    from zs_operators.runs_command import add_runs_command

    for action in add_runs_command(commands):
        _add_traceback(action)
    for command in commands.choices.values():
        _add_traceback(command)
    return parser


def _add_embeddings(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "embeddings", help="what is stored of models, removing some of it"
    )
    actions = command.add_subparsers(title="actions", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="the models in the store")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=_list_embeddings)
    pruning = actions.add_parser("prune", help="remove what was not used for longest")
    pruning.add_argument("--max-gb", type=float, metavar="GB", help="how much may stay; 0: nothing")
    pruning.add_argument("--unused-days", type=float, metavar="N", help="what was not used so long")
    pruning.add_argument("--model", metavar="KEY", help="only this one of the list")
    pruning.set_defaults(run=_prune_embeddings)
    for action in actions.choices.values():
        _add_traceback(action)


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


def _list_embeddings(args: argparse.Namespace) -> int:
    import time
    from dataclasses import asdict

    from zs_operators.embedding_upkeep import stored_models
    from zs_operators.embeddings import store_root

    models = stored_models()
    if args.json:
        print(json.dumps([asdict(model) for model in models], indent=2))
        return 0
    rows = [("KEY", "KIND", "MODEL", "RECORDS", "VECTORS", "MB", "LAST USED")]
    for model in models:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(model.used))
        kind, name = (str(model.identity.get(part, "?")) for part in ("kind", "architecture"))
        numbers = (f"{model.records:,}", f"{model.vectors:,}", f"{model.bytes / 1e6:,.1f}")
        rows.append((model.key, kind, name, *numbers, used))
    print_table(rows)
    print(f"{sum(model.bytes for model in models) / 1e9:.3f} GB in {store_root()}")
    return 0


def _prune_embeddings(args: argparse.Namespace) -> int:
    from zs_operators.embedding_upkeep import prune
    from zs_operators.embeddings import store_root
    from zs_operators.option_checks import check_range

    check_range("--max-gb", args.max_gb, 0, 1e6, optional=True)
    max_bytes = None if args.max_gb is None else int(args.max_gb * 1e9)
    done = prune(max_bytes=max_bytes, unused_days=args.unused_days, model=args.model)
    print(f"Removed {done.files:,} files, {done.bytes / 1e6:,.1f} MB, from {store_root()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
